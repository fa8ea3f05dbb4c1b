//! Attacks on the window: strategies that seek more packets a round trip than an honest client gets
//! on the same path.

use std::time::Duration;

use super::cheat::{Cheat, Moves};
use super::honest::Honest;
use super::path::{Plan, clocks, run};
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
            skips: Duration::from_secs(u64::from(effort.seconds) / 10),
            lasts: Duration::from_secs(effort.seconds.into()),
            seed: effort.seed,
        }
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

fn in_every_cell(effort: &Effort, moves: impl Fn(Cell) -> Moves) -> Vec<Finding> {
    let cells = CELLS.iter().map(|&cell| {
        let plan = cell.plan(effort);
        Finding {
            case: cell.name(),
            gain: cheat(&plan, moves(cell)) / honest(&plan),
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
    in_every_cell(effort, |cell| Moves {
        claims: 100_000 / cell.rtt_ms,
        ..HIDE
    })
}

/// Restarts from another address for each loss that cannot be hidden any longer.
pub(super) fn restart_by_moving(effort: &Effort) -> Vec<Finding> {
    in_every_cell(effort, |_| Moves {
        declares: [
            TransitionKind::Restart,
            TransitionKind::Loss,
            TransitionKind::Timeout,
        ],
        ..HIDE
    })
}

/// Declares timeouts, which give up more than other events.
pub(super) fn timeouts_for_losses(effort: &Effort) -> Vec<Finding> {
    in_every_cell(effort, |cell| Moves {
        declares: [
            TransitionKind::Timeout,
            TransitionKind::Loss,
            TransitionKind::Loss,
        ],
        claims: 100_000 / cell.rtt_ms,
        ..HIDE
    })
}

/// Passes each zone as soon as a quarter of it has come.
pub(super) fn hasty_zone(effort: &Effort) -> Vec<Finding> {
    in_every_cell(effort, |_| Moves {
        hasty: true,
        ..Moves::HONEST
    })
}

/// Repeats an old restart each 100 ms.
pub(super) fn repeated_restart(effort: &Effort) -> Vec<Finding> {
    in_every_cell(effort, |_| Moves {
        repeats: Some(TransitionKind::Restart),
        ..Moves::HONEST
    })
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
        seconds: 10,
    };

    #[test]
    fn a_cheat_without_cheats_gets_what_is_honest() {
        for cell in CELLS.iter().filter(|cell| cell.rtt_ms == 20) {
            let plan = cell.plan(&SHORT);
            let gain = cheat(&plan, Moves::HONEST) / honest(&plan);
            assert!((0.7..1.15).contains(&gain), "{}: {gain}", cell.name());
        }
    }

    #[test]
    fn silence_does_not_grow_the_window() {
        assert_eq!(idle_then_burst(&SHORT).len(), 2);
    }
}
