//! Continuations: the complete server state of a connection, sealed and carried by the client.
//!
//! Version and kind, key generation, issue time and nonce are in the clear but authenticated; the rest
//! is encrypted under a key of the connection and generation (AES-256-GCM). The nonce is synthetic:
//! a PRF of the sealed content, so that servers need neither randomness nor a shared counter.
//! A [`UserContinuation`] is the application's part, sealed under the service's key so that it also
//! opens on another connection. A server silently drops whatever does not open.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ring::aead::{Aad, LessSafeKey, Nonce};

use crate::time::UnixMillis;
use crate::transport::application::{MAX_STREAM_BYTES, MAX_USER_BYTES};
use crate::transport::curve::Curve;
use crate::transport::epoch::Epoch;
use crate::transport::keys::{ClusterKey, KeyRing, Role};
use crate::transport::proof::ProofKey;
use crate::wire::segment::MAX_CONTINUATION_BYTES;
use crate::wire::varint::{Reader, put_varint, u48_bytes};

/// Longest age at which a continuation is accepted. An idle connection can resume within it; a key
/// generation must stay retiring for longer.
pub const MAX_AGE: Duration = Duration::from_secs(15 * 60);

/// Longest age at which a continuation shows that its client receives at the bound address now: answers
/// to older ones are at most [`AMPLIFICATION`](crate::transport::server::AMPLIFICATION) times as long as
/// their requests. Longer than any round trip and most pauses, shorter than an address takes to find
/// another holder.
pub const RECENT: Duration = Duration::from_secs(30);

/// Longest age at which a continuation proves an address in a later OPEN.
pub const MAX_TOKEN_AGE: Duration = Duration::from_secs(60 * 60);

/// Largest difference between the wall clocks of two servers.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(1);

/// Longest sealed user continuation, in bytes.
pub const MAX_SEALED_USER_BYTES: usize = USER_CLEAR_BYTES + 8 + MAX_USER_BYTES + TAG_BYTES;

const TRANSPORT: u8 = 0x11;
const USER: u8 = 0x12;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Kind, generation, issue time.
const AUTHENTICATED_BYTES: usize = 8;
const CLEAR_BYTES: usize = AUTHENTICATED_BYTES + NONCE_BYTES;
/// Kind, generation, nonce.
const USER_CLEAR_BYTES: usize = 2 + NONCE_BYTES;

/// Most by which the start of a curve's time may lie after the issue, in milliseconds.
const MAX_DEBT_MS: u64 = 8191;

/// Most time of a curve that is encoded, in milliseconds: 12 days. More would be of no use.
const MAX_PAID_MS: u64 = (1 << 30) - 1;

/// Greatest age of an epoch that is encoded, in milliseconds: beyond all gates.
const MAX_START_AGE_MS: u64 = (1 << 14) - 1;

const FLAG_PROVEN: u8 = 1;
const FLAG_IPV6: u8 = 2;
const FLAG_CUBIC: u8 = 4;
/// The opening epoch, of which only the window is encoded.
const FLAG_OPENING: u8 = 8;

/// Why a continuation was rejected. The server drops the packet silently and counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Too short or too long.
    #[error("length")]
    Length,
    /// Another version or kind.
    #[error("version")]
    Version,
    /// Sealed under a generation that this ring does not hold, yet or any longer.
    #[error("generation")]
    Generation,
    /// Sealed too long ago.
    #[error("expired")]
    Expired,
    /// Sealed further in the future than clocks may differ.
    #[error("future")]
    Future,
    /// The tag does not verify: forged, modified, or of another connection.
    #[error("forged")]
    Forged,
    /// The tag verifies, but the content is invalid: sealed by an incompatible program.
    #[error("malformed")]
    Malformed,
}

/// The server state of a connection, while it handles one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// The connection's proof key, which also identifies it.
    pub identity: ProofKey,
    /// The epoch of this continuation.
    pub epoch: Epoch,
    /// Start of the epoch, by the clock of the server that opened it, or a few seconds before the issue
    /// if it is older. For gates only.
    pub epoch_start: UnixMillis,
    /// The instant from which on real time pays for the curve's time: not before the start of the epoch;
    /// later by the debt of the epochs before, and by real time in which the curve stood still.
    pub curve_start: UnixMillis,
    /// The number behind which proofs begin: the base of the epoch or, after CE or exit, the edge
    /// at that event.
    pub proof_base: u64,
    /// Whether the client has proven to receive at the bound address.
    pub proven: bool,
    /// The client's address and port.
    pub address: SocketAddr,
    /// Largest UDP payload to send, in bytes.
    pub datagram_max: u16,
    /// The server that sealed it.
    pub server: u16,
    /// The site of that server.
    pub site: u16,
}

impl Continuation {
    /// Seals for `connection` under the active generation.
    #[must_use]
    pub fn seal(&self, keys: &KeyRing, connection: u64, now: UnixMillis) -> Vec<u8> {
        let key = keys.active();
        let mut out = Vec::with_capacity(MAX_CONTINUATION_BYTES);
        out.extend([TRANSPORT, key.generation()]);
        out.extend(u48_bytes(now.as_millis()));
        let aad = associated(connection, &out);
        out.extend([0; NONCE_BYTES]);
        self.encode(now, &mut out);
        seal(
            key,
            &key.connection(connection),
            connection,
            &aad,
            &mut out,
            AUTHENTICATED_BYTES,
        );
        out
    }

    /// The length of the output of [`seal`](Self::seal).
    #[must_use]
    pub fn sealed_bytes(&self, now: UnixMillis) -> usize {
        let mut message = Count(0);
        self.encode(now, &mut message);
        CLEAR_BYTES + message.0 + TAG_BYTES
    }

    /// Opens a continuation sealed for `connection` by any server with the same keys, and returns its
    /// issue time. `max_age` is [`MAX_AGE`], or [`MAX_TOKEN_AGE`] for an address token.
    ///
    /// # Errors
    /// [`OpenError`]: drop silently.
    pub fn open(
        keys: &KeyRing,
        connection: u64,
        now: UnixMillis,
        max_age: Duration,
        sealed: &[u8],
    ) -> Result<(Self, UnixMillis), OpenError> {
        if sealed.len() <= CLEAR_BYTES + TAG_BYTES || sealed.len() > MAX_CONTINUATION_BYTES {
            return Err(OpenError::Length);
        }
        let mut reader = Reader::new(sealed);
        let (kind, generation) = clear_head(&mut reader)?;
        let issued = UnixMillis::new(reader.u48().ok_or(OpenError::Length)?);
        if kind != TRANSPORT {
            return Err(OpenError::Version);
        }
        let key = keys.generation(generation).ok_or(OpenError::Generation)?;
        if issued.saturating_since(now) > MAX_CLOCK_SKEW {
            return Err(OpenError::Future);
        }
        if now.saturating_since(issued) > max_age {
            return Err(OpenError::Expired);
        }
        let clear = sealed.get(..AUTHENTICATED_BYTES).unwrap_or_default();
        let aad = associated(connection, clear);
        let mut buffer = [0; MAX_CONTINUATION_BYTES];
        let message = open(&key.connection(connection), &aad, &mut reader, &mut buffer)?;
        let continuation = Self::decode(issued, message).ok_or(OpenError::Malformed)?;
        Ok((continuation, issued))
    }

    fn encode(&self, now: UnixMillis, out: &mut impl Extend<u8>) {
        let opening = self.epoch == Epoch::opening(self.epoch.c);
        let (kind, first, rtt_us) = match self.epoch.curve {
            Curve::SlowStart { threshold, rtt_us } => (0, threshold, rtt_us),
            Curve::Cubic { w_max, rtt_us } => (FLAG_CUBIC, w_max, rtt_us),
        };
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.extend([kind
            | flag(self.address.is_ipv6(), FLAG_IPV6)
            | flag(self.proven, FLAG_PROVEN)
            | flag(opening, FLAG_OPENING)]);
        out.extend(*self.identity.bytes());
        put_varint(out, u64::from(self.epoch.c));
        if !opening {
            put_varint(out, self.epoch.base);
            put_varint(out, u64::from(first));
            put_varint(out, u64::from(rtt_us));
            put_varint(out, self.epoch.base.saturating_sub(self.proof_base));
            let paid = (now.as_millis() + MAX_DEBT_MS).saturating_sub(self.curve_start.as_millis());
            put_varint(out, paid.min(MAX_PAID_MS));
        }
        let age = now.as_millis().saturating_sub(self.epoch_start.as_millis());
        put_varint(out, age.min(MAX_START_AGE_MS));
        match self.address.ip() {
            IpAddr::V4(ip) => out.extend(ip.octets()),
            IpAddr::V6(ip) => out.extend(ip.octets()),
        }
        for value in [
            self.address.port(),
            self.datagram_max,
            self.server,
            self.site,
        ] {
            out.extend(value.to_be_bytes());
        }
    }

    fn decode(issued: UnixMillis, message: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(message);
        let flags = reader.u8()?;
        let identity = ProofKey::new(reader.array()?);
        let c = reader.varint_u32()?;
        let opening = flags & FLAG_OPENING != 0;
        let (epoch, unproven, paid) = match opening {
            true => (Epoch::opening(c), 0, MAX_DEBT_MS),
            false => {
                let epoch = decode_epoch(&mut reader, c, flags & FLAG_CUBIC != 0)?;
                (epoch, reader.varint()?, reader.varint()?)
            }
        };
        let age = reader.varint()?;
        let ip = match flags & FLAG_IPV6 {
            0 => IpAddr::from(reader.array::<4>()?),
            _ => IpAddr::from(reader.array::<16>()?),
        };
        Some(Self {
            identity,
            epoch,
            epoch_start: UnixMillis::new(issued.as_millis().saturating_sub(age)),
            curve_start: UnixMillis::new((issued.as_millis() + MAX_DEBT_MS).saturating_sub(paid)),
            proof_base: epoch.base.saturating_sub(unproven),
            proven: flags & FLAG_PROVEN != 0,
            address: SocketAddr::new(ip, reader.u16()?),
            datagram_max: reader.u16()?,
            server: reader.u16()?,
            site: reader.u16()?,
        })
    }
}

fn decode_epoch(reader: &mut Reader<'_>, c: u32, cubic: bool) -> Option<Epoch> {
    let base = reader.varint()?;
    let (first, rtt_us) = (reader.varint_u32()?, reader.varint_u32()?);
    let curve = match cubic {
        true => Curve::Cubic {
            w_max: first,
            rtt_us,
        },
        false => Curve::SlowStart {
            threshold: first,
            rtt_us,
        },
    };
    Some(Epoch { base, c, curve })
}

/// The issue time of a sealed continuation, which is in clear.
#[must_use]
pub fn issue_time(sealed: &[u8]) -> Option<UnixMillis> {
    let mut reader = Reader::new(sealed.get(2..)?);
    reader.u48().map(UnixMillis::new)
}

/// The application's state of one stream, and the stream's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserContinuation {
    /// The application's bytes, at most [`MAX_USER_BYTES`].
    pub user: Vec<u8>,
    /// Length of the stream in bytes, below [`MAX_STREAM_BYTES`]; `None`: not known yet.
    pub length: Option<u64>,
}

impl UserContinuation {
    /// Seals under the active generation's service key.
    #[must_use]
    pub fn seal(&self, keys: &KeyRing) -> Vec<u8> {
        let key = keys.active();
        let mut out = Vec::with_capacity(USER_CLEAR_BYTES + 8 + self.user.len() + TAG_BYTES);
        out.extend([USER, key.generation()]);
        let aad = associated(0, &out);
        out.extend([0; NONCE_BYTES]);
        put_varint(&mut out, self.length.unwrap_or(MAX_STREAM_BYTES));
        out.extend(self.user.iter().take(MAX_USER_BYTES));
        seal(
            key,
            key.user(),
            0,
            &aad,
            &mut out,
            USER_CLEAR_BYTES - NONCE_BYTES,
        );
        out
    }

    /// Opens a user continuation sealed by any server with the same keys, for any connection.
    ///
    /// # Errors
    /// [`OpenError`]: drop silently.
    pub fn open(keys: &KeyRing, sealed: &[u8]) -> Result<Self, OpenError> {
        if sealed.len() <= USER_CLEAR_BYTES + TAG_BYTES || sealed.len() > MAX_SEALED_USER_BYTES {
            return Err(OpenError::Length);
        }
        let mut reader = Reader::new(sealed);
        let (kind, generation) = clear_head(&mut reader)?;
        if kind != USER {
            return Err(OpenError::Version);
        }
        let key = keys.generation(generation).ok_or(OpenError::Generation)?;
        let aad = associated(0, &[kind, generation]);
        let mut buffer = [0; MAX_SEALED_USER_BYTES];
        let message = open(key.user(), &aad, &mut reader, &mut buffer)?;
        let mut reader = Reader::new(message);
        let length = reader.varint().ok_or(OpenError::Malformed)?;
        Ok(Self {
            user: reader.rest().to_vec(),
            length: Some(length).filter(|&length| length < MAX_STREAM_BYTES),
        })
    }
}

fn clear_head(reader: &mut Reader<'_>) -> Result<(u8, u8), OpenError> {
    match reader.array() {
        Some([kind, generation]) => Ok((kind, generation)),
        None => Err(OpenError::Length),
    }
}

/// Builds the associated data: the connection and at most 8 bytes in the clear.
fn associated(connection: u64, clear: &[u8]) -> [u8; 8 + AUTHENTICATED_BYTES] {
    let mut out = [0; 8 + AUTHENTICATED_BYTES];
    for (to, from) in out
        .iter_mut()
        .zip(connection.to_be_bytes().iter().chain(clear))
    {
        *to = *from;
    }
    out
}

/// A writer that only counts bytes.
struct Count(usize);

impl Extend<u8> for Count {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.0 += bytes.into_iter().count();
    }
}

/// Seals the bytes in `out` after the room for a nonce at `at`: writes the nonce, encrypts the rest
/// and appends the tag.
fn seal(
    cluster: &ClusterKey,
    key: &LessSafeKey,
    connection: u64,
    aad: &[u8],
    out: &mut Vec<u8>,
    at: usize,
) {
    debug_assert_eq!(
        cluster.role(),
        Role::Active,
        "only the active generation seals"
    );
    let behind = out.get_mut(at..).unwrap_or_default();
    let Some((room, text)) = behind.split_first_chunk_mut() else {
        return;
    };
    let nonce: [u8; NONCE_BYTES] = cluster.nonce(connection, aad, text);
    *room = nonce;
    let nonce = Nonce::assume_unique_for_key(nonce);
    match key.seal_in_place_separate_tag(nonce, Aad::from(aad), text) {
        Ok(tag) => out.extend(tag.as_ref()),
        Err(ring::error::Unspecified) => unreachable!("only messages of 64 GB are refused"),
    }
}

/// Opens nonce, ciphertext and tag, the rest of `reader`, in `buffer`.
fn open<'b>(
    key: &LessSafeKey,
    aad: &[u8],
    reader: &mut Reader<'_>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], OpenError> {
    let nonce = reader.array::<NONCE_BYTES>().ok_or(OpenError::Length)?;
    let text = buffer
        .get_mut(..reader.rest().len())
        .ok_or(OpenError::Length)?;
    text.copy_from_slice(reader.rest());
    match key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), text) {
        Ok(message) => Ok(message),
        Err(ring::error::Unspecified) => Err(OpenError::Forged),
    }
}

#[cfg(test)]
mod tests;
