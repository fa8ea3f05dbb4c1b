//! Variable-length integers as in RFC 9000 §16: the two top bits of the first byte give the length
//! (1, 2, 4 or 8 bytes), the rest is the value in network byte order; at most 2⁶² − 1. And
//! [`Reader`], a cursor over received bytes that never panics.

/// Largest value a variable-length integer holds.
pub const MAX_VARINT: u64 = (1 << 62) - 1;

/// Appends `value` in its shortest form. Values beyond [`MAX_VARINT`] are clamped to it.
pub fn put_varint(out: &mut impl Extend<u8>, value: u64) {
    let value = value.min(MAX_VARINT);
    let bytes = value.to_be_bytes();
    let (length, prefix) = match value {
        0..=0x3f => (1, 0x00),
        0x40..=0x3fff => (2, 0x40),
        0x4000..=0x3fff_ffff => (4, 0x80),
        _ => (8, 0xc0),
    };
    let mut bytes = bytes.into_iter().skip(8 - length);
    out.extend(bytes.next().map(|first| first | prefix));
    out.extend(bytes);
}

/// The encoded length of `value`, in bytes.
#[must_use]
pub const fn varint_len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// A cursor over received bytes. Every method returns `None` if the bytes end too soon.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Creates a reader at the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The unread bytes.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Reads the next `n` bytes.
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.bytes.split_at_checked(n)?;
        self.bytes = rest;
        Some(head)
    }

    /// Reads the next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*head)
    }

    /// Reads one byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Reads two bytes in network order.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Reads four bytes in network order.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Reads six bytes in network order.
    pub fn u48(&mut self) -> Option<u64> {
        self.array()
            .map(|[a, b, c, d, e, f]| u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// Reads eight bytes in network order.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Reads a variable-length integer in any of its encodings.
    pub fn varint(&mut self) -> Option<u64> {
        let first = *self.bytes.first()?;
        let length = 1usize << (first >> 6);
        let mut value = u64::from(first & 0x3f);
        for byte in self.take(length)?.iter().skip(1) {
            value = value << 8 | u64::from(*byte);
        }
        Some(value)
    }

    /// Reads a variable-length integer that must fit 32 bits.
    pub fn varint_u32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }
}

/// Returns the low six bytes of `value` in network order.
#[must_use]
pub const fn u48_bytes(value: u64) -> [u8; 6] {
    let [_, _, a, b, c, d, e, f] = value.to_be_bytes();
    [a, b, c, d, e, f]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_change_where_the_rfc_says() {
        for (value, length) in [
            (0, 1),
            (63, 1),
            (64, 2),
            (16_383, 2),
            (16_384, 4),
            ((1 << 30) - 1, 4),
            (1 << 30, 8),
            (MAX_VARINT, 8),
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!((out.len(), varint_len(value)), (length, length), "{value}");
            assert_eq!(Reader::new(&out).varint(), Some(value));
        }
    }

    proptest! {
        #[test]
        fn round_trip(value in 0..=MAX_VARINT) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint(), Some(value));
            prop_assert!(reader.rest().is_empty());
        }

        #[test]
        fn a_cut_value_is_none(value in 64..=MAX_VARINT) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            out.pop();
            prop_assert_eq!(Reader::new(&out).varint(), None);
        }
    }
}
