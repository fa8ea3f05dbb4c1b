//! What a request shows to be granted: a continuation, the folded proof and its holes. That of the
//! present, and what was kept of the moments at which it changed, so that a request that was lost
//! around an event can be repeated as it was meant.

use std::collections::VecDeque;

use crate::transport::epoch::{Declaration, Epoch};
use crate::wire::segment::Span;

/// Evidence of the past that is kept: of the epoch before an event, and of the event's zone.
const MAX_PAST: usize = 2;

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    /// The event that the request declares.
    pub(super) declared: Option<Declaration>,
    /// The epoch of what it releases.
    pub(super) releases: Epoch,
    pub(super) sealed: Vec<u8>,
    pub(super) proof: u64,
    pub(super) holes: Vec<Span>,
    /// How far the proof reaches.
    pub(super) reach: u64,
}

/// Evidence of the past, the newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Past(VecDeque<Evidence>);

impl Past {
    pub(super) fn keep(&mut self, evidence: Evidence) {
        if self.0.len() == MAX_PAST {
            self.0.pop_front();
        }
        self.0.push_back(evidence);
    }

    pub(super) fn find(
        &self,
        declared: Option<Declaration>,
        releases: &Epoch,
    ) -> Option<&Evidence> {
        let fits = |kept: &&Evidence| kept.declared == declared && kept.releases == *releases;
        self.0.iter().find(fits)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(proof: u64) -> Evidence {
        Evidence {
            declared: None,
            releases: Epoch::opening(1 + proof as u32),
            sealed: Vec::new(),
            proof,
            holes: Vec::new(),
            reach: 0,
        }
    }

    #[test]
    fn the_oldest_evidence_makes_room() {
        let mut past = Past::default();
        let find = |past: &Past, proof| {
            let found = past.find(None, &evidence(proof).releases);
            found.map(|kept| kept.proof)
        };
        for proof in 0..MAX_PAST as u64 {
            past.keep(evidence(proof));
        }
        assert_eq!(find(&past, 0), Some(0), "at the bound");
        past.keep(evidence(MAX_PAST as u64));
        assert_eq!((past.0.len(), find(&past, 0)), (MAX_PAST, None), "past it");
        for proof in 1..=MAX_PAST as u64 {
            assert_eq!(find(&past, proof), Some(proof));
        }
        past.clear();
        assert_eq!(find(&past, 1), None);
    }
}
