//! The numbers that are awaited: a record for each request, and the detection of loss by time
//! (RACK, RFC 8985). The client knows when it asked, so a number is late when one that was requested
//! later has come and the reordering window has passed since.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Instant;
use crate::transport::client::record::Record;
use crate::transport::client::rtt::Rtt;
use crate::transport::client::stream::label_of;
use crate::transport::epoch::Epoch;
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

/// Of the numbers that have arrived the one that left last.
#[derive(Clone, Copy, Debug)]
struct Latest {
    /// When it left the server, by the time of its request.
    left: Instant,
    /// When that was sent.
    sent: Instant,
    /// Its request's place among all.
    order: u64,
    number: u64,
    /// The time from then to its arrival.
    round_trip: Duration,
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
    /// Of the numbers that have arrived the one that left last.
    latest: Option<Latest>,
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
        let left = record.left(index);
        let round_trip = now.saturating_since(left);
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
            // A later one of a spread flight has left later.
            first_of_flight: record.untouched() && left == record.sent,
            yields: record.yields,
            opens: record.declared.is_some(),
            rebinds: record.rebinds,
            upto: record.interval.upto,
            stream: record.stream,
        };
        record.open &= !(low_bits(void + 1) << index);
        // The server is ready: from here on the rest can be late.
        record.waits_until = None;
        let (order, spread) = (record.order, record.spread);
        if record.open == 0 {
            self.records.remove(place);
        }
        if !early {
            // Sooner than any answer comes, the flight was not spread.
            let latest = Latest {
                left,
                sent: arrival.sent,
                order,
                number: n,
                round_trip: round_trip.max(rtt.min().unwrap_or_default()),
            };
            self.note(latest, spread, arrival.repeated);
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

    /// Takes note of an arrival of a flight that was to leave over `spread`.
    fn note(&mut self, arrived: Latest, spread: Duration, repeated: bool) {
        let place = |latest: &Latest| (latest.left, latest.order, latest.number);
        if self
            .latest
            .as_ref()
            .is_none_or(|latest| place(&arrived) > place(latest))
        {
            self.latest = Some(arrived);
            self.in_order = ORDERLY.min(self.in_order + 1);
        } else if let Some(latest) = self.latest.filter(|_| !repeated) {
            let late = arrived.round_trip.saturating_sub(latest.round_trip);
            // Requests that come closer together than they left have their pieces mixed.
            if late >= spread {
                // Nearly given up; the next may be later.
                self.reordering_seen = true;
                self.late_by(late);
            }
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
        let latest = self
            .latest
            .map_or((Instant::ZERO, 0), |latest| (latest.left, latest.order));
        if (sent, order) >= latest {
            self.latest = Some(Latest {
                left: sent,
                sent,
                order: order.max(latest.1),
                number: u64::MAX,
                round_trip: now.saturating_since(sent),
            });
        }
    }

    /// The numbers that are lost by now. `apart`: if several servers answer by turns, the difference
    /// between the distances of the farthest and the nearest.
    pub(super) fn detect(&mut self, now: Instant, rtt: &Rtt, apart: Option<Duration>) -> Vec<Loss> {
        self.timer = None;
        let Some(latest) = self.latest else {
            return Vec::new();
        };
        let Latest {
            left,
            sent,
            order,
            number,
            round_trip,
        } = latest;
        let mut losses = Vec::new();
        let awaited = self.records.iter();
        for record in awaited.filter(|record| record.waits_until.is_none()) {
            let first = record.interval.first;
            let late = record.open & record.before(left, order, number.saturating_sub(first));
            if late == 0 {
                continue;
            }
            let highest = first + u64::from(63 - late.leading_zeros());
            let orderly = self.in_order == ORDERLY && !self.reordering_seen && apart.is_none();
            let clearly = orderly && number >= highest + REORDERING_THRESHOLD;
            let highest_left = record.left(highest - first);
            // Requests that come closer together than they left have their pieces mixed, and a server may
            // send whole flights one after the other.
            let offset = |left: Instant, sent| left.saturating_since(sent);
            let behind = offset(left, sent) >= offset(highest_left, record.sent);
            let unmixed = record.order == order || (record.order < order && behind);
            let wait = match (clearly, unmixed) {
                (true, true) => Duration::ZERO,
                (false, true) => self.reordering_window(rtt, apart),
                (_, false) => self.reordering_window(rtt, apart).max(record.spread),
            };
            let due = highest_left + round_trip;
            let deadline = due + wait;
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
                due,
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
