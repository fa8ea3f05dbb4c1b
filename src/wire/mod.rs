//! Bytes to values and back: IP and UDP headers, the transport's packets, flights. No state, no clock.
//!
//! Parsing never panics on any input; every rejection is a variant of an error enum.

pub mod address;
pub mod flight;
pub mod ip;
pub mod payload;
pub mod segment;
pub mod varint;
