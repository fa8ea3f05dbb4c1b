//! Drop reasons of the stack, and their counters.
//!
//! In: a [`DropReason`] per packet; out: counters by reason, with labels for metrics. Counters only
//! grow. No label ever names a client.

use crate::wire::ip::Malformed;

/// The reason for dropping a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// Fewer bytes than the headers announce.
    Truncated,
    /// Neither IPv4 nor IPv6.
    BadVersion,
    /// Length fields contradict each other.
    BadLength,
    /// Wrong IPv4 header checksum.
    BadHeaderChecksum,
    /// A fragment.
    Fragment,
    /// IPv6 extension header.
    UnsupportedExtension,
    /// Wrong UDP checksum.
    BadUdpChecksum,
    /// No UDP checksum.
    NoUdpChecksum,
    /// Truncated TCP header, or wrong checksum.
    BadTcp,
    /// Truncated ICMP header, or wrong checksum.
    BadIcmp,
    /// Longer than the MTU.
    Oversized,
    /// Not for a local address; includes multicast.
    ForeignDestination,
    /// The source is not a unicast address, is a local one, or has UDP port zero.
    BadSource,
    /// The UDP port does not belong to the transport.
    UnknownUdpPort,
    /// ICMP other than an echo request.
    IcmpNotEcho,
    /// Neither UDP, TCP nor ICMP.
    UnknownProtocol,
    /// The connection table is full; the peer will retransmit.
    ConnectionsFull,
    /// The transmit queue is full.
    QueueFull,
}

impl DropReason {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 18] = [
        Self::Truncated,
        Self::BadVersion,
        Self::BadLength,
        Self::BadHeaderChecksum,
        Self::Fragment,
        Self::UnsupportedExtension,
        Self::BadUdpChecksum,
        Self::NoUdpChecksum,
        Self::BadTcp,
        Self::BadIcmp,
        Self::Oversized,
        Self::ForeignDestination,
        Self::BadSource,
        Self::UnknownUdpPort,
        Self::IcmpNotEcho,
        Self::UnknownProtocol,
        Self::ConnectionsFull,
        Self::QueueFull,
    ];

    /// The metric's label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::BadVersion => "bad_version",
            Self::BadLength => "bad_length",
            Self::BadHeaderChecksum => "bad_header_checksum",
            Self::Fragment => "fragment",
            Self::UnsupportedExtension => "unsupported_extension",
            Self::BadUdpChecksum => "bad_udp_checksum",
            Self::NoUdpChecksum => "no_udp_checksum",
            Self::BadTcp => "bad_tcp",
            Self::BadIcmp => "bad_icmp",
            Self::Oversized => "oversized",
            Self::ForeignDestination => "foreign_destination",
            Self::BadSource => "bad_source",
            Self::UnknownUdpPort => "unknown_udp_port",
            Self::IcmpNotEcho => "icmp_not_echo",
            Self::UnknownProtocol => "unknown_protocol",
            Self::ConnectionsFull => "connections_full",
            Self::QueueFull => "queue_full",
        }
    }
}

impl From<Malformed> for DropReason {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Truncated => Self::Truncated,
            Malformed::BadVersion => Self::BadVersion,
            Malformed::BadLength => Self::BadLength,
            Malformed::BadHeaderChecksum => Self::BadHeaderChecksum,
            Malformed::Fragment => Self::Fragment,
            Malformed::UnsupportedExtension => Self::UnsupportedExtension,
            Malformed::BadUdpChecksum => Self::BadUdpChecksum,
            Malformed::NoUdpChecksum => Self::NoUdpChecksum,
        }
    }
}

/// Dropped packets by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Drops {
    pub(super) fn count(&mut self, reason: DropReason) {
        if let Some(counter) = self.0.get_mut(reason as usize) {
            *counter += 1;
        }
    }

    /// The number of packets dropped for `reason`.
    #[must_use]
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }

    /// Returns every reason with its count, including zeros.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.into_iter().zip(self.0)
    }

    /// The number of all dropped packets.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// Counters of a stack; all monotonic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackCounters {
    /// Packets received, including dropped ones.
    pub packets_in: u64,
    /// Bytes received, including IP headers.
    pub bytes_in: u64,
    /// Packets emitted by the stack itself (TCP, ICMP).
    pub packets_out: u64,
    /// Bytes emitted, including IP headers.
    pub bytes_out: u64,
    /// Dropped packets by reason.
    pub drops: Drops,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_counts_for_itself() {
        let mut drops = Drops::default();
        for (n, reason) in DropReason::ALL.into_iter().enumerate() {
            for _ in 0..=n {
                drops.count(reason);
            }
        }
        for (n, (reason, count)) in (1..).zip(drops.iter()) {
            assert_eq!((count, drops.of(reason)), (n, n), "{}", reason.label());
        }
        assert_eq!(drops.total(), (1..=18).sum::<u64>());
        let mut labels: Vec<_> = DropReason::ALL
            .iter()
            .map(|reason| reason.label())
            .collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), DropReason::ALL.len());
    }
}
