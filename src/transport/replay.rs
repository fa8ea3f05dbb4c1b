//! The soft state of a server, which bounds abuse: of a size fixed at start, lost without harm.
//!
//! [`ReplayFilter`] records the packet numbers sent on each connection, so that repeated, forked and
//! overlapping requests release no number twice on one server. [`TokenBuckets`] limits requests that
//! must bypass the filter (probes, timeouts, restarts), [`AddressCredit`] the bytes by which answers that
//! bypass it may exceed three times their requests. All forget: the filter evicts its oldest entries
//! when full, and each loses everything at a restart.

use std::net::IpAddr;
use std::time::Duration;

use crate::time::Instant;
use crate::transport::low_bits;
use crate::wire::address::Source;

/// Sets of the replay filter; with [`WAYS`] words of 64 numbers each: 16.7 million packets, 4 MiB. At
/// 1 Gb/s of 1500-byte packets that is a filter period of 200 seconds.
const SETS: usize = 1 << 16;

/// Words of a set, most recently used first.
const WAYS: usize = 4;

/// Token buckets; connections with the same bucket share its rate.
const BUCKETS: usize = 1 << 16;

/// Time in which a token accrues.
pub const TOKEN_INTERVAL: Duration = Duration::from_millis(100);

/// Most tokens in a bucket.
pub const TOKEN_BURST: u32 = 4;

/// Time in which an address earns one byte of credit: 1 MB/s. A hundred clients behind one address may
/// time out each second and be answered in full; a client that has left it since draws 8 Mbit/s at most.
pub const CREDIT_PER_BYTE: Duration = Duration::from_micros(1);

/// Time in which its credit fills: 4 MB.
pub const CREDIT_BURST: Duration = Duration::from_secs(4);

#[derive(Clone, Copy)]
struct Word {
    /// Hash of connection and number / 64; 0 only if unused or with probability 2⁻⁶⁴.
    tag: u64,
    sent: u64,
}

/// A cache line of the processor, so that a look-up costs one miss at most.
#[derive(Clone)]
#[repr(align(64))]
struct Set([Word; WAYS]);

/// The numbers sent, by connection. A set-associative table rather than a Bloom filter: a false hit
/// is a lost packet, and under load a Bloom filter of this size would lose several percent.
pub struct ReplayFilter {
    sets: Vec<Set>,
}

impl ReplayFilter {
    /// Creates an empty filter; touches all its memory, so that it does not grow later.
    #[must_use]
    pub fn new() -> Self {
        // Not zeros: the system would provide those as untouched pages.
        Self {
            sets: vec![Set([Word { tag: 1, sent: 0 }; WAYS]); SETS],
        }
    }

    /// The memory it takes in bytes; constant.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.sets.len() * size_of::<Set>()
    }

    /// The subset of the `count` (at most 64) numbers from `first` on that were not sent yet: bit `i`
    /// is `first + i`.
    #[must_use]
    pub fn unsent(&self, connection: u64, first: u64, count: u32) -> u64 {
        let shift = shift_of(first);
        let low = self.word(connection, first / 64) >> shift;
        let high = match shift {
            0 => 0,
            _ => self.word(connection, first / 64 + 1) << (64 - shift),
        };
        !(low | high) & low_bits(u64::from(count))
    }

    /// Marks numbers as sent; bit `i` of `sent` is `first + i`.
    pub fn mark(&mut self, connection: u64, first: u64, sent: u64) {
        let shift = shift_of(first);
        self.add(connection, first / 64, sent << shift);
        if shift > 0 {
            self.add(connection, first / 64 + 1, sent >> (64 - shift));
        }
    }

    fn word(&self, connection: u64, index: u64) -> u64 {
        let tag = mix(connection, index);
        let set = self.sets.get(set_of(tag));
        let mut words = set.into_iter().flat_map(|set| &set.0);
        words
            .find(|word| word.tag == tag)
            .map_or(0, |word| word.sent)
    }

    fn add(&mut self, connection: u64, index: u64, sent: u64) {
        if sent == 0 {
            return;
        }
        let tag = mix(connection, index);
        let Some(Set(set)) = self.sets.get_mut(set_of(tag)) else {
            return;
        };
        let place = set.iter().position(|word| word.tag == tag);
        let found = set
            .iter()
            .find(|word| word.tag == tag)
            .map_or(0, |word| word.sent);
        if let Some(up_to_place) = set.get_mut(..=place.unwrap_or(WAYS - 1)) {
            up_to_place.rotate_right(1);
        }
        if let Some(newest) = set.first_mut() {
            *newest = Word {
                tag,
                sent: found | sent,
            };
        }
    }
}

impl Default for ReplayFilter {
    fn default() -> Self {
        Self::new()
    }
}

/// One token bucket per connection hash (a generic cell rate algorithm: one instant each).
pub struct TokenBuckets {
    /// Time at which the bucket is full again.
    full_at: Vec<Instant>,
}

impl TokenBuckets {
    /// Creates full buckets; touches all their memory.
    #[must_use]
    pub fn new() -> Self {
        Self {
            full_at: vec![Instant::from_micros(1); BUCKETS],
        }
    }

    /// The memory they take in bytes; constant.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.full_at.len() * size_of::<Instant>()
    }

    /// Takes a token from the connection's bucket; `false` if it is empty.
    pub fn take(&mut self, now: Instant, connection: u64) -> bool {
        self.charge(
            now,
            connection,
            TOKEN_INTERVAL,
            TOKEN_INTERVAL * TOKEN_BURST,
        )
    }

    /// Charges `cost` to the bucket of `key`, which fills in `burst`; `false`, and no charge, if it holds
    /// less.
    fn charge(&mut self, now: Instant, key: u64, cost: Duration, burst: Duration) -> bool {
        let Some(full_at) = self.full_at.get_mut(bucket_of(mix(key, 0))) else {
            return false;
        };
        let next = (*full_at).max(now) + cost;
        let allowed = next.saturating_since(now) <= burst;
        if allowed {
            *full_at = next;
        }
        allowed
    }
}

/// Bytes that may be sent to an address beyond three times its requests in answer to requests that bypass
/// the replay filter. Addresses with the same bucket share its credit: an answer without credit is
/// shorter, and its client loses a round trip.
pub struct AddressCredit(TokenBuckets);

impl AddressCredit {
    /// Creates full credit for every address; touches all its memory.
    #[must_use]
    pub fn new() -> Self {
        Self(TokenBuckets::new())
    }

    /// The memory it takes in bytes; constant.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// Takes `bytes` from the credit of an address; `false`, and no charge, if it has less. An IPv6
    /// address shares the credit of its network of 64 bits, as clients have one each.
    pub fn take(&mut self, now: Instant, address: IpAddr, bytes: usize) -> bool {
        let key = Source::of(address).bits();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let cost = CREDIT_PER_BYTE.saturating_mul(bytes);
        self.0.charge(now, key, cost, CREDIT_BURST)
    }
}

impl Default for AddressCredit {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for TokenBuckets {
    fn default() -> Self {
        Self::new()
    }
}

/// A 64-bit hash of two words (the finalizer of SplitMix64). `connection` is a secret, so no
/// client can target another's word.
const fn mix(connection: u64, index: u64) -> u64 {
    let mut z = connection ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn set_of(tag: u64) -> usize {
    usize::try_from(tag % SETS as u64).unwrap_or(0)
}

fn bucket_of(tag: u64) -> usize {
    usize::try_from(tag % BUCKETS as u64).unwrap_or(0)
}

fn shift_of(first: u64) -> u32 {
    u32::try_from(first % 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Against a set: no number is released twice, none is held back.
        #[test]
        fn marks_exactly_what_was_sent(steps in proptest::collection::vec((0u64..3, 0u64..300, 1u32..=44), 1..100)) {
            let mut filter = ReplayFilter::new();
            let mut sent = BTreeSet::new();
            for (connection, first, count) in steps {
                let unsent = filter.unsent(connection, first, count);
                for bit in 0..u64::from(count) {
                    let fresh = !sent.contains(&(connection, first + bit));
                    prop_assert_eq!(unsent >> bit & 1 == 1, fresh);
                }
                prop_assert_eq!(unsent & !low_bits(u64::from(count)), 0);
                filter.mark(connection, first, unsent);
                sent.extend((0..u64::from(count)).map(|bit| (connection, first + bit)));
            }
        }
    }

    #[test]
    fn when_full_it_forgets_the_oldest() {
        let mut filter = ReplayFilter::new();
        let bytes = filter.bytes();
        let numbers = (SETS * WAYS * 64 * 4) as u64;
        filter.mark(7, 0, 1);
        for first in (64..numbers).step_by(64) {
            filter.mark(7, first, u64::MAX);
        }
        assert_eq!(filter.unsent(7, 0, 1), 1, "the oldest is forgotten");
        assert_eq!(filter.unsent(7, numbers - 64, 64), 0, "the newest is not");
        assert_eq!(filter.bytes(), bytes);
    }

    #[test]
    fn a_bucket_holds_its_burst_and_refills() {
        let mut buckets = TokenBuckets::new();
        let start = Instant::from_micros(1_000_000);
        let taken = (0..10).filter(|_| buckets.take(start, 1)).count();
        assert_eq!(taken, TOKEN_BURST as usize);
        assert!(buckets.take(start, 2), "another connection");
        assert!(!buckets.take(start + TOKEN_INTERVAL / 2, 1));
        assert!(buckets.take(start + TOKEN_INTERVAL, 1));
        assert!(!buckets.take(start + TOKEN_INTERVAL, 1));
    }

    #[test]
    fn the_credit_of_an_address_is_in_bytes_and_refills() {
        let mut credit = AddressCredit::new();
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let start = Instant::from_micros(1_000_000);
        let most = usize::try_from(CREDIT_BURST.as_micros() / CREDIT_PER_BYTE.as_micros()).unwrap();
        for (name, address, neighbour, other) in [
            ("IPv4", "192.0.2.1", None, "192.0.2.2"),
            (
                "IPv6",
                "2001:db8::1",
                Some("2001:db8::2:3"),
                "2001:db8:0:1::1",
            ),
        ] {
            assert!(
                !credit.take(start, at(address), most + 1),
                "{name}: no charge"
            );
            assert!(credit.take(start, at(address), most), "{name}");
            assert!(!credit.take(start, at(address), 1), "{name}");
            let shared = neighbour.map(|neighbour| credit.take(start, at(neighbour), 1));
            assert_ne!(shared, Some(true), "{name}: one network");
            assert!(credit.take(start, at(other), most), "{name}");
            let later = start + CREDIT_PER_BYTE * 1000;
            assert!(!credit.take(later, at(address), 1001), "{name}");
            assert!(credit.take(later, at(address), 1000), "{name}");
        }
        assert!(
            !credit.take(start, at("192.0.2.3"), usize::MAX),
            "any length"
        );
    }
}
