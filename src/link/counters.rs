//! Counters of a link.

/// Counters of a link, and a maximum; monotonic until reset. Each packet pushed, duplicated or replayed is
/// dropped, popped, or still on the link; only copies that were not made count in `overflow` alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LinkCounters {
    /// Packets received.
    pub pushed: u64,
    /// Bytes received.
    pub pushed_bytes: u64,
    /// Packets delivered.
    pub popped: u64,
    /// Bytes delivered.
    pub popped_bytes: u64,
    /// Dropped in an outage.
    pub outage: u64,
    /// Dropped by independent loss.
    pub lost: u64,
    /// Dropped in a burst of losses.
    pub burst: u64,
    /// Dropped by a full queue.
    pub queue: u64,
    /// Dropped by CoDel at the head of the queue.
    pub codel: u64,
    /// Dropped because the link holds `MAX_PACKETS` or
    /// `MAX_BYTES`; includes copies that were not made.
    pub overflow: u64,
    /// Marked CE.
    pub marked: u64,
    /// Corrupted.
    pub corrupted: u64,
    /// Held back.
    pub reordered: u64,
    /// Duplicated.
    pub duplicated: u64,
    /// Replayed.
    pub replayed: u64,
    /// Bursts that aggregation has released.
    pub bursts: u64,
    /// Packets of the largest of them.
    pub largest_burst: u64,
}

impl LinkCounters {
    /// The number of packets dropped, for any reason.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.outage + self.lost + self.burst + self.queue + self.codel + self.overflow
    }
}

impl core::ops::AddAssign for LinkCounters {
    fn add_assign(&mut self, other: Self) {
        self.pushed += other.pushed;
        self.pushed_bytes += other.pushed_bytes;
        self.popped += other.popped;
        self.popped_bytes += other.popped_bytes;
        self.outage += other.outage;
        self.lost += other.lost;
        self.burst += other.burst;
        self.queue += other.queue;
        self.codel += other.codel;
        self.overflow += other.overflow;
        self.marked += other.marked;
        self.corrupted += other.corrupted;
        self.reordered += other.reordered;
        self.duplicated += other.duplicated;
        self.replayed += other.replayed;
        self.bursts += other.bursts;
        self.largest_burst = self.largest_burst.max(other.largest_burst);
    }
}
