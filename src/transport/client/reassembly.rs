//! Reassembly of one response stream: bytes come in any order and leave in order, through a ring
//! whose size is the reader's buffer. What does not fit is not stored, and is not asked for either.

use crate::transport::client::spans::SpanSet;
use crate::wire::segment::Span;

/// A ring of bytes of a stream, from the reading position on.
#[derive(Debug)]
pub(super) struct Reassembly {
    ring: Vec<u8>,
    /// Offset of the next byte to be read.
    read: u64,
    /// Bytes received and not read, and everything before `read`.
    received: SpanSet,
}

impl Reassembly {
    /// An empty ring of `capacity` bytes, at least one.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            ring: vec![0; capacity.max(1)],
            read: 0,
            received: SpanSet::default(),
        }
    }

    /// Forgets everything, for another stream.
    pub(super) fn reset(&mut self) {
        self.read = 0;
        self.received.clear();
    }

    /// Offset of the next byte to be read.
    pub(super) const fn read_offset(&self) -> u64 {
        self.read
    }

    /// Bytes that fit.
    pub(super) fn capacity(&self) -> u64 {
        to_u64(self.ring.len())
    }

    /// One past the last byte that there is room for.
    pub(super) fn limit(&self) -> u64 {
        self.read + to_u64(self.ring.len())
    }

    /// Stores the part of `bytes` that is new and has room; returns how many bytes were new.
    pub(super) fn store(&mut self, offset: u64, bytes: &[u8]) -> u64 {
        let end = offset.saturating_add(to_u64(bytes.len())).min(self.limit());
        let start = offset.max(self.read);
        if start >= end {
            return 0;
        }
        let skip = to_usize(start - offset);
        let Some(bytes) = bytes.get(skip..skip + to_usize(end - start)) else {
            return 0;
        };
        self.copy_in(start, bytes);
        self.received.insert(Span { start, end })
    }

    fn copy_in(&mut self, start: u64, bytes: &[u8]) {
        let at = self.place(start);
        let (first, second) = bytes.split_at(bytes.len().min(self.ring.len() - at));
        if let Some(room) = self.ring.get_mut(at..at + first.len()) {
            room.copy_from_slice(first);
        }
        if let Some(room) = self.ring.get_mut(..second.len()) {
            room.copy_from_slice(second);
        }
    }

    /// Whether there is anything to read.
    pub(super) fn readable(&self) -> bool {
        self.received.span_at(self.read).is_some()
    }

    /// Takes bytes off the front; returns how many.
    pub(super) fn read(&mut self, out: &mut [u8]) -> usize {
        let Some(ready) = self.received.span_at(self.read) else {
            return 0;
        };
        let count = out.len().min(to_usize(ready.end - self.read));
        let at = self.place(self.read);
        let first = count.min(self.ring.len() - at);
        let pieces = [(0, at, first), (first, 0, count - first)];
        for (to, from, length) in pieces {
            let source = self.ring.get(from..from + length);
            if let (Some(room), Some(source)) = (out.get_mut(to..to + length), source) {
                room.copy_from_slice(source);
            }
        }
        let end = self.read + to_u64(count);
        self.received.remove(Span {
            start: self.read,
            end,
        });
        self.read = end;
        count
    }

    /// The parts of `span` that are neither read nor stored.
    pub(super) fn missing(&self, span: Span) -> Vec<Span> {
        self.received.gaps(Span {
            start: span.start.max(self.read),
            end: span.end,
        })
    }

    fn place(&self, offset: u64) -> usize {
        to_usize(offset % to_u64(self.ring.len()))
    }
}

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Only for distances inside the ring.
fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn byte(offset: u64) -> u8 {
        (offset.wrapping_mul(31) >> 2) as u8
    }

    proptest! {
        /// Whatever comes in whatever order, what leaves is the stream.
        #[test]
        fn bytes_leave_in_order(
            capacity in 1usize..100,
            steps in proptest::collection::vec((0u64..400, 0u64..80, 0usize..60), 0..80),
        ) {
            let mut ring = Reassembly::new(capacity);
            let mut at = 0;
            for (offset, length, take) in steps {
                let bytes: Vec<u8> = (offset..offset + length).map(byte).collect();
                let missing: u64 = ring.missing(Span { start: offset, end: (offset + length).min(ring.limit()) })
                    .iter().map(Span::len).sum();
                prop_assert_eq!(ring.store(offset, &bytes), missing);
                let mut out = vec![0; take];
                let count = ring.read(&mut out);
                for got in &out[..count] {
                    prop_assert_eq!(*got, byte(at));
                    at += 1;
                }
                prop_assert_eq!(ring.read_offset(), at);
            }
        }
    }

    #[test]
    fn what_has_no_room_is_not_stored() {
        let mut ring = Reassembly::new(10);
        assert_eq!(ring.store(0, &[1; 11]), 10);
        assert_eq!(ring.store(10, &[1; 5]), 0);
        let mut out = [0; 4];
        assert_eq!(ring.read(&mut out), 4);
        assert_eq!(ring.store(10, &[1; 5]), 4);
    }
}
