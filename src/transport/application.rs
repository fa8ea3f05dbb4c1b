//! The server's interface to an application: a response *stream* as a pure function of a small *user
//! continuation*.
//!
//! The transport seals the user continuation and sends it to the client, which includes it in later
//! requests; any server with the same keys can then produce any byte range of the same stream.

use std::net::IpAddr;

use crate::time::UnixMillis;
use crate::wire::payload::Gathered;

/// Longest user continuation, in bytes: every request carries it.
pub const MAX_USER_BYTES: usize = 400;

/// Longest application request, in bytes: it must fit into one OPEN datagram beside a continuation.
pub const MAX_REQUEST_BYTES: usize = 1000;

/// Longest stream, in bytes: offsets are 48 bit on the wire.
pub const MAX_STREAM_BYTES: u64 = (1 << 48) - 1;

/// The circumstances of a call to an [`Application`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestContext {
    /// The wall-clock time.
    pub now: UnixMillis,
    /// Whether the client has proven its address. If not, the packet may come from anybody: the
    /// application must answer from memory or refuse, and must not start work for it.
    pub proven: bool,
    /// The address of the client; forged, perhaps, unless it is proven.
    pub source: IpAddr,
}

/// Names the work that an application does before it can answer, such as a read from a disk. Requests
/// that wait for the same work have equal tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A response stream that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The complete state to produce the stream on any server: object identity, version tag,
    /// parameters, the date of the head. At most [`MAX_USER_BYTES`].
    pub user: Vec<u8>,
    /// Length of the stream in bytes (for HTTP: head and body), below [`MAX_STREAM_BYTES`]; `None` if it
    /// is not known yet, see [`Application::length`].
    pub length: Option<u64>,
}

/// A part of a response stream that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPart<'a> {
    /// The circumstances.
    pub context: RequestContext,
    /// The user continuation: from [`Application::begin`] of an application with the same objects,
    /// perhaps on another machine; its seal has been verified.
    pub user: &'a [u8],
    /// Offset of the first byte in the stream.
    pub offset: u64,
}

impl<'a> StreamPart<'a> {
    /// Creates the part that begins at `offset` of the stream of `user`.
    #[must_use]
    pub const fn new(context: RequestContext, user: &'a [u8], offset: u64) -> Self {
        Self {
            context,
            user,
            offset,
        }
    }
}

/// Why an application cannot produce bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// This server has another version of the object, or none: the client must request it again,
    /// and never mix bytes of two versions.
    #[error("the object has changed")]
    Changed,
    /// Not yet, for example because a disk is being read. The client is asked to wait, and the
    /// request is answered when [`Application::poll_ready`] returns this ticket, or when the client
    /// asks again.
    #[error("not ready yet")]
    NotReady(Ticket),
}

/// A server application. It keeps no per-client state; its caches are bounded and may be lost. No call
/// may block: an application that needs a disk, another process or much time returns
/// [`Unavailable::NotReady`].
pub trait Application {
    /// Starts the response to an application request (for HTTP: a request head). Malformed requests
    /// have a response stream too (for HTTP: 400).
    ///
    /// # Errors
    /// Only [`Unavailable::NotReady`].
    fn begin(&mut self, context: RequestContext, request: &[u8]) -> Result<Begun, Unavailable>;

    /// Fills `out` with the bytes of a part of the stream and returns the number written. It is short only
    /// where the bytes end that are there now; if none are, the call returns
    /// [`Unavailable::NotReady`]. Before the end of the stream, 0 means that the stream has changed.
    ///
    /// # Errors
    /// [`Unavailable::Changed`] if this server cannot produce exactly the bytes of `part.user`.
    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable>;

    /// Appends the next `bytes` of a part of the stream to the body of a flight: writes them, or shares them if they are in memory already. Otherwise like [`read`](Self::read).
    ///
    /// # Errors
    /// Those of `read`; the body is unchanged then.
    fn stage(
        &mut self,
        part: StreamPart<'_>,
        bytes: usize,
        body: &mut Gathered,
    ) -> Result<usize, Unavailable> {
        body.fill(bytes, |out| self.read(part, out))
    }

    /// Returns the length of a stream that began without one, once it is known: no call reads beyond it.
    fn length(&mut self, _context: RequestContext, _user: &[u8]) -> Option<u64> {
        None
    }

    /// Returns a ticket whose work is done, once: the requests that wait for it are answered now. An
    /// application whose work ends elsewhere wakes the loop as well.
    fn poll_ready(&mut self) -> Option<Ticket> {
        None
    }
}

/// Copies the bytes of `content` from `offset` on into `out` and returns the number copied, which is
/// short only at the end. Implements `read` for an application with its streams in memory.
///
/// ```
/// let mut out = [0; 3];
/// assert_eq!(headwater::copy_at(b"abcdef", 4, &mut out), 2);
/// assert_eq!(&out[..2], b"ef");
/// ```
#[must_use]
pub fn copy_at(content: &[u8], offset: u64, out: &mut [u8]) -> usize {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = content.get(start..).unwrap_or_default();
    let count = rest.len().min(out.len());
    if let (Some(to), Some(from)) = (out.get_mut(..count), rest.get(..count)) {
        to.copy_from_slice(from);
    }
    count
}
