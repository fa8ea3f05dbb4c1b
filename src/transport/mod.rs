//! The protocol core, pure and sans-IO: packet numbers, epochs and the send edge, proofs, sealed
//! continuations, `server` (a pure function) and `client` (the engine).

pub mod application;
pub mod curve;
pub mod epoch;
pub mod client;
pub mod server;
pub mod keys;
