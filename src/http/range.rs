//! Byte ranges: the `Range` and `Content-Range` fields (RFC 9110 §14).
//!
//! One range is honoured. A field with several ranges, with a unit other than bytes or with a
//! syntax error is answered with the whole representation, as §14.2 allows.

use crate::http::response::parse_decimal;

/// The bytes `first ..= last` of a representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// Offset of the first byte.
    pub first: u64,
    /// Offset of the last byte, not below `first`.
    pub last: u64,
}

impl ByteRange {
    /// The number of bytes; at least 1.
    #[must_use]
    pub const fn length(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// The outcome of a `Range` field for a representation of known size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// The field is ignored: 200 with the whole representation.
    Whole,
    /// 206 with these bytes.
    Part(ByteRange),
    /// 416: no byte of the range exists.
    Unsatisfiable,
}

/// Applies a `Range` field value to a representation of `size` bytes.
#[must_use]
pub fn select(value: &[u8], size: u64) -> Selected {
    let value = value.trim_ascii();
    let Some((unit, set)) = split_once(value, b'=') else {
        return Selected::Whole;
    };
    // RFC 9110 §14.1: unit names are case-insensitive.
    if !unit.eq_ignore_ascii_case(b"bytes") || set.contains(&b',') {
        return Selected::Whole;
    }
    let Some((first, last)) = split_once(set.trim_ascii(), b'-') else {
        return Selected::Whole;
    };
    if first.is_empty() {
        return match parse_decimal(last) {
            None => Selected::Whole,
            Some(suffix) if suffix == 0 || size == 0 => Selected::Unsatisfiable,
            Some(suffix) => Selected::Part(ByteRange {
                first: size.saturating_sub(suffix),
                last: size.saturating_sub(1),
            }),
        };
    }
    let Some(first) = parse_decimal(first) else {
        return Selected::Whole;
    };
    let last = if last.is_empty() {
        Some(u64::MAX)
    } else {
        parse_decimal(last)
    };
    match last {
        None => Selected::Whole,
        Some(last) if last < first => Selected::Whole,
        Some(_) if first >= size => Selected::Unsatisfiable,
        Some(last) => Selected::Part(ByteRange {
            first,
            last: last.min(size.saturating_sub(1)),
        }),
    }
}

/// The `Content-Range` of a 206.
#[must_use]
pub fn content_range(range: ByteRange, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.first, range.last)
}

/// The `Content-Range` of a 416.
#[must_use]
pub fn unsatisfied_range(size: u64) -> String {
    format!("bytes */{size}")
}

/// A `Content-Range` as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes that follow; `None` in a 416.
    pub range: Option<ByteRange>,
    /// Size of the whole representation, unless the sender left it open (`*`).
    pub size: Option<u64>,
}

impl ContentRange {
    /// Parses a field value; `None` if it is malformed, inconsistent or of another unit (RFC 9110
    /// §14.4: the recipient must then not recombine the part).
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (unit, rest) = split_once(value.trim_ascii(), b' ')?;
        if !unit.eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        let (range, size) = split_once(rest.trim_ascii(), b'/')?;
        let size = if size == b"*" {
            None
        } else {
            Some(parse_decimal(size)?)
        };
        if range == b"*" {
            return size.map(|size| Self {
                range: None,
                size: Some(size),
            });
        }
        let (first, last) = split_once(range, b'-')?;
        let range = ByteRange {
            first: parse_decimal(first)?,
            last: parse_decimal(last)?,
        };
        let fits = range.first <= range.last && size.is_none_or(|size| range.last < size);
        fits.then_some(Self {
            range: Some(range),
            size,
        })
    }
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = bytes.iter().position(|&byte| byte == at)?;
    Some((bytes.get(..position)?, bytes.get(position + 1..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(first: u64, last: u64) -> Selected {
        Selected::Part(ByteRange { first, last })
    }

    #[test]
    fn ranges_are_selected() {
        for (field, size, want) in [
            ("bytes=0-0", 10, part(0, 0)),
            ("bytes=2-5", 10, part(2, 5)),
            ("Bytes=2-5", 10, part(2, 5)),
            ("bytes=2-", 10, part(2, 9)),
            ("bytes=2-99", 10, part(2, 9)),
            ("bytes=9-9", 10, part(9, 9)),
            ("bytes=10-10", 10, Selected::Unsatisfiable),
            ("bytes=10-", 10, Selected::Unsatisfiable),
            ("bytes=0-", 0, Selected::Unsatisfiable),
            ("bytes=-3", 10, part(7, 9)),
            ("bytes=-30", 10, part(0, 9)),
            ("bytes=-0", 10, Selected::Unsatisfiable),
            ("bytes=-1", 0, Selected::Unsatisfiable),
            ("bytes=5-2", 10, Selected::Whole),
            ("bytes=0-1,4-5", 10, Selected::Whole),
            ("bytes=", 10, Selected::Whole),
            ("bytes=-", 10, Selected::Whole),
            ("bytes=a-b", 10, Selected::Whole),
            ("bytes=+1-2", 10, Selected::Whole),
            ("bytes=1-18446744073709551616", 10, Selected::Whole),
            ("lines=1-2", 10, Selected::Whole),
            ("", 10, Selected::Whole),
        ] {
            assert_eq!(select(field.as_bytes(), size), want, "{field} of {size}");
        }
    }

    #[test]
    fn content_ranges_are_read() {
        let range = |first, last| Some(ByteRange { first, last });
        for (field, want) in [
            (
                "bytes 0-4/10",
                Some(ContentRange {
                    range: range(0, 4),
                    size: Some(10),
                }),
            ),
            (
                "bytes 0-4/*",
                Some(ContentRange {
                    range: range(0, 4),
                    size: None,
                }),
            ),
            (
                "bytes */10",
                Some(ContentRange {
                    range: None,
                    size: Some(10),
                }),
            ),
            ("bytes */*", None),
            ("bytes 4-0/10", None),
            ("bytes 0-10/10", None),
            ("lines 0-4/10", None),
            ("bytes 0-4", None),
        ] {
            assert_eq!(ContentRange::parse(field.as_bytes()), want, "{field}");
        }
    }

    proptest! {
        #[test]
        fn a_selected_part_lies_inside(
            field in "bytes=[0-9]{0,5}-[0-9]{0,5}",
            size in 0u64..100_000,
        ) {
            if let Selected::Part(range) = select(field.as_bytes(), size) {
                prop_assert!(range.first <= range.last && range.last < size);
                let text = content_range(range, size);
                let want = ContentRange { range: Some(range), size: Some(size) };
                prop_assert_eq!(ContentRange::parse(text.as_bytes()), Some(want));
            }
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60), size: u64) {
            let _ = select(&bytes, size);
            let _ = ContentRange::parse(&bytes);
        }
    }
}
