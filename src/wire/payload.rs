//! The UDP payloads of a flight, as a list of what to gather: bytes of an object stay where they lie
//! until a device puts them beside their headers.
//!
//! In: small things written one after the other (*heads*: packet headers, chunk heads, seals,
//! padding) and a *body*, of which ranges are referred to in between. The application writes the body,
//! or shares memory that holds its bytes already.
//! Out: the same bytes as slices in sending order, for a device to assemble whole or datagram by
//! datagram. Buffers are lent by a [`Pool`] and come back when the last reader lets go.
//! Never knows where a datagram ends: that is the segment size of the flight.

use core::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Buffers that a pool keeps for flights to come: as many flights as one joined packet of requests
/// has in the air before they are written, mostly one. Beyond, each has a buffer of its own.
pub const MAX_POOLED: usize = 8;

/// Bytes that several hold and nobody changes; they go when the last lets go.
#[derive(Clone)]
pub struct Shared(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl Shared {
    /// The bytes of `owner`, which must be the same at every look.
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

/// Heads, a body and the order in which they are sent.
#[derive(Debug, Default)]
pub struct Gathered {
    heads: Vec<u8>,
    /// What was written of the body. Initialised up to its largest use so far, so that a new use
    /// writes each byte once.
    own: Vec<u8>,
    /// Bytes of `own` in use now.
    written: usize,
    /// Bytes of the body.
    staged: usize,
    /// Bytes of the body referred to.
    referred: usize,
    /// The body, in its order.
    pieces: Vec<Piece>,
    parts: Vec<Part>,
}

/// A stretch of the body that lies in one memory.
#[derive(Debug)]
struct Piece {
    body: Range<usize>,
    /// `None`: in what was written.
    shared: Option<Shared>,
    /// Where it begins in that memory.
    at: usize,
}

/// All heads up to one place and not sent before, then a range of the memory of a piece.
#[derive(Clone, Debug)]
struct Part {
    heads_end: usize,
    piece: usize,
    range: Range<usize>,
}

/// A place to go back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    heads: usize,
    referred: usize,
    parts: usize,
}

impl Gathered {
    /// Empties it and keeps its own memory.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.parts.clear();
        self.pieces.clear();
        (self.written, self.staged, self.referred) = (0, 0, 0);
    }

    /// Room for the next `bytes` of the body. They hold anything until they are written.
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

    /// Has `write` put at most `bytes` more into the body, as many as it says.
    ///
    /// # Errors
    /// Those of `write`; the body is then as before.
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

    /// Makes `bytes` from `at` on of `memory` the next of the body, as far as there are any; returns
    /// how many. They are not copied.
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

    /// Bytes of the body.
    #[must_use]
    pub const fn staged(&self) -> usize {
        self.staged
    }

    /// Where heads are appended.
    pub const fn heads(&mut self) -> &mut Vec<u8> {
        &mut self.heads
    }

    /// Appends a range of the body, as far as there is one; returns the bytes appended.
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

    /// Bytes to be sent.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.heads.len() + self.referred
    }

    /// Whether there is nothing to be sent.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it may hold without asking for more memory; what is shared belongs to others.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.heads.capacity()
            + self.own.capacity()
            + self.pieces.capacity() * size_of::<Piece>()
            + self.parts.capacity() * size_of::<Part>()
    }

    /// This place.
    #[must_use]
    pub const fn mark(&self) -> Mark {
        Mark {
            heads: self.heads.len(),
            referred: self.referred,
            parts: self.parts.len(),
        }
    }

    /// Takes back what was appended since `mark`. The body stays.
    pub fn rewind(&mut self, mark: Mark) {
        self.heads.truncate(mark.heads);
        self.parts.truncate(mark.parts);
        self.referred = mark.referred;
    }
}

/// Lends buffers, and takes them again when nobody reads them any more.
#[derive(Debug, Default)]
pub struct Pool(Vec<Arc<Gathered>>);

impl Pool {
    /// Makes a payload of `gathered`, which gets an empty buffer in exchange. No buffer that nobody
    /// reads any more holds memory of others after this.
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

    /// Bytes that the buffers which are kept may hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.iter().map(|gathered| gathered.capacity()).sum()
    }
}

/// The UDP payloads of a flight, one after the other. Cheap to clone if gathered.
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

/// Equal if the same bytes are sent, however they lie in memory.
impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.to_vec() == other.to_vec()
    }
}

impl Eq for Payload {}

impl Payload {
    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Content::Whole(bytes) => bytes.len(),
            Content::Gathered(gathered) => gathered.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A reader at the first byte.
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

    /// The bytes in one piece.
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
    /// What comes next, and what comes after it.
    now: &'a [u8],
    then: &'a [u8],
    left: usize,
}

impl<'a> PayloadReader<'a> {
    /// Bytes not yet read.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.left
    }

    /// The next bytes that lie together, at most `most`; `None` at the end or if `most` is 0.
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

    /// Copies the next bytes to the start of `out` and returns how many: less than there is room for
    /// only at the end.
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

    /// The next heads and the range of the body behind them.
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

    /// Writes `body` in stretches that end at `ends`, each into the buffer's own memory or shared.
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

    /// Heads, ranges of a body of 256 bytes, and what is taken back at once.
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
