//! What the server needs of an application: a response *stream* that is a pure function of a small
//! *user continuation*.
//!
//! The transport seals the user continuation and gives it to the client; any server with the same
//! keys that is later shown it can produce any byte range of the same stream.

use crate::time::UnixMillis;
use crate::wire::payload::Gathered;

/// Longest user continuation an application may make, in bytes: it travels in every request.
pub const MAX_USER_BYTES: usize = 400;

/// Longest application request, in bytes: it must fit beside a continuation in one OPEN datagram.
pub const MAX_REQUEST_BYTES: usize = 1000;

/// Longest stream, in bytes: offsets are 48 bit on the wire.
pub const MAX_STREAM_BYTES: u64 = (1 << 48) - 1;

/// The beginning of a response stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// All that any server needs to produce the stream: object identity, version tag, parameters,
    /// the date shown. At most [`MAX_USER_BYTES`].
    pub user: Vec<u8>,
    /// Length of the stream in bytes (for HTTP: head and body), at most [`MAX_STREAM_BYTES`].
    pub length: u64,
}

/// Why an application cannot produce bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// This server has another version of the object, or none: the client must ask anew, and never
    /// mix bytes of the two.
    #[error("the object has changed")]
    Changed,
    /// Not yet (say, the digest of a large file is still being computed): the server stays silent
    /// and the client's timers ask again.
    #[error("not ready yet")]
    NotReady,
}

/// A server application. It keeps nothing per client; what it caches is bounded and can be lost.
pub trait Application {
    /// Starts the response to an application request (for HTTP: a request head). Malformed requests
    /// have a response stream too (for HTTP: 400).
    ///
    /// # Errors
    /// Only [`Unavailable::NotReady`].
    fn begin(&mut self, now: UnixMillis, request: &[u8]) -> Result<Begun, Unavailable>;

    /// Fills `out` with the bytes of the stream from `offset` on and returns how many were written;
    /// fewer than asked for only at the end of the stream. `user` was made by `begin` of an
    /// application with the same objects, maybe on another machine; its seal has been checked.
    ///
    /// # Errors
    /// [`Unavailable::Changed`] if this server cannot produce the very bytes `user` stands for.
    fn read(&mut self, user: &[u8], offset: u64, out: &mut [u8]) -> Result<usize, Unavailable>;

    /// Puts the next `bytes` of the stream from `offset` on at the end of the body of a flight:
    /// written there, or shared where memory holds them already. Otherwise as [`read`](Self::read).
    ///
    /// # Errors
    /// As for `read`; nothing is put there then.
    fn stage(
        &mut self,
        user: &[u8],
        offset: u64,
        bytes: usize,
        body: &mut Gathered,
    ) -> Result<usize, Unavailable> {
        body.fill(bytes, |out| self.read(user, offset, out))
    }
}
