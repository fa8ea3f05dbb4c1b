//! The `Repr-Digest` field with SHA-256 (RFC 9530 §3): a digest of the whole representation, even
//! in a 206.
//!
//! Reads only the member `sha-256` and skips others, as the RFC asks of receivers.

use core::fmt::{self, Display};

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;

/// Bytes of a SHA-256 digest.
pub const SHA256_BYTES: usize = 32;

/// The field name.
pub const REPR_DIGEST: &str = "Repr-Digest";

/// Formats the field value: a dictionary with one byte sequence (RFC 8941 §3.3.5).
#[derive(Clone, Copy, Debug)]
pub struct ReprDigest<'a>(pub &'a [u8; SHA256_BYTES]);

impl Display for ReprDigest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha-256=:{}:", Base64Display::new(self.0, &STANDARD))
    }
}

/// Returns the SHA-256 digest in a field value, if it holds a well-formed one.
#[must_use]
pub fn parse(value: &[u8]) -> Option<[u8; SHA256_BYTES]> {
    let text = str::from_utf8(value).ok()?;
    // RFC 8941 §4.2.2: the last of several members with the same key counts. A byte sequence
    // contains no comma, so splitting at commas is safe.
    let member = text.split(',').rev().find_map(|member| {
        let (key, value) = member.trim_ascii().split_once('=')?;
        (key == "sha-256").then_some(value)
    })?;
    let item = member.split(';').next()?.trim_ascii();
    let encoded = item.strip_prefix(':')?.strip_suffix(':')?;
    STANDARD.decode(encoded).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";

    #[test]
    fn fields_are_read() {
        let empty = parse(EXAMPLE.as_bytes());
        assert_eq!(empty.map(|digest| digest[0]), Some(0xe3));
        for (name, text, want) in [
            (
                "with another first",
                format!("sha-512=:AAAA:, {EXAMPLE}"),
                empty,
            ),
            ("with another last", format!("{EXAMPLE},md5=:AA==:"), empty),
            ("with a parameter", format!("{EXAMPLE};q=1"), empty),
            (
                "the last counts",
                format!("sha-256=:AAAA:,{EXAMPLE}"),
                empty,
            ),
            ("short", "sha-256=:AAAA:".to_owned(), None),
            ("not a sequence", "sha-256=abc".to_owned(), None),
            ("absent", "sha-512=:AAAA:".to_owned(), None),
            ("empty", String::new(), None),
        ] {
            assert_eq!(parse(text.as_bytes()), want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn emit_and_parse_are_inverse(digest in any::<[u8; 32]>()) {
            prop_assert_eq!(parse(ReprDigest(&digest).to_string().as_bytes()), Some(digest));
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }
    }
}
