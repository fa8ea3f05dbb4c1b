//! Interrupt coalescing: decides when to let packets gather before they are read, as a network card
//! does. A sleep and a wake-up cost as much as several packets, on both ends.
//!
//! In: the number of packets of each turn of the loop. Out: whether to pause for [`PAUSE`] before the
//! next one. Never delays sparse packets.

use std::time::Duration;

use crate::time::Instant;

/// Time for which packets gather: far below the RTT of any path that leaves this machine.
pub(super) const PAUSE: Duration = Duration::from_micros(50);

/// Packets per period from which on traffic is dense: about one every [`PAUSE`].
const DENSE_PACKETS: u32 = 16;

/// Period over which packets are counted.
const PERIOD: Duration = Duration::from_millis(1);

/// The decision; see the head of this file.
#[derive(Debug, Default)]
pub(super) struct Gather {
    since: Instant,
    packets: u32,
    dense: bool,
    /// Whether the last turn read a packet.
    flowing: bool,
}

impl Gather {
    /// Records a turn that read `packets`.
    pub(super) fn note(&mut self, now: Instant, packets: u32) {
        self.packets = self.packets.saturating_add(packets);
        self.flowing = packets > 0;
        let lasted = now.saturating_since(self.since);
        if lasted >= PERIOD {
            self.dense =
                PERIOD.saturating_mul(self.packets) >= lasted.saturating_mul(DENSE_PACKETS);
            (self.since, self.packets) = (now, 0);
        }
    }

    /// Whether to pause before the next turn.
    pub(super) const fn is_worth_while(&self) -> bool {
        self.dense && self.flowing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it pauses after five periods with a packet every `interval_us`, each in a turn of its
    /// own.
    fn pauses(interval_us: usize) -> bool {
        let mut gather = Gather::default();
        for at in (0..5_000).step_by(interval_us) {
            gather.note(Instant::from_micros(at as u64), 1);
        }
        gather.is_worth_while()
    }

    #[test]
    fn only_dense_packets_are_gathered() {
        assert!(pauses(12), "a gigabit");
        assert!(pauses(62));
        assert!(!pauses(63));
        assert!(!pauses(1_000));
    }

    #[test]
    fn nothing_gathers_once_the_flow_stops_nor_at_its_start() {
        let mut gather = Gather::default();
        gather.note(Instant::from_micros(100), 32);
        assert!(!gather.is_worth_while(), "a first flight");
        gather.note(Instant::from_micros(1_100), 32);
        assert!(gather.is_worth_while());
        gather.note(Instant::from_micros(1_150), 0);
        assert!(!gather.is_worth_while(), "nothing came");
        gather.note(Instant::from_micros(9_000_000), 12);
        assert!(!gather.is_worth_while(), "a pause of seconds");
    }
}
