//! The course of a race as text.
//!
//! In: a report. Out: lines; a bar shows from when to when an attempt ran.

use core::fmt::Write as _;
use std::time::Duration;

use crate::cli::race::{label, transport};
use crate::host::report::{AttemptReport, RaceReport};

/// Columns of a bar.
const BAR: usize = 40;

/// Milliseconds, to three decimals.
#[expect(
    clippy::cast_precision_loss,
    reason = "a microsecond is all that the clock has"
)]
pub(in crate::cli) fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// One line: the winner and its time, or that there is none.
pub(super) fn summary(race: &RaceReport) -> String {
    let started = race.attempts.iter().filter(|one| one.started.is_some());
    let (started, all) = (started.count(), race.attempts.len());
    let winner = race.winner.and_then(|winner| race.attempts.get(winner));
    match winner {
        Some(winner) => format!(
            "{} answered over {} after {:.1} ms; attempts: {started} of {all} addresses\n",
            winner.remote,
            transport(winner),
            ms(race.ended),
        ),
        None => format!("no answer; attempts: {started} of {all} addresses\n"),
    }
}

/// Every answer to a look-up and every attempt.
pub(super) fn print(host: &str, race: &RaceReport) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for lookup in &race.lookups {
        let last = if lookup.complete {
            ", the last answer"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "{:8.1} ms  {host}: {} addresses{last}",
            ms(lookup.at),
            lookup.addresses,
        );
    }
    let names: Vec<String> = race
        .attempts
        .iter()
        .map(|one| one.remote.to_string())
        .collect();
    let width = names.iter().map(String::len).max().unwrap_or(0).max(7);
    let _ = writeln!(
        text,
        "   {:width$}  {:9} {:>9} {:>9}  outcome",
        "address", "transport", "start ms", "end ms",
    );
    for (index, (attempt, name)) in race.attempts.iter().zip(&names).enumerate() {
        let mark = if race.winner == Some(index) { '*' } else { ' ' };
        let time = |time: Option<Duration>| match time {
            Some(time) => format!("{:.1}", ms(time)),
            None => "-".to_owned(),
        };
        let line = format!(
            "{mark}  {name:width$}  {:9} {:>9} {:>9}  {:11} {}",
            transport(attempt),
            time(attempt.started),
            time(attempt.ended),
            label(attempt),
            bar(attempt, race.ended),
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if !race.spares.is_empty() {
        let spares: Vec<String> = race.spares.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "spares: {}", spares.join(", "));
    }
    text + &summary(race)
}

/// The time of an attempt within that of its race.
fn bar(attempt: &AttemptReport, all: Duration) -> String {
    let (Some(start), Some(end)) = (attempt.started, attempt.ended) else {
        return String::new();
    };
    let column = |time: Duration| {
        let share = time.as_micros() * BAR as u128 / all.as_micros().max(1);
        usize::try_from(share).unwrap_or(BAR).min(BAR)
    };
    let (start, end) = (column(start), column(end));
    format!("|{}{}", " ".repeat(start), "=".repeat((end - start).max(1)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::connect::Outcome;
    use crate::host::report::LookupReport;

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A race of a dead address, the winner, and one that was not started.
    pub(in crate::cli::race) fn race() -> RaceReport {
        let attempt = |last, start: Option<u64>, end: Option<u64>, outcome| AttemptReport {
            remote: ([192, 0, 2, last], 7600).into(),
            tcp: false,
            started: start.map(at),
            ended: end.map(at),
            outcome,
        };
        RaceReport {
            lookups: vec![LookupReport {
                at: at(10),
                addresses: 3,
                complete: true,
            }],
            attempts: vec![
                attempt(1, Some(10), Some(40), Some(Outcome::Lost)),
                attempt(20, Some(20), Some(40), Some(Outcome::Answered(at(20)))),
                attempt(3, None, None, None),
            ],
            winner: Some(1),
            ended: at(40),
            spares: vec![([192, 0, 2, 3], 7600).into()],
        }
    }

    #[test]
    fn every_attempt_has_a_line_and_a_bar() {
        let want = "    10.0 ms  files: 3 addresses, the last answer
   address          transport  start ms    end ms  outcome
   192.0.2.1:7600   trickles       10.0      40.0  lost        |          ==============================
*  192.0.2.20:7600  trickles       20.0      40.0  answered    |                    ====================
   192.0.2.3:7600   trickles          -         -  not started
spares: 192.0.2.3:7600
192.0.2.20:7600 answered over trickles after 40.0 ms; attempts: 2 of 3 addresses
";
        assert_eq!(print("files", &race()), want);
    }

    #[test]
    fn a_race_without_a_winner_has_a_summary() {
        let race = RaceReport {
            winner: None,
            ..race()
        };
        assert_eq!(summary(&race), "no answer; attempts: 2 of 3 addresses\n");
        assert_eq!(
            summary(&RaceReport::default()),
            "no answer; attempts: 0 of 0 addresses\n"
        );
    }
}
