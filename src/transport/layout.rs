//! The layout of stream bytes in the datagrams of a flight. Client and server lay out a request with
//! the same function, so the client knows the bytes of a missing number.
//!
//! Ranges are laid out in the order requested. A datagram holds one chunk, or several if a range ends
//! within it; all datagrams but the last are full.

use crate::wire::segment::{CHUNK_BYTES, DATA_HEADER_BYTES, SINGLE_CHUNK_BYTES, Span};

/// The layout of a flight; reused to avoid allocations.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    chunks: Vec<Span>,
    /// For each datagram, the end of its chunks in `chunks`.
    ends: Vec<usize>,
}

impl Layout {
    /// Lays out `ranges` in at most `count` datagrams of `size` bytes, the first of which has
    /// `first_taken` bytes less room. Omits bytes that do not fit.
    pub fn fill(&mut self, size: usize, count: u32, first_taken: usize, ranges: &[Span]) {
        self.chunks.clear();
        self.ends.clear();
        let mut left = ranges
            .iter()
            .copied()
            .filter(|range| !range.is_empty())
            .peekable();
        let mut range = left.next();
        let mut taken = first_taken;
        for _ in 0..count {
            let Some(current) = &mut range else { return };
            let room = size.saturating_sub(DATA_HEADER_BYTES + taken);
            taken = 0;
            let alone = to_u64(room.saturating_sub(SINGLE_CHUNK_BYTES));
            if current.len() >= alone || left.peek().is_none() {
                self.chunks.push(cut(current, alone));
                if current.is_empty() {
                    range = left.next();
                }
            } else {
                self.fill_several(room, &mut range, || left.next());
            }
            self.ends.push(self.chunks.len());
        }
    }

    fn fill_several(
        &mut self,
        mut room: usize,
        range: &mut Option<Span>,
        mut next: impl FnMut() -> Option<Span>,
    ) {
        while let Some(current) = range {
            if room <= CHUNK_BYTES {
                return;
            }
            let chunk = cut(current, to_u64(room - CHUNK_BYTES));
            room -= CHUNK_BYTES + usize::try_from(chunk.len()).unwrap_or(room);
            self.chunks.push(chunk);
            if current.is_empty() {
                *range = next();
            }
        }
    }

    /// Prepends a datagram, without its chunks.
    pub fn stand_behind_another(&mut self) {
        self.ends.insert(0, 0);
    }

    /// Iterates over the chunks of each datagram, in sending order; only those of a prepended datagram
    /// are empty.
    pub fn datagrams(&self) -> impl Iterator<Item = &[Span]> {
        (0..self.ends.len()).map(|index| self.datagrams_from(index, 0))
    }

    /// Returns the chunks of a datagram and of `more` after it, of those that exist.
    #[must_use]
    pub fn datagrams_from(&self, index: usize, more: usize) -> &[Span] {
        let start = match index.checked_sub(1) {
            Some(before) => self.ends.get(before).copied(),
            None => Some(0),
        };
        let last = index
            .saturating_add(more)
            .min(self.ends.len().saturating_sub(1));
        let range = start.zip(self.ends.get(last));
        range
            .and_then(|(start, &end)| self.chunks.get(start..end))
            .unwrap_or_default()
    }

    /// All chunks, in sending order.
    #[must_use]
    pub fn chunks(&self) -> &[Span] {
        &self.chunks
    }

    /// Iterates over the chunks, with adjacent ones joined.
    pub fn runs(&self) -> impl Iterator<Item = Span> {
        let runs = self.chunks.chunk_by(|one, next| one.end == next.start);
        runs.filter_map(|run| {
            let (start, end) = (run.first()?.start, run.last()?.end);
            Some(Span { start, end })
        })
    }

    /// The number of datagrams with bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the layout is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// The stream bytes of a single chunk in a datagram of `size`.
#[must_use]
pub const fn room(size: usize) -> usize {
    size.saturating_sub(DATA_HEADER_BYTES + SINGLE_CHUNK_BYTES)
}

/// Splits up to `most` bytes off the front.
fn cut(range: &mut Span, most: u64) -> Span {
    let end = range.start + range.len().min(most);
    let chunk = Span {
        start: range.start,
        end,
    };
    range.start = end;
    chunk
}

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(chunks: &[Span]) -> usize {
        let data: u64 = chunks.iter().map(Span::len).sum();
        usize::try_from(data).unwrap() + chunks.len() * CHUNK_BYTES + DATA_HEADER_BYTES
    }

    proptest! {
        #[test]
        fn bytes_stand_in_order_and_datagrams_are_full(
            size in 256usize..1500, count in 1u32..=44, first_taken in 0usize..120,
            lengths in proptest::collection::vec(1u64..5000, 0..32),
        ) {
            let mut at = 0;
            let ranges: Vec<Span> = lengths.iter().map(|length| {
                at += 7 + length;
                Span { start: at - length, end: at }
            }).collect();
            let mut layout = Layout::default();
            layout.fill(size, count, first_taken, &ranges);
            let mut wanted = ranges.iter().flat_map(|range| range.start..range.end);
            let datagrams: Vec<_> = layout.datagrams().collect();
            prop_assert!(datagrams.len() <= count as usize);
            for (index, chunks) in datagrams.iter().enumerate() {
                for chunk in *chunks {
                    prop_assert!(!chunk.is_empty());
                    for byte in chunk.start..chunk.end { prop_assert_eq!(wanted.next(), Some(byte)); }
                }
                let have = bytes_of(chunks) + if index == 0 { first_taken } else { 0 };
                // A single chunk may omit its length.
                prop_assert!(have <= size + CHUNK_BYTES - SINGLE_CHUNK_BYTES);
                if index + 1 < datagrams.len() { prop_assert!(have + CHUNK_BYTES >= size, "{} of {}", have, size); }
            }
            if datagrams.len() < count as usize { prop_assert_eq!(wanted.next(), None); }
        }

        /// The client requests only bytes that fit; the server must lay these out alike.
        #[test]
        fn trimming_to_what_fits_changes_nothing(
            size in 256usize..1500, count in 1u32..=44, lengths in proptest::collection::vec(1u64..5000, 1..32),
        ) {
            let mut at = 0;
            let ranges: Vec<Span> = lengths.iter().map(|length| {
                at += 7 + length;
                Span { start: at - length, end: at }
            }).collect();
            let (mut first, mut second) = (Layout::default(), Layout::default());
            first.fill(size, count, 0, &ranges);
            let last = first.datagrams().last().and_then(<[Span]>::last).map_or(0, |chunk| chunk.end);
            let trimmed: Vec<Span> = ranges.iter().filter(|range| range.start < last)
                .map(|range| Span { start: range.start, end: range.end.min(last) }).collect();
            second.fill(size, count, 0, &trimmed);
            prop_assert_eq!(first.datagrams().collect::<Vec<_>>(), second.datagrams().collect::<Vec<_>>());
        }
    }
}
