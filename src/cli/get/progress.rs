//! The progress bar of `get`, drawn on standard error if that is a terminal.
//!
//! In: the position of a transfer, packets by server. Out: one line, redrawn. Never touches standard
//! output.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, stderr, stdout};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::apps::fetch::TransferProgress;
use crate::cli::get::output::Destination;
use crate::time::Instant;

/// Interval between redraws.
const INTERVAL: Duration = Duration::from_millis(100);

/// Most servers named in the line; above, it shows their number.
const MAX_NAMED_SERVERS: usize = 4;

const SIZED: &str = "{prefix} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} eta {eta}{msg}";
const UNSIZED: &str = "{prefix} {bytes} {bytes_per_sec}{msg}";

/// A bar, or none.
pub(super) struct Bar {
    bar: Option<ProgressBar>,
    sized: bool,
    next: Instant,
}

impl Bar {
    /// Creates a bar for a transfer; none if standard error is not a terminal, or if the data go to
    /// one.
    pub(super) fn new(name: &str, destination: &Destination, wanted: bool, at: u64) -> Self {
        let in_the_way = *destination == Destination::Stdout && stdout().is_terminal();
        let shown = wanted && !in_the_way && stderr().is_terminal();
        let bar = shown.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style(UNSIZED));
            bar.set_prefix(name.to_owned());
            bar.set_position(at);
            // Bytes from an earlier run do not count for the rate.
            bar.reset_eta();
            bar
        });
        Self {
            bar,
            sized: false,
            next: Instant::ZERO,
        }
    }

    /// The time of the next redraw.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.bar.as_ref().map(|_| self.next)
    }

    /// Redraws the line if it is time. `servers` returns packets by server; called only then.
    pub(super) fn update(
        &mut self,
        now: Instant,
        progress: TransferProgress,
        servers: impl FnOnce() -> BTreeMap<u16, u64>,
    ) {
        let Some(bar) = self.bar.as_ref().filter(|_| now >= self.next) else {
            return;
        };
        self.next = now + INTERVAL;
        if let Some(size) = progress.size
            && !self.sized
        {
            bar.set_style(style(SIZED));
            bar.set_length(size);
            self.sized = true;
        }
        bar.set_message(servers_text(&servers()));
        bar.set_position(progress.held);
        bar.tick();
    }

    /// Clears the line.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// Formats the servers' shares of the packets in percent.
fn servers_text(servers: &BTreeMap<u16, u64>) -> String {
    let total: u64 = servers.values().sum();
    if total == 0 {
        return String::new();
    }
    if servers.len() > MAX_NAMED_SERVERS {
        return format!(" {} servers", servers.len());
    }
    let mut text = String::from(if servers.len() == 1 {
        " server"
    } else {
        " servers"
    });
    for (server, count) in servers {
        // Writing to a String cannot fail.
        let _ = write!(text, " {server}");
        if servers.len() > 1 {
            let _ = write!(text, ":{}%", count.saturating_mul(100) / total);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_while_they_are_few() {
        let cases: [(&[(u16, u64)], &str); 5] = [
            (&[], ""),
            (&[(1, 0)], ""),
            (&[(7, 3)], " server 7"),
            (&[(1, 51), (2, 49)], " servers 1:51% 2:49%"),
            (&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)], " 5 servers"),
        ];
        for (servers, want) in cases {
            assert_eq!(servers_text(&servers.iter().copied().collect()), want);
        }
    }

    #[test]
    fn the_templates_are_well_formed() {
        for template in [SIZED, UNSIZED] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
