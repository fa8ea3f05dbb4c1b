//! Applications on top of the transport: the origin of a server, the fetches of a client.

pub mod fetch;
pub mod origin;
