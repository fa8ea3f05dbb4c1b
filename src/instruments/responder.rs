//! A minimal server over the kernel's TCP: accept, read, write, close. A lower bound for the cost of
//! short connections, and, with large responses, the throughput of the kernel's TCP without an
//! application.
//!
//! In: connections. Out: the same HTTP response on each, for any request; then an orderly close. One
//! blocking thread, one connection at a time, until a signal ends the process.
//! Sources: tcp(7), socket(7).

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::net::sockopt::{set_socket_send_buffer_size, set_tcp_nodelay};

/// Bytes passed to the kernel in one call.
const PIECE_BYTES: usize = 256 * 1024;

/// Send buffer in bytes, for responses larger than a piece.
const SEND_BUFFER_BYTES: usize = 1 << 20;

/// Bytes read of a request, whose content is ignored.
const REQUEST_BYTES: usize = 4096;

/// A listening server.
#[derive(Debug)]
pub struct Responder {
    listener: TcpListener,
    /// The head and the start of the body; a piece of the rest.
    first: Vec<u8>,
    piece: Vec<u8>,
    rest: u64,
}

impl Responder {
    /// Listens; every response has a body of `bytes` bytes.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn new(listen: SocketAddr, bytes: u64) -> io::Result<Self> {
        let mut first = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").into_bytes();
        let with_head = bytes.min(PIECE_BYTES as u64);
        first.resize(first.len() + usize::try_from(with_head).unwrap_or(0), b'.');
        Ok(Self {
            listener: TcpListener::bind(listen)?,
            first,
            piece: vec![b'.'; PIECE_BYTES],
            rest: bytes - with_head,
        })
    }

    /// The local address.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// If the listener fails. A client that aborts is not an error.
    pub fn run(&self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let _ = self.answer(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        if self.rest > 0 {
            set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES)?;
            set_tcp_nodelay(&stream, true)?;
        }
        let mut request = [0; REQUEST_BYTES];
        if stream.read(&mut request)? == 0 {
            return Ok(());
        }
        stream.write_all(&self.first)?;
        let mut rest = self.rest;
        while rest > 0 {
            let count = usize::try_from(rest).unwrap_or(usize::MAX);
            let piece = self.piece.get(..count).unwrap_or(&self.piece);
            stream.write_all(piece)?;
            rest -= piece.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn answers_are_whole_whatever_their_size() {
        for bytes in [0, 1, PIECE_BYTES as u64, 3 * PIECE_BYTES as u64 + 1] {
            let responder = Responder::new("127.0.0.1:0".parse().unwrap(), bytes).unwrap();
            let address = responder.address().unwrap();
            thread::spawn(move || responder.run());
            // A client that sends nothing does not end it.
            drop(TcpStream::connect(address).unwrap());
            for _ in 0..2 {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).unwrap();
                assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
                let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
                assert_eq!((answer.len() - head.unwrap() - 4) as u64, bytes);
            }
        }
    }
}
