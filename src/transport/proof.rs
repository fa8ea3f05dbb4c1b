//! Proof of receipt: response packet `n` carries `x(n) = N(n) xor N(n+1)`, where `N` is a PRF under
//! a key that only servers know. The xor over a range telescopes to two PRF calls, so a client
//! folds what arrives and a server verifies any union of ranges (Trickles, NSDI 2005, §4.2; here
//! 64 bit, and keyed by connection).

use core::hash::Hasher as _;

use siphasher::sip::SipHasher24;

/// The proof key of one connection: random, secret, sealed in every continuation of it. It is also
/// the connection's identity towards soft state.
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

    /// The secret bytes, to be sealed.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A 64-bit hash of the connection for soft state; tells nothing about the key.
    #[must_use]
    pub fn hash(&self) -> u64 {
        // No packet has this number, so no proof reveals the value.
        self.word(u64::MAX)
    }

    /// The xor of `x` over the numbers `after + 1 ..= upto`; zero if there are none. The value that
    /// one packet carries is `fold(n - 1, n)`, that of a packet void to `m` `fold(n - 1, m)`.
    #[must_use]
    pub fn fold(&self, after: u64, upto: u64) -> u64 {
        if after >= upto {
            0
        } else {
            self.word(after + 1) ^ self.word(upto.saturating_add(1))
        }
    }

    fn word(&self, n: u64) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&n.to_be_bytes());
        hasher.finish()
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
