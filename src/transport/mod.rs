//! The protocol core, pure and sans-IO: packet numbers, epochs and the send edge, proofs, sealed
//! continuations, `server` (a pure function) and `client` (the engine).

pub mod application;
pub mod client;
pub mod curve;
pub mod epoch;
pub mod keys;
pub mod proof;
pub mod server;
