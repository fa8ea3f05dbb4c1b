//! The server: a pure function from a request to packets.

use crate::time::Now;
use crate::transport::application::Application;
use crate::transport::keys::KeyRing;
use crate::wire::flight::{Ecn, Flight, UdpPath};

/// What a server is set up with.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// This server's id, shown in every response.
    pub server_id: u16,
    /// Id of the site this server stands in.
    pub site_id: u16,
    /// Largest UDP payload towards a client, IPv4 (MTU − 28) and IPv6 (MTU − 48).
    pub mtu: u16,
}

/// Counters of a server; all monotonic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// Connections opened.
    pub opens: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Response packets sent.
    pub packets: u64,
    /// Stream bytes sent.
    pub bytes: u64,
    /// Requests dropped, by reason (metric label, count).
    pub drops: Vec<(&'static str, u64)>,
}

/// A server without memory of its clients, and its fixed-size soft state.
pub struct Server {
    config: ServerConfig,
    keys: KeyRing,
}

impl Server {
    /// A server with empty soft state of fixed size.
    #[must_use]
    pub fn new(config: ServerConfig, keys: KeyRing) -> Self {
        Self { config, keys }
    }

    /// Answers one datagram; pushes at most one flight.
    pub fn respond(
        &mut self,
        _now: Now,
        _path: UdpPath,
        _ecn: Ecn,
        _datagram: &[u8],
        _app: &mut dyn Application,
        _out: &mut Vec<Flight>,
    ) {
        let _ = (&self.config, self.keys.active().role());
        todo!()
    }

    /// What has happened since the start.
    #[must_use]
    pub fn counters(&self) -> ServerCounters {
        todo!()
    }
}
