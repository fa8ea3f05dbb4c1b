//! The file in which `get` saves address tokens between runs.
//!
//! In: a path. Out: [`Tokens`]; and back. One line per token, `LOCAL SERVICE RECEIVED CONNECTION
//! CONTINUATION`: addresses, milliseconds since the Unix epoch, and two hexadecimal values. The file
//! is replaced as a whole, under a lock, with mode 0600. Never writes to a file of another kind or user.
//! An unusable file never fails a transfer: `get` logs the error and sends no token.

use core::fmt::Write as _;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::files::{Place, Seen, read_bounded};
use crate::host::tokens::{Remembered, Tokens};
use crate::time::UnixMillis;
use crate::transport::client::AddressToken;
use crate::wire::segment::MAX_CONTINUATION_BYTES;

/// Longest accepted file, in bytes: three times the size of a full one.
pub const MAX_TOKEN_FILE_BYTES: u64 = 256 * 1024;

/// The first line of every such file.
const HEAD: &str = "# headwater address tokens";

/// Why a token file is unusable.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The operating system's error.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Not a regular file, or a file of another format.
    #[error("not a file of address tokens; left unchanged")]
    Foreign,
}

/// Loads the tokens of earlier runs; none if there is no file. Ignores malformed lines: a copy may
/// have been truncated.
///
/// # Errors
/// [`TokenFileError`].
pub fn load(path: &Path) -> Result<Tokens, TokenFileError> {
    let place = match Place::of(path) {
        Ok(place) => place,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Tokens::default()),
        Err(error) => return Err(error.into()),
    };
    match place.look()? {
        Some(seen) if !seen.is_file() => Err(TokenFileError::Foreign),
        Some(_) => read(&place.open_secret()?),
        None => Ok(Tokens::default()),
    }
}

/// Merges `tokens` into the file, which another run may have changed meanwhile, and removes expired
/// ones. Does nothing if there is nothing to add.
///
/// # Errors
/// [`TokenFileError`]; the file is then unchanged.
pub fn save(path: &Path, tokens: &Tokens, now: UnixMillis) -> Result<(), TokenFileError> {
    if tokens.is_empty() {
        return Ok(());
    }
    let place = Place::of(path)?;
    if place.look()?.is_some_and(|seen| !seen.is_file()) {
        return Err(TokenFileError::Foreign);
    }
    let file = lock(&place)?;
    let mut all = read(&file)?;
    for token in tokens.iter() {
        all.remember(token.clone());
    }
    all.expire(now);
    Ok(place.write_whole(emit(&all).as_bytes(), true)?)
}

/// Opens and locks the file, and creates it if necessary. Writers replace the file while they hold
/// the lock on the old one, so a lock obtained after waiting may be on a deleted file: try again.
fn lock(place: &Place) -> io::Result<File> {
    loop {
        let file = place.open_private()?;
        flock(&file, FlockOperation::LockExclusive)?;
        let locked = Seen::of(&file)?.identity;
        if place.look()?.is_some_and(|seen| seen.identity == locked) {
            return Ok(file);
        }
    }
}

fn read(file: &File) -> Result<Tokens, TokenFileError> {
    let bytes = read_bounded(file, MAX_TOKEN_FILE_BYTES)?;
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.as_deref()
        .and_then(parse)
        .ok_or(TokenFileError::Foreign)
}

/// Parses tokens; `None` if the text is not a token file. An empty file is one.
fn parse(text: &str) -> Option<Tokens> {
    let mut lines = text.lines();
    if lines.next().is_some_and(|head| head != HEAD) {
        return None;
    }
    let mut tokens = Tokens::default();
    lines
        .filter_map(parse_line)
        .for_each(|token| tokens.remember(token));
    Some(tokens)
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

fn emit(tokens: &Tokens) -> String {
    let mut text = format!("{HEAD}\n");
    for known in tokens.iter() {
        let (local, service, token) = (known.local, known.service, &known.token);
        let (received, connection) = (known.received.as_millis(), token.connection);
        // Writing to a String cannot fail.
        let _ = write!(text, "{local} {service} {received} {connection:016x} ");
        for byte in &token.sealed {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
