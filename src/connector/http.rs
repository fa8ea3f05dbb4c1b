//! An HTTP/1.1 connection in the manner of Python's `httplib.HTTPConnection`, whose connect is a race.
//!
//! In: requests. Out: responses, whose bodies are read like files. One request at a time; the connection is kept for the
//! next one if its response was read whole and the server allows it, else the next one connects again. `set_tunnel` reaches
//! the server through a proxy (CONNECT). No TLS, no cookies, no redirects.
//! Sources: RFC 9112 (§9.3 persistence, §6.3 bodies), RFC 9110 §9.3.6 (CONNECT).

use std::io::{self, Read, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use super::{ConnectError, Connector};
use crate::http::Version;
use crate::http::headers::{FieldError, Headers};
use crate::http::reader::{ReadError, ReaderEvent, ResponseReader};
use crate::http::request::{Method, RequestHead};
use crate::http::response::ResponseHead;

/// Most bytes of an unread body that are discarded to keep its connection.
const MAX_DISCARDED_BYTES: u64 = 64 * 1024;

/// Bytes read from the connection at a time.
const BUFFER_BYTES: usize = 16 * 1024;

/// The port that a `Host` field omits.
const DEFAULT_PORT: u16 = 80;

/// Why a request or its response failed. The next request connects again.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The request is not valid HTTP. The caller is at fault.
    #[error("invalid request: {0}")]
    Request(#[from] FieldError),
    /// The request has a method that the connection itself sends or does not know. The caller is at fault.
    #[error("a request cannot have this method: use set_tunnel for CONNECT")]
    Method,
    /// There was no request, or its response was returned before. The caller is at fault.
    #[error("no response is awaited: send a request first")]
    NoRequest,
    /// The proxy refused the tunnel.
    #[error("the proxy responded with status {status}: check its access rules and the host")]
    Tunnel {
        /// Status code of the response.
        status: u16,
    },
    /// The response is not HTTP.
    #[error("the response is not HTTP/1.1: {0}")]
    Response(#[from] ReadError),
    /// The connection ended before the head of the response.
    #[error("the server closed the connection without a response: try again")]
    Disconnected,
    /// The connection failed, or was silent for the time limit.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

/// The server behind a proxy.
#[derive(Debug)]
struct Tunnel {
    host: String,
    port: u16,
    fields: Vec<(String, String)>,
}

/// An established connection.
#[derive(Debug)]
struct Link {
    stream: TcpStream,
    /// Received bytes, of which those before `taken` are used.
    buffer: Vec<u8>,
    taken: usize,
    /// The method of a request whose response was not returned yet.
    awaited: Option<Method>,
}

/// A connection to an HTTP server; see the head of this file.
///
/// ```no_run
/// use std::io::Read as _;
/// use headwater::{HttpConnection, Method};
///
/// let mut connection = HttpConnection::new("www.example.com", 80);
/// connection.request(Method::Get, "/", &[], b"")?;
/// let mut response = connection.response()?;
/// let mut body = Vec::new();
/// response.read_to_end(&mut body)?;
/// println!("status {}, {} bytes", response.status(), body.len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct HttpConnection {
    connector: Arc<Connector>,
    host: String,
    port: u16,
    tunnel: Option<Tunnel>,
    timeout: Option<Duration>,
    link: Option<Link>,
}

impl HttpConnection {
    /// Creates a connection to a port of a host, by a connector of its own with the defaults. Connects with the first
    /// request.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self::with_connector(Arc::default(), host, port)
    }

    /// Creates a connection that is made by `connector`, which others may share.
    #[must_use]
    pub fn with_connector(connector: Arc<Connector>, host: &str, port: u16) -> Self {
        Self {
            timeout: Some(connector.timeout),
            connector,
            host: host.to_owned(),
            port,
            tunnel: None,
            link: None,
        }
    }

    /// Sets the longest silence while it sends or receives; none with `None`. Default: the time limit of the connector.
    pub fn set_timeout(&mut self, limit: Option<Duration>) {
        self.timeout = limit.filter(|limit| !limit.is_zero());
    }

    /// Reaches `host` through the server of the connection, a proxy that knows CONNECT; `fields` are for the proxy. From
    /// the next connect on.
    pub fn set_tunnel(&mut self, host: &str, port: u16, fields: &[(&str, &str)]) {
        let field = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.tunnel = Some(Tunnel {
            host: host.to_owned(),
            port,
            fields: fields.iter().map(field).collect(),
        });
        self.link = None;
    }

    /// Connects, and opens the tunnel if one is set. No effect on an open connection.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn connect(&mut self) -> Result<(), HttpError> {
        if self.link.is_some() {
            return Ok(());
        }
        let stream = self.connector.connect_to(&self.host, self.port)?;
        stream.set_read_timeout(self.timeout)?;
        stream.set_write_timeout(self.timeout)?;
        // A head and its body are separate writes.
        stream.set_nodelay(true)?;
        let mut link = Link {
            stream,
            buffer: Vec::new(),
            taken: 0,
            awaited: None,
        };
        if let Some(tunnel) = &self.tunnel {
            tunnel.open(&mut link)?;
        }
        self.link = Some(link);
        Ok(())
    }

    /// The stream of an open connection.
    #[must_use]
    pub fn stream(&self) -> Option<&TcpStream> {
        self.link.as_ref().map(|link| &link.stream)
    }

    /// Sends a request, and connects first if there is no connection. `target` begins with a slash. Adds `Host`, and
    /// `Content-Length` if there is a body or the method has one, unless `fields` have them.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn request(
        &mut self,
        method: Method,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(), HttpError> {
        let (host, port) = match &self.tunnel {
            Some(tunnel) => (tunnel.host.as_str(), tunnel.port),
            None => (self.host.as_str(), self.port),
        };
        let head = head(
            method,
            target,
            &authority(host, port, DEFAULT_PORT),
            fields,
            body,
        )?;
        if !self.link.as_ref().is_some_and(Link::is_idle) {
            self.link = None;
        }
        self.connect()?;
        let sent = self.link.as_mut().map(|link| {
            link.awaited = Some(method);
            let stream = &mut link.stream;
            stream
                .write_all(&head)
                .and_then(|()| stream.write_all(body))
        });
        match sent {
            // A server may respond and close before it has read a body: the response has the reason.
            Some(Err(error)) if body.is_empty() || !is_closed(&error) => {
                self.link = None;
                Err(error.into())
            }
            Some(_) => Ok(()),
            None => Err(HttpError::Disconnected),
        }
    }

    /// Receives the head of the response to the last request.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn response(&mut self) -> Result<HttpResponse<'_>, HttpError> {
        let link = self.link.as_mut().ok_or(HttpError::NoRequest)?;
        let method = link.awaited.take().ok_or(HttpError::NoRequest)?;
        let mut reader = ResponseReader::new(method);
        match link.head(&mut reader) {
            Ok(head) => Ok(HttpResponse {
                link: &mut self.link,
                persistent: is_persistent(&head),
                head,
                reader,
                ended: false,
            }),
            Err(error) => {
                self.link = None;
                Err(error)
            }
        }
    }

    /// Closes the connection; the next request opens another.
    pub fn close(&mut self) {
        self.link = None;
    }
}

/// The bytes of a request head.
fn head(
    method: Method,
    target: &str,
    host: &str,
    fields: &[(&str, &str)],
    body: &[u8],
) -> Result<Vec<u8>, HttpError> {
    if matches!(method, Method::Connect | Method::Unrecognised) {
        return Err(HttpError::Method);
    }
    let named = |name: &str| {
        let mut fields = fields.iter();
        fields.find(|(other, _)| other.eq_ignore_ascii_case(name))
    };
    let host = named("host").map_or(host, |(_, value)| value);
    let rest = fields
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("host"));
    let mut rest: Vec<(&str, &str)> = rest.copied().collect();
    let length = body.len().to_string();
    let has_body = !body.is_empty() || matches!(method, Method::Post | Method::Put | Method::Patch);
    let framed = named("content-length").or_else(|| named("transfer-encoding"));
    if has_body && framed.is_none() {
        rest.push(("Content-Length", &length));
    }
    Ok(RequestHead::emit(method, target, host, &rest)?)
}

/// The host with its port, unless that is `default`.
fn authority(host: &str, port: u16, default: u16) -> String {
    let bare = host.contains(':') && !host.starts_with('[');
    let host = if bare {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    match port == default {
        true => host,
        false => format!("{host}:{port}"),
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// Whether the server keeps the connection after its response (RFC 9112 §9.3).
fn is_persistent(head: &ResponseHead) -> bool {
    match head.version {
        _ if head.headers.has_token("connection", "close") => false,
        // The protocol may have changed.
        _ if head.status.0 == 101 => false,
        Version::Http11 => true,
        Version::Http10 => head.headers.has_token("connection", "keep-alive"),
    }
}

impl Tunnel {
    /// Opens the tunnel over a connection to the proxy.
    fn open(&self, link: &mut Link) -> Result<(), HttpError> {
        let server = authority(&self.host, self.port, 0);
        let fields = self.fields.iter();
        let fields: Vec<(&str, &str)> = fields.map(|(name, value)| (&**name, &**value)).collect();
        let request = RequestHead::emit(Method::Connect, &server, &server, &fields)?;
        link.stream.write_all(&request)?;
        // A successful response has no body, whatever its fields say (RFC 9110 §9.3.6).
        let head = link.head(&mut ResponseReader::new(Method::Head))?;
        match head.status.0 {
            200..=299 => Ok(()),
            status => Err(HttpError::Tunnel { status }),
        }
    }
}

impl Link {
    /// Whether it can carry a request: it is open, and nothing is left of the response before.
    fn is_idle(&self) -> bool {
        let waiting = || {
            self.stream.set_nonblocking(true)?;
            let peeked = self.stream.peek(&mut [0]);
            self.stream.set_nonblocking(false)?;
            peeked
        };
        let silent =
            || matches!(waiting(), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.awaited.is_none() && silent()
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.taken..).unwrap_or_default()
    }

    /// Receives more bytes; returns whether there were any before the end.
    fn receive(&mut self) -> io::Result<bool> {
        self.buffer.resize(BUFFER_BYTES, 0);
        self.taken = 0;
        let received = loop {
            match self.stream.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received,
            }
        };
        self.buffer.truncate(*received.as_ref().unwrap_or(&0));
        received.map(|count| count > 0)
    }

    /// Receives the head of a response.
    fn head(&mut self, reader: &mut ResponseReader) -> Result<ResponseHead, HttpError> {
        let mut any = false;
        loop {
            let (used, event) = reader.read(self.unread())?;
            any |= used > 0;
            let head = match event {
                ReaderEvent::Head(head) => Some(head),
                ReaderEvent::NeedMore | ReaderEvent::Body(_) | ReaderEvent::Done => None,
            };
            self.taken += used;
            match head {
                Some(head) => return Ok(head),
                None if self.receive()? => {}
                None if any => return Err(ReadError::Truncated.into()),
                None => return Err(HttpError::Disconnected),
            }
        }
    }
}

/// A response; its body is read from it. Dropping it before its end discards a short rest, else closes the connection.
#[derive(Debug)]
pub struct HttpResponse<'c> {
    link: &'c mut Option<Link>,
    head: ResponseHead,
    reader: ResponseReader,
    persistent: bool,
    /// The body is read.
    ended: bool,
}

impl HttpResponse<'_> {
    /// The status code.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.head.status.0
    }

    /// The header fields.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        &self.head.headers
    }

    /// The bytes of the body that are not read yet; `None` if the server did not announce its length.
    #[must_use]
    pub const fn remaining(&self) -> Option<u64> {
        self.reader.remaining()
    }

    /// Ends the response: keeps the connection if the body is `whole` and the server does, too.
    fn end(&mut self, whole: bool) {
        self.ended = true;
        let silent = self
            .link
            .as_ref()
            .is_some_and(|link| link.unread().is_empty());
        if !(whole && silent && self.persistent) {
            *self.link = None;
        }
    }

    fn read_some(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(link) = self.link.as_mut() else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            // No more input than there is room for its bytes.
            let unread = link.unread();
            let input = unread.get(..out.len()).unwrap_or(unread);
            let (used, event) = self.reader.read(input).map_err(io::Error::other)?;
            let count = match event {
                ReaderEvent::Body(bytes) => {
                    let room = out.get_mut(..bytes.len());
                    room.map_or(0, |room| {
                        room.copy_from_slice(bytes);
                        room.len()
                    })
                }
                ReaderEvent::Done => {
                    link.taken += used;
                    self.end(true);
                    return Ok(0);
                }
                ReaderEvent::NeedMore | ReaderEvent::Head(_) => 0,
            };
            link.taken += used;
            if count > 0 {
                return Ok(count);
            }
            if link.unread().is_empty() && !link.receive()? {
                self.reader
                    .end()
                    .map_err(|error| io::Error::new(io::ErrorKind::UnexpectedEof, error))?;
                self.end(false);
                return Ok(0);
            }
        }
    }
}

impl Read for HttpResponse<'_> {
    /// Reads bytes of the body; 0 at its end. A body that is truncated is an error of the kind `UnexpectedEof`.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() || self.ended {
            return Ok(0);
        }
        let read = self.read_some(out);
        if read.is_err() {
            // A further read fails, too.
            *self.link = None;
        }
        read
    }
}

impl Drop for HttpResponse<'_> {
    fn drop(&mut self) {
        let is_short = self
            .remaining()
            .is_some_and(|rest| rest <= MAX_DISCARDED_BYTES);
        // Only bytes that have arrived: nothing here waits for the peer.
        let mut rest = [0; 1024];
        while !self.ended && is_short && self.has_input() {
            if self.read(&mut rest).is_err() {
                break;
            }
        }
        if !self.ended {
            self.end(false);
        }
    }
}

impl HttpResponse<'_> {
    /// Whether the next step of the body needs no byte of the peer.
    fn has_input(&self) -> bool {
        let unread = self
            .link
            .as_ref()
            .is_some_and(|link| !link.unread().is_empty());
        unread || self.remaining() == Some(0)
    }
}

#[cfg(test)]
mod tests;
