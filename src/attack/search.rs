//! A search for the best cheat: random moves first, then mutations of the best ones, by a seed.
//!
//! In: a [`Cell`] and the number of candidates. Out: the moves with the largest gain, measured once more over
//! longer runs, so that luck does not count.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

use super::Effort;
use super::cheat::Moves;
use super::window::{Cell, both, cheat};
use crate::transport::epoch::TransitionKind;

/// Round trips in which a candidate is measured.
const TRIAL_ROUNDS: u32 = 600;

/// Candidates that are varied further.
const PARENTS: usize = 6;

/// The best cheat of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// Its moves.
    pub moves: Moves,
    /// Its gain over an honest client.
    pub gain: f64,
}

/// Searches `candidates` cheats, the first half at random and with the `known` ones.
#[must_use]
pub fn search(cell: Cell, effort: &Effort, known: &[Moves], candidates: usize) -> Best {
    let mut dice = Xoshiro256PlusPlus::seed_from_u64(effort.seed ^ cell.id());
    let mut ranked: Vec<(f64, Moves)> = Vec::new();
    for index in 0..candidates.max(known.len()) {
        let moves = match known.get(index) {
            Some(&moves) => moves,
            None if 2 * index < candidates => draw(&mut dice),
            None => {
                let parents = ranked.len().clamp(1, PARENTS);
                let parent = ranked.get(dice.random_range(0..parents));
                let parent = parent.map_or(Moves::HONEST, |&(_, moves)| moves);
                vary(parent, &mut dice)
            }
        };
        let plan = cell.plan(&Effort {
            seed: effort.seed + 1000 + u64::try_from(index % 3).unwrap_or(0),
            rounds: TRIAL_ROUNDS,
            ..*effort
        });
        let packets = cheat(&plan, moves);
        let place = ranked.partition_point(|&(better, _)| better >= packets);
        ranked.insert(place, (packets, moves));
        ranked.truncate(2 * PARENTS);
    }
    let finals = ranked.iter().take(PARENTS / 2).map(|&(_, moves)| {
        let (fair, unfair) = both(cell, effort, moves);
        Best {
            moves,
            gain: unfair / fair,
        }
    });
    let none = Best {
        moves: Moves::HONEST,
        gain: 1.0,
    };
    finals.fold(
        none,
        |best, found| if found.gain > best.gain { found } else { best },
    )
}

fn one_of<T: Copy>(dice: &mut Xoshiro256PlusPlus, values: &[T], otherwise: T) -> T {
    let index = dice.random_range(0..values.len().max(1));
    values.get(index).copied().unwrap_or(otherwise)
}

fn draw(dice: &mut Xoshiro256PlusPlus) -> Moves {
    (0..GENES).fold(Moves::HONEST, |moves, gene| change(moves, gene, dice))
}

fn vary(moves: Moves, dice: &mut Xoshiro256PlusPlus) -> Moves {
    let changes = dice.random_range(1..=3);
    (0..changes).fold(moves, |moves, _| {
        let gene = dice.random_range(0..GENES);
        change(moves, gene, dice)
    })
}

/// Parts of the moves that vary on their own.
const GENES: u32 = 9;

fn change(mut moves: Moves, gene: u32, dice: &mut Xoshiro256PlusPlus) -> Moves {
    match gene {
        0 => moves.hides = dice.random_range(0..=32),
        1 => moves.spans = dice.random_range(0..=8),
        2 => {
            moves.declares =
                [(); 3].map(|()| one_of(dice, &TransitionKind::ALL, TransitionKind::Loss))
        }
        3 => {
            moves.claims = one_of(
                dice,
                &[1, 50, 90, 100, 105, 110, 125, 150, 200, 400, 1000, 5000],
                100,
            )
        }
        4 => moves.hasty = dice.random_bool(0.5),
        5 => moves.early = dice.random_bool(0.5),
        6 => moves.moves = one_of(dice, &[0, 0, 0, 8, 16, 32, 64, 128], 0),
        7 => {
            moves.rests = one_of(dice, &[0, 0, 0, 1, 5, 25], 0);
            moves.speaks = one_of(dice, &[10, 40, 150], 40);
        }
        _ => {
            let kinds = [
                None,
                None,
                Some(TransitionKind::Timeout),
                Some(TransitionKind::Move),
            ];
            moves.repeats = one_of(dice, &kinds, None);
        }
    }
    moves
}
