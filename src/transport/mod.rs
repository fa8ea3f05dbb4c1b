//! The core of the protocol, pure and sans-IO: packet numbers, epochs and the send edge, proofs,
//! sealed continuations, `server` (a pure function) and `client` (the engine).

pub mod application;
pub mod client;
pub mod continuation;
pub mod curve;
pub mod epoch;
pub mod grant;
pub mod keys;
pub mod layout;
pub mod proof;
pub mod replay;
pub mod server;

/// A bit for each of the first `count` numbers of a flight, from the lowest; 64 at most.
const fn low_bits(count: u64) -> u64 {
    if count >= 64 {
        u64::MAX
    } else {
        (1 << count) - 1
    }
}
