//! The applications: what runs on top of the transport.

pub mod origin;
