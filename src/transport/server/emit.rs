//! Emits the datagrams of a flight: headers, sealed parts, chunks, and the marks for numbers without
//! bytes. Decides neither numbers nor bytes, only their encoding. All datagrams have one size, except
//! for a shorter last one.

use crate::transport::layout::Layout;
use crate::transport::low_bits as numbers;
use crate::transport::proof::{Chain, ProofKey};
use crate::wire::payload::Gathered;
use crate::wire::segment::{ResponseHeader, SINGLE_CHUNK_BYTES, Span, UserField, put_chunk};

/// Shared by the packets of one flight.
#[derive(Clone, Copy)]
pub(super) struct Numbered {
    pub(super) header: ResponseHeader,
    pub(super) identity: ProofKey,
    /// Number of the first packet of the layout.
    pub(super) first: u64,
    /// Count of numbers granted.
    pub(super) count: u32,
    /// The numbers to send: bit `i` is `first + i`.
    pub(super) send: u64,
    pub(super) size: usize,
    /// Count of void numbers that follow a datagram.
    pub(super) void: u8,
}

/// Sealed parts for the client.
pub(super) struct Seals<'a> {
    pub(super) continuation: &'a [u8],
    /// Whether every datagram carries the continuation, not only the first.
    pub(super) everywhere: bool,
    pub(super) user: Option<UserField<'a>>,
}

impl Numbered {
    /// The packets of `numbers`, the first and the count, that `send` selects.
    pub(super) const fn new(
        header: ResponseHeader,
        identity: ProofKey,
        (first, count): (u64, u32),
        send: u64,
        size: usize,
    ) -> Self {
        Self {
            header,
            identity,
            first,
            count,
            send,
            size,
            void: 0,
        }
    }

    /// Emits the datagrams to send around the body in `out`; returns the numbers that they carry or declare
    /// void, of those that `send` selects. Only the last may be short, so of several ranges of void
    /// numbers only the first is declared; the others are not sent.
    pub(super) fn emit(&self, layout: &Layout, seals: &Seals<'_>, out: &mut Gathered) -> u64 {
        let used = u32::try_from(layout.len()).unwrap_or(u32::MAX);
        let mut proofs = self.identity.chain();
        let (mut at, mut open) = (0, true);
        let mut sent = self.send & numbers(used.into());
        for (index, chunks) in (0..).zip(layout.datagrams()) {
            let last = index + 1 == used;
            let (start, before) = (out.mark(), out.len());
            let here = self.write(out, &mut proofs, seals, index, last, chunks, at);
            let void = self.adjacent(used);
            // The last datagram declares the numbers after it void, if it has room for that.
            if last && here && out.len() - before < self.size {
                open = false;
                if void > 0 {
                    out.rewind(start);
                    let numbered = Self {
                        void: small(void),
                        ..*self
                    };
                    numbered.write(out, &mut proofs, seals, index, true, chunks, at);
                    sent |= numbers(void.into()) << used;
                }
            }
            if !here {
                out.rewind(start);
            }
            at += chunks.iter().map(length).sum::<usize>();
        }
        if let Some(first) = self.unsent_from(used).filter(|_| open) {
            let void = self.adjacent(first);
            let numbered = Self {
                void: small(void - 1),
                ..*self
            };
            numbered.write(out, &mut proofs, seals, first, true, &[], at);
            sent |= numbers(void.into()) << first;
        }
        sent
    }

    /// The first number to send from `index` on.
    fn unsent_from(&self, index: u32) -> Option<u32> {
        let first = index + self.send.checked_shr(index)?.trailing_zeros();
        (first < self.count).then_some(first)
    }

    /// The count of adjacent numbers to send from `index` on.
    fn adjacent(&self, index: u32) -> u32 {
        let send = self.send.checked_shr(index).unwrap_or(0);
        send.trailing_ones().min(self.count.saturating_sub(index))
    }

    /// Emits datagram `index`, whose bytes begin at `at` in the body; returns whether to send it.
    #[expect(
        clippy::too_many_arguments,
        reason = "what differs from datagram to datagram"
    )]
    fn write(
        &self,
        out: &mut Gathered,
        proofs: &mut Chain<'_>,
        seals: &Seals<'_>,
        index: u32,
        last: bool,
        chunks: &[Span],
        mut at: usize,
    ) -> bool {
        let (start, before) = (out.mark(), out.len());
        let number = self.first + u64::from(index);
        let continuation = if index == 0 || seals.everywhere {
            seals.continuation
        } else {
            &[]
        };
        let user = seals.user.filter(|_| index == 0);
        let mut header = self.header;
        header.number = low_bits(number);
        header.void = self.void;
        header.x = proofs.fold(number - 1, number + u64::from(self.void));
        header.emit(out.heads(), continuation, user);
        // All datagrams but the last have one size: a shorter chunk states its length.
        let bytes: usize = chunks.iter().map(length).sum();
        let alone = out.len() - before + SINGLE_CHUNK_BYTES + bytes;
        let multi = chunks.len() > 1 || (!last && alone < self.size);
        if multi {
            out.rewind(start);
            header.multi = true;
            header.emit(out.heads(), continuation, user);
        }
        for chunk in chunks {
            let length = length(chunk);
            let written = multi.then(|| u16::try_from(length).unwrap_or(u16::MAX));
            put_chunk(out.heads(), chunk.start, written);
            at += out.refer(at, length);
        }
        if !last {
            let padding = self.size.saturating_sub(out.len() - before);
            let heads = out.heads();
            heads.resize(heads.len() + padding, 0);
        }
        self.send >> index & 1 != 0
    }
}

fn length(chunk: &Span) -> usize {
    usize::try_from(chunk.len()).unwrap_or(usize::MAX)
}

/// Narrows a count of void numbers, which fits a byte.
pub(super) fn small(void: u32) -> u8 {
    u8::try_from(void).unwrap_or(u8::MAX)
}

/// The low 32 bits of a packet number.
pub(super) fn low_bits(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0)
}
