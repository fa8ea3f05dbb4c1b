//! The key ring: cluster keys by generation, and keys derived from them.
//!
//! All servers of a service share one ring. A generation is `staged` (opens only, so that every
//! server has it before any uses it), `active` (opens and seals), then `retiring` (opens only,
//! until its last continuation has expired). No key depends on a client's state.

use std::fmt::Write as _;

use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::hmac;

/// Most generations in a ring: one active and the few that overlap it.
pub const MAX_GENERATIONS: usize = 16;

/// Bytes of a cluster key.
pub const SECRET_BYTES: usize = 32;

/// First line of a key ring file; its number is the version of the format.
const HEADER: &str = "headwater-keys 1";

/// Last line of a key ring file, to detect truncation.
const TRAILER: &str = "end";

/// The role of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Opens only; becomes active once every server has it.
    Staged,
    /// Opens and seals.
    Active,
    /// Opens only, until its continuations have expired.
    Retiring,
}

impl Role {
    /// The word for it in a key ring file.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Active => "active",
            Self::Retiring => "retiring",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Staged, Self::Active, Self::Retiring]
            .into_iter()
            .find(|role| role.label() == word)
    }
}

/// Why a key ring is invalid. The operator is at fault; nothing was loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// The first line is not the header of this version.
    #[error("not a key ring file of this version; create one with `headwater keygen`")]
    BadHeader,
    /// The last line is missing.
    #[error("the file is truncated; copy it again or create a new one with `headwater keygen`")]
    Truncated,
    /// A line that is not `GENERATION ROLE 64-HEX-DIGITS`.
    #[error("line {line} is not `GENERATION staged|active|retiring SECRET`, with 64 hex digits")]
    BadLine {
        /// Line number, from 1.
        line: usize,
    },
    /// A generation is listed twice.
    #[error("generation {generation} is listed twice")]
    Duplicate {
        /// The generation.
        generation: u8,
    },
    /// Not exactly one active generation.
    #[error("{have} active generations; exactly one must be active")]
    NotOneActive {
        /// The number of active generations.
        have: usize,
    },
    /// More generations than [`MAX_GENERATIONS`].
    #[error("{have} generations; at most {MAX_GENERATIONS} are allowed")]
    TooMany {
        /// The number of generations.
        have: usize,
    },
}

/// A cluster key and all keys derived from it.
#[derive(Clone)]
pub struct ClusterKey {
    generation: u8,
    role: Role,
    secret: [u8; SECRET_BYTES],
    seal: hmac::Key,
    nonce: hmac::Key,
    identity: hmac::Key,
    challenge: hmac::Key,
    user: LessSafeKey,
}

impl ClusterKey {
    fn new(generation: u8, role: Role, secret: [u8; SECRET_BYTES]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let derive = |label: &str| {
            hmac::Key::new(
                hmac::HMAC_SHA256,
                hmac::sign(&root, label.as_bytes()).as_ref(),
            )
        };
        let user = hmac::sign(&root, b"headwater 1 user continuation");
        Self {
            generation,
            role,
            secret,
            seal: derive("headwater 1 seal"),
            nonce: derive("headwater 1 nonce"),
            identity: derive("headwater 1 identity"),
            challenge: derive("headwater 1 challenge"),
            user: aead_key(user.as_ref()),
        }
    }

    /// The number of this generation.
    #[must_use]
    pub const fn generation(&self) -> u8 {
        self.generation
    }

    /// The role of this generation.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The key that seals the continuations of a connection.
    pub(super) fn connection(&self, connection: u64) -> LessSafeKey {
        aead_key(hmac::sign(&self.seal, &connection.to_be_bytes()).as_ref())
    }

    /// The key that seals user continuations, for all connections.
    pub(super) const fn user(&self) -> &LessSafeKey {
        &self.user
    }

    /// A nonce derived from the sealed content, so that servers need neither randomness nor a counter
    /// (the synthetic nonce of RFC 5297 §1.1): equal nonces imply equal messages.
    pub(super) fn nonce(&self, connection: u64, clear: &[u8], message: &[u8]) -> [u8; 12] {
        let clear_bytes = u8::try_from(clear.len()).unwrap_or(u8::MAX);
        let what = [
            &connection.to_be_bytes(),
            &[clear_bytes][..],
            clear,
            message,
        ];
        first_bytes(sign(&self.nonce, &what).as_ref())
    }

    /// Derives id and proof key of a new connection: a pure function of `seed`.
    pub(super) fn identity(&self, seed: &[&[u8]]) -> (u64, [u8; 16]) {
        let tag = sign(&self.identity, seed);
        let (id, key) = tag.as_ref().split_at(8);
        (u64::from_be_bytes(first_bytes(id)), first_bytes(key))
    }

    /// The MAC of a path challenge.
    pub(super) fn challenge(&self, what: &[&[u8]]) -> [u8; 16] {
        first_bytes(sign(&self.challenge, what).as_ref())
    }
}

/// Computes the MAC of the concatenated `parts`.
fn sign(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    context.sign()
}

fn aead_key(bytes: &[u8]) -> LessSafeKey {
    let bytes: [u8; 32] = first_bytes(bytes);
    match UnboundKey::new(&AES_256_GCM, &bytes) {
        Ok(key) => LessSafeKey::new(key),
        Err(ring::error::Unspecified) => unreachable!("AES-256-GCM takes keys of 32 bytes"),
    }
}

fn first_bytes<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    out
}

/// Cluster keys by generation. Cheap enough to clone.
#[derive(Clone)]
pub struct KeyRing {
    keys: Vec<ClusterKey>,
    active: usize,
}

impl core::fmt::Debug for KeyRing {
    /// Formats generations and roles, never secrets.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|key| (key.generation, key.role)))
            .finish()
    }
}

impl KeyRing {
    /// Creates a ring of one active generation, number 1.
    #[must_use]
    pub fn with_secret(secret: [u8; SECRET_BYTES]) -> Self {
        Self {
            keys: vec![ClusterKey::new(1, Role::Active, secret)],
            active: 0,
        }
    }

    /// Creates a ring of the given generations.
    ///
    /// # Errors
    /// Unless exactly one is active, all differ, and there are at most [`MAX_GENERATIONS`].
    pub fn new(entries: &[(u8, Role, [u8; SECRET_BYTES])]) -> Result<Self, KeyRingError> {
        if entries.len() > MAX_GENERATIONS {
            return Err(KeyRingError::TooMany {
                have: entries.len(),
            });
        }
        let mut keys: Vec<ClusterKey> = Vec::with_capacity(entries.len());
        for &(generation, role, secret) in entries {
            if keys.iter().any(|key| key.generation == generation) {
                return Err(KeyRingError::Duplicate { generation });
            }
            keys.push(ClusterKey::new(generation, role, secret));
        }
        let mut active = keys
            .iter()
            .enumerate()
            .filter(|(_, key)| key.role == Role::Active);
        match (active.next().map(|(index, _)| index), active.count()) {
            (Some(active), 0) => Ok(Self { keys, active }),
            (first, more) => Err(KeyRingError::NotOneActive {
                have: usize::from(first.is_some()) + more,
            }),
        }
    }

    /// The active generation, which seals.
    ///
    /// # Panics
    /// Never: every ring has an active generation.
    #[must_use]
    pub fn active(&self) -> &ClusterKey {
        match self.keys.get(self.active) {
            Some(key) => key,
            None => unreachable!("a ring has one active generation"),
        }
    }

    /// The key of a generation, for opening.
    #[must_use]
    pub fn generation(&self, generation: u8) -> Option<&ClusterKey> {
        self.keys.iter().find(|key| key.generation == generation)
    }

    /// Derives keys for the purpose `label` from every generation; the active one first.
    #[must_use]
    pub fn derived(&self, label: &str) -> Vec<(u8, [u8; 16])> {
        let derive = |key: &ClusterKey| {
            let root = hmac::Key::new(hmac::HMAC_SHA256, &key.secret);
            let tag = hmac::sign(&root, label.as_bytes());
            (key.generation, first_bytes(tag.as_ref()))
        };
        let mut keys: Vec<_> = self.keys.iter().map(derive).collect();
        keys.swap(0, self.active);
        keys
    }

    /// Returns the ring after the next step of a rotation: the active generation retires, a staged one
    /// (or, without one, `secret` as a new one) becomes active, and retiring generations are removed.
    /// To rotate without rejecting clients, first add the new secret as staged on all servers.
    ///
    /// # Errors
    /// Those of [`KeyRing::new`]; never for a valid ring and a fresh `secret`.
    pub fn rotated(&self, secret: [u8; SECRET_BYTES]) -> Result<Self, KeyRingError> {
        let staged = self.keys.iter().find(|key| key.role == Role::Staged);
        let (generation, secret) = staged.map_or_else(
            || (self.active().generation.wrapping_add(1), secret),
            |key| (key.generation, key.secret),
        );
        let mut entries = vec![(generation, Role::Active, secret)];
        let active = self.active();
        entries.push((active.generation, Role::Retiring, active.secret));
        Self::new(&entries)
    }

    /// Returns the ring with `secret` added as a staged generation.
    ///
    /// # Errors
    /// If a generation is staged already ([`KeyRingError::Duplicate`]), or the ring is full.
    pub fn staged(&self, secret: [u8; SECRET_BYTES]) -> Result<Self, KeyRingError> {
        if let Some(key) = self.keys.iter().find(|key| key.role == Role::Staged) {
            return Err(KeyRingError::Duplicate {
                generation: key.generation,
            });
        }
        let mut entries: Vec<_> = self
            .keys
            .iter()
            .map(|key| (key.generation, key.role, key.secret))
            .collect();
        entries.push((
            self.active().generation.wrapping_add(1),
            Role::Staged,
            secret,
        ));
        Self::new(&entries)
    }

    /// Formats the ring as text: a header, a line per generation, a trailer.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for key in &self.keys {
            // Writing to a String cannot fail.
            let _ = write!(text, "{} {} ", key.generation, key.role.label());
            for byte in key.secret {
                let _ = write!(text, "{byte:02x}");
            }
            text.push('\n');
        }
        text.push_str(TRAILER);
        text.push('\n');
        text
    }

    /// Parses the output of `to_text`; ignores empty lines and comments from `#` on.
    ///
    /// # Errors
    /// [`KeyRingError`], with the line where there is one.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        if lines.next().map(|(_, line)| line) != Some(HEADER) {
            return Err(KeyRingError::BadHeader);
        }
        let mut entries = Vec::new();
        for (number, line) in lines {
            if line == TRAILER {
                return Self::new(&entries);
            }
            // A file truncated within its last line counts as truncated, not as malformed.
            let last = number == text.lines().count();
            let bad = if last {
                KeyRingError::Truncated
            } else {
                KeyRingError::BadLine { line: number }
            };
            entries.push(parse_line(line).ok_or(bad)?);
        }
        Err(KeyRingError::Truncated)
    }
}

fn parse_line(line: &str) -> Option<(u8, Role, [u8; SECRET_BYTES])> {
    let mut words = line.split_ascii_whitespace();
    let generation = words.next()?.parse().ok()?;
    let role = Role::parse(words.next()?)?;
    let digits = words.next()?;
    if words.next().is_some() || digits.len() != 2 * SECRET_BYTES || !digits.is_ascii() {
        return None;
    }
    let mut secret = [0; SECRET_BYTES];
    for (index, byte) in secret.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some((generation, role, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let ring = KeyRing::with_secret([7; 32]).staged([8; 32]).unwrap();
        let again = KeyRing::parse(&ring.to_text()).unwrap();
        assert_eq!(again.to_text(), ring.to_text());
        assert_eq!(again.active().generation(), 1);
        assert_eq!(again.generation(2).unwrap().role(), Role::Staged);
    }

    #[test]
    fn bad_files_are_told_apart() {
        let good = KeyRing::with_secret([7; 32]).to_text();
        let line = good.lines().nth(1).unwrap();
        let cases = [
            ("empty", String::new(), KeyRingError::BadHeader),
            ("other file", "root:x:0:0".into(), KeyRingError::BadHeader),
            (
                "no trailer",
                good.replace("end\n", ""),
                KeyRingError::Truncated,
            ),
            (
                "cut inside the secret",
                good[..40].into(),
                KeyRingError::Truncated,
            ),
            (
                "twice",
                format!("{HEADER}\n{line}\n{line}\nend\n"),
                KeyRingError::Duplicate { generation: 1 },
            ),
            (
                "no active",
                good.replace("active", "staged"),
                KeyRingError::NotOneActive { have: 0 },
            ),
            (
                "not hex",
                good.replace("07", "0g"),
                KeyRingError::BadLine { line: 2 },
            ),
        ];
        for (name, text, want) in cases {
            assert_eq!(KeyRing::parse(&text).unwrap_err(), want, "{name}");
        }
    }

    #[test]
    fn the_ring_is_bounded() {
        let entry = |n: usize| {
            let role = if n == 0 { Role::Active } else { Role::Retiring };
            (u8::try_from(n).unwrap(), role, [0; 32])
        };
        let full: Vec<_> = (0..MAX_GENERATIONS).map(entry).collect();
        assert!(KeyRing::new(&full).is_ok());
        let over: Vec<_> = (0..=MAX_GENERATIONS).map(entry).collect();
        assert_eq!(
            KeyRing::new(&over).unwrap_err(),
            KeyRingError::TooMany { have: 17 }
        );
    }

    #[test]
    fn rotation_keeps_what_is_needed_to_open() {
        let ring = KeyRing::with_secret([1; 32]).staged([2; 32]).unwrap();
        let next = ring.rotated([3; 32]).unwrap();
        assert_eq!(next.active().generation(), 2);
        assert_eq!(next.generation(1).unwrap().role(), Role::Retiring);
        let last = next.rotated([3; 32]).unwrap();
        assert_eq!(last.active().generation(), 3);
        assert!(last.generation(1).is_none());
    }

    #[test]
    fn derived_keys_differ_by_label_and_generation_and_begin_with_the_active_one() {
        let entries = [
            (3, Role::Retiring, [3; 32]),
            (4, Role::Active, [4; 32]),
            (5, Role::Staged, [5; 32]),
        ];
        let ring = KeyRing::new(&entries).unwrap();
        let (one, other) = (ring.derived("one"), ring.derived("other"));
        assert_eq!(one.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [4, 3, 5]);
        let all: std::collections::BTreeSet<_> = one.iter().chain(&other).map(|(_, k)| k).collect();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(
            format!("{:?}", KeyRing::with_secret([0xab; 32])),
            "[(1, Active)]"
        );
    }
}
