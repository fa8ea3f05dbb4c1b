//! Objects of any size that nobody stores: `/.dynamic/SEED/SIZE`.
//!
//! Each byte is a function of the seed and its offset alone, so any server gives any range at once
//! and a client can check what it got without a second copy. The bytes are those of the SplitMix64
//! sequence (Steele, Lea, Flood: OOPSLA 2014) taken as 8-byte little-endian words: statistically
//! random, so that nothing on the way compresses them, and of no use as a secret.

/// Largest object in bytes: with its head it stays below the longest stream.
pub const MAX_DYNAMIC_BYTES: u64 = 1 << 47;

/// Fills `out` with the bytes from `offset` on of the object of this seed. Offsets wrap at 2⁶⁴.
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

/// Reads seed and size from the two segments behind `.dynamic`: decimal digits only.
#[must_use]
pub fn parse(parameters: &[u8]) -> Option<(u64, u64)> {
    let (seed, size) = str::from_utf8(parameters).ok()?.split_once('/')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seed) || !digits(size) {
        return None;
    }
    let size = size
        .parse()
        .ok()
        .filter(|&size: &u64| size <= MAX_DYNAMIC_BYTES)?;
    Some((seed.parse().ok()?, size))
}

const WORD: u64 = 8;

/// The output of SplitMix64 at a position.
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

    #[test]
    fn the_sequence_is_splitmix64() {
        // The first outputs for seed 1234567, as published with the reference implementation.
        assert_eq!(word(1_234_567, 0), 6_457_827_717_110_365_317);
        assert_eq!(word(1_234_567, 1), 3_203_168_211_198_807_973);
    }

    #[test]
    fn parameters_are_read() {
        let most = format!("1/{MAX_DYNAMIC_BYTES}");
        let more = format!("1/{}", MAX_DYNAMIC_BYTES + 1);
        for (text, want) in [
            ("7/100", Some((7, 100))),
            ("18446744073709551615/0", Some((u64::MAX, 0))),
            (most.as_str(), Some((1, MAX_DYNAMIC_BYTES))),
            (more.as_str(), None),
            ("18446744073709551616/0", None),
            ("7", None),
            ("7/", None),
            ("/7", None),
            ("+7/1", None),
            ("7/-1", None),
            ("7/1/2", None),
        ] {
            assert_eq!(parse(text.as_bytes()), want, "{text}");
        }
    }

    proptest! {
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
