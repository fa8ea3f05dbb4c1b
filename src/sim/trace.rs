//! The last packets of a simulation, as a capture that tshark reads.
//!
//! In: packets with virtual timestamps. Out: the bytes of a pcap file, link type raw IP, with
//! microsecond timestamps (the classic format: 24 bytes of file header, 16 a packet).

use std::collections::VecDeque;

use crate::time::Instant;

/// Most packets in a trace.
pub const MAX_TRACED: usize = 1 << 16;

/// Microsecond timestamps, in the byte order of the file.
const MAGIC: u32 = 0xa1b2_c3d4;

/// Major version 2 in the low half, minor version 4 in the high half.
const VERSION: u32 = 0x0004_0002;

const SNAP_LENGTH: u32 = 65_535;

/// Packets begin with an IPv4 or IPv6 header.
const LINKTYPE_RAW: u32 = 101;

/// A ring of the last packets.
#[derive(Clone, Debug)]
pub struct Trace {
    packets: VecDeque<(Instant, Vec<u8>)>,
    limit: usize,
}

impl Trace {
    /// Creates an empty ring of `limit` packets, at most [`MAX_TRACED`].
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            packets: VecDeque::new(),
            limit: limit.min(MAX_TRACED),
        }
    }

    /// Stores a copy; a full ring drops its oldest packet.
    pub fn record(&mut self, now: Instant, packet: &[u8]) {
        let mut buffer = Vec::new();
        while self.packets.len() >= self.limit {
            let Some((_, oldest)) = self.packets.pop_front() else {
                return;
            };
            buffer = oldest;
        }
        buffer.clear();
        buffer.extend_from_slice(packet);
        self.packets.push_back((now, buffer));
    }

    /// Returns the ring as a pcap file, oldest packet first.
    #[must_use]
    pub fn pcap(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for field in [MAGIC, VERSION, 0, 0, SNAP_LENGTH, LINKTYPE_RAW] {
            out.extend(field.to_le_bytes());
        }
        for (time, packet) in &self.packets {
            let micros = time.as_micros();
            let seconds = u32::try_from(micros / 1_000_000).unwrap_or(u32::MAX);
            let fraction = u32::try_from(micros % 1_000_000).unwrap_or(0);
            let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
            for field in [seconds, fraction, length, length] {
                out.extend(field.to_le_bytes());
            }
            out.extend_from_slice(packet);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_last_packets() {
        let mut trace = Trace::new(3);
        for n in 0..5u8 {
            trace.record(Instant::from_micros(1_500_000 + u64::from(n)), &[n; 20]);
        }
        let pcap = trace.pcap();
        assert_eq!(pcap.len(), 24 + 3 * (16 + 20));
        assert_eq!(pcap[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
        assert_eq!(pcap[20..24], [101, 0, 0, 0]);
        assert_eq!(pcap[24..32], [1, 0, 0, 0, 0x22, 0xa1, 7, 0], "1.500002 s");
        assert_eq!(pcap[40], 2);
    }

    #[test]
    fn a_ring_is_bounded_and_may_hold_nothing() {
        let mut none = Trace::new(0);
        none.record(Instant::ZERO, &[1]);
        assert_eq!(none.pcap().len(), 24);
        assert_eq!(Trace::new(usize::MAX).limit, MAX_TRACED);
        let mut full = Trace::new(MAX_TRACED);
        for _ in 0..=MAX_TRACED {
            full.record(Instant::ZERO, &[]);
        }
        assert_eq!(full.packets.len(), MAX_TRACED);
    }
}
