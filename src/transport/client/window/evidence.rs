//! The evidence that a request shows to be granted: a continuation, the folded proof and its holes.
//! The present one, and those of the moments at which it changed, so that a request that was lost
//! around an event can be repeated with the evidence that it was sent with.

use std::collections::VecDeque;

use crate::transport::client::window::Window;
use crate::transport::epoch::{Declaration, Epoch};
use crate::wire::segment::Span;

/// Evidence of the past that is kept: of the epoch before an event, and of the event's zone.
const MAX_PAST: usize = 2;

/// See the head of this file.
#[derive(Clone, Debug)]
pub(in crate::transport::client) struct Evidence {
    /// The event that the request declares.
    pub(in crate::transport::client) declared: Option<Declaration>,
    /// The epoch of the numbers that it releases.
    pub(in crate::transport::client) releases: Epoch,
    pub(in crate::transport::client) sealed: Vec<u8>,
    pub(in crate::transport::client) proof: u64,
    pub(in crate::transport::client) holes: Vec<Span>,
    /// The last number that the proof covers.
    pub(in crate::transport::client) reach: u64,
}

/// Evidence of the past, the newest last.
#[derive(Clone, Debug, Default)]
pub(in crate::transport::client) struct Past(VecDeque<Evidence>);

impl Past {
    pub(in crate::transport::client) fn keep(&mut self, evidence: Evidence) {
        if self.0.len() == MAX_PAST {
            self.0.pop_front();
        }
        self.0.push_back(evidence);
    }

    pub(in crate::transport::client) fn find(
        &self,
        declared: Option<Declaration>,
        releases: &Epoch,
    ) -> Option<&Evidence> {
        let fits = |kept: &&Evidence| kept.declared == declared && kept.releases == *releases;
        self.0.iter().find(fits)
    }

    pub(in crate::transport::client) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Window {
    /// The evidence of a request that leaves now.
    pub(in crate::transport::client) fn evidence(&self) -> Evidence {
        Evidence {
            declared: self.event.as_ref().map(|event| event.declaration),
            releases: self.releasing(),
            sealed: self.held.sealed.clone(),
            proof: self.proof ^ self.event.as_ref().map_or(0, |event| event.beyond),
            holes: self.holes(),
            reach: self.edge,
        }
    }

    /// The evidence of a request that declares that event and releases into that epoch, if it can still
    /// be sent.
    pub(in crate::transport::client) fn evidence_for(
        &self,
        declared: Option<Declaration>,
        releases: &Epoch,
    ) -> Option<Evidence> {
        match self.is_present(declared, releases) {
            true => Some(self.evidence()),
            false => self.past.find(declared, releases).cloned(),
        }
    }

    /// Whether a request that declares that event and releases into that epoch can still be sent.
    pub(in crate::transport::client) fn has_evidence_for(
        &self,
        declared: Option<Declaration>,
        releases: &Epoch,
    ) -> bool {
        self.is_present(declared, releases) || self.past.find(declared, releases).is_some()
    }

    fn is_present(&self, declared: Option<Declaration>, releases: &Epoch) -> bool {
        self.event.as_ref().map(|event| event.declaration) == declared
            && self.releasing() == *releases
    }

    /// Whether numbers up to the edge are missing.
    pub(in crate::transport::client) fn has_holes(&self) -> bool {
        !self.holes.is_empty()
    }

    /// The holes of the proof, none of which crosses the edge of an event.
    pub(in crate::transport::client) fn holes(&self) -> Vec<Span> {
        let p = self.event_edge();
        let split = |hole: Span| {
            let cut = hole.end.min(p.saturating_add(1)).max(hole.start);
            [Span { end: cut, ..hole }, Span { start: cut, ..hole }]
        };
        self.holes
            .iter()
            .flat_map(split)
            .filter(|hole| !hole.is_empty())
            .collect()
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
