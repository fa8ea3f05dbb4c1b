//! What earlier connections taught about addresses: which answered, how soon, and which did not.
//!
//! In: the outcome of each attempt of a race, with the wall clock. Out: an order of addresses that begins with those
//! that lately answered and ends with those that lately failed, and the time within which an answer is due. Everything
//! is by network, the prefix of the own address: what holds on one network says nothing about another. An outcome
//! counts for a limited time, and one order in [`EXPLORE_ONE_IN`] ignores them all, so that an address which
//! has recovered is found. Does no I/O.
//! Source: RFC 8305 §4 (history of round trips and of use), draft-ietf-happy-happyeyeballs-v3 (by network, converging).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::time::UnixMillis;

/// Most addresses in a history; the one without an outcome for longest makes room.
pub const MAX_HISTORY: usize = 512;

/// One order in this many ignores the history.
pub const EXPLORE_ONE_IN: u32 = 20;

/// Time for which an answer counts.
const MAX_AGE: Duration = Duration::from_hours(24);

/// Time for which the first failure counts; each further one in a row doubles it, up to [`MAX_AGE`].
const FIRST_PENALTY: Duration = Duration::from_mins(5);

/// Round trips that differ by less are taken for equal.
const ROUND_TRIP_STEP: Duration = Duration::from_millis(25);

/// The outcome of an attempt to connect; the fifth, that there was none yet, is the absence of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The address answered after this time.
    Answered(Duration),
    /// Another address had answered before this one did.
    Lost,
    /// Nothing arrived in the time to connect.
    TimedOut,
    /// The address, or the network, refused.
    Refused,
}

/// How an address is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    network: IpAddr,
    remote: SocketAddr,
    tcp: bool,
}

impl Route {
    /// Creates a route from an own address to an address of a service, over UDP or `tcp`.
    #[must_use]
    pub const fn new(local: IpAddr, remote: SocketAddr, tcp: bool) -> Self {
        Self {
            network: prefix(local),
            remote,
            tcp,
        }
    }

    /// The own network: the first address of its /24 or /64.
    #[must_use]
    pub const fn network(&self) -> IpAddr {
        self.network
    }

    /// Whether the attempt was over TCP.
    #[must_use]
    pub const fn is_tcp(&self) -> bool {
        self.tcp
    }

    /// The address of the service.
    #[must_use]
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Whether another route leads to the same prefix: addresses there mostly are as far away.
    fn is_beside(&self, other: &Self) -> bool {
        let key = |route: &Self| (route.network, prefix(route.remote.ip()), route.tcp);
        key(self) == key(other)
    }
}

/// The /24 or /64 of an address.
const fn prefix(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !0xff)),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64))),
    }
}

/// The outcomes of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// How it is reached.
    pub route: Route,
    /// When the last outcome was noted.
    pub at: UnixMillis,
    /// Smoothed round trip and its variation, by RFC 6298 §2; `None` until an answer.
    pub round_trip: Option<(Duration, Duration)>,
    /// Failures since the last answer.
    pub failures: u32,
    /// Outcomes in the order of [`Outcome`], halved together when one is full.
    pub counts: [u16; 4],
}

impl Known {
    /// Whether a failure still counts.
    fn is_failing(&self, now: UnixMillis) -> bool {
        let penalty = match self.failures.checked_sub(1) {
            None => return false,
            Some(more) => FIRST_PENALTY * 2_u32.saturating_pow(more.min(16)),
        };
        now.saturating_since(self.at) < penalty.min(MAX_AGE)
    }

    /// An entry from the future, after the clock was set back, is as good as none.
    fn is_fresh(&self, now: UnixMillis) -> bool {
        now.saturating_since(self.at) <= MAX_AGE && self.at.saturating_since(now) <= FIRST_PENALTY
    }

    fn note(&mut self, now: UnixMillis, outcome: Outcome) {
        let index = match outcome {
            Outcome::Answered(sample) => {
                self.failures = 0;
                self.round_trip = Some(smoothed(self.round_trip, sample));
                0
            }
            Outcome::Lost => 1,
            Outcome::TimedOut => 2,
            Outcome::Refused => 3,
        };
        // To be slower than another is no failure, and does not prolong the memory of one.
        if index >= 2 {
            self.failures = self.failures.saturating_add(1);
        }
        if index != 1 {
            self.at = now;
        }
        if self.counts.contains(&u16::MAX) {
            self.counts = self.counts.map(|count| count / 2);
        }
        if let Some(count) = self.counts.get_mut(index) {
            *count += 1;
        }
    }
}

/// RFC 6298 §2.
fn smoothed(before: Option<(Duration, Duration)>, sample: Duration) -> (Duration, Duration) {
    match before {
        None => (sample, sample / 2),
        Some((mean, variation)) => (
            (mean * 7 + sample) / 8,
            (variation * 3 + mean.abs_diff(sample)) / 4,
        ),
    }
}

/// The outcomes of earlier attempts; see the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(Vec<Known>);

impl History {
    /// Notes the outcome of an attempt.
    pub fn note(&mut self, now: UnixMillis, route: Route, outcome: Outcome) {
        let place = self.0.iter().position(|known| known.route == route);
        let mut known = match place {
            Some(place) => self.0.remove(place),
            None => Known {
                route,
                at: now,
                round_trip: None,
                failures: 0,
                counts: [0; 4],
            },
        };
        if !known.is_fresh(now) {
            (known.round_trip, known.failures) = (None, 0);
        }
        known.note(now, outcome);
        self.keep(known);
    }

    /// Takes over an entry of another history if it is newer than the own one.
    pub fn merge(&mut self, known: Known) {
        let same = |own: &Known| own.route == known.route;
        if !self.0.iter().any(|own| same(own) && own.at > known.at) {
            self.0.retain(|own| !same(own));
            self.keep(known);
        }
    }

    fn keep(&mut self, known: Known) {
        let place = self.0.partition_point(|other| other.at <= known.at);
        self.0.insert(place, known);
        let excess = self.0.len().saturating_sub(MAX_HISTORY);
        self.0.drain(..excess);
    }

    /// Removes entries that no longer count.
    pub fn expire(&mut self, now: UnixMillis) {
        self.0.retain(|known| known.is_fresh(now));
    }

    /// All entries, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Known> {
        self.0.iter()
    }

    /// Whether there are no entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The place of an address in the order of attempts, the least first. Sort by it stably: addresses of the same
    /// rank keep the order that the resolver gave them.
    #[must_use]
    pub fn rank(&self, now: UnixMillis, route: &Route) -> Rank {
        let Some(known) = self.get(now, route) else {
            return Rank::Unknown;
        };
        match known.round_trip {
            _ if known.is_failing(now) => Rank::Failing(known.failures),
            Some((mean, _)) => {
                let steps = mean.as_micros() / ROUND_TRIP_STEP.as_micros();
                Rank::Answering(u32::try_from(steps).unwrap_or(u32::MAX))
            }
            None => Rank::Silent,
        }
    }

    /// The time within which an address should answer: its smoothed round trip and four variations, or those of the
    /// address in the same prefix that answered last.
    #[must_use]
    pub fn due(&self, now: UnixMillis, route: &Route) -> Option<Duration> {
        let own = self.get(now, route).and_then(|known| known.round_trip);
        let beside = || {
            let near = self.0.iter().filter(|known| known.is_fresh(now));
            let near = near.filter(|known| known.route.is_beside(route));
            let answered = near.filter_map(|known| Some((known.at, known.round_trip?)));
            Some(answered.max_by_key(|(at, _)| *at)?.1)
        };
        let (mean, variation) = own.or_else(beside)?;
        Some(mean + variation * 4)
    }

    /// Whether the transport of a route seems to be filtered on its way: it failed, and twice in a row if it had answered
    /// before, since one lost packet looks the same.
    #[must_use]
    pub fn is_filtered(&self, now: UnixMillis, route: &Route) -> bool {
        self.get(now, route).is_some_and(|known| {
            let least = if known.round_trip.is_some() { 2 } else { 1 };
            known.is_failing(now) && known.failures >= least
        })
    }

    fn get(&self, now: UnixMillis, route: &Route) -> Option<&Known> {
        let mut fresh = self.0.iter().filter(|known| known.is_fresh(now));
        fresh.find(|known| known.route == *route)
    }
}

/// See [`History::rank`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// It lately answered; the round trip in steps of 25 ms.
    Answering(u32),
    /// Nothing is known of it.
    Unknown,
    /// Others answered before it whenever it was tried.
    Silent,
    /// It lately failed; the failures in a row.
    Failing(u32),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000;

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis::new(NOW + seconds * 1000)
    }

    fn route(remote: &str) -> Route {
        let local = match remote.starts_with('[') {
            true => "2001:db8:1::7",
            false => "192.0.2.7",
        };
        Route::new(local.parse().unwrap(), remote.parse().unwrap(), false)
    }

    const fn answered(ms: u64) -> Outcome {
        Outcome::Answered(Duration::from_millis(ms))
    }

    /// Notes outcomes a second apart, and returns the rank after `age` more seconds.
    fn rank_after(outcomes: &[Outcome], age: u64) -> Rank {
        let (mut history, one) = (History::default(), route("198.51.100.1:80"));
        for (second, &outcome) in (0..).zip(outcomes) {
            history.note(at(second), one, outcome);
        }
        history.rank(at(outcomes.len() as u64 - 1 + age), &one)
    }

    #[test]
    fn one_failure_after_an_answer_is_no_filter() {
        use Outcome::{Lost, Refused, TimedOut};
        for (outcomes, age, want) in [
            (&[][..], 0, false),
            (&[Lost], 0, false),
            (&[TimedOut], 299, true),
            (&[TimedOut], 300, false),
            (&[answered(20), TimedOut], 0, false),
            (&[answered(20), TimedOut, Refused], 599, true),
            (&[answered(20), TimedOut, Refused], 600, false),
            (&[TimedOut, TimedOut, answered(20)], 0, false),
        ] {
            let (mut history, one) = (History::default(), route("198.51.100.1:80"));
            for (second, &outcome) in (0..).zip(outcomes) {
                history.note(at(second), one, outcome);
            }
            let now = at((outcomes.len() as u64).saturating_sub(1) + age);
            let got = history.is_filtered(now, &one);
            assert_eq!(got, want, "{outcomes:?} {age} s ago");
        }
    }

    #[test]
    fn outcomes_rank_an_address_for_a_limited_time() {
        use Outcome::{Lost, Refused, TimedOut};
        let day = 24 * 3600;
        for (outcomes, age, want) in [
            (&[answered(20)][..], 0, Rank::Answering(0)),
            (&[answered(60)], 1, Rank::Answering(2)),
            (&[answered(60)], day, Rank::Answering(2)),
            (&[answered(60)], day + 1, Rank::Unknown),
            (&[Lost], 1, Rank::Silent),
            (&[Lost, answered(20)], 1, Rank::Answering(0)),
            (&[answered(20), Lost], 1, Rank::Answering(0)),
            (&[TimedOut], 299, Rank::Failing(1)),
            (&[TimedOut], 300, Rank::Silent),
            (&[answered(20), Refused], 299, Rank::Failing(1)),
            (&[answered(20), Refused], 300, Rank::Answering(0)),
            (&[Refused, Refused], 599, Rank::Failing(2)),
            (&[Refused, Refused], 600, Rank::Silent),
            (&[Refused, Lost], 299, Rank::Silent),
            (&[Refused, answered(20)], 1, Rank::Answering(0)),
            (&[Refused; 40], day - 1, Rank::Failing(40)),
            (&[Refused; 40], day + 1, Rank::Unknown),
        ] {
            assert_eq!(
                rank_after(outcomes, age),
                want,
                "{outcomes:?} after {age} s"
            );
        }
        assert!(Rank::Answering(9) < Rank::Unknown && Rank::Unknown < Rank::Silent);
        assert!(Rank::Silent < Rank::Failing(1) && Rank::Failing(1) < Rank::Failing(2));
    }

    #[test]
    fn a_network_says_nothing_about_another() {
        let mut history = History::default();
        let remote = "198.51.100.1:80".parse().unwrap();
        let from = |local: &str, tcp| Route::new(local.parse().unwrap(), remote, tcp);
        history.note(at(0), from("192.0.2.7", false), Outcome::Refused);
        let rank = |route| history.rank(at(1), &route);
        assert_eq!(rank(from("192.0.2.9", false)), Rank::Failing(1));
        assert_eq!(rank(from("192.0.3.7", false)), Rank::Unknown);
        assert_eq!(rank(from("192.0.2.7", true)), Rank::Unknown, "over TCP");
    }

    #[test]
    fn an_answer_is_due_after_the_round_trip_of_the_address_or_its_neighbour() {
        let mut history = History::default();
        let (one, beside) = (route("198.51.100.1:80"), route("198.51.100.2:81"));
        assert_eq!(history.due(at(0), &one), None);
        history.note(at(0), one, answered(40));
        // 40 + 4 x 20, then (RFC 6298) 41 + 4 x 17 ms.
        assert_eq!(history.due(at(1), &one), Some(Duration::from_millis(120)));
        history.note(at(1), one, answered(48));
        assert_eq!(history.due(at(1), &one), Some(Duration::from_millis(109)));
        assert_eq!(history.due(at(1), &beside), history.due(at(1), &one));
        assert_eq!(history.due(at(1), &route("198.51.101.1:80")), None);
        assert_eq!(history.due(at(1), &route("[2001:db8::1]:80")), None);
        history.note(at(2), beside, answered(10));
        assert_eq!(history.due(at(2), &beside), Some(Duration::from_millis(30)));
        assert_eq!(history.due(at(2), &one), Some(Duration::from_millis(109)));
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let mut history = History::default();
        let nth = |n: usize| route(&format!("198.51.{}.{}:80", n / 250, n % 250));
        for n in 0..=MAX_HISTORY {
            history.note(at(n as u64), nth(n), answered(20));
        }
        assert_eq!(history.iter().count(), MAX_HISTORY);
        let now = at(MAX_HISTORY as u64);
        assert_eq!(history.rank(now, &nth(0)), Rank::Unknown, "the oldest");
        assert_eq!(history.rank(now, &nth(1)), Rank::Answering(0));
        history.expire(at(3 * 24 * 3600));
        assert!(history.is_empty());
    }

    #[test]
    fn a_clock_that_was_set_back_makes_entries_void() {
        let (mut history, one) = (History::default(), route("198.51.100.1:80"));
        history.note(at(1000), one, Outcome::Refused);
        assert_eq!(history.rank(at(700), &one), Rank::Failing(1));
        assert_eq!(history.rank(at(699), &one), Rank::Unknown);
        history.note(at(0), one, answered(20));
        assert_eq!(history.rank(at(0), &one), Rank::Answering(0));
    }

    proptest! {
        /// Whatever is merged in whatever order, the newest entry of each address is kept.
        #[test]
        fn the_newest_entry_is_kept(entries in prop::collection::vec((0u8..5, 0u64..50), 0..40)) {
            let mut history = History::default();
            let mut newest = [None; 5];
            for (address, second) in entries {
                let mut other = History::default();
                let one = route(&format!("198.51.100.{address}:80"));
                other.note(at(second), one, answered(second));
                history.merge(*other.iter().next().unwrap());
                newest[usize::from(address)] = newest[usize::from(address)].max(Some(second));
            }
            prop_assert!(history.iter().is_sorted_by_key(|known| known.at));
            for (address, second) in newest.iter().enumerate() {
                let one = route(&format!("198.51.100.{address}:80"));
                let kept = history.iter().find(|known| known.route == one);
                prop_assert_eq!(kept.map(|known| known.at), second.map(at));
            }
        }
    }
}
