//! Instruments: what measures a service and serves nobody.
//!
//! Machines that generate load, packets without any protocol to compare with, and peers over the
//! kernel's TCP. They may use every room of the product; of the product, only `cli` uses them.

pub mod bare;
pub mod flood;
pub mod load;
pub mod responder;
pub mod sockets;
