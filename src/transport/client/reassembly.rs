//! Reassembly of one response stream: bytes come in any order and leave in order, through a ring
//! whose size is the reader's buffer. Bytes that do not fit are not stored, and not requested either.
//! Whenever it runs empty it begins again at its start: a reader that keeps up touches little memory,
//! however large the ring.

use crate::transport::client::spans::SpanSet;
use crate::wire::segment::Span;

/// A ring of bytes of a stream, from the reading position on.
#[derive(Debug)]
pub(super) struct Reassembly {
    /// As long as the bytes so far have needed; it wraps only at its full length.
    ring: Vec<u8>,
    capacity: usize,
    /// Offset of the next byte to be read.
    read: u64,
    /// Offset of the byte at the start of the ring, or a multiple of its length below.
    origin: u64,
    /// Bytes received and not read, and everything before `read`.
    received: SpanSet,
}

impl Reassembly {
    /// An empty ring of `capacity` bytes, at least one. It takes memory as bytes come: most objects
    /// are much smaller than the buffers that large ones need.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            ring: Vec::new(),
            capacity: capacity.max(1),
            read: 0,
            origin: 0,
            received: SpanSet::default(),
        }
    }

    /// Forgets everything, for another stream.
    pub(super) fn reset(&mut self) {
        (self.read, self.origin) = (0, 0);
        self.received.clear();
    }

    /// Offset of the next byte to be read.
    pub(super) const fn read_offset(&self) -> u64 {
        self.read
    }

    /// Bytes that fit.
    pub(super) const fn capacity(&self) -> u64 {
        to_u64(self.capacity)
    }

    /// One past the last byte that there is room for.
    pub(super) const fn limit(&self) -> u64 {
        self.read + to_u64(self.capacity)
    }

    /// One past the highest byte received.
    pub(super) fn highest(&self) -> u64 {
        let last = self.received.iter().next_back();
        last.map_or(self.read, |span| span.end.max(self.read))
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
        let (first, second) = bytes.split_at(bytes.len().min(self.capacity - at));
        self.grow(at + first.len());
        if let Some(room) = self.ring.get_mut(at..at + first.len()) {
            room.copy_from_slice(first);
        }
        if let Some(room) = self.ring.get_mut(..second.len()) {
            room.copy_from_slice(second);
        }
    }

    /// Makes the ring `len` bytes long at least; never takes memory for more than its capacity.
    fn grow(&mut self, len: usize) {
        if self.ring.len() < len {
            let ahead = len.max(2 * self.ring.len()).min(self.capacity);
            self.ring.reserve_exact(ahead - self.ring.len());
            self.ring.resize(len, 0);
        }
    }

    /// Whether there is anything to read.
    pub(super) fn readable(&self) -> bool {
        self.received.span_at(self.read).is_some()
    }

    /// The next bytes in order, as far as they lie together; empty if there are none.
    pub(super) fn ready(&self) -> &[u8] {
        let end = self.received.span_at(self.read).map(|ready| ready.end);
        let at = self.place(self.read);
        let count = to_usize(end.map_or(0, |end| end - self.read));
        let together = count.min(self.capacity - at);
        self.ring.get(at..at + together).unwrap_or_default()
    }

    /// Takes that many bytes off the front, or as many as there are together.
    pub(super) fn consume(&mut self, count: usize) {
        let end = self.read + to_u64(count.min(self.ready().len()));
        self.received.remove(Span {
            start: self.read,
            end,
        });
        self.read = end;
        if self.received.total() == 0 {
            self.origin = end;
        }
    }

    /// The parts of `span` that are neither read nor stored.
    pub(super) fn missing(&self, span: Span) -> Vec<Span> {
        self.received.gaps(Span {
            start: span.start.max(self.read),
            end: span.end,
        })
    }

    fn place(&self, offset: u64) -> usize {
        to_usize((offset - self.origin) % to_u64(self.capacity))
    }
}

const fn to_u64(n: usize) -> u64 {
    n as u64
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
                let ready = ring.ready();
                let count = take.min(ready.len());
                for got in &ready[..count] {
                    prop_assert_eq!(*got, byte(at));
                    at += 1;
                }
                ring.consume(take);
                if ring.received.total() == 0 {
                    prop_assert_eq!(ring.place(ring.read), 0, "an empty ring begins at its start");
                }
                prop_assert_eq!(ring.read_offset(), at);
            }
        }
    }

    #[test]
    fn memory_is_taken_as_bytes_come_up_to_the_capacity() {
        let mut ring = Reassembly::new(10_000);
        assert_eq!(ring.ring.capacity(), 0);
        assert_eq!(ring.store(0, &[1; 6000]), 6000);
        assert_eq!(ring.ring.capacity(), 6000);
        assert_eq!(ring.store(6000, &[1; 5000]), 4000);
        assert_eq!(ring.ring.capacity(), 10_000);
    }

    #[test]
    fn what_has_no_room_is_not_stored() {
        let mut ring = Reassembly::new(10);
        assert_eq!(ring.store(0, &[1; 11]), 10);
        assert_eq!(ring.store(10, &[1; 5]), 0);
        ring.consume(4);
        assert_eq!(ring.store(10, &[1; 5]), 4);
        assert_eq!(ring.ready().len(), 6, "up to the end of the ring");
        ring.consume(100);
        assert_eq!((ring.read_offset(), ring.ready().len()), (10, 4));
    }
}
