//! What the transport hands to a device: datagrams that share one UDP path.
//!
//! A [`Flight`] is laid out so that one offloaded write can carry it: the UDP payloads stand one
//! after the other, all of `segment` bytes, only the last may be shorter. A plain device sends them
//! one by one; `wire::ip` puts the headers in front.

use std::borrow::Cow;
use std::net::SocketAddr;

use crate::wire::payload::Payload;

/// The ECN field of an IP header (RFC 3168 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecn {
    /// Not ECN-capable.
    #[default]
    NotEct,
    /// ECN-capable, codepoint ECT(1).
    Ect1,
    /// ECN-capable, codepoint ECT(0).
    Ect0,
    /// Congestion experienced.
    Ce,
}

impl Ecn {
    /// The two low bits of the traffic class byte.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotEct => 0,
            Self::Ect1 => 1,
            Self::Ect0 => 2,
            Self::Ce => 3,
        }
    }

    /// Reads the two low bits of a traffic class byte.
    #[must_use]
    pub const fn from_bits(traffic_class: u8) -> Self {
        match traffic_class & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }
}

/// Source and destination of a UDP datagram; both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UdpPath {
    /// Where it comes from.
    pub src: SocketAddr,
    /// Where it goes to.
    pub dst: SocketAddr,
}

impl UdpPath {
    /// The path of the answer.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
        }
    }
}

/// Datagrams of one path, ready for one offloaded write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flight {
    /// Source and destination of every datagram.
    pub path: UdpPath,
    /// ECN codepoint of every datagram.
    pub ecn: Ecn,
    /// UDP payload length of every datagram but the last, in bytes; at least 1.
    pub segment: usize,
    /// The UDP payloads, one after the other.
    pub payload: Payload,
}

impl Flight {
    /// A flight of one datagram.
    #[must_use]
    pub fn single(path: UdpPath, ecn: Ecn, payload: Vec<u8>) -> Self {
        Self {
            path,
            ecn,
            segment: payload.len().max(1),
            payload: payload.into(),
        }
    }

    /// How many datagrams there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.payload.len().div_ceil(self.segment.max(1))
    }

    /// The UDP payloads in sending order, each in one piece.
    pub fn datagrams(&self) -> impl Iterator<Item = Cow<'_, [u8]>> {
        let mut reader = self.payload.reader();
        core::iter::from_fn(move || {
            let want = reader.left().min(self.segment.max(1));
            let first = reader.next(want)?;
            if first.len() == want {
                return Some(Cow::Borrowed(first));
            }
            let mut whole = first.to_vec();
            while let Some(slice) = reader.next(want - whole.len()) {
                whole.extend_from_slice(slice);
            }
            Some(Cow::Owned(whole))
        })
    }
}
