//! Instruments: load generators and baselines, which measure a service and do not serve.
//!
//! Machines that generate load, packet exchanges without a protocol, and peers over the kernel's TCP.
//! They may use all other rooms except `cli`; only `cli` uses them.

pub mod bare;
pub mod flood;
pub mod load;
pub mod responder;
pub mod sockets;
