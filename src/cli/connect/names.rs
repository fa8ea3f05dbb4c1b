//! The arguments about names: which resolver, which servers, and other addresses than those of a URL.
//!
//! In: the command line. Out: the part of a client's configuration that finds addresses.

use std::net::SocketAddr;

use crate::cli::exit::{Exit, Failed};
use crate::cli::local::device_failed;
use crate::connect::resolve::{ResolverConfig, parse_servers};
use crate::device::binding::SocketBinding;
use crate::host::config::ClientHostBuilder;
use crate::host::names::{ConnectTo, Pinned, Resolution};
use crate::runtime::queries::KernelQueries;
use crate::runtime::resolver::{RESOLV_CONF, read_hosts, read_resolver_config};

/// A resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ResolverArg {
    /// DNS queries of our own
    Own,
    /// That of the operating system (getaddrinfo), on a thread
    System,
}

/// DNS servers in one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers(Vec<SocketAddr>);

impl Servers {
    fn parse(text: &str) -> Result<Self, String> {
        parse_servers(text)
            .map(Self)
            .map_err(|error| error.to_string())
    }
}

/// Arguments about names, as typed.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct NameArgs {
    /// Use these addresses for HOST and PORT of a URL, and no others: `HOST:PORT:ADDRESS[,ADDRESS]...`; HOST
    /// may be `*`. IPv6 addresses in brackets
    #[arg(long, value_name = "HOST:PORT:ADDRESSES", value_parser = Pinned::parse)]
    pub resolve: Vec<Pinned>,
    /// Connect to HOST2:PORT2 for URLs of HOST1:PORT1; each part may be empty: any, or unchanged. With the
    /// default transport PORT2 is the UDP port
    #[arg(long, value_name = "HOST1:PORT1:HOST2:PORT2", value_parser = ConnectTo::parse)]
    pub connect_to: Vec<ConnectTo>,
    /// DNS servers: `ADDRESS[:PORT][,ADDRESS[:PORT]]...` [default: those of /etc/resolv.conf]
    #[arg(long, value_name = "ADDRESSES", value_parser = Servers::parse)]
    pub dns_servers: Option<Servers>,
    /// Resolver of names that are not in /etc/hosts [default: own with --dns-servers, or without --tun if
    /// /etc/resolv.conf names a server; else system]
    #[arg(long, value_enum, value_name = "RESOLVER")]
    pub resolver: Option<ResolverArg>,
    /// Interface or own address of sockets: `NAME`, `ADDRESS`, `if!NAME` or `host!ADDRESS`
    #[arg(long, value_name = "INTERFACE", value_parser = SocketBinding::parse)]
    pub interface: Option<SocketBinding>,
}

impl NameArgs {
    /// Checks that the arguments fit each other.
    ///
    /// # Errors
    /// [`Exit::Usage`].
    pub fn check(&self, over_tun: bool) -> Result<(), Failed> {
        let advice = if self.resolver == Some(ResolverArg::System) && self.dns_servers.is_some() {
            "--resolver system chooses its own servers: remove --dns-servers"
        } else if over_tun && self.interface.is_some() {
            "--interface is for sockets: with a TUN device, --tun and --address name them"
        } else {
            return Ok(());
        };
        Err(Failed::new(Exit::Usage, advice))
    }

    /// The interface or the own address of sockets.
    #[must_use]
    pub fn binding(&self) -> SocketBinding {
        self.interface.clone().unwrap_or_default()
    }

    /// Adds the names to the configuration of a client.
    ///
    /// # Errors
    /// [`Exit::Usage`] without a DNS server, [`Exit::Device`] without descriptors.
    pub fn apply(
        &self,
        builder: ClientHostBuilder,
        over_tun: bool,
    ) -> Result<ClientHostBuilder, Failed> {
        let hosts = read_hosts();
        let builder = builder
            .pinned(self.resolve.clone())
            .connect_to(self.connect_to.clone())
            .resolve(move |host| match hosts.lookup(host) {
                unknown if unknown.is_empty() => Resolution::Pending,
                known => Resolution::Known(known),
            });
        let Some(dns) = self.dns(over_tun)? else {
            return Ok(builder);
        };
        let builder = builder.dns(dns);
        if over_tun {
            return Ok(builder);
        }
        let sockets = KernelQueries::new(self.binding()).map_err(device_failed)?;
        Ok(builder.query_sockets(sockets))
    }

    /// The settings of the own resolver; none with that of the system.
    fn dns(&self, over_tun: bool) -> Result<Option<ResolverConfig>, Failed> {
        let mut config = match self.resolver {
            Some(ResolverArg::System) => return Ok(None),
            Some(ResolverArg::Own) | None => read_resolver_config(),
        };
        match (&self.dns_servers, self.resolver) {
            (Some(Servers(servers)), _) => config.servers.clone_from(servers),
            // The servers of the system are those of the kernel's network, not of the network behind a TUN device.
            (None, None) if over_tun || config.servers.is_empty() => return Ok(None),
            (None, Some(_)) if config.servers.is_empty() => {
                let advice =
                    format!("{RESOLV_CONF} names no DNS server: add --dns-servers ADDRESS");
                return Err(Failed::new(Exit::Usage, advice));
            }
            (None, _) => {}
        }
        Ok(Some(config))
    }
}
