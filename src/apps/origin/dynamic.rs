//! Generated objects of any size: `/.dynamic/SEED/SIZE`, and `/.dynamic/SEED/SIZE/PERIOD`, which
//! repeats the first PERIOD bytes of the former.
//!
//! Each byte is a function of the seed and its offset alone, so any server can generate any range, and
//! a client can verify it without a copy. The bytes are those of the SplitMix64 sequence (Steele, Lea,
//! Flood: OOPSLA 2014) as 8-byte little-endian words: statistically random, so that no middlebox can
//! compress them, but not secret. Periodic objects are sent from memory without being copied, at the
//! bare cost of sending, as usual in throughput benchmarks.

use core::num::NonZeroU32;

use crate::wire::payload::{Gathered, Shared};

/// Largest object in bytes: with its head shorter than the longest stream.
pub const MAX_DYNAMIC_BYTES: u64 = 1 << 47;

/// Longest period in bytes: each new sequence that a client requests must be computed, at no more
/// than about the cost of a flight.
pub const MAX_PERIOD_BYTES: u32 = 1 << 18;

/// Smallest block in bytes, made of whole periods: a flight then needs few pieces of it, however
/// short the period.
const MIN_BLOCK_BYTES: usize = 64 * 1024;

/// Most blocks of periodic objects in memory, besides those of streams in progress; evicts the least
/// recently used.
pub const MAX_BLOCKS: usize = 4;

/// A generated object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dynamic {
    /// Selects the sequence.
    pub seed: u64,
    /// Length in bytes.
    pub size: u64,
    /// Bytes after which the sequence repeats; `None`: never.
    pub period: Option<NonZeroU32>,
}

impl Dynamic {
    /// Whether it is within all bounds.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        let period = match self.period {
            Some(period) => period.get(),
            None => 0,
        };
        self.size <= MAX_DYNAMIC_BYTES && period <= MAX_PERIOD_BYTES
    }
}

/// The blocks of periodic objects.
#[derive(Debug, Default)]
pub struct Blocks(Vec<(u64, NonZeroU32, Shared)>);

impl Blocks {
    /// Returns the block for a period, if it is in memory.
    pub fn get(&mut self, seed: u64, period: NonZeroU32) -> Option<Shared> {
        let known = self
            .0
            .iter()
            .position(|(own, length, _)| (*own, *length) == (seed, period))?;
        let entry = self.0.remove(known);
        let block = entry.2.clone();
        self.0.push(entry);
        Some(block)
    }

    /// Adds a block; evicts the least recently used if there are too many.
    pub fn insert(&mut self, seed: u64, period: NonZeroU32, block: Shared) {
        self.0.push((seed, period, block));
        if self.0.len() > MAX_BLOCKS {
            self.0.remove(0);
        }
    }
}

/// Generates the block for a period: the first `period` bytes of the sequence, repeated if short.
#[must_use]
pub fn block(seed: u64, period: NonZeroU32) -> Shared {
    let mut once = vec![0; usize::try_from(period.get()).unwrap_or(usize::MAX)];
    fill(seed, 0, &mut once);
    let block = once.repeat(MIN_BLOCK_BYTES.div_ceil(once.len()));
    Shared::new(block)
}

/// Returns position and length of the piece of `block` at `offset` of its repetition, at most `most`.
fn part(block: &[u8], offset: u64, most: usize) -> (usize, usize) {
    let period = u64::try_from(block.len()).unwrap_or(u64::MAX).max(1);
    let at = usize::try_from(offset % period).unwrap_or(0);
    (at, most.min(block.len() - at.min(block.len())))
}

/// Fills `out` from `offset` of the infinite repetition of `block`.
pub fn repeat(block: &[u8], mut offset: u64, out: &mut [u8]) {
    let mut rest = out;
    while !rest.is_empty() {
        let (at, bytes) = part(block, offset, rest.len());
        let Some(from) = block.get(at..at + bytes).filter(|from| !from.is_empty()) else {
            return;
        };
        let (to, after) = rest.split_at_mut(bytes);
        to.copy_from_slice(from);
        rest = after;
        offset += u64::try_from(bytes).unwrap_or(0);
    }
}

/// Appends `bytes` from `offset` of the infinite repetition of `block` to the body.
pub fn share(block: &Shared, mut offset: u64, bytes: usize, body: &mut Gathered) {
    let mut left = bytes;
    while left > 0 {
        let (at, bytes) = part(block.bytes(), offset, left);
        let shared = body.share(block, at, bytes);
        if shared == 0 {
            return;
        }
        left -= shared;
        offset += u64::try_from(shared).unwrap_or(0);
    }
}

/// Fills `out` from `offset` of the object of this seed. Offsets wrap at 2⁶⁴.
pub fn fill(seed: u64, offset: u64, out: &mut [u8]) {
    let mut index = offset / WORD;
    let skip = usize::try_from(offset % WORD).unwrap_or(0);
    let mut rest = out;
    if skip != 0 {
        let word = word(seed, index).to_le_bytes();
        let tail = word.get(skip..).unwrap_or(&[]);
        let (head, after) = rest.split_at_mut(tail.len().min(rest.len()));
        for (to, from) in head.iter_mut().zip(tail) {
            *to = *from;
        }
        rest = after;
        index = index.wrapping_add(1);
    }
    let (words, tail) = rest.as_chunks_mut::<8>();
    for out in words {
        *out = word(seed, index).to_le_bytes();
        index = index.wrapping_add(1);
    }
    for (to, from) in tail.iter_mut().zip(word(seed, index).to_le_bytes()) {
        *to = from;
    }
}

/// Parses seed, size and optional period after `.dynamic`: decimal digits only.
#[must_use]
pub fn parse(parameters: &[u8]) -> Option<Dynamic> {
    let mut segments = str::from_utf8(parameters).ok()?.split('/').map(number);
    let (seed, size) = (segments.next()??, segments.next()??);
    let period = match segments.next() {
        Some(period) => Some(NonZeroU32::new(u32::try_from(period?).ok()?)?),
        None => None,
    };
    let dynamic = Dynamic { seed, size, period };
    (segments.next().is_none() && dynamic.is_sound()).then_some(dynamic)
}

fn number(digits: &str) -> Option<u64> {
    let all = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| all)
}

const WORD: u64 = 8;

/// Returns the output of SplitMix64 at a position.
const fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::payload::Pool;

    #[test]
    fn the_sequence_is_splitmix64() {
        // The first outputs for seed 1234567, as published with the reference implementation.
        assert_eq!(word(1_234_567, 0), 6_457_827_717_110_365_317);
        assert_eq!(word(1_234_567, 1), 3_203_168_211_198_807_973);
    }

    #[test]
    fn parameters_are_read() {
        let most = format!("1/{MAX_DYNAMIC_BYTES}/{MAX_PERIOD_BYTES}");
        let larger = format!("1/{}", MAX_DYNAMIC_BYTES + 1);
        let longer = format!("1/2/{}", MAX_PERIOD_BYTES + 1);
        for (text, want) in [
            ("7/100", Some((7, 100, 0))),
            ("7/100/3", Some((7, 100, 3))),
            ("18446744073709551615/0", Some((u64::MAX, 0, 0))),
            (
                most.as_str(),
                Some((1, MAX_DYNAMIC_BYTES, MAX_PERIOD_BYTES)),
            ),
            (larger.as_str(), None),
            (longer.as_str(), None),
            ("1/2/0", None),
            ("1/2/4294967297", None),
            ("1/2/3/4", None),
            ("1/2/", None),
            ("18446744073709551616/0", None),
            ("7", None),
            ("7/", None),
            ("/7", None),
            ("+7/1", None),
            ("7/-1", None),
        ] {
            let want = want.map(|(seed, size, period)| Dynamic {
                seed,
                size,
                period: NonZeroU32::new(period),
            });
            assert_eq!(parse(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn few_blocks_are_kept() {
        let mut blocks = Blocks::default();
        let period = NonZeroU32::new(10).unwrap();
        for seed in 0..10 {
            blocks.insert(seed, period, block(seed, period));
            assert!(blocks.0.len() <= MAX_BLOCKS);
            assert!(seed == 0 || blocks.get(1, period).is_some(), "just used");
        }
        assert_eq!(blocks.0.len(), MAX_BLOCKS);
        assert!(blocks.get(0, period).is_none());
        assert!(blocks.get(9, NonZeroU32::MIN).is_none());
    }

    #[test]
    fn a_flight_takes_few_pieces_however_short_the_period() {
        for period in [1, 7, 1442, 65_535, 65_537, MAX_PERIOD_BYTES] {
            let block = block(1, NonZeroU32::new(period).unwrap());
            assert!(block.bytes().len() < MIN_BLOCK_BYTES + period as usize);
            let (mut body, flight) = (Gathered::default(), 44 * 1442);
            share(&block, 100_001, flight, &mut body);
            body.refer(0, flight);
            let payload = Pool::default().lend(&mut body);
            let mut reader = payload.reader();
            let pieces = core::iter::from_fn(|| reader.next(usize::MAX)).count();
            assert!(pieces <= 2, "{period}: {pieces}");
        }
    }

    proptest! {
        #[test]
        fn a_block_is_repeated(
            seed: u64, period in 1..50_u32, start in 0..=MAX_DYNAMIC_BYTES, length in 0..200_usize,
        ) {
            let block = block(seed, NonZeroU32::new(period).unwrap());
            let mut filled = vec![0; length];
            repeat(block.bytes(), start, &mut filled);
            for (offset, byte) in (start..).zip(&filled) {
                let mut want = [0];
                fill(seed, offset % u64::from(period), &mut want);
                prop_assert_eq!(*byte, want[0]);
            }
            let mut body = Gathered::default();
            share(&block, start, length, &mut body);
            prop_assert_eq!(body.refer(0, length), length);
            prop_assert_eq!(Pool::default().lend(&mut body).to_vec(), filled);
        }

        #[test]
        fn any_split_gives_the_same_bytes(
            seed: u64, start in 0..=MAX_DYNAMIC_BYTES, length in 0usize..200, cut in 0usize..200,
        ) {
            let mut whole = vec![0; length];
            fill(seed, start, &mut whole);
            let mut parts = vec![0; length];
            let cut = cut.min(length);
            let (a, b) = parts.split_at_mut(cut);
            fill(seed, start + u64::try_from(cut).unwrap(), b);
            fill(seed, start, a);
            prop_assert_eq!(whole, parts);
        }
    }
}
