//! Connecting to a service that has several addresses: the look-up of its name, the outcomes of earlier attempts, the
//! order of its addresses, and the race of attempts, over one transport or two.
//!
//! None of them does I/O or reads a clock: the host opens the connections and reports their answers and failures.

pub mod fallback;
mod history;
mod order;
mod race;
pub mod resolve;

pub use fallback::{FallbackReason, SILENT, Transport, TransportRace, TransportStep};
pub use history::{EXPLORE_ONE_IN, History, Known, MAX_HISTORY, Outcome, Rank, Route};
pub use order::{interleaved, interleaved_after};
pub use race::{AttemptState, MAX_ATTEMPTS, Pace, Race, RaceStep};
