//! Objects whose every byte is a function of a seed and its offset, so that any server can produce
//! and any observer can verify any part without storing it.
//!
//! [`Objects`] serves them as an application: the request and the user continuation are both seed
//! and length, 16 bytes in network order.

use crate::transport::application::{
    Application, Begun, MAX_STREAM_BYTES, RequestContext, StreamPart, Unavailable,
};

/// One object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// Seed of its bytes.
    pub seed: u64,
    /// Length in bytes.
    pub length: u64,
}

impl Object {
    /// Encodes the application request for it.
    #[must_use]
    pub fn request(self) -> Vec<u8> {
        [self.seed.to_be_bytes(), self.length.to_be_bytes()].concat()
    }

    /// Parses a request or a user continuation.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (seed, length) = bytes.split_first_chunk::<8>()?;
        let length = length.try_into().ok().map(u64::from_be_bytes)?;
        (length <= MAX_STREAM_BYTES).then_some(Self {
            seed: u64::from_be_bytes(*seed),
            length,
        })
    }

    /// Fills `out` with the bytes from `offset` on, regardless of the object's length.
    pub fn fill(self, offset: u64, out: &mut [u8]) {
        let skip = usize::try_from(offset % 8).unwrap_or(0);
        let mut index = offset / 8;
        let (head, body) = out.split_at_mut(out.len().min((8 - skip) % 8));
        if !head.is_empty() {
            copy(head, &self.word(index), skip);
            index += 1;
        }
        for (index, chunk) in (index..).zip(body.chunks_mut(8)) {
            copy(chunk, &self.word(index), 0);
        }
    }

    /// Returns the offset of the first byte that differs from the object, if `bytes` start at
    /// `offset`.
    #[must_use]
    pub fn first_difference(self, offset: u64, bytes: &[u8]) -> Option<u64> {
        let mut expected = vec![0; bytes.len()];
        self.fill(offset, &mut expected);
        if expected == bytes && offset.saturating_add(len(bytes)) <= self.length {
            return None;
        }
        let differs = |(have, want)| have != want;
        let inside = bytes.iter().zip(&expected).position(differs);
        Some(inside.map_or(self.length, |at| {
            offset.saturating_add(u64::try_from(at).unwrap_or(u64::MAX))
        }))
    }

    /// Returns SplitMix64 of the word's index.
    fn word(self, index: u64) -> [u8; 8] {
        let mut z = self
            .seed
            .wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_be_bytes()
    }
}

fn copy(to: &mut [u8], word: &[u8; 8], skip: usize) {
    for (to, from) in to.iter_mut().zip(word.iter().skip(skip)) {
        *to = *from;
    }
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Serves objects. A malformed request gets an empty one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Objects;

impl Application for Objects {
    fn begin(&mut self, _context: RequestContext, request: &[u8]) -> Result<Begun, Unavailable> {
        let object = Object::parse(request).unwrap_or(Object { seed: 0, length: 0 });
        Ok(Begun {
            user: object.request(),
            length: Some(object.length),
        })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        let StreamPart { user, offset, .. } = part;
        let object = Object::parse(user).ok_or(Unavailable::Changed)?;
        let left = object.length.saturating_sub(offset);
        let count = usize::try_from(left).map_or(out.len(), |left| left.min(out.len()));
        object.fill(offset, out.split_at_mut(count).0);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OBJECT: Object = Object {
        seed: 5,
        length: 1000,
    };

    proptest! {
        #[test]
        fn any_part_is_a_part_of_the_whole(from in 0u64..1000, count in 0usize..1000) {
            let mut whole = vec![0; 2000];
            OBJECT.fill(0, &mut whole);
            let mut part = vec![0; count];
            OBJECT.fill(from, &mut part);
            let start = usize::try_from(from).unwrap();
            prop_assert_eq!(&part[..], &whole[start..start + count]);
        }

        #[test]
        fn one_wrong_byte_is_found(from in 0u64..900, count in 1usize..100, pick: prop::sample::Index) {
            let mut part = vec![0; count];
            OBJECT.fill(from, &mut part);
            prop_assert_eq!(OBJECT.first_difference(from, &part), None);
            let wrong = pick.index(count);
            part[wrong] ^= 1;
            let at = from + u64::try_from(wrong).unwrap();
            prop_assert_eq!(OBJECT.first_difference(from, &part), Some(at));
        }
    }

    #[test]
    fn bytes_past_the_end_are_wrong() {
        let mut part = vec![0; 10];
        OBJECT.fill(995, &mut part);
        assert_eq!(OBJECT.first_difference(995, &part), Some(1000));
        assert_eq!(OBJECT.first_difference(995, &part[..5]), None);
    }

    #[test]
    fn the_application_serves_the_object_and_no_more() {
        let context = RequestContext {
            now: crate::time::UnixMillis::new(0),
            proven: true,
            source: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        };
        let begun = Objects.begin(context, &OBJECT.request()).unwrap();
        assert_eq!(begun.length, Some(1000));
        let mut out = [0; 64];
        assert_eq!(
            Objects.read(StreamPart::new(context, &begun.user, 990), &mut out),
            Ok(10)
        );
        assert_eq!(OBJECT.first_difference(990, &out[..10]), None);
        assert_eq!(
            Objects.read(StreamPart::new(context, &begun.user, 1000), &mut out),
            Ok(0)
        );
        assert_eq!(
            Objects.read(StreamPart::new(context, &[1, 2], 0), &mut out),
            Err(Unavailable::Changed)
        );
        assert_eq!(Objects.begin(context, b"what?").unwrap().length, Some(0));
    }
}
