//! How much one request may draw.
//!
//! In: the bytes of a request, the size and number of the datagrams that it is granted, and whether its
//! address has proven lately that it receives. Out: the size and number of those that are sent with bytes.
//! A client that received at an address once and has left it draws no more towards its present holder than
//! [`AMPLIFICATION`] times the bytes that it sends there.

use std::time::Duration;

use super::address::Known;
use super::{AMPLIFICATION, MAX_UNPROVEN_PACKETS, Server, ServerDrop, check_room};
use crate::time::{Now, UnixMillis};
use crate::transport::continuation::RECENT;
use crate::transport::epoch::KNOWN_WINDOW;
use crate::wire::flight::UdpPath;
use crate::wire::ip::udp_headers;
use crate::wire::segment::{DATA_HEADER_BYTES, OPEN_BYTES, Span};

/// Whether a proof of `issued` shows that its holder receives at the address now.
pub(super) fn is_recent(now: UnixMillis, issued: UnixMillis) -> bool {
    let age: Duration = now.saturating_since(issued);
    age <= RECENT
}

/// The datagrams of an answer that may carry bytes; the other numbers granted are void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Size of the datagrams.
    pub(super) size: usize,
    /// Size to lay the bytes out for.
    pub(super) room: usize,
    /// Most datagrams with bytes.
    pub(super) count: u32,
}

impl Extent {
    /// `count` datagrams of `size` bytes.
    pub(super) const fn new(size: usize, count: u32) -> Self {
        Self {
            size,
            room: size,
            count,
        }
    }

    /// Whether the first datagram has room for `taken` bytes beside its header and a chunk.
    pub(super) fn has_room(&self, taken: usize) -> bool {
        check_room(self.room, taken).is_ok()
    }

    /// The part of it that may be sent in answer to `drawn_by` bytes, with `headers` bytes of IP and UDP
    /// in front of each datagram.
    pub(super) fn bounded(self, drawn_by: usize, headers: usize) -> Self {
        let most = AMPLIFICATION * drawn_by;
        // Full datagrams have no room for the count of void numbers: another one follows them.
        let last = headers + DATA_HEADER_BYTES + 1;
        let full = most.saturating_sub(last) / (self.size + headers);
        match u32::try_from(full).unwrap_or(u32::MAX) {
            0 => {
                let size = self.size.min(most.saturating_sub(headers));
                Self {
                    size,
                    room: size.saturating_sub(1),
                    count: 1,
                }
            }
            full => Self {
                count: self.count.min(full),
                ..self
            },
        }
    }
}

/// An OPEN, and the fixed parts of its answer.
pub(super) struct Opening {
    pub(super) known: Known,
    /// Bytes of the OPEN.
    pub(super) bytes: usize,
    /// Largest datagram of the answer.
    pub(super) size: usize,
    /// Bytes of each datagram, besides those of Data.
    pub(super) each: usize,
    /// Further bytes of the first.
    pub(super) first: usize,
}

impl Server {
    /// Lays out the bytes of the answer to an OPEN: a whole window if its address is known and has
    /// credit.
    pub(super) fn lay_out_opening(
        &mut self,
        now: Now,
        path: UdpPath,
        opening: &Opening,
        wanted: &[Span],
    ) -> Result<Extent, ServerDrop> {
        let Opening { each, first, .. } = *opening;
        let bounded = Extent::new(opening.size.min(OPEN_BYTES), MAX_UNPROVEN_PACKETS);
        if let Known::Lately { earned } = opening.known {
            let whole = Extent::new(opening.size, KNOWN_WINDOW);
            check_room(whole.size, each + first)?;
            self.layout
                .fill(whole.size - each, whole.count, first, wanted);
            let headers = udp_headers(path.src.ip());
            let answer = self.layout.len() * (whole.size + headers);
            if self.affords(now, path, answer, earned.max(AMPLIFICATION * opening.bytes)) {
                return Ok(whole);
            }
        }
        check_room(bounded.size, each + first)?;
        self.layout
            .fill(bounded.size - each, bounded.count, first, wanted);
        Ok(bounded)
    }

    /// Whether an answer of `answer` bytes may be sent that the replay filter does not bound; takes the bytes
    /// beyond `earned` from the credit of its address.
    pub(super) fn affords(
        &mut self,
        now: Now,
        path: UdpPath,
        answer: usize,
        earned: usize,
    ) -> bool {
        let excess = answer.saturating_sub(earned);
        excess == 0 || self.credit.take(now.instant, path.src.ip(), excess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However short the request: all datagrams, with a last one for void numbers, stay within the bound.
        #[test]
        fn a_bounded_answer_is_within_the_bound(
            size in 256usize..65_535, count in 1u32..=44, drawn_by in 66usize..65_535, v6: bool,
        ) {
            let headers = if v6 { 48 } else { 28 };
            let whole = Extent::new(size, count);
            let bounded = whole.bounded(drawn_by, headers);
            prop_assert!(bounded.size <= size && bounded.count <= count && bounded.count > 0);
            let datagrams = bounded.count as usize;
            let void = if bounded.room < bounded.size { 0 } else { headers + DATA_HEADER_BYTES + 1 };
            let bytes = datagrams * (bounded.size + headers) + void;
            prop_assert!(bytes <= AMPLIFICATION * drawn_by, "{:?}: {} bytes", bounded, bytes);
            // A longer request earns more, until nothing is missing.
            prop_assert!(whole.bounded(2 * drawn_by, headers).count >= bounded.count);
            prop_assert_eq!(whole.bounded(50 * 65_535, headers), whole);
        }
    }

    #[test]
    fn a_proof_is_recent_for_half_a_minute() {
        let at = |ms: u64| UnixMillis::new(1_800_000_000_000 + ms);
        for (name, issued, now, want) in [
            ("at once", 0, 0, true),
            ("at the bound", 0, 30_000, true),
            ("past it", 0, 30_001, false),
            ("by a faster clock", 1000, 0, true),
        ] {
            assert_eq!(is_recent(at(now), at(issued)), want, "{name}");
        }
    }
}
