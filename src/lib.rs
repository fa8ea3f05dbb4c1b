//! Headwater: a userspace IP stack on Linux TUN devices whose servers keep no state per connection.
//!
//! Everything that a server would have to remember of a connection travels in sealed *continuations*
//! that the client carries. So any packet may be handled by any server with the same keys at any
//! time: servers can be killed, restarted, added and taken away in the middle of a transfer, and a
//! packet-level balancer in front of them needs no table. The idea is that of Trickles (Shieh, Myers,
//! Sirer: NSDI 2005, TOCS 2008).
//!
//! ```text
//!  client                                                  server (any of them)
//!    | OPEN, first application request                         |
//!    |-------------------------------------------------------->| makes an identity, forgets it
//!    |     Opened: first bytes, continuation, user continuation |
//!    |<--------------------------------------------------------|
//!    | REQUEST: continuation, proof of receipt, byte ranges     |
//!    |-------------------------------------------------------->| opens, checks, computes the numbers
//!    |     Data: as many packets as the send edge allows        | that this releases, forgets
//!    |<--------------------------------------------------------|
//! ```
//!
//! # Folders
//!
//! | folder | what lives there |
//! |---|---|
//! | `time` | instants and wall-clock time; nothing here reads a clock |
//! | `histogram` | how long things took |
//! | `wire` | bytes to values and back |
//! | `transport` | the protocol: a server that is a function, a client that is an engine |
//! | `http` | HTTP/1.1 messages |
//! | `stack` | smoltcp for ICMP and TCP, and what goes past it |
//! | `apps` | the origin server, fetching |
//! | `redirect` | the redirector: membership, health, policy, encapsulation |
//! | `host` | a whole machine without I/O |
//! | `device` | what carries packets into and out of the process |
//! | `link` | emulated links |
//! | `runtime` | the loop: a machine on a device in real time |
//! | `sim` | the simulator: many machines on virtual time |
//! | `instruments` | load generators and the peers they are compared with |
//! | `cli` | the command line |
//! | [`manual`] | the design in prose |
//!
//! # The loop
//!
//! A [`Machine`] does no I/O and reads no clock. Its driver, [`Runtime`] or the simulator:
//!
//! 1. samples the clocks once a turn and passes the same [`Now`] to every call of the turn;
//! 2. gives each packet to `handle_packet`, and calls `handle_timeout` when the deadline has passed;
//! 3. after each of these, or a command, drains `poll_transmit` until `None`;
//! 4. asks `poll_timeout`, and waits for a packet or that deadline.
//!
//! # Words
//!
//! A *packet number* counts response packets. An *epoch* is a stretch of numbers with one window
//! *curve*; its *send edge* says up to which number may be released for what is acknowledged. A
//! *flight* is what one request releases. A *transition* leads from an epoch to the next, after a
//! loss, say. A *proof* shows what was received. A *user continuation* is the application's part:
//! all that is needed to produce any bytes of one response *stream*. The full list is in
//! [`manual::architecture`].
//!
//! # The manual
//!
//! [`manual::protocol`] is enough to write a client in another language; [`manual::threats`] says who
//! may attack what; [`manual::limits`] lists every bound; [`manual::deviations`] tells where this
//! differs from its models; [`manual::architecture`] what lies where.

#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::type_complexity,
        reason = "tests draw small numbers and tabulate cases as tuples"
    )
)]

mod apps;
#[cfg(feature = "cli")]
mod cli;
mod device;
mod histogram;
mod host;
mod http;
#[cfg(feature = "cli")]
mod instruments;
mod link;
pub mod manual;
mod redirect;
mod runtime;
mod sim;
mod stack;
mod time;
mod transport;
mod wire;

// Time, which is an argument everywhere.
pub use time::{Instant, Now, UnixMillis};

// Machines, and the loop that drives them.
pub use host::{Machine, Transmit};
pub use runtime::{Hooks, Notice, OsClock, Runtime, Signal, Stopped, os_seed};

// Applications and keys.
pub use transport::application::{
    Application, Begun, MAX_REQUEST_BYTES, MAX_STREAM_BYTES, MAX_USER_BYTES, Unavailable,
};
pub use transport::keys::{ClusterKey, KeyRing, KeyRingError, MAX_GENERATIONS, Role, SECRET_BYTES};

/// The modules as they lie below `src/`, for the program, tests, benches and the fuzz targets of this
/// repository. Nothing in it is stable.
#[doc(hidden)]
pub mod internals {
    pub mod apps {
        pub use crate::apps::*;
    }
    #[cfg(feature = "cli")]
    pub mod cli {
        pub use crate::cli::*;
    }
    pub mod device {
        pub use crate::device::*;
    }
    pub mod histogram {
        pub use crate::histogram::*;
    }
    pub mod host {
        pub use crate::host::*;
    }
    pub mod http {
        pub use crate::http::*;
    }
    #[cfg(feature = "cli")]
    pub mod instruments {
        pub use crate::instruments::*;
    }
    pub mod link {
        pub use crate::link::*;
    }
    pub mod redirect {
        pub use crate::redirect::*;
    }
    pub mod runtime {
        pub use crate::runtime::*;
    }
    pub mod sim {
        pub use crate::sim::*;
    }
    pub mod stack {
        pub use crate::stack::*;
    }
    pub mod time {
        pub use crate::time::*;
    }
    pub mod transport {
        pub use crate::transport::*;
    }
    pub mod wire {
        pub use crate::wire::*;
    }
}
