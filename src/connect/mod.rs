//! Connecting to a service that has several addresses: their order, and the race of attempts.
//!
//! Neither does I/O nor reads a clock: the host opens the connections and reports their answers and failures.

mod order;
mod race;

pub use order::{interleaved, interleaved_after};
pub use race::{AttemptState, MAX_ATTEMPTS, Pace, Race, RaceStep};
