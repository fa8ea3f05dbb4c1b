//! Flights: datagrams that share one UDP path, the transport's output to a device.
//!
//! The layout of a [`Flight`] suits one offloaded write (GSO): concatenated UDP payloads, all of
//! `segment` bytes but the last, which may be shorter. A plain device sends them one by one;
//! `wire::ip` prepends the headers.

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

    /// Converts the two low bits of a traffic class byte.
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
    /// The source.
    pub src: SocketAddr,
    /// The destination.
    pub dst: SocketAddr,
}

impl UdpPath {
    /// Returns the path of the reply.
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
    /// The UDP payloads, concatenated.
    pub payload: Payload,
}

impl Flight {
    /// Creates a flight of one datagram.
    #[must_use]
    pub fn single(path: UdpPath, ecn: Ecn, payload: Vec<u8>) -> Self {
        Self {
            path,
            ecn,
            segment: payload.len().max(1),
            payload: payload.into(),
        }
    }

    /// The number of datagrams.
    #[must_use]
    pub fn count(&self) -> usize {
        self.payload.len().div_ceil(self.segment.max(1))
    }

    /// Returns the UDP payloads in sending order, each contiguous.
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

/// A path between two machines, for tests.
#[cfg(test)]
pub(crate) fn sample_path(v6: bool) -> UdpPath {
    let (src, dst) = match v6 {
        true => ("[fd00::1]:7600", "[fd00::2]:9"),
        false => ("10.0.0.1:7600", "10.0.0.2:9"),
    };
    UdpPath {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
    }
}
