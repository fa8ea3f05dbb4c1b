//! The response stream that is being fetched: the bytes received, those to be requested, and the
//! user continuation by which any server can produce them.

use crate::transport::application::MAX_STREAM_BYTES;
use crate::transport::client::reassembly::Reassembly;
use crate::transport::client::spans::SpanSet;
use crate::transport::layout::Layout;
use crate::wire::segment::{MAX_RANGES, Span};

/// Room in the buffer that is worth a request however large the buffer: a full flight.
const MAX_GRAIN: u64 = 64 * 1024;

/// The name of no stream: a client never requests it.
pub(super) const UNNAMED: u64 = 0;

/// The label of a stream on the wire: the low byte of its name. Labels come again after 256 streams,
/// names do not, so a label alone never says whose bytes a datagram has.
pub(super) const fn label_of(stream: u64) -> u8 {
    let [low, ..] = stream.to_le_bytes();
    low
}

/// See the head of this file. Bytes below `fresh` were requested once; those of them that are lost
/// stand in `missing`.
#[derive(Debug)]
pub(super) struct Stream {
    /// The client's name for it, which only counts up; responses echo its [label](label_of).
    pub(super) id: u64,
    /// The application request.
    pub(super) request: Vec<u8>,
    /// The sealed user continuation, once the stream has begun.
    pub(super) user: Option<Vec<u8>>,
    length: u64,
    pub(super) reassembly: Reassembly,
    missing: SpanSet,
    fresh: u64,
    /// Bytes beyond the reading position that may be requested, if there is room for more.
    pub(super) most_under_way: u64,
    /// The request is under way and its answer has not come.
    pub(super) beginning: bool,
    /// A server has asked to wait for bytes of it: no further ones are requested meanwhile.
    pub(super) waits: bool,
    pub(super) finished: bool,
}

impl Stream {
    pub(super) fn new(buffer: usize) -> Self {
        Self {
            id: UNNAMED,
            request: Vec::new(),
            user: None,
            length: MAX_STREAM_BYTES,
            reassembly: Reassembly::new(buffer),
            missing: SpanSet::default(),
            fresh: 0,
            most_under_way: u64::MAX,
            beginning: false,
            waits: false,
            finished: true,
        }
    }

    /// Starts another stream, for `request`.
    pub(super) fn restart(&mut self, request: &[u8]) {
        self.id += 1;
        self.request = request.to_vec();
        self.user = None;
        self.length = MAX_STREAM_BYTES;
        self.reassembly.reset();
        self.missing.clear();
        self.fresh = 0;
        self.beginning = false;
        self.waits = false;
        self.finished = false;
    }

    /// Names another attempt to begin the stream. Two answers to the same request may be of two
    /// versions, so each attempt has its own name.
    pub(super) const fn begin_again(&mut self) -> u64 {
        self.id += 1;
        self.beginning = true;
        self.id
    }

    /// Takes the sealed user continuation of the stream, and its length if that is known.
    pub(super) fn begin(&mut self, sealed: &[u8], length: Option<u64>) {
        self.user = Some(sealed.to_vec());
        self.length = length.unwrap_or(MAX_STREAM_BYTES);
        self.beginning = false;
    }

    /// Takes the length of a stream that began without one, with the user continuation that has it.
    /// Returns `false` if bytes beyond that end have come, or if the length was another.
    pub(super) fn end_at(&mut self, sealed: &[u8], length: u64) -> bool {
        if self.length == length {
            return true;
        }
        let beyond = self.reassembly.highest() > length;
        if self.length != MAX_STREAM_BYTES || beyond {
            return false;
        }
        self.user = Some(sealed.to_vec());
        self.length = length;
        self.fresh = self.fresh.min(length);
        self.missing.remove(Span {
            start: length,
            end: MAX_STREAM_BYTES,
        });
        true
    }

    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Whether every byte has come and been read.
    pub(super) fn is_read(&self) -> bool {
        self.user.is_some() && self.reassembly.read_offset() >= self.length
    }

    /// Where fresh bytes end. Room that the reader makes is used a good part at a time, so that a
    /// full buffer does not mean a request a packet (RFC 1122 §4.2.3.3).
    fn fresh_end(&self) -> u64 {
        let near = self
            .reassembly
            .read_offset()
            .saturating_add(self.most_under_way);
        let limit = self.reassembly.limit().min(near);
        if self.length <= limit {
            return self.length;
        }
        let worthwhile = (self.reassembly.capacity() / 4).min(MAX_GRAIN);
        if limit - self.fresh.min(limit) < worthwhile {
            self.fresh
        } else {
            limit
        }
    }

    /// The count of bytes that could be requested now.
    pub(super) fn wanted(&self) -> u64 {
        let fresh = self.fresh_end().saturating_sub(self.fresh);
        match self.user {
            _ if self.finished => 0,
            Some(_) if self.waits => self.missing.total(),
            Some(_) => self.missing.total() + fresh,
            None => u64::from(!self.beginning),
        }
    }

    /// Chooses the bytes of a flight of at most `count` datagrams, lost ones first, and lays them
    /// out; bytes that are laid out are not wanted any more.
    pub(super) fn take(
        &mut self,
        size: usize,
        count: u32,
        first_taken: usize,
        layout: &mut Layout,
    ) -> Vec<Span> {
        let mut ranges: Vec<Span> = self.missing.iter().take(MAX_RANGES - 1).collect();
        let fresh = Span {
            start: self.fresh,
            end: self.fresh_end(),
        };
        if !fresh.is_empty() && !self.waits {
            ranges.push(fresh);
        }
        layout.fill(size, count, first_taken, &ranges);
        let taken: Vec<Span> = layout.runs().collect();
        for run in &taken {
            self.missing.remove(*run);
            self.fresh = self.fresh.max(run.end);
        }
        taken
    }

    /// Notes that bytes up to `end` were requested with the request that began the stream.
    pub(super) fn asked_up_to(&mut self, end: u64) {
        self.fresh = self.fresh.max(end.min(self.length));
    }

    /// Wants bytes again that were requested and lost, unless they came under another number.
    pub(super) fn lose(&mut self, span: Span) {
        let span = Span {
            end: span.end.min(self.length),
            ..span
        };
        for gap in self.reassembly.missing(span) {
            self.missing.insert(gap);
        }
    }

    /// Stores bytes; returns the count of new ones.
    pub(super) fn store(&mut self, offset: u64, bytes: &[u8]) -> u64 {
        let end = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.user.is_none() || end > self.length {
            return 0;
        }
        self.missing.remove(Span { start: offset, end });
        if offset <= self.fresh {
            self.fresh = self.fresh.max(end.min(self.reassembly.limit()));
        }
        self.reassembly.store(offset, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_asked_for_than_may_be_under_way_or_fits() {
        const BUFFER: u64 = 1 << 20;
        let mut stream = Stream::new(1 << 20);
        stream.restart(b"request");
        stream.begin(b"sealed", Some(10 * BUFFER));
        assert_eq!(stream.wanted(), BUFFER);
        stream.most_under_way = 100_000;
        let taken = stream.take(1400, 1000, 0, &mut Layout::default());
        assert_eq!(
            taken,
            [Span {
                start: 0,
                end: 100_000
            }]
        );
        assert_eq!(stream.wanted(), 0);
        stream.store(0, &[7; 70_000]);
        assert_eq!(stream.wanted(), 0, "unread");
        stream.reassembly.consume(70_000);
        assert_eq!(stream.wanted(), 70_000);
        stream.most_under_way = u64::MAX;
        assert_eq!(stream.wanted(), BUFFER - 30_000);
        stream.finished = true;
        assert_eq!(stream.wanted(), 0, "failed");
    }
}
