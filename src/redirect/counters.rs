//! Drop reasons of the redirector, and their counters.
//!
//! In: a [`RedirectDrop`] per packet. Out: counters by reason, with labels for metrics. No label
//! names a client.

use crate::redirect::capsule::CapsuleError;
use crate::wire::ip::Malformed;

/// The reason for dropping a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectDrop {
    /// Malformed IP or UDP headers.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Neither for a service nor for the redirector.
    #[error("foreign destination address")]
    ForeignDestination,
    /// UDP for a service, but not a packet of the transport.
    #[error("not a packet of the transport")]
    NotTransport,
    /// A truncated TCP header.
    #[error("truncated TCP header")]
    BadTcp,
    /// ICMP for a service other than an echo request.
    #[error("ICMP other than an echo request")]
    IcmpNotEcho,
    /// Neither UDP, TCP nor ICMP.
    #[error("unknown protocol")]
    UnknownProtocol,
    /// Longer than the MTU after encapsulation.
    #[error("exceeds the MTU after encapsulation")]
    TooLong,
    /// Every backend is administratively down.
    #[error("no backend")]
    NoBackend,
    /// The transmit queue is full.
    #[error("transmit queue full")]
    QueueFull,
    /// For the redirector itself, but neither a heartbeat nor an ICMP error.
    #[error("not for the redirector")]
    NotForUs,
    /// A heartbeat that fails authentication.
    #[error(transparent)]
    CapsuleError(#[from] CapsuleError),
    /// An authentic heartbeat, or the quote in an ICMP error, that matches nothing sent recently.
    #[error("unsolicited reply or ICMP error")]
    Unsolicited,
}

impl RedirectDrop {
    /// The label of its counter.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed(Malformed::Truncated) => "truncated",
            Self::Malformed(Malformed::BadVersion) => "bad_version",
            Self::Malformed(Malformed::BadLength) => "bad_length",
            Self::Malformed(Malformed::BadHeaderChecksum) => "bad_header_checksum",
            Self::Malformed(Malformed::Fragment) => "fragment",
            Self::Malformed(Malformed::UnsupportedExtension) => "unsupported_extension",
            Self::Malformed(Malformed::BadUdpChecksum) => "bad_udp_checksum",
            Self::Malformed(Malformed::NoUdpChecksum) => "no_udp_checksum",
            Self::ForeignDestination => "foreign_destination",
            Self::NotTransport => "not_transport",
            Self::BadTcp => "bad_tcp",
            Self::IcmpNotEcho => "icmp_not_echo",
            Self::UnknownProtocol => "unknown_protocol",
            Self::TooLong => "too_long",
            Self::NoBackend => "no_backend",
            Self::QueueFull => "queue_full",
            Self::NotForUs => "not_for_us",
            Self::CapsuleError(CapsuleError::Truncated) => "heartbeat_truncated",
            Self::CapsuleError(CapsuleError::UnknownKind) => "heartbeat_unknown_kind",
            Self::CapsuleError(CapsuleError::UnknownKey) => "heartbeat_unknown_key",
            Self::CapsuleError(CapsuleError::Forged) => "heartbeat_forged",
            Self::CapsuleError(CapsuleError::Misdirected) => "heartbeat_misdirected",
            Self::CapsuleError(CapsuleError::UnknownRedirector) => "heartbeat_unknown_redirector",
            Self::CapsuleError(CapsuleError::Replayed) => "heartbeat_replayed",
            Self::Unsolicited => "unsolicited",
        }
    }
}

/// Counters by label; one appears when first counted, and the code bounds their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByLabel(Vec<(&'static str, u64)>);

impl ByLabel {
    /// Increments a counter.
    pub fn count(&mut self, label: &'static str) {
        match self.0.iter_mut().find(|(known, _)| *known == label) {
            Some((_, count)) => *count += 1,
            None => self.0.push((label, 1)),
        }
    }

    /// The count of one label.
    #[must_use]
    pub fn of(&self, label: &str) -> u64 {
        let found = self.0.iter().find(|(known, _)| *known == label);
        found.map_or(0, |(_, count)| *count)
    }

    /// Returns every label with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().copied()
    }
}

/// The counters of a redirector, except those per backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedirectCounters {
    /// IP packets received.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Packets dropped, by reason.
    pub drops: ByLabel,
    /// Packets forwarded while no backend was healthy.
    pub failed_open: u64,
    /// Authentic ICMP errors, which hastened heartbeats.
    pub hints: u64,
    /// Configurations applied after the first.
    pub swaps: u64,
    /// Tables of sites applied without a new configuration.
    pub tables: u64,
    /// Packets segmented from coalesced ones.
    pub segmented: u64,
}
