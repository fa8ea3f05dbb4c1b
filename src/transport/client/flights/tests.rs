//! Which numbers are late, and which bytes late numbers may have.

use super::*;
use crate::transport::client::window::Interval;

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

/// A flight of the numbers 1 to 4 that leave 5 ms one after the other, and one of 5 to 8 that leave at once,
/// 5 ms after the first.
fn spread_and_whole() -> Flights {
    let mut flights = flights(at(0), &[1]);
    flights.get_mut(1).unwrap().spread = Duration::from_millis(20);
    let mut second = self::flights(at(5000), &[5]);
    flights.push(second.records.pop_front().unwrap());
    flights
}

/// Numbers that arrive, each so long after a round trip, in µs.
fn arrive(flights: &mut Flights, numbers: &[(u64, u64)]) {
    for &(n, after) in numbers {
        flights.arrive(at(ROUND_TRIP + after), n, 0, 0, &rtt());
    }
}

const WHOLE: [(u64, u64); 4] = [(5, 5000), (6, 5000), (7, 5000), (8, 5000)];

/// The lowest and the highest number lost, so long after a round trip.
fn lost_after(flights: &mut Flights, after: u64) -> Option<(u64, u64)> {
    let losses = flights.detect(at(ROUND_TRIP + after), &rtt(), None);
    losses.first().map(|loss| (loss.lowest, loss.highest))
}

#[test]
fn pieces_between_other_flights_are_in_order() {
    let mut flights = spread_and_whole();
    arrive(&mut flights, &[(1, 0), (2, 5000)]);
    arrive(&mut flights, &WHOLE);
    arrive(&mut flights, &[(3, 10_000), (4, 15_000)]);
    assert!(!flights.reordering_seen && flights.lateness.is_zero());
}

#[test]
fn numbers_of_a_spread_flight_are_late_by_the_time_at_which_they_leave() {
    let mut flights = spread_and_whole();
    arrive(&mut flights, &[(1, 0)]);
    arrive(&mut flights, &WHOLE);
    // The requests may arrive closer together than they left.
    assert_eq!(lost_after(&mut flights, 24_999), None);
    assert_eq!(
        lost_after(&mut flights, 25_000),
        Some((2, 2)),
        "3 may come yet"
    );
    // Pieces of one flight are in order.
    let mut flights = spread_and_whole();
    arrive(&mut flights, &[(1, 0), (3, 10_000)]);
    assert_eq!(lost_after(&mut flights, 14_999), None);
    assert_eq!(lost_after(&mut flights, 15_000), Some((2, 2)));
    let mut flights = spread_and_whole();
    arrive(&mut flights, &[(2, 5000), (3, 10_000), (4, 15_000)]);
    assert_eq!(
        lost_after(&mut flights, 15_000),
        Some((1, 1)),
        "three later ones came"
    );
}

#[test]
fn a_spread_flight_is_missing_as_a_whole() {
    let mut flights = spread_and_whole();
    arrive(&mut flights, &WHOLE);
    assert_eq!(
        lost_after(&mut flights, 1_000_000),
        None,
        "its last leaves later"
    );
    let mut third = self::flights(at(15_000), &[9]);
    flights.push(third.records.pop_front().unwrap());
    arrive(&mut flights, &[(9, 15_000)]);
    assert_eq!(lost_after(&mut flights, 34_999), None);
    let losses = flights.detect(at(ROUND_TRIP + 35_000), &rtt(), None);
    assert!(losses[0].flight == 1 && losses[0].count == 4, "{losses:?}");
}

#[test]
fn only_the_first_piece_times_a_round_trip() {
    let mut flights = spread_and_whole();
    let (arrival, _) = flights.arrive(at(ROUND_TRIP + 5000), 2, 0, 0, &rtt());
    assert!(!arrival.unwrap().first_of_flight, "left later");
    let mut flights = spread_and_whole();
    let (arrival, _) = flights.arrive(at(ROUND_TRIP), 1, 0, 0, &rtt());
    assert!(arrival.unwrap().first_of_flight);
}

#[test]
fn the_answer_to_a_probe_tells_of_pieces_that_were_to_leave_after_all_that_came() {
    let mut flights = spread_and_whole();
    arrive(&mut flights, &WHOLE);
    flights.probed(at(3 * ROUND_TRIP), at(2 * ROUND_TRIP));
    let losses = flights.detect(at(3 * ROUND_TRIP), &rtt(), None);
    assert!(losses[0].flight == 1 && losses[0].count == 4, "{losses:?}");
}
