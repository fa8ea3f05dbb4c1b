//! Applications on top of the transport: what a server answers and what a client asks.

pub mod fetch;
pub mod origin;
