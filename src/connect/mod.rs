//! Connecting to a service that has several addresses: the outcomes of earlier attempts, their order, and the race of attempts.
//!
//! Neither does I/O nor reads a clock: the host opens the connections and reports their answers and failures.

mod history;
mod order;
mod race;

pub use history::{EXPLORE_ONE_IN, History, Known, MAX_HISTORY, Outcome, Rank, Route};
pub use order::{interleaved, interleaved_after};
pub use race::{AttemptState, MAX_ATTEMPTS, Pace, Race, RaceStep};
