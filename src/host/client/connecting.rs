//! The connections of a client: their beginnings, and the records that they leave at their ends.
//!
//! In: services. Out: connections over either transport; counters, address tokens and outcomes at their ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rand::RngExt as _;

use super::ClientHost;
use crate::connect::{Outcome, Transport};
use crate::host::connection::ClientConnection;
use crate::host::connections::Service;
use crate::host::streams::TcpError;
use crate::host::tokens::Remembered;
use crate::time::Now;
use crate::transport::client::{Client, ClientConfig};

impl ClientHost {
    /// The own address that speaks to `remote`; unspecified if the kernel chooses it.
    pub(super) fn own_address(&self, remote: IpAddr) -> Option<IpAddr> {
        if self.config.sockets {
            return Some(match remote {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            });
        }
        let mut own = self.config.addresses.iter().copied();
        own.find(|own| own.is_ipv4() == remote.is_ipv4())
    }

    /// Begins a connection.
    pub(super) fn connect(
        &mut self,
        now: Now,
        local: IpAddr,
        service: Service,
    ) -> Result<ClientConnection, TcpError> {
        self.report.connections += 1;
        let remote = service.address;
        match service.transport {
            Transport::Tcp => {
                self.report.tcp_connections += 1;
                ClientConnection::connect(now, self.tcp.streams(), remote)
            }
            Transport::Trickles => {
                let config = ClientConfig {
                    local: SocketAddr::new(local, self.local_port),
                    remote,
                    mtu: self.config.mtu,
                    buffer: self.config.buffer,
                    idle_timeout: self.config.idle_timeout,
                    token: self.config.tokens.get(now.unix, local, remote).cloned(),
                };
                let client = Client::new(config, self.random.random());
                Ok(ClientConnection::Trickles(Box::new(client)))
            }
        }
    }

    /// The token that a connection leaves to later ones.
    pub(super) fn token_of(
        &self,
        now: Now,
        Service { address, .. }: Service,
        connection: &ClientConnection,
    ) -> Option<Remembered> {
        let (token, since) = connection.transport()?.address_token()?;
        Some(Remembered {
            local: self.own_address(address.ip())?,
            service: address,
            received: now.unix - now.instant.saturating_since(since),
            token,
        })
    }

    /// Ends a connection, and keeps its counters, its token and its silence.
    pub(super) fn give_up(&mut self, now: Now, service: Service, mut connection: ClientConnection) {
        if let Some(token) = self.token_of(now, service, &connection) {
            self.config.tokens.remember(token);
        }
        if let Some(stats) = connection.transport().map(Client::stats) {
            if stats.switches > 0
                && let Some(route) = self.route_to(service)
            {
                self.config.history.note(now.unix, route, Outcome::TimedOut);
            }
            self.report.add_connection(&stats);
        }
        connection.abandon(self.tcp.streams());
    }
}
