//! The UDP payloads of a flight as a gather list: the bytes of an object stay in place until a
//! device copies them behind their headers.
//!
//! In: small pieces in sequence (*heads*: packet headers, chunk heads, seals, padding), interleaved
//! with ranges of a *body*. The application writes the body, or shares memory that holds its bytes
//! already.
//! Out: the same bytes as slices in sending order, for a device to assemble as a whole or per
//! datagram. A [`Pool`] lends buffers and recycles them once the last reader drops them.
//! Never knows datagram boundaries: these are the segment size of the flight.

use core::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Buffers that a pool keeps for further flights: as many as one coalesced packet of requests has
/// outstanding before they are written, mostly one. Further flights allocate their own.
pub const MAX_POOLED: usize = 8;

/// Immutable shared bytes, freed with the last reference.
#[derive(Clone)]
pub struct Shared(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl Shared {
    /// Shares the bytes of `owner`, which must always return the same ones.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(owner))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shared bytes", self.bytes().len())
    }
}

/// Heads, a body and their sending order.
#[derive(Debug, Default)]
pub struct Gathered {
    heads: Vec<u8>,
    /// The written part of the body. Initialised up to its largest use so far, so that reuse writes
    /// each byte once.
    own: Vec<u8>,
    /// Bytes of `own` in use.
    written: usize,
    /// Bytes of the body.
    staged: usize,
    /// Bytes of the body referred to so far.
    referred: usize,
    /// The body, in order.
    pieces: Vec<Piece>,
    parts: Vec<Part>,
}

/// A contiguous part of the body.
#[derive(Debug)]
struct Piece {
    body: Range<usize>,
    /// `None` for the buffer's own memory.
    shared: Option<Shared>,
    /// Offset in that memory.
    at: usize,
}

/// All heads up to an offset that were not sent before, then a range of a piece's memory.
#[derive(Clone, Debug)]
struct Part {
    heads_end: usize,
    piece: usize,
    range: Range<usize>,
}

/// A position to rewind to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    heads: usize,
    referred: usize,
    parts: usize,
}

impl Gathered {
    /// Clears the buffer and keeps its own memory.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.parts.clear();
        self.pieces.clear();
        (self.written, self.staged, self.referred) = (0, 0, 0);
    }

    /// Returns room for the next `bytes` of the body, with undefined content.
    pub fn room(&mut self, bytes: usize) -> &mut [u8] {
        let (at, start) = (self.written, self.staged);
        self.written += bytes;
        self.staged += bytes;
        match self.pieces.last_mut() {
            Some(last) if last.shared.is_none() => last.body.end = self.staged,
            Some(_) | None => self.pieces.push(Piece {
                body: start..self.staged,
                shared: None,
                at,
            }),
        }
        if self.own.len() < self.written {
            self.own.resize(self.written, 0);
        }
        self.own.get_mut(at..self.written).unwrap_or_default()
    }

    /// Lets `write` append at most `bytes` to the body; it returns how many it wrote.
    ///
    /// # Errors
    /// Those of `write`; the body is then unchanged.
    pub fn fill<E>(
        &mut self,
        bytes: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let result = write(self.room(bytes));
        let unused = bytes - result.as_ref().map_or(0, |&kept| kept.min(bytes));
        self.written -= unused;
        self.staged -= unused;
        if let Some(last) = self.pieces.last_mut() {
            last.body.end = self.staged;
        }
        result
    }

    /// Appends up to `bytes` of `memory` from `at` on to the body without a copy; returns how many
    /// exist.
    pub fn share(&mut self, memory: &Shared, at: usize, bytes: usize) -> usize {
        let bytes = bytes.min(memory.bytes().len().saturating_sub(at));
        let start = self.staged;
        self.staged += bytes;
        self.pieces.push(Piece {
            body: start..self.staged,
            shared: Some(memory.clone()),
            at,
        });
        bytes
    }

    /// The length of the body, in bytes.
    #[must_use]
    pub const fn staged(&self) -> usize {
        self.staged
    }

    /// The buffer to which heads are appended.
    pub const fn heads(&mut self) -> &mut Vec<u8> {
        &mut self.heads
    }

    /// Appends a range of the body to the sending order, as far as it exists; returns the bytes
    /// appended.
    pub fn refer(&mut self, at: usize, bytes: usize) -> usize {
        let end = at.saturating_add(bytes).min(self.staged);
        let first = self.pieces.partition_point(|piece| piece.body.end <= at);
        let mut from = at;
        for (index, piece) in self.pieces.iter().enumerate().skip(first) {
            if from >= end {
                break;
            }
            let until = piece.body.end.min(end);
            if piece.body.is_empty() {
                continue;
            }
            let start = piece.at + (from - piece.body.start);
            self.parts.push(Part {
                heads_end: self.heads.len(),
                piece: index,
                range: start..start + (until - from),
            });
            from = until;
        }
        self.referred += from - at;
        from - at
    }

    /// The number of bytes to send.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.heads.len() + self.referred
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that fit without another allocation, shared memory excluded.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.heads.capacity()
            + self.own.capacity()
            + self.pieces.capacity() * size_of::<Piece>()
            + self.parts.capacity() * size_of::<Part>()
    }

    /// The current position.
    #[must_use]
    pub const fn mark(&self) -> Mark {
        Mark {
            heads: self.heads.len(),
            referred: self.referred,
            parts: self.parts.len(),
        }
    }

    /// Removes everything appended since `mark`, except from the body.
    pub fn rewind(&mut self, mark: Mark) {
        self.heads.truncate(mark.heads);
        self.parts.truncate(mark.parts);
        self.referred = mark.referred;
    }
}

/// Lends buffers, and recycles them without readers.
#[derive(Debug, Default)]
pub struct Pool(Vec<Arc<Gathered>>);

impl Pool {
    /// Turns `gathered` into a payload and replaces it by an empty buffer. Afterwards no buffer
    /// without readers holds shared memory.
    pub fn lend(&mut self, gathered: &mut Gathered) -> Payload {
        let mut free = None;
        for (index, slot) in self.0.iter_mut().enumerate() {
            if let Some(unread) = Arc::get_mut(slot) {
                unread.clear();
                free = free.or(Some(index));
            }
        }
        if let Some(slot) = free.and_then(|index| self.0.get_mut(index))
            && let Some(unread) = Arc::get_mut(slot)
        {
            core::mem::swap(unread, gathered);
            return Payload(Content::Gathered(Arc::clone(slot)));
        }
        let lent = Arc::new(core::mem::take(gathered));
        if self.0.len() < MAX_POOLED {
            self.0.push(Arc::clone(&lent));
        }
        Payload(Content::Gathered(lent))
    }

    /// The capacity of the kept buffers, in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.iter().map(|gathered| gathered.capacity()).sum()
    }
}

/// The UDP payloads of a flight, concatenated. Cheap to clone if gathered.
#[derive(Clone, Debug)]
pub struct Payload(Content);

#[derive(Clone, Debug)]
enum Content {
    Whole(Vec<u8>),
    Gathered(Arc<Gathered>),
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Content::Whole(bytes))
    }
}

/// Compares the bytes sent, regardless of their layout in memory.
impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.to_vec() == other.to_vec()
    }
}

impl Eq for Payload {}

impl Payload {
    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Content::Whole(bytes) => bytes.len(),
            Content::Gathered(gathered) => gathered.len(),
        }
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a reader at the first byte.
    #[must_use]
    pub fn reader(&self) -> PayloadReader<'_> {
        let (heads, own, pieces, parts) = match &self.0 {
            Content::Whole(bytes) => (bytes.as_slice(), &[][..], &[][..], &[][..]),
            Content::Gathered(gathered) => {
                let Gathered {
                    heads,
                    own,
                    pieces,
                    parts,
                    ..
                } = &**gathered;
                (
                    heads.as_slice(),
                    own.as_slice(),
                    pieces.as_slice(),
                    parts.as_slice(),
                )
            }
        };
        PayloadReader {
            heads,
            own,
            pieces,
            parts: parts.iter(),
            heads_sent: 0,
            now: &[],
            then: &[],
            left: self.len(),
        }
    }

    /// Copies the bytes into one buffer.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        let mut reader = self.reader();
        while let Some(slice) = reader.next(usize::MAX) {
            bytes.extend_from_slice(slice);
        }
        bytes
    }
}

/// Reads a [`Payload`] once, in order.
#[derive(Clone, Debug)]
pub struct PayloadReader<'a> {
    heads: &'a [u8],
    own: &'a [u8],
    pieces: &'a [Piece],
    parts: core::slice::Iter<'a, Part>,
    heads_sent: usize,
    /// The current slice, and the one after it.
    now: &'a [u8],
    then: &'a [u8],
    left: usize,
}

impl<'a> PayloadReader<'a> {
    /// The number of bytes not yet read.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.left
    }

    /// Returns the next contiguous bytes, at most `most`; `None` at the end or if `most` is 0.
    pub fn next(&mut self, most: usize) -> Option<&'a [u8]> {
        if most == 0 {
            return None;
        }
        while self.now.is_empty() {
            (self.now, self.then) = match self.then {
                [] => self.load()?,
                then => (then, &[][..]),
            };
        }
        let (slice, rest) = self.now.split_at(most.min(self.now.len()));
        self.now = rest;
        self.left -= slice.len();
        Some(slice)
    }

    /// Copies the next bytes to the start of `out` and returns how many: fewer than its length only
    /// at the end.
    pub fn fill(&mut self, out: &mut [u8]) -> usize {
        let mut filled = 0;
        while let Some(room) = out.get_mut(filled..)
            && let Some(slice) = self.next(room.len())
            && let Some(room) = room.get_mut(..slice.len())
        {
            room.copy_from_slice(slice);
            filled += slice.len();
        }
        filled
    }

    /// Returns the next heads and the range of the body after them.
    fn load(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let (end, body) = match self.parts.next() {
            Some(part) => {
                let piece = self.pieces.get(part.piece);
                let shared = piece.and_then(|piece| piece.shared.as_ref());
                let memory = shared.map_or(self.own, Shared::bytes);
                let body = memory.get(part.range.clone());
                (part.heads_end, body.unwrap_or_default())
            }
            None if self.heads_sent < self.heads.len() => (self.heads.len(), &[][..]),
            None => return None,
        };
        let heads = self.heads.get(self.heads_sent..end).unwrap_or_default();
        self.heads_sent = end;
        Some((heads, body))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes `body` in parts that end at `ends`, each into the buffer's own memory or shared.
    fn stage(body: &[u8], mut ends: Vec<(usize, bool)>, into: &mut Gathered) {
        let memory = Shared::new(body.to_vec());
        ends.push((body.len(), false));
        ends.sort_unstable();
        let mut at = 0;
        for (end, shared) in ends {
            let bytes = end - at;
            if shared {
                assert_eq!(into.share(&memory, at, bytes), bytes);
            } else {
                into.room(bytes).copy_from_slice(&body[at..end]);
            }
            at = end;
        }
        assert_eq!(into.staged(), body.len());
    }

    /// Gathers heads, ranges of a body of 256 bytes, and appends that are rewound.
    fn gather(
        steps: &[(Vec<u8>, Range<usize>, bool)],
        ends: &[(usize, bool)],
        pool: &mut Pool,
        into: &mut Gathered,
    ) -> (Payload, Vec<u8>) {
        let mut want = Vec::new();
        let body: Vec<u8> = (0..=255).collect();
        stage(&body, ends.to_vec(), into);
        for (heads, range, kept) in steps {
            let mark = into.mark();
            into.heads().extend(heads);
            into.refer(range.start, range.len());
            if *kept {
                want.extend(heads);
                want.extend(&body[range.clone()]);
            } else {
                into.rewind(mark);
            }
        }
        into.heads().extend([9; 3]);
        want.extend([9; 3]);
        (pool.lend(into), want)
    }

    proptest! {
        #[test]
        fn what_is_gathered_comes_out_however_it_is_read(
            steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..5), 0..200_usize, 0..56_usize, any::<bool>()), 0..20),
            ends in prop::collection::vec((0..257_usize, any::<bool>()), 0..6),
            cuts in prop::collection::vec(1..90_usize, 1..9),
        ) {
            let steps: Vec<_> = steps.into_iter().map(|(heads, at, len, kept)| (heads, at..at + len, kept)).collect();
            let (mut pool, mut into) = (Pool::default(), Gathered::default());
            for _ in 0..2 {
                let (payload, want) = gather(&steps, &ends, &mut pool, &mut into);
                prop_assert_eq!(payload.len(), want.len());
                prop_assert_eq!(&payload.to_vec(), &want);
                prop_assert_eq!(&payload, &Payload::from(want.clone()));
                let (mut reader, mut read) = (payload.reader(), Vec::<u8>::new());
                for cut in cuts.iter().cycle() {
                    let mut room = vec![0; *cut];
                    let filled = reader.fill(&mut room);
                    read.extend(&room[..filled]);
                    let slice = reader.next(*cut).unwrap_or_default();
                    prop_assert!(slice.len() <= *cut);
                    read.extend(slice);
                    prop_assert_eq!(reader.left(), want.len() - read.len());
                    if reader.left() == 0 {
                        break;
                    }
                }
                prop_assert_eq!(&read, &want);
            }
        }
    }

    #[test]
    fn a_buffer_comes_back_when_its_reader_lets_go_and_few_are_kept() {
        let (mut pool, mut gathered) = (Pool::default(), Gathered::default());
        let mut lend = |byte: u8, pool: &mut Pool| {
            gathered.room(1).fill(byte);
            gathered.refer(0, 1);
            pool.lend(&mut gathered)
        };
        let held: Vec<Payload> = (0..12).map(|byte| lend(byte, &mut pool)).collect();
        assert_eq!(pool.0.len(), MAX_POOLED, "no more are kept");
        for (byte, payload) in (0..12).zip(&held) {
            assert_eq!(payload.to_vec(), [byte], "not overwritten while it is held");
        }
        drop(held);
        for byte in 0..100 {
            assert_eq!(lend(byte, &mut pool).to_vec(), [byte]);
        }
        assert_eq!(pool.0.len(), MAX_POOLED);
    }

    #[test]
    fn ranges_outside_of_the_body_are_cut() {
        let mut gathered = Gathered::default();
        gathered.room(10);
        assert_eq!(gathered.refer(8, 5), 2);
        assert_eq!(gathered.refer(10, 5), 0);
        assert_eq!(gathered.refer(usize::MAX, 5), 0);
        assert_eq!(gathered.len(), 2);
    }

    #[test]
    fn what_is_not_written_is_no_part_of_the_body() {
        let mut gathered = Gathered::default();
        gathered.room(2).copy_from_slice(b"ab");
        let failed = gathered.fill(5, |room| {
            room.fill(b'x');
            Err(())
        });
        assert_eq!((failed, gathered.staged()), (Err(()), 2));
        let short = gathered.fill(5, |room| {
            room[..3].copy_from_slice(b"cde");
            Ok::<_, ()>(3)
        });
        assert_eq!((short, gathered.staged()), (Ok(3), 5));
        assert_eq!(gathered.share(&Shared::new(*b"..fg"), 2, 9), 2, "its end");
        gathered.room(1).fill(b'h');
        assert_eq!(gathered.refer(0, 100), 8);
        assert_eq!(Pool::default().lend(&mut gathered).to_vec(), b"abcdefgh");
    }

    #[test]
    fn what_is_shared_goes_with_the_next_flight_after_its_last_reader() {
        let owner = Arc::new([7; 4]);
        let memory = Shared::new(Owned(Arc::clone(&owner)));
        let (mut pool, mut gathered) = (Pool::default(), Gathered::default());
        let mut lend = |pool: &mut Pool| {
            gathered.share(&memory, 0, 4);
            gathered.refer(0, 4);
            pool.lend(&mut gathered)
        };
        let held = [lend(&mut pool), lend(&mut pool)];
        drop(memory);
        assert_eq!(held[0].to_vec(), [7; 4]);
        drop(held);
        pool.lend(&mut Gathered::default());
        assert_eq!(Arc::strong_count(&owner), 1);
    }

    struct Owned(Arc<[u8; 4]>);

    impl AsRef<[u8]> for Owned {
        fn as_ref(&self) -> &[u8] {
            &*self.0
        }
    }
}
