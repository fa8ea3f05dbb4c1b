//! The phases of a load generator and their transitions.
//!
//! In: time, and events of the connections. Out: the next [`LoadPhase`].

use rand::RngExt as _;

use super::{GATE_MARGIN, Hold, LoadHost, MAX_IN_FLIGHT};
use crate::instruments::load::course::Course;
use crate::instruments::load::hostile::{Hostile, MAX_CORPUS};
use crate::instruments::load::schedule::Plan;
use crate::time::Instant;
use crate::transport::grant::RESTART_GATE;

/// The present phase.
pub(super) enum LoadPhase {
    /// Opens connections; `next` is the first one not started.
    Opening { next: u32 },
    /// Sends mutated packets.
    Hostile(Box<Hostile>),
    /// Holds the connections, until this time if there is one.
    Holding(Option<Instant>),
    /// Resumes the connections `waiting`, not before `from`.
    Resuming { waiting: Vec<u32>, from: Instant },
    /// Sends requests on the connections `open`.
    Live { open: Vec<u32>, course: Box<Course> },
    /// Complete.
    Done,
}

impl LoadHost {
    /// Moves to the next phase when the present one is over.
    pub(super) fn advance(&mut self, now: Instant) {
        match &self.phase {
            LoadPhase::Opening { next } => {
                if *next >= self.config.connections && self.busy.is_empty() {
                    self.end_opening(now);
                    self.begin_hostile(now);
                }
            }
            LoadPhase::Hostile(hostile) => {
                if hostile.is_done() {
                    self.end_hostile();
                    self.hold(now);
                }
            }
            LoadPhase::Holding(until) => {
                if until.is_some_and(|until| until <= now) {
                    self.resume(now);
                }
            }
            LoadPhase::Resuming { waiting, .. } => {
                if waiting.is_empty() && self.busy.is_empty() {
                    self.phase = LoadPhase::Done;
                }
            }
            LoadPhase::Live { course, .. } => {
                if course.is_over(now) {
                    self.end_live(now);
                }
            }
            LoadPhase::Done => {}
        }
    }

    pub(super) fn begin_live(&mut self, now: Instant, plan: Plan) {
        let open = self.open();
        let room = u32::try_from(open.len().min(MAX_IN_FLIGHT)).unwrap_or(u32::MAX);
        let course = Box::new(Course::new(now, plan, room, self.random.random()));
        self.phase = LoadPhase::Live { open, course };
    }

    pub(super) fn end_live(&mut self, now: Instant) {
        if let LoadPhase::Live { course, .. } = core::mem::replace(&mut self.phase, LoadPhase::Done)
        {
            self.report.live = Some(course.finish(now));
            self.busy.clear();
        }
    }

    pub(super) fn begin_hostile(&mut self, now: Instant) {
        if self.config.hostile == 0 {
            self.hold(now);
            return;
        }
        // The next requests of held connections are the best input for mutations.
        let mut corpus = core::mem::take(&mut self.corpus);
        for (index, kept) in (0..).zip(&self.kept) {
            if corpus.len() >= MAX_CORPUS {
                break;
            }
            let request = kept.and_then(|kept| kept.resume(&self.terms, false));
            let path = self.path(index);
            corpus.extend(path.zip(request.map(|(_, datagram)| datagram)));
        }
        let hostile = Hostile::new(self.config.hostile, corpus, self.terms.size);
        self.phase = LoadPhase::Hostile(Box::new(hostile));
    }

    pub(super) fn end_opening(&mut self, now: Instant) {
        if let LoadPhase::Opening { .. } = &self.phase {
            let elapsed = now.saturating_since(self.begun);
            self.report.opening_seconds = elapsed.as_secs_f64();
        }
    }

    pub(super) fn end_hostile(&mut self) {
        if let LoadPhase::Hostile(hostile) = &self.phase {
            self.report.hostile = Some(hostile.report().clone());
        }
    }

    pub(super) fn hold(&mut self, now: Instant) {
        if let Some(plan) = self.config.live {
            self.begin_live(now, plan);
            return;
        }
        match self.config.hold {
            Hold::No => self.resume(now),
            Hold::For(time) => self.phase = LoadPhase::Holding(Some(now + time)),
            Hold::UntilReleased => self.phase = LoadPhase::Holding(None),
        }
    }

    /// The indices of the held connections.
    pub(super) fn open(&self) -> Vec<u32> {
        let open = (0..).zip(&self.kept).filter(|(_, kept)| kept.is_some());
        open.map(|(index, _)| index).collect()
    }

    pub(super) fn resume(&mut self, now: Instant) {
        let open = self.open();
        let wanted = usize::try_from(self.config.resume_sample).unwrap_or(usize::MAX);
        let sample = rand::seq::index::sample(&mut self.random, open.len(), wanted.min(open.len()));
        let waiting = sample.iter().filter_map(|at| open.get(at).copied());
        let waiting: Vec<u32> = waiting.collect();
        let from = (self.last_kept + RESTART_GATE + GATE_MARGIN).max(now);
        self.phase = match waiting.is_empty() {
            true => LoadPhase::Done,
            false => LoadPhase::Resuming { waiting, from },
        };
    }
}
