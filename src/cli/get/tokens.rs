//! The file in which `get` saves address tokens between runs; see `cli::records`.
//!
//! In: lines. Out: [`Tokens`]; and back. A line is `LOCAL SERVICE RECEIVED CONNECTION CONTINUATION`: addresses,
//! milliseconds since the Unix epoch, and two hexadecimal values.

use core::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::cli::records::Records;
use crate::host::tokens::{Remembered, Tokens};
use crate::time::UnixMillis;
use crate::transport::client::AddressToken;
use crate::wire::segment::MAX_CONTINUATION_BYTES;

/// Longest accepted file, in bytes: three times the size of a full one.
pub const MAX_TOKEN_FILE_BYTES: u64 = 256 * 1024;

impl Records for Tokens {
    const NAME: &'static str = "address tokens";

    const FILE_LIMIT: u64 = MAX_TOKEN_FILE_BYTES;

    fn parse_line(&mut self, line: &str) {
        if let Some(token) = parse_line(line) {
            self.remember(token);
        }
    }

    fn emit(&self, text: &mut String) {
        for known in self.iter() {
            let (local, service, token) = (known.local, known.service, &known.token);
            let (received, connection) = (known.received.as_millis(), token.connection);
            // Writing to a String cannot fail.
            let _ = write!(text, "{local} {service} {received} {connection:016x} ");
            for byte in &token.sealed {
                let _ = write!(text, "{byte:02x}");
            }
            text.push('\n');
        }
    }

    fn merge(&mut self, other: &Self) {
        for token in other.iter() {
            self.remember(token.clone());
        }
    }

    fn expire(&mut self, now: UnixMillis) {
        self.expire(now);
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

fn parse_line(line: &str) -> Option<Remembered> {
    let mut words = line.split_ascii_whitespace();
    let local: IpAddr = words.next()?.parse().ok()?;
    let service: SocketAddr = words.next()?.parse().ok()?;
    let received = UnixMillis::new(words.next()?.parse().ok()?);
    let connection = u64::from_str_radix(words.next()?, 16).ok()?;
    let sealed = parse_hex(words.next()?)?;
    let sound = !sealed.is_empty() && sealed.len() <= MAX_CONTINUATION_BYTES;
    let whole = sound && words.next().is_none() && local.is_ipv4() == service.is_ipv4();
    whole.then_some(Remembered {
        local,
        service,
        received,
        token: AddressToken { connection, sealed },
    })
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    if rest.is_empty() {
        bytes.collect()
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
