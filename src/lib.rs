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
//! # Contents
//!
//! | for | items |
//! |---|---|
//! | an application | [`Application`], [`Begun`], [`StreamPart`], [`RequestContext`], [`Unavailable`], [`copy_at`]; [`Origin`], which serves a directory |
//! | the keys of a service | [`KeyRing`] |
//! | a server | [`ServerHostConfig`], [`ServerHost`] |
//! | a client | [`ClientHostConfig`], [`ClientHost`], [`Transfer`], [`Output`] |
//! | a device | [`Device`]; [`Tun`], [`UdpSockets`], [`Memory`], [`Pcap`] with a [`CaptureFile`] |
//! | connecting over the kernel's TCP | [`Connector`], [`HttpConnection`] |
//! | the loop | [`Endpoint`], and its parts: [`Machine`], [`Runtime`], [`Hooks`], [`OsClock`] |
//! | the transport by itself | [`Server`], [`Client`] |
//! | the simulator | [`simulate`] |
//!
//! # Serve
//!
//! A server application makes each response *stream* a function of a small *user continuation*, which
//! the client carries.
//!
//! ```no_run
//! use headwater::*;
//!
//! struct Hello;
//!
//! const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
//!
//! impl Application for Hello {
//!     fn begin(&mut self, _: RequestContext, _: &[u8]) -> Result<Begun, Unavailable> {
//!         Ok(Begun { user: Vec::new(), length: Some(STREAM.len() as u64) })
//!     }
//!     fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
//!         Ok(copy_at(STREAM, part.offset, out))
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let address = ["10.77.0.2".parse()?];
//!     let keys = KeyRing::parse(&std::fs::read_to_string("service.keys")?)?;
//!     let (clock, config) = (OsClock::new(), ServerHostConfig::builder(address, os_seed()?).build()?);
//!     let machine = ServerHost::new(clock.now(), config, keys, Hello)?;
//!     let device = Tun::open(&TunConfig::builder("hw0").addresses(address).build()?)?;
//!     Endpoint::new(clock, device, machine)?.run()?;
//!     Ok(())
//! }
//! ```
//!
//! # Fetch
//!
//! ```no_run
//! use headwater::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let address = ["10.78.0.2".parse()?];
//! let (clock, config) = (OsClock::new(), ClientHostConfig::builder(address, os_seed()?).build()?);
//! let machine = ClientHost::new(clock.now(), config)?;
//! let device = Tun::open(&TunConfig::builder("hw1").addresses(address).build()?)?;
//! let body = Endpoint::new(clock, device, machine)?.fetch("http://10.77.0.2/")?;
//! # Ok(())
//! # }
//! ```
//!
//! # Without a TUN device
//!
//! A TUN device needs `CAP_NET_ADMIN`. [`UdpSockets`] carry the same transport over UDP sockets of the
//! kernel, which need no privileges; TCP and ICMP of the stack are then left out. A client that is given
//! [`KernelStreams`] fetches over the kernel's TCP, too, with [`Protocol::Tcp`], or with [`Protocol::Auto`]
//! where UDP is filtered.
//!
//! ```
//! use headwater::*;
//!
//! # struct Hello;
//! # impl Application for Hello {
//! #     fn begin(&mut self, _: RequestContext, _: &[u8]) -> Result<Begun, Unavailable> {
//! #         Ok(Begun { user: Vec::new(), length: Some(STREAM.len() as u64) })
//! #     }
//! #     fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
//! #         Ok(copy_at(STREAM, part.offset, out))
//! #     }
//! # }
//! # const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let clock = OsClock::new();
//! let device = UdpSockets::listen(&["127.0.0.1:0".parse()?], false)?;
//! let service = device.addresses().next().ok_or("no socket")?;
//! let config = ServerHostConfig::over_sockets(os_seed()?).build()?;
//! let keys = KeyRing::with_secret([7; SECRET_BYTES]);
//! let server = ServerHost::new(clock.now(), config, keys, Hello)?;
//! std::thread::spawn(move || Endpoint::new(clock, device, server)?.run());
//!
//! let ours = Protocol::Trickles { udp_port: service.port(), local_port: None };
//! let config = ClientHostConfig::over_sockets(os_seed()?).protocol(ours).build()?;
//! let client = ClientHost::new(clock.now(), config)?;
//! let device = UdpSockets::connect(None)?;
//! let body = Endpoint::new(clock, device, client)?.fetch("http://127.0.0.1/")?;
//! assert_eq!(body, b"hello\n");
//! # Ok(())
//! # }
//! ```
//!
//! # The loop
//!
//! **After every call that changes a machine, drain `poll_transmit` until `None`, then ask
//! `poll_timeout`; time never goes backwards.**
//!
//! A [`Machine`] does no I/O and reads no clock. Its driver, a [`Runtime`] or the simulator:
//!
//! 1. samples the clocks once per turn and passes the same [`Now`] to every call of the turn;
//! 2. gives each packet to `handle_packet`, and calls `handle_timeout` when the deadline has passed;
//! 3. after each of these, or a command, drains `poll_transmit` until `None`;
//! 4. asks `poll_timeout`, and waits for a packet or that deadline.
//!
//! # Words
//!
//! A *packet number* counts response packets. An *epoch* is a range of numbers with one window
//! *curve*; its *send edge* is the last number that may be released for the numbers acknowledged. A
//! *flight* is the packets that one request releases. A *transition* leads from an epoch to the next,
//! after a loss, say. A *proof* shows which packets a client received. A *user continuation* is the
//! application's part: all that is needed to produce any bytes of one response *stream*. The full list
//! is in [`manual::architecture`].
//!
//! # The manual
//!
//! [`manual::protocol`] is enough to write a client in another language; [`manual::threats`] describes
//! attackers and attacks; [`manual::limits`] lists every bound; [`manual::deviations`] says where this
//! differs from its models; [`manual::architecture`] maps the modules.

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
mod attack;
#[cfg(feature = "cli")]
mod cli;
mod connect;
mod connector;
mod device;
mod files;
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

// Applications.
pub use apps::origin::Origin;
pub use apps::origin::digest::Stamp;
pub use apps::origin::hot::{Hot, HotCounters, Job as HotJob, Loaded, Loader, MAX_HOT_BYTES};
pub use apps::origin::tree::RootError;
pub use apps::origin::work::{InlineWorkers, Job, JobKey, Outcome, Workers};
pub use http::headers::{FieldError, Headers};
pub use http::request::{Method, RequestHead};
pub use http::{HeadError, Version};
pub use runtime::loader::ThreadLoader;
pub use runtime::workers::ThreadWorkers;
pub use transport::application::{
    Application, Begun, MAX_REQUEST_BYTES, MAX_STREAM_BYTES, MAX_USER_BYTES, RequestContext,
    StreamPart, Ticket, Unavailable, copy_at,
};
pub use wire::payload::{Gathered, Mark, Shared};

// Keys.
pub use transport::keys::{ClusterKey, KeyRing, KeyRingError, MAX_GENERATIONS, Role, SECRET_BYTES};

// Servers.
pub use host::config::{
    DEFAULT_MTU, DEFAULT_TCP_PORT, DEFAULT_UDP_PORT, HostConfigError, ServerHostBuilder,
    ServerHostConfig,
};
pub use host::redirector::mac_keys;
pub use host::server::{Redirected, ServerHost};
pub use redirect::backend::BackendConfig;
pub use redirect::capsule::MacKeys;
pub use redirect::{BackendId, RedirectorId};
pub use stack::{DropReason, StackCounters, StackError};

// Clients.
pub use apps::fetch::config::{Field, TransferBuilder, TransferConfig, TransferConfigError};
pub use apps::fetch::output::{Held, Output, OutputError};
pub use apps::fetch::queue::{AfterFailure, QueueFull, TransferJob, TransferQueue};
pub use apps::fetch::sinks::{MemoryOutput, WriteOutput};
pub use apps::fetch::target::{Target, TargetError};
pub use apps::fetch::verify::{GoOn, Hasher, Sha256};
pub use apps::fetch::{
    Attempt, Attempts, DigestOutcome, End, MAX_RESTARTS, Transfer, TransferEvent, TransferFailure,
    TransferProgress, TransferRequest,
};
pub use connect::resolve::{
    Answer, DnsName, DnsTransmit, ExchangeId, Hosts, HttpsRecord, Question, RecordType, Records,
    ResolveError, Resolved, Resolver, ResolverConfig, parse_servers, sort_addresses,
};
pub use connect::{Pace, Transport};
pub use host::client::ClientHost;
pub use host::config::{
    ClientHostBuilder, ClientHostConfig, DEFAULT_CONNECT_TIMEOUT, Protocol, Resolve,
};
pub use host::names::{
    ConnectTo, ConnectToError, Family, LookupAnswer, Pinned, PinnedError, Resolution,
};
pub use host::queries::{QueryEvent, QuerySockets};
pub use host::report::ClientReport;
pub use host::tokens::{Remembered, Tokens};
pub use http::chunked::ChunkError;
pub use http::reader::ReadError;

// Connections over the kernel's TCP, without a machine.
pub use connector::{
    ConnectError, Connector, ConnectorBuilder, DEFAULT_CONNECTOR_TIMEOUT, DEFAULT_NAME_TTL,
    FailedAttempt, FailedAttempts, HttpConnection, HttpError, HttpResponse,
};

// The loop.
pub use host::metrics::{Metric, MetricKind, MetricSample};
pub use host::streams::{CloseReason, OutgoingStreams, TcpError, TcpEvent, TcpId};
pub use host::{Machine, Transmit};
pub use runtime::capture::CaptureFile;
pub use runtime::control::ControlServer;
pub use runtime::endpoint::{Endpoint, FetchError, MAX_BODY_BYTES};
pub use runtime::metrics::MetricsServer;
pub use runtime::queries::KernelQueries;
pub use runtime::resolver::{ThreadResolver, interface_index, read_hosts, read_resolver_config};
pub use runtime::streams::KernelStreams;
pub use runtime::{
    Hooks, LoopWaker, MAX_BUSY_POLL, Notice, OsClock, Runtime, Signal, Stopped, default_busy_poll,
    os_seed, release_signals,
};
pub use time::{Instant, Now, UnixMillis};

// Devices.
pub use device::binding::{BindingError, SocketBinding};
pub use device::memory::{MAX_QUEUED_PACKETS, Memory, pair};
pub use device::pcap::Pcap;
pub use device::tun::{MAX_ADDRESSES, Tun, TunBuilder, TunConfig, TunError, TunKind, TunRoutes};
pub use device::udp::{MAX_SOCKETS, UdpError, UdpSockets};
pub use device::{Device, Received, ReceivedUdp};
pub use wire::flight::{Ecn, Flight, UdpPath};
pub use wire::ip::{EmitError, MAX_PACKET, UdpView};
pub use wire::payload::{Payload, PayloadReader};

// The transport by itself.
pub use transport::client::{
    AddressToken, Client, ClientBuilder, ClientConfig, ClientConfigError, ClientEvent, ClientStats,
    DEFAULT_BUFFER_BYTES, DEFAULT_IDLE_TIMEOUT,
};
pub use transport::continuation::OpenError;
pub use transport::epoch::EpochError;
pub use transport::grant::GrantError;
pub use transport::server::{Server, ServerConfig, ServerCounters, ServerDrop};
pub use wire::segment::SegmentError;

// The simulator.
pub use link::LinkCounters;
pub use sim::check::Violation;
pub use sim::world::WorldCounters;
pub use sim::{
    Options as SimOptions, OptionsBuilder as SimOptionsBuilder, SimFailure, SimReport, simulate,
};

/// The modules as they lie below `src/`, for the program, tests, benches and the fuzz targets of this
/// repository. Nothing in it is stable.
#[doc(hidden)]
pub mod internals {
    macro_rules! rooms {
        ($($(#[$condition:meta])* $room:ident,)*) => {
            $($(#[$condition])* pub mod $room { pub use crate::$room::*; })*
        };
    }

    rooms! {
        apps,
        #[cfg(feature = "cli")]
        attack,
        #[cfg(feature = "cli")]
        cli,
        connect,
        device,
        histogram,
        host,
        http,
        #[cfg(feature = "cli")]
        instruments,
        link,
        redirect,
        runtime,
        sim,
        stack,
        time,
        transport,
        wire,
    }
}
