//! The protocol between redirector and backend over UDP: encapsulated client packets, and
//! heartbeats. All of it is authenticated, none is encrypted.
//!
//! In: a [`CapsuleHeader`] and a body; out: a UDP payload, and back. Every payload is
//!
//! ```text
//!  0       1       2               4               6               10              18       34
//!  | 1|kind|  key  |  redirector   |    backend    |  generation   |   sequence    |  MAC   | body
//! ```
//!
//! in network order. The MAC (SipHash-2-4 with 128 bits, under the key whose generation is `key`)
//! covers all but itself. `generation` is that of the sender's configuration, in replies the newest
//! that the backend has seen. `sequence` counts the payloads from a redirector to a backend; it
//! starts from the clock, so that it also grows across restarts, and a reply echoes that of its
//! query.
//! Source: Aumasson and Bernstein, SipHash (2012).

use core::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::service::Work;
use super::{BackendId, Generation, RedirectorId};
use crate::wire::varint::Reader;

/// Bytes before the body.
pub const HEADER_BYTES: usize = 34;

/// Bytes of the header before the MAC.
const CLEAR_BYTES: usize = HEADER_BYTES - MAC_BYTES;

const MAC_BYTES: usize = 16;

/// Bytes of the body of a query and of a reply: equal, so that replies do not amplify.
pub const BEAT_BYTES: usize = 17;

/// Most generations of the shared key; the size of a key ring.
pub const MAX_KEYS: usize = 16;

const VERSION: u8 = 0x10;

/// The kind of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapsuleKind {
    /// A client's packet, for the backend.
    Packet,
    /// A redirector's health check of a backend.
    Query,
    /// A backend's reply.
    Reply,
}

impl CapsuleKind {
    const fn byte(self) -> u8 {
        VERSION
            | match self {
                Self::Packet => 1,
                Self::Query => 2,
                Self::Reply => 3,
            }
    }
}

/// The header, without key generation and MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapsuleHeader {
    /// The kind of payload.
    pub kind: CapsuleKind,
    /// The redirector that sends, or is replied to.
    pub redirector: RedirectorId,
    /// The backend that is addressed, or replies.
    pub backend: BackendId,
    /// The sender's configuration.
    pub generation: Generation,
    /// Number of the packet or query.
    pub sequence: u64,
}

/// The reason for rejecting a payload. Its sender, or the network, is at fault: drop silently and
/// count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum CapsuleError {
    /// Shorter than its header or body.
    #[error("truncated")]
    Truncated,
    /// Another version, or a kind that this side does not accept.
    #[error("unknown version or kind")]
    UnknownKind,
    /// The key generation is unknown.
    #[error("unknown key generation")]
    UnknownKey,
    /// The MAC is wrong.
    #[error("invalid MAC")]
    Forged,
    /// Authentic, but for another backend: the configuration has the wrong address or id.
    #[error("for another backend")]
    Misdirected,
    /// Authentic, but from an unlisted redirector.
    #[error("from an unknown redirector")]
    UnknownRedirector,
    /// A duplicate, or too old to decide.
    #[error("replayed")]
    Replayed,
}

impl CapsuleError {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Truncated,
        Self::UnknownKind,
        Self::UnknownKey,
        Self::Forged,
        Self::Misdirected,
        Self::UnknownRedirector,
        Self::Replayed,
    ];

    /// The label of its counter.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::UnknownKind => "unknown_kind",
            Self::UnknownKey => "unknown_key",
            Self::Forged => "forged",
            Self::Misdirected => "misdirected",
            Self::UnknownRedirector => "unknown_redirector",
            Self::Replayed => "replayed",
        }
    }
}

/// The shared keys by generation: the first computes MACs, all verify them.
#[derive(Clone)]
pub struct MacKeys(Vec<(u8, SipHasher24)>);

impl core::fmt::Debug for MacKeys {
    /// Prints generations, never secrets.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let generations = self.0.iter().map(|(generation, _)| generation);
        f.debug_list().entries(generations).finish()
    }
}

impl MacKeys {
    /// Creates a key ring: `active` computes MACs; `others`, at most [`MAX_KEYS`] − 1 of them, only
    /// verify.
    #[must_use]
    pub fn new(active: (u8, [u8; 16]), others: &[(u8, [u8; 16])]) -> Self {
        let all = core::iter::once(&active).chain(others).take(MAX_KEYS);
        Self(
            all.map(|(generation, key)| (*generation, SipHasher24::new_with_key(key)))
                .collect(),
        )
    }

    /// Appends header and `body`, authenticated.
    pub fn seal(&self, header: &CapsuleHeader, body: &[u8], out: &mut Vec<u8>) {
        let Some((generation, hasher)) = self.0.first() else {
            return;
        };
        let start = out.len();
        out.extend([header.kind.byte(), *generation]);
        out.extend(header.redirector.0.to_be_bytes());
        out.extend(header.backend.0.to_be_bytes());
        out.extend(header.generation.0.to_be_bytes());
        out.extend(header.sequence.to_be_bytes());
        let clear = out.get(start..).unwrap_or_default();
        let mac = mac(*hasher, clear, body);
        out.extend(mac.to_be_bytes());
        out.extend(body);
    }

    /// Parses and authenticates a payload.
    ///
    /// # Errors
    /// [`CapsuleError`] up to [`CapsuleError::Forged`].
    pub fn open<'a>(&self, payload: &'a [u8]) -> Result<(CapsuleHeader, &'a [u8]), CapsuleError> {
        let (clear, rest) = payload
            .split_at_checked(CLEAR_BYTES)
            .ok_or(CapsuleError::Truncated)?;
        let (shown, body) = rest
            .split_first_chunk::<MAC_BYTES>()
            .ok_or(CapsuleError::Truncated)?;
        let (header, key) = parse(clear)?;
        let (_, hasher) = self
            .0
            .iter()
            .find(|(generation, _)| *generation == key)
            .ok_or(CapsuleError::UnknownKey)?;
        // One comparison of whole integers takes constant time.
        if mac(*hasher, clear, body) ^ u128::from_be_bytes(*shown) != 0 {
            return Err(CapsuleError::Forged);
        }
        Ok((header, body))
    }
}

/// Parses a header without verifying its MAC.
///
/// # Errors
/// [`CapsuleError::Truncated`], [`CapsuleError::UnknownKind`].
pub fn peek(payload: &[u8]) -> Result<CapsuleHeader, CapsuleError> {
    let clear = payload.get(..CLEAR_BYTES).ok_or(CapsuleError::Truncated)?;
    parse(clear).map(|(header, _)| header)
}

fn parse(clear: &[u8]) -> Result<(CapsuleHeader, u8), CapsuleError> {
    let mut reader = Reader::new(clear);
    let kinds = [CapsuleKind::Packet, CapsuleKind::Query, CapsuleKind::Reply];
    let first = reader.u8().ok_or(CapsuleError::Truncated)?;
    let kind = kinds
        .into_iter()
        .find(|kind| kind.byte() == first)
        .ok_or(CapsuleError::UnknownKind)?;
    let mut rest = || {
        let key = reader.u8()?;
        let header = CapsuleHeader {
            kind,
            redirector: RedirectorId(reader.u16()?),
            backend: BackendId(reader.u16()?),
            generation: Generation(reader.u32()?),
            sequence: reader.u64()?,
        };
        Some((header, key))
    };
    rest().ok_or(CapsuleError::Truncated)
}

fn mac(mut hasher: SipHasher24, clear: &[u8], body: &[u8]) -> u128 {
    hasher.write(clear);
    hasher.write(body);
    hasher.finish128().as_u128()
}

/// The state that a backend reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Whether it declines new packets.
    pub draining: bool,
    /// Its load, in packets per second.
    pub load: u32,
    /// Packets that it received and answered.
    pub work: Work,
}

impl Reply {
    /// Encodes the body of a reply.
    #[must_use]
    pub fn to_bytes(self) -> [u8; BEAT_BYTES] {
        let mut out = [0; BEAT_BYTES];
        let numbers = [
            self.load,
            self.work.received,
            self.work.arrived,
            self.work.answered,
        ];
        let bytes = numbers.into_iter().flat_map(u32::to_be_bytes);
        let all = core::iter::once(u8::from(self.draining)).chain(bytes);
        for (byte, value) in out.iter_mut().zip(all) {
            *byte = value;
        }
        out
    }

    /// Parses the body of a reply; later versions may append bytes.
    ///
    /// # Errors
    /// [`CapsuleError::Truncated`].
    pub fn parse(body: &[u8]) -> Result<Self, CapsuleError> {
        let mut reader = Reader::new(body);
        let mut read = || {
            Some(Self {
                draining: reader.u8()? & 1 != 0,
                load: reader.u32()?,
                work: Work {
                    received: reader.u32()?,
                    arrived: reader.u32()?,
                    answered: reader.u32()?,
                },
            })
        };
        read().ok_or(CapsuleError::Truncated)
    }
}

#[cfg(test)]
impl CapsuleHeader {
    /// A header of plain numbers, for tests.
    pub(super) const fn sample(
        kind: CapsuleKind,
        redirector: u16,
        backend: u16,
        generation: u32,
        sequence: u64,
    ) -> Self {
        Self {
            kind,
            redirector: RedirectorId(redirector),
            backend: BackendId(backend),
            generation: Generation(generation),
            sequence,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> MacKeys {
        MacKeys::new((2, [2; 16]), &[(1, [1; 16])])
    }

    fn header(sequence: u64) -> CapsuleHeader {
        CapsuleHeader {
            kind: CapsuleKind::Packet,
            redirector: RedirectorId(7),
            backend: BackendId(3),
            generation: Generation(12),
            sequence,
        }
    }

    fn sealed(keys: &MacKeys, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        keys.seal(&header(99), body, &mut out);
        out
    }

    #[test]
    fn keys_of_both_generations_open_and_others_do_not() {
        let retiring = MacKeys::new((1, [1; 16]), &[]);
        let opened = |from: &MacKeys, by: &MacKeys| {
            let bytes = sealed(from, b"body");
            by.open(&bytes).map(|(header, _)| header)
        };
        assert_eq!(opened(&keys(), &keys()), Ok(header(99)));
        assert_eq!(opened(&retiring, &keys()), Ok(header(99)));
        assert_eq!(opened(&keys(), &retiring), Err(CapsuleError::UnknownKey));
        let other = MacKeys::new((2, [3; 16]), &[]);
        assert_eq!(opened(&keys(), &other), Err(CapsuleError::Forged));
    }

    #[test]
    fn keys_are_bounded() {
        let others: Vec<_> = (1..=20).map(|n| (n, [n; 16])).collect();
        assert_eq!(MacKeys::new((0, [0; 16]), &others).0.len(), MAX_KEYS);
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(
            sequence: u64, redirector: u16, backend: u16, generation: u32,
            kind in prop::sample::select(vec![CapsuleKind::Packet, CapsuleKind::Query, CapsuleKind::Reply]),
            body in prop::collection::vec(any::<u8>(), 0..1500),
        ) {
            let header =
                CapsuleHeader::sample(kind, redirector, backend, generation, sequence);
            let mut out = Vec::new();
            keys().seal(&header, &body, &mut out);
            prop_assert_eq!(out.len(), HEADER_BYTES + body.len());
            prop_assert_eq!(peek(&out), Ok(header));
            prop_assert_eq!(keys().open(&out), Ok((header, body.as_slice())));
        }

        #[test]
        fn what_is_changed_does_not_open(
            body in prop::collection::vec(any::<u8>(), 0..200),
            at: prop::sample::Index, bit in 0..8_u32, cut: prop::sample::Index,
        ) {
            let good = sealed(&keys(), &body);
            let mut bad = good.clone();
            bad[at.index(good.len())] ^= 1_u8 << bit;
            prop_assert!(keys().open(&bad).is_err());
            prop_assert!(keys().open(&good[..cut.index(good.len())]).is_err());
            prop_assert!(keys().open(&[good, vec![0]].concat()).is_err());
        }

        #[test]
        fn replies_round_trip(
            draining: bool, load: u32, received: u32, arrived: u32, answered: u32,
        ) {
            let work = Work { received, arrived, answered };
            let reply = Reply { draining, load, work };
            prop_assert_eq!(Reply::parse(&reply.to_bytes()), Ok(reply));
            prop_assert!(Reply::parse(&reply.to_bytes()[1..]).is_err());
        }
    }
}
