//! The file in which `get` keeps the outcomes of its attempts to connect; see [`records`](crate::cli::records).
//!
//! In: lines. Out: a [`History`]; and back. A line is `NETWORK REMOTE PROTOCOL TIME MEAN VARIATION FAILURES ANSWERED
//! LOST TIMEDOUT REFUSED`: addresses, `udp` or `tcp`, milliseconds since the Unix epoch, the round trip in
//! microseconds (`-` if there was no answer), and counts.

use core::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::cli::records::Records;
use crate::connect::{History, Known, Route};
use crate::time::UnixMillis;

/// Longest accepted file, in bytes: twice the size of a full one.
pub(super) const MAX_HISTORY_FILE_BYTES: u64 = 192 * 1024;

/// Longest round trip in a file: longer ones are of no connection.
const MAX_ROUND_TRIP: Duration = Duration::from_mins(5);

impl Records for History {
    const NAME: &'static str = "outcomes of connects";

    const FILE_LIMIT: u64 = MAX_HISTORY_FILE_BYTES;

    fn parse_line(&mut self, line: &str) {
        if let Some(known) = parse_line(line) {
            Self::merge(self, known);
        }
    }

    fn emit(&self, text: &mut String) {
        for known in self.iter() {
            let (network, remote) = (known.route.network(), known.route.remote());
            let protocol = if known.route.is_tcp() { "tcp" } else { "udp" };
            let at = known.at.as_millis();
            // Writing to a String cannot fail.
            let _ = write!(text, "{network} {remote} {protocol} {at} ");
            let _ = match known.round_trip {
                Some((mean, variation)) => {
                    write!(text, "{} {}", mean.as_micros(), variation.as_micros())
                }
                None => write!(text, "- -"),
            };
            let [answered, lost, timed_out, refused] = known.counts;
            let failures = known.failures;
            let _ = writeln!(text, " {failures} {answered} {lost} {timed_out} {refused}");
        }
    }

    fn merge(&mut self, other: &Self) {
        for known in other.iter() {
            Self::merge(self, *known);
        }
    }

    fn expire(&mut self, now: UnixMillis) {
        self.expire(now);
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

fn parse_line(line: &str) -> Option<Known> {
    let mut words = line.split_ascii_whitespace();
    let network: IpAddr = words.next()?.parse().ok()?;
    let remote: SocketAddr = words.next()?.parse().ok()?;
    let tcp = match words.next()? {
        "tcp" => true,
        "udp" => false,
        _ => return None,
    };
    let at = UnixMillis::new(words.next()?.parse().ok()?);
    let round_trip = match (words.next()?, words.next()?) {
        ("-", "-") => None,
        (mean, variation) => Some((parse_time(mean)?, parse_time(variation)?)),
    };
    let failures = words.next()?.parse().ok()?;
    let mut counts = [0; 4];
    for count in &mut counts {
        *count = words.next()?.parse().ok()?;
    }
    let whole = words.next().is_none() && network.is_ipv4() == remote.is_ipv4();
    whole.then_some(Known {
        route: Route::new(network, remote, tcp),
        at,
        round_trip,
        failures,
        counts,
    })
}

fn parse_time(micros: &str) -> Option<Duration> {
    let time = Duration::from_micros(micros.parse().ok()?);
    (time <= MAX_ROUND_TRIP).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::records::{load, parse, save};
    use crate::connect::{MAX_HISTORY, Outcome};

    const NOW: UnixMillis = UnixMillis::new(1_800_000_000_000);

    fn history(remotes: usize) -> History {
        let mut history = History::default();
        for n in 0..remotes {
            let remote = format!("[2001:db8:ffff:ffff:ffff:ffff:ffff:{n:x}]:65535");
            let local = "2001:db8:1:ffff::1".parse().unwrap();
            let route = Route::new(local, remote.parse().unwrap(), n % 2 == 0);
            for outcome in [
                Outcome::Answered(Duration::from_secs(299)),
                Outcome::Lost,
                Outcome::TimedOut,
                Outcome::Refused,
            ] {
                history.note(NOW, route, outcome);
            }
        }
        history
    }

    #[test]
    fn what_is_saved_is_loaded_and_a_full_file_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history");
        let all = history(MAX_HISTORY + 1);
        save(&path, &all, NOW).unwrap();
        assert_eq!(load::<History>(&path).unwrap(), all);
        let bytes = std::fs::metadata(&path).unwrap().len();
        assert!(2 * bytes < 3 * MAX_HISTORY_FILE_BYTES / 2, "{bytes} bytes");
    }

    #[test]
    fn a_malformed_line_is_ignored() {
        let good = "192.0.2.0 198.51.100.1:80 udp 1800000000000 20000 10000 0 1 2 3 4";
        let count = |line: &str| {
            let text = format!("# headwater outcomes of connects\n{line}\n");
            parse::<History>(&text).map(|history| history.iter().count())
        };
        assert_eq!(count(good), Some(1));
        for (from, to) in [
            ("192.0.2.0", "2001:db8::"),
            ("198.51.100.1:80", "198.51.100.1"),
            ("udp", "sctp"),
            ("1800000000000", "-1"),
            ("20000", "-"),
            ("20000", "300000001"),
            (" 4", ""),
            (" 4", " 4 5"),
            (" 4", " 65536"),
        ] {
            assert_eq!(count(&good.replace(from, to)), Some(0), "{from} -> {to}");
        }
        assert_eq!(count(&good.replace("20000 10000", "- -")), Some(1));
        assert_eq!(parse::<History>("# headwater address tokens\n"), None);
    }
}
