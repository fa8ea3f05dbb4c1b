//! Races of two transports in virtual time, in steps of a millisecond.

use proptest::prelude::*;

use super::*;
use crate::connect::MAX_ATTEMPTS;

const BOTH: (Transport, Option<Transport>) = (Transport::Trickles, Some(Transport::Tcp));

const fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

/// The outcome of attempts over one transport, this long after their start; `None`: silence.
#[derive(Clone, Copy, Debug)]
enum Path {
    Answers(u64),
    /// A byte, and no connection.
    Mumbles(u64),
    Refuses(u64),
    Silent,
}

/// The events of a race with their times.
#[derive(Debug, Default, PartialEq)]
struct Played {
    joined: Option<(FallbackReason, u64)>,
    won: Option<(Transport, usize, u64)>,
    exhausted: Option<u64>,
    started: Vec<(Transport, usize, u64)>,
}

fn play(transports: (Transport, Option<Transport>), trickles: &[Path], tcp: &[Path]) -> Played {
    let mut race = TransportRace::new(transports, Pace::Paced, trickles.len());
    let mut played = Played::default();
    for ms in 0..5_000 {
        for &(transport, index, since) in &played.started {
            let path = match transport {
                Transport::Trickles => trickles[index],
                Transport::Tcp => tcp[index],
            };
            match path {
                Path::Answers(after) if since + after == ms => {
                    race.handle_answer(at(ms), transport, index);
                }
                Path::Refuses(after) if since + after == ms => {
                    race.handle_failure(at(ms), transport, index);
                }
                Path::Mumbles(after) if since + after == ms => race.handle_byte(transport),
                Path::Answers(_) | Path::Refuses(_) | Path::Mumbles(_) | Path::Silent => {}
            }
        }
        while let Some(step) = race.poll(at(ms)) {
            match step {
                TransportStep::Start(transport, index) => {
                    played.started.push((transport, index, ms));
                }
                TransportStep::FallBack(reason) => played.joined = Some((reason, ms)),
                TransportStep::Won(transport, index) => {
                    played.won = Some((transport, index, ms));
                    return played;
                }
                TransportStep::Exhausted => {
                    played.exhausted = Some(ms);
                    return played;
                }
            }
        }
        assert!(race.poll_timeout().is_none_or(|next| next > at(ms)));
    }
    played
}

/// Plays a race to one address, and checks when the second transport joins and which one wins when.
fn check(
    [trickles, tcp]: [Path; 2],
    joined: Option<(FallbackReason, u64)>,
    won: Option<(Transport, u64)>,
) {
    let played = play(BOTH, &[trickles], &[tcp]);
    let name = format!("{trickles:?} {tcp:?}");
    assert_eq!(played.joined, joined, "{name}");
    let won = won.map(|(transport, ms)| (transport, 0, ms));
    assert_eq!(played.won, won, "{name}");
    assert_eq!(played.exhausted, None, "{name}");
}

#[test]
fn the_second_transport_joins_when_its_time_has_come() {
    use FallbackReason::{Failed, Silent, Slow};
    use Path::{Answers, Mumbles, Refuses};
    use Transport::{Tcp, Trickles};
    let (dead, silent) = (Path::Silent, Some((Silent, 100)));
    check([Answers(20), Answers(20)], None, Some((Trickles, 20)));
    check([Answers(99), Answers(5)], None, Some((Trickles, 99)));
    check([dead, Answers(20)], silent, Some((Tcp, 120)));
    let (at_once, slow) = (Some((Failed, 1)), Some((Slow, 200)));
    check([Refuses(1), Answers(20)], at_once, Some((Tcp, 21)));
    check([Mumbles(30), Answers(20)], slow, Some((Tcp, 220)));
    // A long round trip: the first transport has the advantage of its earlier start.
    check([Answers(150), Answers(150)], silent, Some((Trickles, 150)));
    check([Answers(400), Answers(350)], silent, Some((Trickles, 400)));
    check([Answers(300), dead], silent, Some((Trickles, 300)));
    check([Answers(300), Refuses(1)], silent, Some((Trickles, 300)));
    check([dead, dead], silent, None);
    let refused = play(BOTH, &[Refuses(1)], &[Refuses(5)]);
    assert_eq!(refused.exhausted, Some(6));
}

#[test]
fn where_the_first_is_known_to_fail_the_second_leads() {
    let reversed = (Transport::Tcp, Some(Transport::Trickles));
    let played = play(reversed, &[Path::Answers(20)], &[Path::Answers(20)]);
    assert_eq!(
        (played.joined, played.won),
        (None, Some((Transport::Tcp, 0, 20)))
    );
    let played = play(reversed, &[Path::Answers(20)], &[Path::Silent]);
    assert_eq!(played.won, Some((Transport::Trickles, 0, 120)));
}

#[test]
fn one_transport_has_no_second() {
    let alone = (Transport::Trickles, None);
    let played = play(alone, &[Path::Silent], &[Path::Answers(1)]);
    assert_eq!((played.joined, played.won), (None, None));
    let played = play(alone, &[Path::Refuses(1); 3], &[Path::Answers(1); 3]);
    assert_eq!(played.exhausted, Some(3));
}

#[test]
fn both_transports_try_every_address_at_the_pace() {
    let silent = [Path::Silent; 11];
    let mut tcp = silent;
    tcp[10] = Path::Answers(20);
    let played = play(BOTH, &silent, &tcp);
    assert_eq!(played.won, Some((Transport::Tcp, 10, 220)));
    for transport in [Transport::Trickles, Transport::Tcp] {
        let of_it = |&&(other, ..): &&(Transport, usize, u64)| other == transport;
        let starts: Vec<u64> = played
            .started
            .iter()
            .filter(of_it)
            .map(|start| start.2)
            .collect();
        let first = starts[0];
        let want: Vec<u64> = (0..11).map(|n| first + 10 * n).collect();
        assert_eq!(starts, want, "{transport:?}");
    }
}

#[test]
fn addresses_that_come_late_join_over_both() {
    let mut race = TransportRace::new(BOTH, Pace::All, 1);
    race.expect_more(true);
    let steps = |race: &mut TransportRace, ms| -> Vec<TransportStep> {
        core::iter::from_fn(|| race.poll(at(ms))).collect()
    };
    assert_eq!(
        steps(&mut race, 0),
        [TransportStep::Start(Transport::Trickles, 0)]
    );
    race.handle_failure(at(1), Transport::Trickles, 0);
    assert_eq!(steps(&mut race, 1), [], "another may come");
    assert_eq!(steps(&mut race, 100).len(), 2, "TCP joins");
    assert_eq!(race.started(), 1);
    race.set_count(2);
    race.expect_more(false);
    let second = [
        TransportStep::Start(Transport::Trickles, 1),
        TransportStep::Start(Transport::Tcp, 1),
    ];
    assert_eq!(steps(&mut race, 101), second);
    race.handle_failure(at(102), Transport::Trickles, 1);
    race.handle_failure(at(102), Transport::Tcp, 0);
    race.handle_failure(at(102), Transport::Tcp, 1);
    assert_eq!(steps(&mut race, 102), [TransportStep::Exhausted]);
}

#[test]
fn the_number_of_attempts_is_bounded() {
    let mut race = TransportRace::new(BOTH, Pace::All, 100);
    let started = |race: &mut TransportRace, ms| {
        let steps = core::iter::from_fn(|| race.poll(at(ms)));
        steps
            .filter(|step| matches!(step, TransportStep::Start(..)))
            .count()
    };
    assert_eq!(started(&mut race, 0), MAX_ATTEMPTS);
    assert_eq!(started(&mut race, 100), MAX_ATTEMPTS);
}

fn path() -> impl Strategy<Value = Path> {
    prop_oneof![
        (0u64..600).prop_map(Path::Answers),
        (0u64..600).prop_map(Path::Mumbles),
        (0u64..600).prop_map(Path::Refuses),
        Just(Path::Silent),
    ]
}

proptest! {
    /// One end at most; no attempt over the second transport before it has joined, nor without a reason; never
    /// before 100 ms unless all attempts over the first have failed, never after 200 ms; a winner that was answered.
    #[test]
    fn laws(
        addresses in prop::collection::vec((path(), path()), 1..12),
        swapped in any::<bool>(),
    ) {
        let (trickles, tcp): (Vec<Path>, Vec<Path>) = addresses.into_iter().unzip();
        let transports = match swapped {
            true => (Transport::Tcp, Some(Transport::Trickles)),
            false => BOTH,
        };
        let played = play(transports, &trickles, &tcp);
        let second: Vec<u64> = played.started.iter()
            .filter(|(transport, ..)| *transport != transports.0)
            .map(|(.., ms)| *ms)
            .collect();
        let of_first = if swapped { &tcp } else { &trickles };
        match played.joined {
            None => prop_assert!(second.is_empty()),
            Some((reason, ms)) => {
                prop_assert_eq!(second.first(), Some(&ms));
                prop_assert!(ms <= 200);
                match reason {
                    FallbackReason::Silent => prop_assert_eq!(ms, 100),
                    FallbackReason::Slow => prop_assert_eq!(ms, 200),
                    FallbackReason::Failed => {
                        let refuses = |path: &Path| matches!(path, Path::Refuses(_));
                        prop_assert!(of_first.iter().all(refuses));
                    }
                }
            }
        }
        if let Some((transport, index, ms)) = played.won {
            let path = match transport {
                Transport::Trickles => trickles[index],
                Transport::Tcp => tcp[index],
            };
            let Path::Answers(after) = path else {
                return Err(TestCaseError::fail("the winner was not answered"));
            };
            let start = played.started.iter().find(|start| (start.0, start.1) == (transport, index));
            let start = start.map(|start| start.2);
            prop_assert!(start.is_some_and(|start| start + after <= ms));
        } else {
            let answers = |path: &Path| matches!(path, Path::Answers(_));
            prop_assert!(!trickles.iter().chain(&tcp).any(answers));
        }
    }
}
