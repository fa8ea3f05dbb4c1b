//! Why the redirector drops packets, and how many.
//!
//! In: a [`RedirectDrop`] a packet. Out: counters by reason, with labels for metrics. No label names
//! a client.

use crate::redirect::capsule::CapsuleError;
use crate::wire::ip::Malformed;

/// Why a packet went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectDrop {
    /// No sound IP or UDP headers.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Neither for a service nor for the redirector.
    #[error("for an address that is not served")]
    ForeignDestination,
    /// UDP for a service, but no packet of the transport.
    #[error("no packet of the transport")]
    NotTransport,
    /// TCP cut short.
    #[error("TCP header cut short")]
    BadTcp,
    /// ICMP for a service, but no echo request.
    #[error("ICMP, but no echo request")]
    IcmpNotEcho,
    /// None of UDP, TCP, ICMP.
    #[error("unknown protocol")]
    UnknownProtocol,
    /// Longer than the MTU once it is encapsulated.
    #[error("too long for the MTU")]
    TooLong,
    /// Every backend is administratively down.
    #[error("no backend")]
    NoBackend,
    /// Too many packets wait to be sent.
    #[error("too many packets wait")]
    QueueFull,
    /// For the redirector itself, but neither heartbeat nor ICMP error.
    #[error("not for the redirector")]
    NotForUs,
    /// A heartbeat that is not genuine.
    #[error(transparent)]
    Capsule(#[from] CapsuleError),
    /// A genuine heartbeat, or the quote in an ICMP error, that answers nothing sent lately.
    #[error("answers nothing that was sent")]
    Unasked,
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
            Self::Capsule(CapsuleError::Truncated) => "heartbeat_truncated",
            Self::Capsule(CapsuleError::UnknownKind) => "heartbeat_unknown_kind",
            Self::Capsule(CapsuleError::UnknownKey) => "heartbeat_unknown_key",
            Self::Capsule(CapsuleError::Forged) => "heartbeat_forged",
            Self::Capsule(CapsuleError::Misdirected) => "heartbeat_misdirected",
            Self::Capsule(CapsuleError::UnknownRedirector) => "heartbeat_unknown_redirector",
            Self::Capsule(CapsuleError::Replayed) => "heartbeat_replayed",
            Self::Unasked => "unasked",
        }
    }
}

/// Counters by label; one appears with its first count, and their number is bounded by the code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByLabel(Vec<(&'static str, u64)>);

impl ByLabel {
    /// Counts one.
    pub fn count(&mut self, label: &'static str) {
        match self.0.iter_mut().find(|(known, _)| *known == label) {
            Some((_, count)) => *count += 1,
            None => self.0.push((label, 1)),
        }
    }

    /// How many of one label.
    #[must_use]
    pub fn of(&self, label: &str) -> u64 {
        let found = self.0.iter().find(|(known, _)| *known == label);
        found.map_or(0, |(_, count)| *count)
    }

    /// Every label with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().copied()
    }
}

/// What a redirector has counted, besides what it counts by backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedirectCounters {
    /// IP packets received.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Packets that went nowhere, by reason.
    pub drops: ByLabel,
    /// Packets that were sent although no backend was known to be well.
    pub failed_open: u64,
    /// ICMP errors that brought a verdict forward.
    pub hints: u64,
    /// Configurations put in force after the first.
    pub swaps: u64,
    /// Tables of sites put in force without another configuration.
    pub tables: u64,
    /// Packets made again of those that a device had joined.
    pub parted: u64,
}
