//! The configurations of servers and clients: builders with defaults.
//!
//! In: addresses, a seed, and values that differ from the defaults. Out: a configuration with all
//! values in range, or a [`HostConfigError`] with the remedy. Does no I/O.

use std::net::IpAddr;
use std::time::Duration;

use crate::apps::fetch::target::Target;
use crate::connect::resolve::ResolverConfig;
use crate::connect::{History, Pace, Transport};
use crate::host::names::{ConnectTo, Destination, Family, Pinned, Resolution};
use crate::host::queries::QuerySockets;
use crate::host::streams::OutgoingStreams;
use crate::host::tokens::Tokens;
use crate::stack::MAX_ADDRESSES;
use crate::transport::client::{
    DEFAULT_BUFFER_BYTES, DEFAULT_IDLE_TIMEOUT, NO_BUFFER, NO_TIME, PORT_ZERO,
};

use crate::wire::address::unusable;
pub use crate::wire::ip::{DEFAULT_MTU, MIN_MTU, MIN_MTU_V6};

/// Default UDP port of the transport.
pub const DEFAULT_UDP_PORT: u16 = 7600;

/// Default TCP port of plain HTTP.
pub const DEFAULT_TCP_PORT: u16 = 80;

/// Default time limit to establish a connection.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a configuration is invalid. The caller is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostConfigError {
    /// No address.
    #[error("no address: add at least one")]
    NoAddress,
    /// More addresses than a stack supports.
    #[error("{count} addresses: use at most {MAX_ADDRESSES}")]
    TooManyAddresses {
        /// The number of addresses given.
        count: usize,
    },
    /// An address that cannot be a host's: multicast, broadcast, reserved, unspecified, loopback,
    /// link-local, or of IPv4 in IPv6 notation.
    #[error("{address} is {}", reason(*.address))]
    NotUnicast {
        /// The address.
        address: IpAddr,
    },
    /// A duplicate address.
    #[error("address {address} is given twice: remove one")]
    DuplicateAddress {
        /// The address.
        address: IpAddr,
    },
    /// An MTU below [`MIN_MTU`], or below [`MIN_MTU_V6`] with an IPv6 address.
    #[error("MTU {have} is too small for {}: use {least} or more",
            if *.least == MIN_MTU { "IPv4" } else { "IPv6" })]
    MtuTooSmall {
        /// The MTU given, in bytes.
        have: u16,
        /// The smallest one that these addresses allow, in bytes.
        least: u16,
    },
    /// Port zero.
    #[error("{PORT_ZERO}")]
    PortZero,
    /// A time limit of zero.
    #[error("{NO_TIME}")]
    NoTime,
    /// TCP over neither a stack nor the kernel.
    #[error("UDP sockets carry no TCP: add TCP connections of the kernel, or use a TUN device")]
    NoTcp,
    /// A receive buffer of zero bytes, which would prevent any request.
    #[error("{NO_BUFFER}")]
    NoBuffer,
}

/// Returns why an address is unusable.
fn reason(address: IpAddr) -> String {
    unusable(address).map_or_else(String::new, |why| why.to_string())
}

/// Checks the own addresses and the MTU of a machine.
///
/// # Errors
/// [`HostConfigError`], except for ports, times and buffers.
pub fn check_addresses(addresses: &[IpAddr], mtu: u16) -> Result<(), HostConfigError> {
    let v6 = addresses.iter().any(IpAddr::is_ipv6);
    let least = if v6 { MIN_MTU_V6 } else { MIN_MTU };
    if mtu < least {
        return Err(HostConfigError::MtuTooSmall { have: mtu, least });
    }
    match addresses.len() {
        0 => return Err(HostConfigError::NoAddress),
        count if count > MAX_ADDRESSES => return Err(HostConfigError::TooManyAddresses { count }),
        _ => {}
    }
    for (index, &address) in addresses.iter().enumerate() {
        if unusable(address).is_some() {
            return Err(HostConfigError::NotUnicast { address });
        }
        if addresses
            .iter()
            .take(index)
            .any(|before| *before == address)
        {
            return Err(HostConfigError::DuplicateAddress { address });
        }
    }
    Ok(())
}

/// Checks the own addresses and the MTU of a machine that is behind sockets if `sockets` is set.
fn check_local(addresses: &[IpAddr], sockets: bool, mtu: u16) -> Result<(), HostConfigError> {
    match sockets {
        false => check_addresses(addresses, mtu),
        true if mtu < MIN_MTU => Err(HostConfigError::MtuTooSmall {
            have: mtu,
            least: MIN_MTU,
        }),
        true => Ok(()),
    }
}

/// The configuration of the machine of a server; see [`builder`](Self::builder).
#[derive(Clone, Debug)]
pub struct ServerHostConfig {
    /// Own addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// MTU: largest IP packet in bytes.
    pub(crate) mtu: u16,
    /// TCP port of plain HTTP.
    pub(crate) tcp_port: u16,
    /// UDP port of the transport.
    pub(crate) udp_port: u16,
    /// This server's id, included in every response.
    pub(crate) server_id: u16,
    /// Id of its site.
    pub(crate) site_id: u16,
    /// Seed of the stack's choices (TCP sequence numbers).
    pub(crate) seed: u64,
    /// The machine has no addresses: sockets of the kernel carry its datagrams.
    pub(crate) sockets: bool,
}

impl ServerHostConfig {
    /// Starts a configuration for a machine with these own addresses. `seed` determines every random
    /// choice: on a real network it must be secret, such as from [`os_seed`](crate::os_seed).
    ///
    /// ```
    /// use headwater::{HostConfigError, ServerHostConfig};
    ///
    /// let address = ["2001:db8::1".parse()?];
    /// let server = ServerHostConfig::builder(address, headwater::os_seed()?);
    /// let refused = server.mtu(1000).build().unwrap_err();
    /// assert_eq!(refused, HostConfigError::MtuTooSmall { have: 1000, least: 1280 });
    /// assert_eq!(refused.to_string(), "MTU 1000 is too small for IPv6: use 1280 or more");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder(addresses: impl Into<Vec<IpAddr>>, seed: u64) -> ServerHostBuilder {
        ServerHostBuilder(Self {
            addresses: addresses.into(),
            mtu: DEFAULT_MTU,
            tcp_port: DEFAULT_TCP_PORT,
            udp_port: DEFAULT_UDP_PORT,
            server_id: 1,
            site_id: 0,
            seed,
            sockets: false,
        })
    }

    /// Starts a configuration for a machine behind [`UdpSockets`](crate::UdpSockets), which have the
    /// addresses and the UDP ports. It has no stack: neither TCP nor ICMP.
    pub fn over_sockets(seed: u64) -> ServerHostBuilder {
        let ServerHostBuilder(config) = Self::builder([], seed);
        ServerHostBuilder(Self {
            sockets: true,
            ..config
        })
    }
}

/// Builds a [`ServerHostConfig`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct ServerHostBuilder(ServerHostConfig);

impl ServerHostBuilder {
    /// Sets the MTU in bytes: 576 or more, 1280 or more with an IPv6 address. Default:
    /// [`DEFAULT_MTU`].
    pub const fn mtu(mut self, mtu: u16) -> Self {
        self.0.mtu = mtu;
        self
    }

    /// Sets the UDP port of the transport. Default: [`DEFAULT_UDP_PORT`].
    pub const fn udp_port(mut self, port: u16) -> Self {
        self.0.udp_port = port;
        self
    }

    /// Sets the TCP port of plain HTTP. Default: [`DEFAULT_TCP_PORT`].
    pub const fn tcp_port(mut self, port: u16) -> Self {
        self.0.tcp_port = port;
        self
    }

    /// Sets this server's id within the service, included in every response. Default: 1.
    pub const fn server_id(mut self, id: u16) -> Self {
        self.0.server_id = id;
        self
    }

    /// Sets the id of the server's site. Default: 0.
    pub const fn site_id(mut self, id: u16) -> Self {
        self.0.site_id = id;
        self
    }

    /// Checks every value and returns the configuration.
    ///
    /// # Errors
    /// [`HostConfigError`] about the addresses, the MTU or a port.
    pub fn build(self) -> Result<ServerHostConfig, HostConfigError> {
        let Self(config) = self;
        check_local(&config.addresses, config.sockets, config.mtu)?;
        if config.udp_port == 0 || config.tcp_port == 0 {
            return Err(HostConfigError::PortZero);
        }
        Ok(config)
    }
}

/// The transport protocol of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Our transport, whose UDP port is not part of the URL.
    Trickles {
        /// UDP port of the service.
        udp_port: u16,
        /// Local UDP port; random if `None`.
        local_port: Option<u16>,
    },
    /// TCP, to the port of the URL.
    Tcp,
    /// Our transport, and TCP to the port of the URL where that brings no byte in 100 ms or no connection in 200 ms; the
    /// first to connect carries the transfer.
    Auto {
        /// UDP port of the service.
        udp_port: u16,
        /// Local UDP port; random if `None`.
        local_port: Option<u16>,
    },
}

impl Protocol {
    /// Our transport alone, with the ports of this protocol, or the default ones.
    #[must_use]
    pub const fn over_udp(self) -> Self {
        let (udp_port, local_port) = match self.udp_ports() {
            Some(ports) => ports,
            None => (DEFAULT_UDP_PORT, None),
        };
        Self::Trickles {
            udp_port,
            local_port,
        }
    }

    /// The UDP ports of the service and of the client, which the operating system or the seed chooses if there is none.
    #[must_use]
    pub const fn udp_ports(self) -> Option<(u16, Option<u16>)> {
        match self {
            Self::Trickles {
                udp_port,
                local_port,
            }
            | Self::Auto {
                udp_port,
                local_port,
            } => Some((udp_port, local_port)),
            Self::Tcp => None,
        }
    }

    /// The transports that may carry a transfer, the preferred one first.
    #[must_use]
    pub const fn transports(self) -> (Transport, Option<Transport>) {
        match self {
            Self::Trickles { .. } => (Transport::Trickles, None),
            Self::Tcp => (Transport::Tcp, None),
            Self::Auto { .. } => (Transport::Trickles, Some(Transport::Tcp)),
        }
    }

    /// Whether TCP may carry a transfer.
    #[must_use]
    pub const fn has_tcp(self) -> bool {
        match self {
            Self::Tcp | Self::Auto { .. } => true,
            Self::Trickles { .. } => false,
        }
    }
}

/// Resolves a host, as written in a URL, at once or later.
pub type Resolve = Box<dyn Fn(&str) -> Resolution>;

/// Returns the own address that sends to an address of a service.
pub type Source = Box<dyn Fn(IpAddr) -> Option<IpAddr>>;

/// Returns the index of an interface by its name.
pub type InterfaceIndex = Box<dyn Fn(&str) -> Option<u32>>;

/// The configuration of the machine of a client; see [`builder`](Self::builder).
pub struct ClientHostConfig {
    /// Own addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// MTU: largest IP packet in bytes.
    pub(crate) mtu: u16,
    /// The transport protocol.
    pub(crate) protocol: Protocol,
    /// Receive buffer of our transport in bytes.
    pub(crate) buffer: usize,
    /// The family of the addresses to connect to; any if `None`.
    pub(crate) family: Option<Family>,
    /// Hosts whose addresses are given.
    pub(crate) pinned: Vec<Pinned>,
    /// Delay between the attempts to connect to the addresses of a service.
    pub(crate) pace: Pace,
    /// The event that ends a race.
    pub(crate) finish: Finish,
    /// Longest time until a connection is established.
    pub(crate) connect_timeout: Duration,
    /// Longest time in which nothing arrives.
    pub(crate) idle_timeout: Duration,
    /// Longest time for a transfer.
    pub(crate) max_time: Option<Duration>,
    /// Address tokens of earlier connections.
    pub(crate) tokens: Tokens,
    /// Outcomes of earlier attempts to connect.
    pub(crate) history: History,
    /// Returns the own address that sends to an address of a service, where the machine has none.
    pub(crate) source: Source,
    /// Seed of every random choice.
    pub(crate) seed: u64,
    /// Resolves host names.
    pub(crate) resolve: Resolve,
    /// Hosts and ports to connect to in place of those of URLs.
    pub(crate) connect_to: Vec<ConnectTo>,
    /// The settings of the own resolver; without them, the driver looks names up.
    pub(crate) dns: Option<ResolverConfig>,
    /// Returns the index of an interface, for zones of addresses.
    pub(crate) interface_index: InterfaceIndex,
    /// Sockets of the kernel for the own resolver, in place of the stack.
    pub(crate) query_sockets: Option<Box<dyn QuerySockets>>,
    /// The machine has no addresses: sockets of the kernel carry its datagrams.
    pub(crate) sockets: bool,
    /// TCP connections of the kernel, which the machine takes in place of its stack's.
    pub(crate) streams: Option<Box<dyn OutgoingStreams>>,
}

impl ClientHostConfig {
    /// Starts a configuration for a machine with these own addresses. `seed` determines every random
    /// choice: on a real network it must be secret, such as from [`os_seed`](crate::os_seed).
    pub fn builder(addresses: impl Into<Vec<IpAddr>>, seed: u64) -> ClientHostBuilder {
        ClientHostBuilder(Self {
            addresses: addresses.into(),
            mtu: DEFAULT_MTU,
            protocol: Protocol::Trickles {
                udp_port: DEFAULT_UDP_PORT,
                local_port: None,
            },
            buffer: DEFAULT_BUFFER_BYTES,
            family: None,
            pinned: Vec::new(),
            pace: Pace::default(),
            finish: Finish::default(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            max_time: None,
            tokens: Tokens::default(),
            history: History::default(),
            source: Box::new(|_| None),
            seed,
            resolve: Box::new(|host| Resolution::Known(literal(host).into_iter().collect())),
            connect_to: Vec::new(),
            dns: None,
            interface_index: Box::new(|zone| zone.parse().ok()),
            query_sockets: None,
            sockets: false,
            streams: None,
        })
    }

    /// The host to look up for a URL, and the port to connect to.
    pub(super) fn destination<'t>(&'t self, target: &'t Target) -> Destination<'t> {
        Destination::new(&self.connect_to, target)
    }

    /// Starts a configuration for a machine behind [`UdpSockets`](crate::UdpSockets): the kernel
    /// chooses own addresses and ports. It has no stack; TCP needs [`streams`](ClientHostBuilder::streams).
    pub fn over_sockets(seed: u64) -> ClientHostBuilder {
        let ClientHostBuilder(config) = Self::builder([], seed);
        ClientHostBuilder(Self {
            sockets: true,
            ..config
        })
    }
}

/// The event that ends a race for a connection. Over TCP it is always that the connection is established, since the
/// request leaves only then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finish {
    /// Any answer of a server.
    #[default]
    Answer,
    /// The first byte of the response.
    FirstByte,
    /// The whole head of a response with a status below 500. An address that responds otherwise fails.
    Head,
}

/// Builds a [`ClientHostConfig`].
#[must_use = "a builder does nothing before `build`"]
pub struct ClientHostBuilder(ClientHostConfig);

impl ClientHostBuilder {
    /// Sets the MTU in bytes: 576 or more, 1280 or more with an IPv6 address. Default:
    /// [`DEFAULT_MTU`].
    pub const fn mtu(mut self, mtu: u16) -> Self {
        self.0.mtu = mtu;
        self
    }

    /// Sets the transport protocol. Default: our transport to [`DEFAULT_UDP_PORT`], from a random
    /// local port.
    pub const fn protocol(mut self, protocol: Protocol) -> Self {
        self.0.protocol = protocol;
        self
    }

    /// Sets the receive buffer in bytes, above 0: the client requests no bytes beyond it. Default:
    /// [`DEFAULT_BUFFER_BYTES`].
    pub const fn buffer(mut self, bytes: usize) -> Self {
        self.0.buffer = bytes;
        self
    }

    /// Sets the family of the addresses to connect to. Default: any.
    pub fn family(mut self, family: impl Into<Option<Family>>) -> Self {
        self.0.family = family.into();
        self
    }

    /// Sets hosts whose addresses are given, and not looked up; the first that names a URL's host and port is
    /// used. Default: none.
    pub fn pinned(mut self, pinned: impl Into<Vec<Pinned>>) -> Self {
        self.0.pinned = pinned.into();
        self
    }

    /// Sets the delay between the attempts to connect to the addresses of a service. Default:
    /// [`Pace::Paced`].
    pub const fn pace(mut self, pace: Pace) -> Self {
        self.0.pace = pace;
        self
    }

    /// Sets the longest time until a connection is established, above 0. Default:
    /// [`DEFAULT_CONNECT_TIMEOUT`].
    pub const fn connect_timeout(mut self, limit: Duration) -> Self {
        self.0.connect_timeout = limit;
        self
    }

    /// Sets the longest time in which nothing arrives, above 0. Default:
    /// [`DEFAULT_IDLE_TIMEOUT`].
    pub const fn idle_timeout(mut self, limit: Duration) -> Self {
        self.0.idle_timeout = limit;
        self
    }

    /// Sets the longest time for a transfer, above 0. Default: no limit.
    pub fn max_time(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.0.max_time = limit.into();
        self
    }

    /// Sets the address tokens of earlier connections. Default: none.
    pub fn tokens(mut self, tokens: Tokens) -> Self {
        self.0.tokens = tokens;
        self
    }

    /// Sets the outcomes of earlier attempts to connect, which decide on the order of addresses. Default: none.
    pub fn history(mut self, history: History) -> Self {
        self.0.history = history;
        self
    }

    /// Sets the function that returns the own address which the kernel would send from to an address of a
    /// service. It must not block. Only over sockets: outcomes are remembered by network. Default: unknown.
    pub fn source(mut self, source: impl Fn(IpAddr) -> Option<IpAddr> + 'static) -> Self {
        self.0.source = Box::new(source);
        self
    }

    /// Sets the event that ends a race. Default: [`Finish::Answer`].
    pub const fn finish(mut self, finish: Finish) -> Self {
        self.0.finish = finish;
        self
    }

    /// Sets the TCP connections to use in place of the stack's, such as
    /// [`KernelStreams`](crate::KernelStreams). Default: the stack's.
    pub fn streams(mut self, streams: impl OutgoingStreams + 'static) -> Self {
        self.0.streams = Some(Box::new(streams));
        self
    }

    /// Sets the function that resolves a host, as written in a URL: to its addresses, or to
    /// [`Resolution::Pending`], for a name that must be looked up. It must not block: the loop waits for
    /// it. Default: IP literals only.
    pub fn resolve<R: Into<Resolution>>(mut self, resolve: impl Fn(&str) -> R + 'static) -> Self {
        self.0.resolve = Box::new(move |host| resolve(host).into());
        self
    }

    /// Sets hosts and ports to connect to in place of those of URLs; the first that is for a URL counts. With our
    /// transport the port is the UDP port. Default: none.
    pub fn connect_to(mut self, connect_to: impl Into<Vec<ConnectTo>>) -> Self {
        self.0.connect_to = connect_to.into();
        self
    }

    /// Sets the DNS servers of a resolver of its own, which looks up the hosts that
    /// [`resolve`](Self::resolve) leaves pending. Its queries leave over the stack, or over the kernel with
    /// [`query_sockets`](Self::query_sockets). Default: the driver looks names up.
    pub fn dns(mut self, dns: impl Into<Option<ResolverConfig>>) -> Self {
        self.0.dns = dns.into();
        self
    }

    /// Sets the function that returns the index of an interface, for the zones of addresses in URLs such as
    /// `http://[fe80::1%25eth0]/`; over sockets only. Default: a zone is an index.
    pub fn interface_index(mut self, index: impl Fn(&str) -> Option<u32> + 'static) -> Self {
        self.0.interface_index = Box::new(index);
        self
    }

    /// Sets sockets of the kernel for the queries of [`dns`](Self::dns), such as
    /// [`KernelQueries`](crate::KernelQueries). [`source`](Self::source) then also decides about the order of
    /// addresses (RFC 6724). Default: the stack carries them.
    pub fn query_sockets(mut self, sockets: impl QuerySockets + 'static) -> Self {
        self.0.query_sockets = Some(Box::new(sockets));
        self
    }

    /// Checks every value and returns the configuration.
    ///
    /// # Errors
    /// [`HostConfigError`].
    pub fn build(self) -> Result<ClientHostConfig, HostConfigError> {
        let Self(config) = self;
        check_local(&config.addresses, config.sockets, config.mtu)?;
        let ports = config.protocol.udp_ports();
        if ports.is_some_and(|(to, from)| to == 0 || from == Some(0)) {
            return Err(HostConfigError::PortZero);
        }
        let has_tcp = !config.sockets || config.streams.is_some();
        if config.protocol.has_tcp() && !has_tcp {
            return Err(HostConfigError::NoTcp);
        }
        if config.buffer == 0 {
            return Err(HostConfigError::NoBuffer);
        }
        let limits = [config.connect_timeout, config.idle_timeout];
        if limits.contains(&Duration::ZERO) || config.max_time == Some(Duration::ZERO) {
            return Err(HostConfigError::NoTime);
        }
        Ok(config)
    }
}

/// Parses a host in a URL that is an IP literal: `192.0.2.1` or `[2001:db8::1]`.
#[must_use]
pub fn literal(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

#[cfg(test)]
mod tests;
