//! The course of a race as a picture (SVG 1.1).
//!
//! In: a report. Out: the document; a bar for each attempt over an axis of milliseconds, in the colour of its outcome.

use core::fmt::Write as _;
use std::time::Duration;

use crate::cli::race::label;
use crate::cli::race::table::ms;
use crate::host::report::{AttemptReport, RaceReport};

/// Sizes in pixels.
const NAMES: f64 = 260.0;
const AXIS: f64 = 600.0;
const ROW: f64 = 22.0;
const TOP: f64 = 44.0;

/// Draws a race.
pub(super) fn draw(host: &str, race: &RaceReport) -> String {
    let end = ms(race.ended.max(Duration::from_micros(1)));
    let x = |time: Duration| NAMES + ms(time) / end * AXIS;
    let rows = f64::from(u32::try_from(race.attempts.len()).unwrap_or(u32::MAX));
    let (width, height) = (NAMES + AXIS + 110.0, TOP + rows * ROW + 40.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"22\" font-size=\"15\">{}: {:.1} ms</text>\n",
        escaped(host),
        ms(race.ended),
    );
    // Writing to a String cannot fail.
    for lookup in &race.lookups {
        let x = x(lookup.at);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{}\" stroke=\"#888\" stroke-dasharray=\"3\">\
             <title>{} addresses after {:.1} ms</title></line>",
            TOP - 10.0,
            TOP + rows * ROW,
            lookup.addresses,
            ms(lookup.at),
        );
    }
    let mut y = TOP;
    for (index, attempt) in race.attempts.iter().enumerate() {
        draw_attempt(&mut svg, attempt, race.winner == Some(index), y, x);
        y += ROW;
    }
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{:.0} ms</text>",
            NAMES + share * AXIS,
            y + 20.0,
            share * end,
        );
    }
    svg + "</svg>\n"
}

fn draw_attempt(
    svg: &mut String,
    attempt: &AttemptReport,
    won: bool,
    y: f64,
    x: impl Fn(Duration) -> f64,
) {
    let weight = if won { " font-weight=\"bold\"" } else { "" };
    let _ = writeln!(
        svg,
        "<text x=\"10\" y=\"{:.1}\"{weight}>{}</text>",
        y + 14.0,
        attempt.remote,
    );
    let (Some(start), Some(end)) = (attempt.started, attempt.ended) else {
        return;
    };
    let (from, to) = (x(start), x(end));
    let colour = match label(attempt) {
        "answered" if won => "#2a9d4a",
        "answered" => "#9bd3a8",
        "failed" | "timed out" => "#c8453b",
        _ => "#b9bcc4",
    };
    let _ = writeln!(
        svg,
        "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" rx=\"2\" fill=\"{colour}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#555\">{} {:.1} ms</text>",
        y + 3.0,
        (to - from).max(2.0),
        to + 6.0,
        y + 14.0,
        label(attempt),
        ms(end.saturating_sub(start)),
    );
}

/// Text without characters that mean something in XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::race::table::tests::race;

    #[test]
    fn a_picture_has_a_row_for_each_attempt_and_a_bar_for_those_that_started() {
        let svg = draw("a<b&c", &race());
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a&lt;b&amp;c: 40.0 ms"));
        assert_eq!(svg.matches("<text x=\"10\"").count(), 1 + 3);
        assert_eq!(svg.matches("height=\"14\"").count(), 2);
        assert!(svg.contains("font-weight=\"bold\">192.0.2.20:7600"));
        assert_eq!(
            draw("h", &RaceReport::default())
                .matches("height=\"14\"")
                .count(),
            0
        );
    }
}
