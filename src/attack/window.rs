//! Attacks on the window: strategies that seek more packets a round trip than an honest client gets
//! on the same path.

use std::time::Duration;

use super::cheat::{Cheat, Moves};
use super::honest::Honest;
use super::path::{Plan, clocks, run};
use super::search::search;
use super::{Effort, Finding};
use crate::time::Instant;
use crate::transport::epoch::TransitionKind;

/// A loss and a round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Packets lost of a million.
    pub loss_ppm: u32,
    /// Round trip in milliseconds.
    pub rtt_ms: u32,
}

/// The paths on which gains are measured.
pub const CELLS: [Cell; 6] = [
    Cell::new(1000, 20),
    Cell::new(1000, 100),
    Cell::new(10_000, 20),
    Cell::new(10_000, 100),
    Cell::new(30_000, 20),
    Cell::new(30_000, 100),
];

/// Round trips at the start of each run that do not count: the first slow start.
const SKIPPED: u32 = 300;

impl Cell {
    const fn new(loss_ppm: u32, rtt_ms: u32) -> Self {
        Self { loss_ppm, rtt_ms }
    }

    /// The path of a run.
    #[must_use]
    pub fn plan(self, effort: &Effort) -> Plan {
        Plan {
            loss_ppm: self.loss_ppm,
            heals: Duration::MAX,
            rtt: Duration::from_millis(self.rtt_ms.into()),
            servers: 1,
            skips: Duration::from_millis(self.rtt_ms.into()) * SKIPPED,
            lasts: Duration::from_millis(self.rtt_ms.into()) * effort.rounds,
            seed: effort.seed,
        }
    }

    /// A number of its own.
    #[must_use]
    pub fn id(self) -> u64 {
        u64::from(self.loss_ppm) * 1000 + u64::from(self.rtt_ms)
    }

    fn name(self) -> String {
        format!(
            "{} % loss, {} ms",
            f64::from(self.loss_ppm) / 1e4,
            self.rtt_ms
        )
    }
}

/// The mean packets a round trip of the honest client.
#[must_use]
pub fn honest(plan: &Plan) -> f64 {
    run(plan, &mut Honest::new(clocks(Instant::ZERO), plan.seed)).mean()
}

/// The mean packets a round trip of a cheat.
#[must_use]
pub fn cheat(plan: &Plan, moves: Moves) -> f64 {
    run(
        plan,
        &mut Cheat::new(clocks(Instant::ZERO), moves, plan.rtt),
    )
    .mean()
}

/// The mean packets a round trip of the honest client, and of a cheat, over the runs.
#[must_use]
pub fn both(cell: Cell, effort: &Effort, moves: Moves) -> (f64, f64) {
    let seeds = (0..u64::from(effort.runs.max(1))).map(|run| effort.seed + run);
    let runs = f64::from(effort.runs.max(1));
    seeds.fold((0.0, 0.0), |(fair, unfair), seed| {
        let plan = cell.plan(&Effort { seed, ..*effort });
        (
            fair + honest(&plan) / runs,
            unfair + cheat(&plan, moves) / runs,
        )
    })
}

fn in_every_cell(effort: &Effort, moves: impl Fn(Cell) -> Moves) -> Vec<Finding> {
    let cells = CELLS.iter().map(|&cell| {
        let (fair, unfair) = both(cell, effort, moves(cell));
        Finding {
            case: cell.name(),
            gain: unfair / fair,
            unit: "x honest",
        }
    });
    cells.collect()
}

const CE_FIRST: [TransitionKind; 3] = [
    TransitionKind::Ce,
    TransitionKind::Loss,
    TransitionKind::Timeout,
];

const HIDE: Moves = Moves {
    hides: 32,
    declares: CE_FIRST,
    ..Moves::HONEST
};

/// Leaves losses undeclared as long as it is granted, then declares CE.
pub(super) fn hide_then_ce(effort: &Effort) -> Vec<Finding> {
    in_every_cell(effort, |_| HIDE)
}

/// The same, and claims a round trip of one second.
pub(super) fn hide_then_ce_slow(effort: &Effort) -> Vec<Finding> {
    in_every_cell(effort, slow)
}

fn slow(cell: Cell) -> Moves {
    Moves {
        claims: 100_000 / cell.rtt_ms,
        ..HIDE
    }
}

/// Restarts from another address for each loss that cannot be hidden any longer.
pub(super) fn restart_by_moving(effort: &Effort) -> Vec<Finding> {
    in_every_cell(effort, |_| MOVING)
}

const MOVING: Moves = Moves {
    declares: [
        TransitionKind::Move,
        TransitionKind::Loss,
        TransitionKind::Timeout,
    ],
    ..HIDE
};

/// Declares timeouts, which give up more than other events.
pub(super) fn timeouts_for_losses(effort: &Effort) -> Vec<Finding> {
    in_every_cell(effort, timing_out)
}

fn timing_out(cell: Cell) -> Moves {
    Moves {
        declares: [
            TransitionKind::Timeout,
            TransitionKind::Loss,
            TransitionKind::Loss,
        ],
        ..slow(cell)
    }
}

/// Passes each zone as soon as a quarter of it has arrived.
pub(super) fn hasty_zone(effort: &Effort) -> Vec<Finding> {
    in_every_cell(effort, |_| HASTY)
}

const HASTY: Moves = Moves {
    hasty: true,
    ..Moves::HONEST
};

/// Repeats an old restart each 100 ms.
pub(super) fn repeated_restart(effort: &Effort) -> Vec<Finding> {
    in_every_cell(effort, |_| Moves {
        repeats: Some(TransitionKind::Move),
        ..Moves::HONEST
    })
}

/// The cheats of this list.
fn known(cell: Cell) -> [Moves; 6] {
    [
        Moves {
            hides: 16,
            ..Moves::HONEST
        },
        HIDE,
        slow(cell),
        MOVING,
        timing_out(cell),
        HASTY,
    ]
}

/// Candidates of a search in each cell.
const CANDIDATES: usize = 120;

/// Searches for the best cheat in each cell.
pub(super) fn best_found(effort: &Effort) -> Vec<Finding> {
    let cells = CELLS.iter().map(|&cell| {
        let best = search(cell, effort, &known(cell), CANDIDATES);
        log::info!("{}: {:.2} by {:?}", cell.name(), best.gain, best.moves);
        Finding {
            case: cell.name(),
            gain: best.gain,
            unit: "x honest",
        }
    });
    cells.collect()
}

/// Sends each request twice: to two servers, or, as through a redirector by rendezvous, to one.
pub(super) fn copies(effort: &Effort) -> Vec<Finding> {
    let cases = [(2, "each to one of two servers"), (1, "both to one server")];
    let findings = cases.map(|(servers, case)| {
        let fair = Cell::new(10_000, 20).plan(effort);
        let plan = Plan { servers, ..fair };
        let moves = Moves {
            copies: 2,
            hides: 4,
            ..Moves::HONEST
        };
        Finding {
            case: case.to_owned(),
            gain: cheat(&plan, moves) / honest(&fair),
            unit: "x honest",
        }
    });
    findings.into()
}

/// Is silent for 10 or 60 s, claiming a round trip of a second, then acknowledges all at once.
pub(super) fn idle_then_burst(effort: &Effort) -> Vec<Finding> {
    let cases = [10, 60].map(|seconds: u16| Finding {
        case: format!("{seconds} s of silence, 20 ms"),
        gain: burst(effort, seconds),
        unit: "x the honest window",
    });
    cases.into()
}

/// Most packets in a round trip of the second after a pause, over those of an honest client before it.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn burst(effort: &Effort, seconds: u16) -> f64 {
    let rtt = Duration::from_millis(20);
    let moves = Moves {
        claims: 5000,
        speaks: 500,
        rests: 50 * seconds,
        ..Moves::HONEST
    };
    let plan = Plan {
        loss_ppm: 1000,
        heals: rtt * u32::from(moves.speaks),
        rtt,
        servers: 1,
        skips: Duration::ZERO,
        lasts: Duration::from_secs(12) + Duration::from_secs(seconds.into()),
        seed: effort.seed,
    };
    let rounds = run(&plan, &mut Cheat::new(clocks(Instant::ZERO), moves, rtt)).rounds;
    let after = rounds
        .get(500 + 50 * usize::from(seconds)..)
        .unwrap_or_default();
    let most = after.iter().max().copied().unwrap_or(0) as f64;
    let before = Plan {
        heals: Duration::MAX,
        skips: Duration::from_secs(2),
        lasts: Duration::from_secs(60),
        ..plan
    };
    most / honest(&before)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Effort = Effort {
        seed: 1,
        seconds: 1,
        runs: 1,
        rounds: 1000,
    };

    #[test]
    fn a_cheat_without_cheats_gets_what_is_honest() {
        for cell in CELLS.iter().filter(|cell| cell.rtt_ms == 20) {
            let plan = cell.plan(&SHORT);
            let gain = cheat(&plan, Moves::HONEST) / honest(&plan);
            assert!((0.7..1.15).contains(&gain), "{}: {gain}", cell.name());
        }
    }

    /// Short runs and a small search; `make attack` takes its time.
    #[test]
    fn no_cheat_gains() {
        for cell in CELLS {
            let best = search(cell, &SHORT, &known(cell), 8);
            assert!(best.gain <= 1.3, "{}: {best:?}", cell.name());
        }
    }

    /// Two servers do not know of each other; one sends no number twice.
    #[test]
    fn copies_gain_where_servers_differ() {
        let gains: Vec<f64> = copies(&SHORT).iter().map(|found| found.gain).collect();
        let [two, one] = gains[..] else {
            panic!("{gains:?}")
        };
        assert!(two <= 4.0 && one <= 1.3, "{gains:?}");
    }

    #[test]
    fn silence_does_not_grow_the_window() {
        for finding in idle_then_burst(&SHORT) {
            assert!(finding.gain <= 1.3, "{finding:?}");
        }
    }
}
