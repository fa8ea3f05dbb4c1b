//! The numbers that are awaited: a record for each request, and the detection of loss by time
//! (RACK, RFC 8985). The client knows when it asked, so a number is late when one that was requested
//! later has come and the reordering window has passed since.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Instant;
use crate::transport::client::rtt::Rtt;
use crate::transport::client::stream::label_of;
use crate::transport::client::window::Interval;
use crate::transport::epoch::{Declaration, Epoch};
use crate::transport::layout::Layout;
use crate::transport::low_bits;
use crate::wire::segment::Span;

/// Given-up flights remembered, for numbers that come late; the oldest are forgotten, and bytes that
/// come under their numbers are not stored.
const MAX_REMEMBERED: usize = 256;

/// Later numbers that make a number lost at once while no reordering was seen (RFC 8985 §6.2).
const REORDERING_THRESHOLD: u64 = 3;

/// Numbers that must have come in order before later numbers make one lost at once: jitter disorders
/// the first ones already.
const ORDERLY: u32 = 64;

/// Greatest lateness that the reordering window makes room for. More than RFC 8985's one round trip:
/// one of several servers may be held up for longer than that, and its answers still come.
const MAX_LATENESS: Duration = Duration::from_millis(100);

/// One request and the flight that it releases.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) interval: Interval,
    /// When it was sent (last).
    pub(super) sent: Instant,
    /// Its place among all that was sent: one instant may have seen several leave.
    order: u64,
    /// Sent again or asked to wait, so that its round trip is ambiguous.
    pub(super) repeated: bool,
    /// Sent again because it seemed lost.
    retried: bool,
    /// A server has asked to wait: when to ask again. Until then its numbers are not late.
    waits_until: Option<Instant>,
    /// Some of its numbers were requested before, by a record that was given up: ambiguous, too.
    pub(super) asked_before: bool,
    /// The client's name of the stream that the bytes belong to.
    pub(super) stream: u64,
    /// The bytes requested; empty for the beginning of a stream.
    pub(super) ranges: Vec<Span>,
    /// The event declared.
    pub(super) declared: Option<Declaration>,
    /// The epoch that a continuation in its answer speaks for.
    pub(super) yields: Epoch,
    /// The first datagram carries a continuation.
    pub(super) wants_continuation: bool,
    /// It answers a challenge, so the continuation is bound to the present address.
    pub(super) rebinds: bool,
    /// The chunks of each datagram, as far as they are known.
    pub(super) layout: Layout,
    /// Bit `i` stands for number `interval.first + i`.
    open: u64,
}

impl Record {
    pub(super) fn new(interval: Interval, sent: Instant, stream: u64, yields: Epoch) -> Self {
        Self {
            interval,
            sent,
            order: 0,
            repeated: false,
            retried: false,
            waits_until: None,
            asked_before: false,
            stream,
            ranges: Vec::new(),
            declared: None,
            yields,
            wants_continuation: false,
            rebinds: false,
            layout: Layout::default(),
            open: low_bits(u64::from(interval.count)),
        }
    }

    /// Which numbers have neither come nor been given up.
    pub(super) const fn still_open(&self) -> u64 {
        self.open
    }

    /// Whether it was sent again because it seemed lost, not because a server asked to wait.
    pub(super) const fn retried(&self) -> bool {
        self.retried
    }

    /// Whether its event gives numbers up, so that its request takes a token of the servers.
    pub(super) fn takes_token(&self) -> bool {
        self.declared
            .is_some_and(|declaration| !declaration.kind.has_zone())
    }

    /// Whether nothing of it has arrived.
    fn untouched(&self) -> bool {
        self.open == low_bits(u64::from(self.interval.count))
    }

    /// The bytes of the datagrams in `which` that are known.
    pub(super) fn bytes(&self, which: u64) -> impl Iterator<Item = Span> {
        let numbered = (0..u64::BITS).zip(self.layout.datagrams());
        let chosen = numbered.filter(move |(index, _)| which >> index & 1 != 0);
        chosen.flat_map(|(_, chunks)| chunks.iter().copied())
    }
}

/// The request that a number was awaited by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) sent: Instant,
    /// It may answer an earlier request (Karn).
    pub(super) repeated: bool,
    /// That request may have been another record's.
    asked_before: bool,
    pub(super) first_of_flight: bool,
    pub(super) yields: Epoch,
    /// Its request declared the event that opens that epoch.
    pub(super) opens: bool,
    /// Its request answered a challenge.
    pub(super) rebinds: bool,
    /// The datagram does not answer an earlier request under the same numbers whose continuation speaks for
    /// another epoch.
    pub(super) answers: bool,
    /// How far its request acknowledged.
    pub(super) upto: u64,
    pub(super) stream: u64,
}

/// Numbers of a flight that were given up, and may still come.
#[derive(Clone, Copy, Debug)]
struct GivenUp {
    first: u64,
    /// Bit `i` stands for number `first + i`.
    open: u64,
    /// The stream that their bytes belong to.
    stream: u64,
    /// The epoch that a continuation in their answer speaks for.
    yields: Epoch,
    /// When they should have arrived, if they were given up as lost.
    due: Option<Instant>,
}

impl GivenUp {
    fn holds(&self, n: u64) -> bool {
        let index = n.checked_sub(self.first).filter(|index| *index < 64);
        index.is_some_and(|index| self.open >> index & 1 != 0)
    }

    fn has_label(&self, label: u8) -> bool {
        label_of(self.stream) == label
    }
}

/// A part of a flight that is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// First number of the flight.
    pub(super) flight: u64,
    /// Its lowest lost number.
    pub(super) lowest: u64,
    /// Its highest lost number.
    pub(super) highest: u64,
    pub(super) count: u32,
    /// The whole flight, never repeated.
    pub(super) whole: bool,
    pub(super) stream: u64,
    pub(super) bytes: Vec<Span>,
    /// When it should have arrived.
    pub(super) due: Instant,
}

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub(super) struct Flights {
    /// In the order of their numbers, which mostly is that of their beginning and of their end.
    records: VecDeque<Record>,
    /// The chunks that the last arrival should carry, if that is known.
    expected: Vec<Span>,
    /// Requests sent so far.
    sent: u64,
    /// The order of the latest-sent number that has arrived, the number, and its round trip.
    latest: Option<(u64, u64, Duration)>,
    reordering_seen: bool,
    /// Numbers that came in order since the path is known, as far as they count.
    in_order: u32,
    /// The lateness of numbers that came after they were given up, with some headroom; fades.
    lateness: Duration,
    given_up: VecDeque<GivenUp>,
    timer: Option<Instant>,
    /// Whether a flight may wait by request of a server: most connections never see one.
    may_wait: bool,
}

impl Flights {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn push(&mut self, mut record: Record) {
        self.sent += 1;
        record.order = self.sent;
        match place(&self.records, record.interval.first) {
            Ok(same) => {
                if let Some(old) = self.records.get_mut(same) {
                    *old = record;
                }
            }
            Err(place) => self.records.insert(place, record),
        }
    }

    pub(super) fn get_mut(&mut self, flight: u64) -> Option<&mut Record> {
        let place = place(&self.records, flight).ok()?;
        self.records.get_mut(place)
    }

    /// Takes note that a flight is requested again because it seemed lost.
    pub(super) fn repeat(&mut self, now: Instant, flight: u64) {
        self.ask_again(now, flight);
        if let Some(record) = self.get_mut(flight) {
            record.retried = true;
        }
    }

    /// Takes note that a flight is requested again.
    fn ask_again(&mut self, now: Instant, flight: u64) {
        let sent = self.sent + 1;
        if let Some(record) = self.get_mut(flight) {
            record.order = sent;
            record.sent = now;
            record.repeated = true;
            record.waits_until = None;
            self.sent = sent;
        }
    }

    /// Takes note that a server asks to wait for the flight whose first number is `first`, until
    /// `until`. Returns whether the flight is awaited, under this label, and untouched.
    pub(super) fn wait(&mut self, first: u64, label: u8, until: Instant) -> bool {
        let Some(record) = self.get_mut(first) else {
            return false;
        };
        let fits = label_of(record.stream) == label && record.untouched();
        if fits {
            record.waits_until = Some(until);
            // The answer comes when the server is ready, which is no round trip.
            record.repeated = true;
            record.retried = false;
        }
        self.may_wait |= fits;
        fits
    }

    /// The flights that wait by request of a server.
    fn waiting(&self) -> impl Iterator<Item = (&Record, Instant)> {
        let records = self.may_wait.then_some(self.records.iter());
        let records = records.into_iter().flatten();
        records.filter_map(|record| Some((record, record.waits_until?)))
    }

    /// When the first of the flights that wait is to be requested again.
    pub(super) fn ask_at(&self) -> Option<Instant> {
        self.waiting().map(|(_, until)| until).min()
    }

    /// Whether flights are awaited, and all of them wait by request of a server.
    pub(super) fn all_wait(&self) -> bool {
        self.may_wait && !self.is_empty() && self.waiting().count() == self.records.len()
    }

    /// Whether a flight of `stream` waits by request of a server.
    pub(super) fn waits(&mut self, stream: u64) -> bool {
        let any = self.waiting().next().is_some();
        self.may_wait = any;
        self.waiting().any(|(record, _)| record.stream == stream)
    }

    /// Takes note that the flights whose time to wait has passed are requested again; returns them.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<u64> {
        let due = self.waiting().filter(|(_, until)| *until <= now);
        let due: Vec<u64> = due.map(|(record, _)| record.interval.first).collect();
        for &flight in &due {
            self.ask_again(now, flight);
        }
        due
    }

    /// Ends the wait of the flights of other streams than `stream`: no reader wants their bytes, and they
    /// are requested without any.
    pub(super) fn end_waits_but_of(&mut self, now: Instant, stream: u64) {
        for record in &mut self.records {
            if record.stream != stream && record.waits_until.is_some() {
                record.waits_until = Some(now);
            }
        }
    }

    /// The chunks that the last datagram that was awaited should have carried, if that is known.
    pub(super) fn expected(&self) -> &[Span] {
        &self.expected
    }

    /// The time by which numbers have arrived later than their round trip.
    pub(super) const fn lateness(&self) -> Duration {
        self.lateness
    }

    /// When `detect` should be called again.
    pub(super) const fn timer(&self) -> Option<Instant> {
        self.timer
    }

    /// Takes note of a datagram with the numbers `n ..= n + void` and a stream's label. Returns the
    /// request that they were awaited by, if any, and the stream whose bytes the datagram may have: the
    /// one for which the number was requested, if it is awaited or was given up not too long ago, and if no
    /// other stream of that label was requested under the same number.
    pub(super) fn arrive(
        &mut self,
        now: Instant,
        n: u64,
        void: u64,
        label: u8,
        rtt: &Rtt,
    ) -> (Option<Arrival>, Option<u64>) {
        self.expected.clear();
        let Some((place, record)) = awaited(&mut self.records, n) else {
            return (None, self.arrive_late(now, n, label));
        };
        let index = n - record.interval.first;
        let datagram = usize::try_from(index).unwrap_or(usize::MAX);
        // A server that has fewer bytes yet leaves numbers void that bytes were laid out for.
        let void_after = usize::try_from(void).unwrap_or(0);
        self.expected
            .extend_from_slice(record.layout.datagrams_from(datagram, void_after));
        let repeated = record.repeated || record.asked_before;
        let round_trip = now.saturating_since(record.sent);
        // Sooner than any answer comes, it is the answer to the first request (RFC 8985 §6.2).
        let early = repeated && rtt.min().is_some_and(|least| round_trip < least);
        let mut given_up = self.given_up.iter().rev();
        let mut last = || given_up.find(|old| old.holds(n) && old.has_label(label));
        let other = (early || label_of(record.stream) != label)
            && last().is_some_and(|old| old.yields != record.yields);
        let arrival = Arrival {
            sent: record.sent,
            repeated,
            asked_before: record.asked_before,
            answers: !other,
            first_of_flight: record.untouched(),
            yields: record.yields,
            opens: record.declared.is_some(),
            rebinds: record.rebinds,
            upto: record.interval.upto,
            stream: record.stream,
        };
        record.open &= !(low_bits(void + 1) << index);
        // The server is ready: from here on the rest can be late.
        record.waits_until = None;
        let order = record.order;
        if record.open == 0 {
            self.records.remove(place);
        }
        if !early {
            self.note(order, n, round_trip, arrival.repeated);
        }
        let stream = Some(arrival.stream).filter(|&stream| {
            label_of(stream) == label && !(arrival.asked_before && self.is_ambiguous(n, stream))
        });
        (Some(arrival), stream)
    }

    /// Takes note of a number that is not awaited; returns the stream whose bytes the datagram may have,
    /// if the number was given up. A number that was given up as lost was late, and others will be.
    fn arrive_late(&mut self, now: Instant, n: u64, label: u8) -> Option<u64> {
        let old = self.given_up.iter();
        let place = old
            .clone()
            .rposition(|old| old.holds(n) && old.has_label(label))
            .or_else(|| old.clone().rposition(|old| old.holds(n)))?;
        let old = self.given_up.get_mut(place)?;
        old.open &= !(1 << (n - old.first));
        let (stream, named) = (old.stream, old.has_label(label));
        if let Some(due) = old.due {
            self.reordering_seen = true;
            self.late_by(now.saturating_since(due));
        }
        (named && !self.is_ambiguous(n, stream)).then_some(stream)
    }

    /// Whether a late answer with number `n` may have bytes of another stream with the label of this
    /// one: requests that declare a timeout again ask for the same numbers.
    fn is_ambiguous(&self, n: u64, stream: u64) -> bool {
        let label = label_of(stream);
        let mut others = self.given_up.iter().filter(|old| old.stream != stream);
        others.any(|old| old.holds(n) && old.has_label(label))
    }

    fn remember(&mut self, given_up: GivenUp) {
        if self.given_up.len() == MAX_REMEMBERED {
            self.given_up.pop_front();
        }
        self.given_up.push_back(given_up);
    }

    fn note(&mut self, order: u64, n: u64, round_trip: Duration, repeated: bool) {
        let newer = self
            .latest
            .is_none_or(|(latest, number, _)| (order, n) > (latest, number));
        if newer {
            self.latest = Some((order, n, round_trip));
            self.in_order = ORDERLY.min(self.in_order + 1);
        } else if let Some((_, _, due)) = self.latest.filter(|_| !repeated) {
            // Nearly given up; the next may be later.
            self.reordering_seen = true;
            self.late_by(round_trip.saturating_sub(due));
        }
    }

    /// Takes note of a number that came later than its round trip, by `late`.
    fn late_by(&mut self, late: Duration) {
        self.lateness = self.lateness.max(late * 5 / 4).min(MAX_LATENESS);
    }

    /// Takes the answer to a probe: numbers requested before it was sent should have arrived.
    pub(super) fn probed(&mut self, now: Instant, sent: Instant) {
        let before = self.records.iter().filter(|record| record.sent < sent);
        let order = before.map(|record| record.order).max().unwrap_or(0);
        if self.latest.is_none_or(|(latest, ..)| order >= latest) {
            self.latest = Some((order, u64::MAX, now.saturating_since(sent)));
        }
    }

    /// The numbers that are lost by now. `apart`: if several servers answer by turns, the difference
    /// between the distances of the farthest and the nearest.
    pub(super) fn detect(&mut self, now: Instant, rtt: &Rtt, apart: Option<Duration>) -> Vec<Loss> {
        self.timer = None;
        let Some((latest, number, round_trip)) = self.latest else {
            return Vec::new();
        };
        let mut losses = Vec::new();
        let awaited = self.records.iter();
        for record in awaited.filter(|record| record.waits_until.is_none()) {
            let first = record.interval.first;
            let late = match record.order.cmp(&latest) {
                core::cmp::Ordering::Less => record.open,
                core::cmp::Ordering::Equal => record.open & low_bits(number.saturating_sub(first)),
                core::cmp::Ordering::Greater => 0,
            };
            if late == 0 {
                continue;
            }
            let highest = first + u64::from(63 - late.leading_zeros());
            let orderly = self.in_order == ORDERLY && !self.reordering_seen && apart.is_none();
            let clearly = orderly && number >= highest + REORDERING_THRESHOLD;
            let wait = if clearly {
                Duration::ZERO
            } else {
                self.reordering_window(rtt, apart)
            };
            let deadline = record.sent + round_trip + wait;
            if deadline > now {
                self.timer = Some(self.timer.map_or(deadline, |timer| timer.min(deadline)));
                continue;
            }
            losses.push(Loss {
                flight: first,
                lowest: first + u64::from(late.trailing_zeros()),
                highest,
                count: late.count_ones(),
                whole: late == low_bits(u64::from(record.interval.count))
                    && !record.retried
                    && !record.layout.is_empty(),
                stream: record.stream,
                bytes: record.bytes(late).collect(),
                due: record.sent + round_trip,
            });
        }
        losses
    }

    /// RFC 8985 §6.2: a quarter of the smallest round trip, at most one round trip; more where
    /// numbers came later than that. Among several servers the whole round trip, or the difference of
    /// their distances: each answer takes its own path, and some servers may not have answered yet.
    fn reordering_window(&self, rtt: &Rtt, apart: Option<Duration>) -> Duration {
        let quarter = rtt.min().unwrap_or_default() / 4;
        quarter
            .min(rtt.smoothed().unwrap_or_default())
            .max(self.lateness)
            .max(apart.map_or(Duration::ZERO, |apart| apart.max(rtt.expected())))
    }

    /// Gives up a loss that `detect` found.
    pub(super) fn give_up(&mut self, loss: &Loss) {
        let Ok(place) = place(&self.records, loss.flight) else {
            return;
        };
        let Some(record) = self.records.get_mut(place) else {
            return;
        };
        self.lateness -= self.lateness / 32;
        let late = low_bits(loss.highest - loss.flight + 1) & record.open;
        let given_up = GivenUp {
            first: loss.flight,
            open: late,
            stream: record.stream,
            yields: record.yields,
            due: Some(loss.due),
        };
        record.open &= !late;
        if record.open == 0 {
            self.records.remove(place);
        }
        self.remember(given_up);
    }

    /// Gives everything up; returns the streams and the bytes that have not come, and how many
    /// numbers that are.
    pub(super) fn give_up_all(&mut self) -> (Vec<(u64, Span)>, u64) {
        let mut bytes = Vec::new();
        let mut count = 0;
        for record in core::mem::take(&mut self.records) {
            count += u64::from(record.open.count_ones());
            let open = record.bytes(record.open);
            bytes.extend(open.map(|span| (record.stream, span)));
            self.remember(GivenUp {
                first: record.interval.first,
                open: record.open,
                stream: record.stream,
                yields: record.yields,
                due: None,
            });
        }
        self.timer = None;
        (bytes, count)
    }

    /// Forgets the times of another path.
    pub(super) fn forget_path(&mut self) {
        self.latest = None;
        self.in_order = 0;
        for old in &mut self.given_up {
            old.due = None;
        }
    }

    /// Forgets the numbers of another connection.
    pub(super) fn forget_numbers(&mut self) {
        self.latest = None;
        self.given_up.clear();
    }
}

/// Where the record is whose numbers begin with `first`, or where it would be.
fn place(records: &VecDeque<Record>, first: u64) -> Result<usize, usize> {
    records.binary_search_by_key(&first, |record| record.interval.first)
}

/// The record that number `n` is still awaited by, and its place.
fn awaited(records: &mut VecDeque<Record>, n: u64) -> Option<(usize, &mut Record)> {
    let after = records.partition_point(|record| record.interval.first <= n);
    let place = after.checked_sub(1)?;
    let record = records.get_mut(place)?;
    let index = n - record.interval.first;
    let open = index < u64::from(record.interval.count) && record.open >> index & 1 != 0;
    open.then_some((place, record))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: u64 = 40_000;

    const fn at(us: u64) -> Instant {
        Instant::from_micros(us)
    }

    /// Flights of four numbers from `first` on, requested one after the other at one instant.
    fn flights(sent: Instant, firsts: &[u64]) -> Flights {
        let mut flights = Flights {
            in_order: ORDERLY,
            ..Flights::default()
        };
        for &first in firsts {
            let interval = Interval {
                after: first,
                upto: first + 2,
                first,
                count: 4,
            };
            flights.push(Record::new(interval, sent, 0, Epoch::opening(3)));
        }
        flights
    }

    fn rtt() -> Rtt {
        let mut rtt = Rtt::default();
        rtt.sample(Duration::from_micros(ROUND_TRIP));
        rtt
    }

    fn lost(flights: &mut Flights, now: Instant) -> Vec<u64> {
        let losses = flights.detect(now, &rtt(), None);
        losses.iter().map(|loss| loss.flight).collect()
    }

    #[test]
    fn later_numbers_count_once_the_path_has_shown_order() {
        for (in_order, want) in [(ORDERLY - 2, vec![]), (ORDERLY - 1, vec![1])] {
            let mut flights = Flights {
                in_order,
                ..flights(at(0), &[1, 5])
            };
            flights.arrive(at(ROUND_TRIP), 8, 0, 0, &rtt());
            assert_eq!(lost(&mut flights, at(ROUND_TRIP)), want);
            let due = ROUND_TRIP + ROUND_TRIP / 4;
            assert_eq!(flights.timer(), Some(at(due)));
            assert_eq!(lost(&mut flights, at(due)), [1, 5]);
        }
    }

    #[test]
    fn what_is_nearly_given_up_makes_room_for_later_ones() {
        let quarter = ROUND_TRIP / 4;
        for (name, late, want) in [
            ("much less than the window", quarter / 2, quarter),
            ("nearly as late", quarter, quarter * 5 / 4),
            ("later than any", 1_000_000, 100_000),
        ] {
            let mut flights = flights(at(0), &[1, 5]);
            flights.arrive(at(ROUND_TRIP), 5, 0, 0, &rtt());
            flights.arrive(at(ROUND_TRIP + late), 1, 0, 0, &rtt());
            let window = flights.reordering_window(&rtt(), None);
            assert_eq!(window, Duration::from_micros(want), "{name}");
            assert!(flights.reordering_seen);
        }
    }

    #[test]
    fn a_repeat_is_not_overtaken_by_what_left_before_it_at_the_same_instant() {
        let mut flights = flights(at(0), &[1, 5]);
        for n in 5..9 {
            flights.arrive(at(ROUND_TRIP), n, 0, 0, &rtt());
        }
        assert_eq!(lost(&mut flights, at(ROUND_TRIP)), [1]);
        let again = at(ROUND_TRIP);
        let mut other = self::flights(again, &[9]);
        flights.push(other.records.pop_front().unwrap());
        flights.repeat(again, 1);
        for n in 9..13 {
            flights.arrive(at(2 * ROUND_TRIP), n, 0, 0, &rtt());
        }
        assert!(lost(&mut flights, at(2 * ROUND_TRIP)).is_empty());
        let (awaited, stream) = flights.arrive(at(2 * ROUND_TRIP), 1, 0, 0, &rtt());
        assert!(awaited.is_some() && stream == Some(0));
    }

    #[test]
    fn an_answer_that_begins_ends_the_wait_for_the_rest_of_it() {
        const THINKS: u64 = 3_000_000;
        let mut flights = flights(at(0), &[1]);
        assert!(flights.wait(1, 0, at(2 * THINKS)));
        assert!(flights.all_wait() && lost(&mut flights, at(THINKS)).is_empty());
        flights.arrive(at(THINKS), 4, 0, 0, &rtt());
        assert!(!flights.all_wait() && !flights.waits(0));
        assert_eq!(lost(&mut flights, at(THINKS + ROUND_TRIP)), [1]);
    }

    #[test]
    fn an_answer_to_an_earlier_request_is_recognized() {
        const SOON: u64 = ROUND_TRIP - 1;
        for (name, c, after, label, want) in [
            ("the same epoch", 3, SOON, 0, true),
            ("sooner than any answer comes", 2, SOON, 0, false),
            ("in time", 2, ROUND_TRIP, 0, true),
            ("in time, of another stream", 2, ROUND_TRIP, 1, true),
        ] {
            let mut flights = flights(at(0), &[1]);
            let mut again = flights.get_mut(1).unwrap().clone();
            flights.give_up_all();
            (again.yields, again.asked_before) = (Epoch::opening(c), true);
            again.stream = u64::from(label);
            flights.push(again);
            let (arrival, _) = flights.arrive(at(after), 1, 0, label, &rtt());
            assert_eq!(arrival.unwrap().answers, want, "{name}");
        }
        let mut flights = flights(at(0), &[1]);
        let mut again = flights.get_mut(1).unwrap().clone();
        flights.give_up_all();
        (again.yields, again.stream) = (Epoch::opening(2), 1);
        flights.push(again);
        let (arrival, _) = flights.arrive(at(ROUND_TRIP), 1, 0, 0, &rtt());
        assert!(!arrival.unwrap().answers, "of the stream before");
    }

    #[test]
    fn numbers_asked_for_before_time_nothing() {
        let mut flights = flights(at(0), &[1, 5]);
        flights.get_mut(5).unwrap().asked_before = true;
        let mut ambiguous = |n| {
            let (awaited, _) = flights.arrive(at(ROUND_TRIP), n, 0, 0, &rtt());
            awaited.unwrap().repeated
        };
        assert_eq!((ambiguous(1), ambiguous(5)), (false, true));
    }

    #[test]
    fn the_answer_to_the_first_request_does_not_time_the_repeat() {
        let mut flights = flights(at(0), &[1, 5, 9]);
        flights.repeat(at(ROUND_TRIP), 9);
        // Packets sent before must not look late by half a millisecond.
        flights.arrive(at(ROUND_TRIP + 500), 9, 0, 0, &rtt());
        assert!(lost(&mut flights, at(ROUND_TRIP + 1000)).is_empty());
        flights.arrive(at(2 * ROUND_TRIP), 10, 0, 0, &rtt());
        assert_eq!(lost(&mut flights, at(2 * ROUND_TRIP)), [1, 5]);
    }

    /// A record of four numbers from `first` on, for the bytes of `stream`.
    fn record(first: u64, stream: u64) -> Record {
        let interval = Interval {
            after: 0,
            upto: 1,
            first,
            count: 4,
        };
        Record::new(interval, at(0), stream, Epoch::opening(3))
    }

    fn stream_of(flights: &mut Flights, n: u64, label: u8) -> Option<u64> {
        flights.arrive(at(ROUND_TRIP), n, 0, label, &rtt()).1
    }

    #[test]
    fn bytes_are_those_of_the_stream_that_the_number_was_asked_for() {
        let mut flights = Flights::default();
        flights.push(record(1, 300));
        let label = label_of(300);
        assert_eq!(stream_of(&mut flights, 5, label), None, "not asked for");
        assert_eq!(stream_of(&mut flights, 1, label), Some(300));
        assert_eq!(stream_of(&mut flights, 1, label), None, "came already");
        assert_eq!(stream_of(&mut flights, 2, 1), None, "another label");
        flights.give_up_all();
        assert_eq!(stream_of(&mut flights, 3, label), Some(300), "given up");
        assert_eq!(stream_of(&mut flights, 3, label), None, "came already");
        assert_eq!(stream_of(&mut flights, 1, label), None, "came before");
        flights.forget_path();
        assert_eq!(stream_of(&mut flights, 4, label), Some(300));
        flights.push(record(5, 300));
        flights.give_up_all();
        flights.forget_numbers();
        assert_eq!(
            stream_of(&mut flights, 5, label),
            None,
            "of another connection"
        );
    }

    #[test]
    fn the_oldest_flight_given_up_is_forgotten() {
        let mut flights = Flights::default();
        let give_up = |flights: &mut Flights, index: u64| {
            flights.push(record(1 + 4 * index, 1));
            flights.give_up_all();
        };
        for index in 0..MAX_REMEMBERED as u64 {
            give_up(&mut flights, index);
        }
        assert_eq!(stream_of(&mut flights, 1, 1), Some(1), "at the bound");
        give_up(&mut flights, MAX_REMEMBERED as u64);
        assert_eq!(flights.given_up.len(), MAX_REMEMBERED);
        assert_eq!(stream_of(&mut flights, 2, 1), None, "past it");
        assert_eq!(stream_of(&mut flights, 5, 1), Some(1));
    }

    #[test]
    fn a_number_asked_for_twice_under_one_label_names_no_stream() {
        for (name, later, label, want) in [
            ("the same stream", 1, 1, [Some(1), Some(1)]),
            ("another label", 2, 2, [Some(2), None]),
            ("the other label", 2, 1, [None, Some(1)]),
            ("the same label", 257, 1, [None, Some(1)]),
        ] {
            let mut flights = Flights::default();
            flights.push(record(1, 1));
            flights.give_up_all();
            flights.push(Record {
                asked_before: true,
                ..record(1, later)
            });
            let have = [(); 2].map(|()| stream_of(&mut flights, 1, label));
            assert_eq!(have, want, "{name}");
            flights.give_up_all();
        }
    }
}
