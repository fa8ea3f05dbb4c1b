//! The redirector without I/O: a packet for a service address in, the same packet for one of its
//! backends out, or a counted drop.
//!
//! It keeps state per backend (health, a sequence number, counters), never per connection or
//! client: any backend can answer any packet of the transport, so no choice is stored, and a second
//! redirector with the same file makes the same choices where the policy is a function of the
//! packet. Clients' addresses are preserved, and backends answer clients directly (direct server
//! return).
//! In: packets, time, a configuration. Out: packets in an [`Outbox`](outbox::Outbox). Nothing here
//! reads a clock, draws random numbers, or allocates per packet once its buffers have grown.
//! Sources: Eisenbud et al., Maglev (NSDI 2016); Olteanu et al., Beamer (NSDI 2018): generations in
//! the encapsulation; Thaler and Ravishankar (1998): rendezvous.

pub mod backend;
pub mod balancer;
pub mod capsule;
pub mod config;
pub mod counters;
pub mod engine;
pub mod flow;
pub mod health;
pub mod membership;
mod meter;
pub mod outbox;
pub mod prefixes;
pub mod service;
pub mod window;

use core::fmt;

/// Number of a backend, the same as its server id; unique per fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(transparent)]
pub struct BackendId(pub u16);

/// Number of a redirector; unique among those that run concurrently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(transparent)]
pub struct RedirectorId(pub u16);

/// Number of a configuration; incremented by every change of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RedirectorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
