//! Proof of receipt: response packet `n` carries `x(n) = N(n) xor N(n+1)`, where `N` is a PRF under
//! a key that only servers know. The xor over a range telescopes to two PRF calls, so a client
//! folds the values it receives and a server verifies any union of ranges (Trickles, NSDI 2005, §4.2;
//! here 64 bit, and keyed by connection).

use siphasher::sip::SipHasher24;

/// The proof key of one connection: random, secret, sealed in each of its continuations. It also
/// identifies the connection in soft state.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ProofKey([u8; 16]);

impl core::fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ProofKey(..)")
    }
}

impl ProofKey {
    /// Wraps 16 secret bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The secret bytes, for sealing.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A 64-bit hash of the connection for soft state; reveals nothing about the key.
    #[must_use]
    pub fn hash(&self) -> u64 {
        // No packet has this number, so no proof reveals the value.
        self.word(u64::MAX)
    }

    /// The xor of `x` over the numbers `after + 1 ..= upto`; zero if there are none. A packet carries
    /// the value `fold(n - 1, n)`, a packet void to `m` carries `fold(n - 1, m)`.
    #[must_use]
    pub fn fold(&self, after: u64, upto: u64) -> u64 {
        if after >= upto {
            0
        } else {
            self.word(after + 1) ^ self.word(upto.saturating_add(1))
        }
    }

    /// Creates a chain, for folds of adjacent ranges.
    pub(super) const fn chain(&self) -> Chain<'_> {
        Chain {
            key: self,
            last: None,
        }
    }

    fn word(&self, n: u64) -> u64 {
        SipHasher24::new_with_key(&self.0).hash(&n.to_be_bytes())
    }
}

/// Computes folds like [`ProofKey::fold`], with half the work where a range follows the one before.
pub(super) struct Chain<'a> {
    key: &'a ProofKey,
    /// The last number with a computed word, and the word.
    last: Option<(u64, u64)>,
}

impl Chain<'_> {
    /// Like [`ProofKey::fold`].
    pub(super) fn fold(&mut self, after: u64, upto: u64) -> u64 {
        if after >= upto {
            return 0;
        }
        let (first, end) = (after + 1, upto.saturating_add(1));
        let known = self.last.filter(|(number, _)| *number == first);
        let begin = known.map_or_else(|| self.key.word(first), |(_, word)| word);
        let word = self.key.word(end);
        self.last = Some((end, word));
        begin ^ word
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_telescope(key: [u8; 16], start in 0u64..1 << 40, a in 0u64..1000, b in 0u64..1000) {
            let key = ProofKey::new(key);
            let (mid, end) = (start + a, start + a + b);
            prop_assert_eq!(key.fold(start, mid) ^ key.fold(mid, end), key.fold(start, end));
        }

        #[test]
        fn a_chain_folds_alike(key: [u8; 16], ends in proptest::collection::vec((0u64..20, 0u64..20), 1..20)) {
            let key = ProofKey::new(key);
            let mut chain = key.chain();
            for (after, upto) in ends {
                prop_assert_eq!(chain.fold(after, upto), key.fold(after, upto));
                prop_assert_eq!(chain.fold(upto, upto + 3), key.fold(upto, upto + 3));
            }
        }

        #[test]
        fn a_missing_packet_shows(key: [u8; 16], start in 0u64..1 << 40, n in 1u64..200, hole in 0u64..200) {
            let key = ProofKey::new(key);
            let hole = start + hole % n;
            let without = key.fold(start, start + n) ^ key.fold(hole, hole + 1);
            prop_assert_ne!(without, key.fold(start, start + n));
        }
    }

    #[test]
    fn connections_do_not_share_values() {
        assert_ne!(
            ProofKey::new([1; 16]).fold(4, 5),
            ProofKey::new([2; 16]).fold(4, 5)
        );
    }
}
