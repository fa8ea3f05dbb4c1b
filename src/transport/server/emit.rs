//! Writes the datagrams of a flight: headers, sealed things, chunks, and what stands for numbers
//! that nothing was left for. Which numbers and which bytes is decided before; nothing is decided
//! here but how they stand in the datagrams. All of them have one size, only the last may be shorter.

use crate::transport::layout::Layout;
use crate::transport::proof::ProofKey;
use crate::wire::segment::{ResponseHeader, SINGLE_CHUNK_BYTES, Span, UserField, put_chunk};

/// What the packets of one flight have in common.
#[derive(Clone, Copy)]
pub(super) struct Numbered {
    pub(super) header: ResponseHeader,
    pub(super) identity: ProofKey,
    /// Number of the first packet of the layout.
    pub(super) first: u64,
    /// Numbers granted.
    pub(super) count: u32,
    /// Which of them to send: bit `i` for `first + i`.
    pub(super) send: u64,
    pub(super) size: usize,
    /// Numbers after a datagram that it stands for.
    pub(super) void: u8,
}

/// Sealed things to be given to the client.
pub(super) struct Seals<'a> {
    pub(super) continuation: &'a [u8],
    /// Every datagram carries the continuation, not only the first.
    pub(super) everywhere: bool,
    pub(super) user: Option<UserField<'a>>,
}

impl Numbered {
    /// Writes the datagrams of a flight that are to be sent.
    pub(super) fn emit(&self, layout: &Layout, stage: &[u8], seals: &Seals<'_>) -> Vec<u8> {
        let sent = self.send.count_ones() as usize;
        let mut payload = Vec::with_capacity(self.size * sent);
        let used = u32::try_from(layout.len()).unwrap_or(u32::MAX);
        let mut staged = stage;
        let mut void = self.count.saturating_sub(used);
        for (index, chunks) in (0..).zip(layout.datagrams()) {
            let length: u64 = chunks.iter().map(Span::len).sum();
            let length = usize::try_from(length)
                .unwrap_or(usize::MAX)
                .min(staged.len());
            let (bytes, rest) = staged.split_at(length);
            staged = rest;
            let last = index + 1 == used;
            let start = payload.len();
            let here = self.write(&mut payload, seals, index, last, chunks, bytes);
            // The last datagram stands for all numbers after it too, if it has room to say so.
            if last && void > 0 && payload.len() - start < self.size {
                payload.truncate(start);
                let numbered = Self {
                    void: small(void),
                    ..*self
                };
                numbered.write(&mut payload, seals, index, true, chunks, bytes);
                void = 0;
            }
            if !here {
                payload.truncate(start);
            }
        }
        if void > 0 {
            let start = payload.len();
            let numbered = Self {
                void: small(void - 1),
                ..*self
            };
            if !numbered.write(&mut payload, seals, used, true, &[], &[]) {
                payload.truncate(start);
            }
        }
        payload
    }

    /// Writes datagram `index`; whether it is one to be sent.
    fn write(
        &self,
        out: &mut Vec<u8>,
        seals: &Seals<'_>,
        index: u32,
        last: bool,
        chunks: &[Span],
        mut bytes: &[u8],
    ) -> bool {
        let start = out.len();
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
        header.x = self
            .identity
            .fold(number - 1, number + u64::from(self.void));
        header.emit(out, continuation, user);
        // All datagrams but the last are of one size: a chunk that leaves room says its length.
        let alone = out.len() - start + SINGLE_CHUNK_BYTES + bytes.len();
        let multi = chunks.len() > 1 || (!last && alone < self.size);
        if multi {
            out.truncate(start);
            header.multi = true;
            header.emit(out, continuation, user);
        }
        for chunk in chunks {
            let length = usize::try_from(chunk.len())
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            let (here, rest) = bytes.split_at(length);
            put_chunk(
                out,
                chunk.start,
                multi.then(|| u16::try_from(length).unwrap_or(u16::MAX)),
            );
            out.extend(here);
            bytes = rest;
        }
        if !last {
            out.resize(start + self.size, 0);
        }
        self.send >> index & 1 != 0
    }
}

/// Numbers of one flight fit a byte.
pub(super) fn small(void: u32) -> u8 {
    u8::try_from(void).unwrap_or(u8::MAX)
}

fn low_bits(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0)
}
