//! What a link has done, as plain numbers.

/// What a link has done; all monotonic until they are reset. What was pushed, duplicated and
/// replayed has been dropped, popped, or is still on the link; only refused copies count in
/// `overflow` alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LinkCounters {
    /// Packets that came in.
    pub pushed: u64,
    /// Bytes that came in.
    pub pushed_bytes: u64,
    /// Packets that came out.
    pub popped: u64,
    /// Bytes that came out.
    pub popped_bytes: u64,
    /// Dropped in an outage.
    pub outage: u64,
    /// Dropped by independent loss.
    pub lost: u64,
    /// Dropped in a burst of losses.
    pub burst: u64,
    /// Dropped because the queue was full.
    pub queue: u64,
    /// Dropped by CoDel at the head of the queue.
    pub codel: u64,
    /// Dropped because [`MAX_PACKETS`](super::MAX_PACKETS) or [`MAX_BYTES`](super::MAX_BYTES) were
    /// on the link; copies that were not made count too.
    pub overflow: u64,
    /// Marked CE.
    pub marked: u64,
    /// Damaged.
    pub corrupted: u64,
    /// Held back.
    pub reordered: u64,
    /// Second copies made.
    pub duplicated: u64,
    /// Old packets sent once more.
    pub replayed: u64,
}

impl LinkCounters {
    /// Packets dropped, for whatever cause.
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
    }
}
