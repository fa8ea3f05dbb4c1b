//! The names of a client: answers at hand, and look-ups that the driver makes.
//!
//! In: hosts as written in URLs, answers. Out: addresses, or a look-up to make. A machine does no
//! I/O, so a name that its resolver does not know at once is the driver's to look up, on a thread or
//! in any other way; the transfer waits meanwhile. Answers are kept for a minute, as by curl.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use crate::host::config::{Resolve, literal};
use crate::time::Instant;

/// Most names whose answers are kept; the oldest makes room.
pub const MAX_KNOWN_NAMES: usize = 16;

/// Time for which the answer of a look-up is kept.
const KEPT: Duration = Duration::from_secs(60);

/// The result of resolving a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The addresses of the host; none if it has none.
    Known(Vec<IpAddr>),
    /// The driver must look the name up: see [`ClientHost::poll_lookup`](crate::ClientHost::poll_lookup).
    Pending,
}

impl From<Vec<IpAddr>> for Resolution {
    fn from(addresses: Vec<IpAddr>) -> Self {
        Self::Known(addresses)
    }
}

impl FromIterator<IpAddr> for Resolution {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        Self::Known(addresses.into_iter().collect())
    }
}

/// The answers of look-ups.
#[derive(Debug, Default)]
pub(super) struct Names(VecDeque<(Instant, String, Vec<IpAddr>)>);

impl Names {
    /// Resolves a host with `resolve`, or with an answer that is kept.
    pub(super) fn resolve(&self, now: Instant, resolve: &Resolve, host: &str) -> Resolution {
        match resolve(host) {
            Resolution::Pending => {
                if let Some(address) = literal(host) {
                    return Resolution::Known(vec![address]);
                }
                let fresh = |(since, _, _): &&(Instant, _, _)| now.saturating_since(*since) < KEPT;
                let mut kept = self.0.iter().filter(fresh);
                match kept.find(|(_, name, _)| name == host) {
                    Some((_, _, addresses)) => Resolution::Known(addresses.clone()),
                    None => Resolution::Pending,
                }
            }
            known @ Resolution::Known(_) => known,
        }
    }

    /// Keeps an answer, unless there are no addresses: the next transfer asks again.
    pub(super) fn keep(&mut self, now: Instant, host: &str, addresses: &[IpAddr]) {
        self.0.retain(|(_, name, _)| name != host);
        if addresses.is_empty() {
            return;
        }
        if self.0.len() >= MAX_KNOWN_NAMES {
            self.0.pop_front();
        }
        self.0.push_back((now, host.to_owned(), addresses.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Instant {
        Instant::from_micros(count * 1_000_000)
    }

    #[test]
    fn answers_are_kept_for_a_minute_and_few() {
        let resolve: Resolve = Box::new(|host| match host {
            "here" => Resolution::Known(vec!["192.0.2.1".parse().unwrap()]),
            _ => Resolution::Pending,
        });
        let there: [IpAddr; 1] = ["192.0.2.2".parse().unwrap()];
        let known = Resolution::Known(there.to_vec());
        let mut names = Names::default();
        let at = |names: &Names, second, host| names.resolve(seconds(second), &resolve, host);
        assert_eq!(
            at(&names, 0, "here"),
            Resolution::Known(vec!["192.0.2.1".parse().unwrap()])
        );
        assert_eq!(
            at(&names, 0, "[2001:db8::1]"),
            Resolution::Known(vec!["2001:db8::1".parse().unwrap()])
        );
        assert_eq!(at(&names, 0, "there"), Resolution::Pending);
        names.keep(seconds(1), "there", &there);
        assert_eq!(at(&names, 60, "there"), known);
        assert_eq!(at(&names, 61, "there"), Resolution::Pending);
        names.keep(seconds(61), "there", &there);
        assert_eq!(at(&names, 62, "there"), known);
        names.keep(seconds(62), "nowhere", &[]);
        assert_eq!(at(&names, 62, "nowhere"), Resolution::Pending);
        for n in 0..MAX_KNOWN_NAMES {
            assert_eq!(at(&names, 63, "there"), known, "{n} others");
            names.keep(seconds(63), &n.to_string(), &there);
        }
        assert_eq!(at(&names, 63, "there"), Resolution::Pending);
        assert_eq!(names.0.len(), MAX_KNOWN_NAMES);
    }
}
