//! Counters of a server: its answers, and its drops by reason. None is per client.

use crate::transport::continuation::OpenError;
use crate::transport::epoch::EpochError;
use crate::transport::grant::GrantError;
use crate::wire::segment::SegmentError;

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerDrop {
    /// Not a packet of the protocol.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// A continuation or user continuation does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The request is not entitled to a grant.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// Requests datagrams larger than this server sends.
    #[error("requests datagrams larger than this server sends")]
    Oversized,
    /// Requests datagrams too small for the fixed part of an answer.
    #[error("requests datagrams too small for the answer")]
    Undersized,
    /// From a new IP address, without declaring a restart.
    #[error("from a new IP address without a restart")]
    MovedWithoutRestart,
    /// Its token bucket is empty.
    #[error("too many probes, timeouts or restarts")]
    TooOften,
    /// Releases nothing and is not a probe.
    #[error("releases nothing")]
    Nothing,
    /// Every number released was sent before.
    #[error("replayed")]
    Replayed,
    /// The application has refused to begin a stream.
    #[error("the application began no stream")]
    NotBegun,
}

impl ServerDrop {
    /// The label for its counter.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Segment(SegmentError::Truncated) => "truncated",
            Self::Segment(SegmentError::UnknownKind) => "unknown_kind",
            Self::Segment(SegmentError::UnknownVersion) => "unknown_version",
            Self::Segment(SegmentError::OutOfRange) => "out_of_range",
            Self::Open(OpenError::Length) => "continuation_length",
            Self::Open(OpenError::Version) => "continuation_version",
            Self::Open(OpenError::Generation) => "continuation_generation",
            Self::Open(OpenError::Expired) => "continuation_expired",
            Self::Open(OpenError::Future) => "continuation_future",
            Self::Open(OpenError::Forged) => "continuation_forged",
            Self::Open(OpenError::Malformed) => "continuation_malformed",
            Self::Grant(error) => grant_label(error),
            Self::Oversized => "oversized",
            Self::Undersized => "undersized",
            Self::MovedWithoutRestart => "moved_without_restart",
            Self::TooOften => "too_often",
            Self::Nothing => "nothing_released",
            Self::Replayed => "replayed",
            Self::NotBegun => "not_begun",
        }
    }
}

const fn grant_label(error: GrantError) -> &'static str {
    match error {
        GrantError::Transition(EpochError::BeforeEpoch { .. }) => "transition_before_epoch",
        GrantError::Transition(EpochError::NotOpening { .. }) => "transition_not_opening",
        GrantError::Transition(EpochError::NotSlowStart { .. }) => "transition_not_slow_start",
        GrantError::Transition(EpochError::RoundTrip { .. }) => "transition_round_trip",
        GrantError::Transition(EpochError::NumberTooLarge { .. }) => "transition_number",
        GrantError::UnknownKind => "transition_unknown",
        GrantError::NotOpened => "not_opened",
        GrantError::Interval => "interval",
        GrantError::TooMuch => "too_much",
        GrantError::Hole => "hole",
        GrantError::Quarter => "quarter",
        GrantError::Proof => "proof",
        GrantError::TooSoon => "too_soon",
        GrantError::AheadOfTime => "ahead_of_time",
    }
}

/// Counters of a server; they only increase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// OPENs answered.
    pub opens: u64,
    /// Requests and probes answered.
    pub requests: u64,
    /// Requests whose clients were asked to wait.
    pub waits: u64,
    /// Path challenges sent.
    pub challenges: u64,
    /// Datagrams sent.
    pub packets: u64,
    /// Stream bytes sent.
    pub bytes: u64,
    drops: Vec<(&'static str, u64)>,
}

impl ServerCounters {
    /// Datagrams dropped, by reason; a reason appears with its first drop.
    #[must_use]
    pub fn drops(&self) -> &[(&'static str, u64)] {
        &self.drops
    }

    pub(super) fn drop(&mut self, drop: ServerDrop) {
        let label = drop.label();
        match self.drops.iter_mut().find(|(reason, _)| *reason == label) {
            Some((_, count)) => *count += 1,
            None => self.drops.push((label, 1)),
        }
    }
}
