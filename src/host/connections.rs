//! The connections that a client keeps, one for each service.
//!
//! In: connections as they are opened and used. Out: the connection of a service, and the one that a
//! datagram is for. All connections of our transport may share one local UDP port: the header of a
//! datagram names its connection, or the OPEN that it answers. At most [`MAX_CONNECTIONS`] are kept;
//! the least recently used one makes room.

use std::net::SocketAddr;

use crate::connect::{MAX_ATTEMPTS, Transport};
use crate::host::connection::ClientConnection;
use crate::transport::client::Client;
use crate::wire::segment::Addressee;

/// Most connections that a client keeps: those of a race over two transports.
pub(super) const MAX_CONNECTIONS: usize = 2 * MAX_ATTEMPTS;

/// One address of a service, over one transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) transport: Transport,
    /// The UDP or the TCP address.
    pub(super) address: SocketAddr,
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Connections {
    /// The most recently used one is last.
    kept: Vec<(Service, ClientConnection)>,
}

impl Connections {
    /// The connection to a service.
    pub(super) fn get(&mut self, service: Service) -> Option<&mut ClientConnection> {
        let mut recent = self.kept.iter_mut().rev();
        let found = recent.find(|(known, _)| *known == service);
        found.map(|(_, connection)| connection)
    }

    /// Removes the connection to a service.
    pub(super) fn take(&mut self, service: Service) -> Option<ClientConnection> {
        let place = self.kept.iter().position(|(known, _)| *known == service)?;
        Some(self.kept.remove(place).1)
    }

    /// Removes the most recently used connection to any of the services for which `serves` holds.
    pub(super) fn take_latest(
        &mut self,
        serves: impl Fn(&Service) -> bool,
    ) -> Option<(Service, ClientConnection)> {
        let place = self.kept.iter().rposition(|(known, _)| serves(known))?;
        Some(self.kept.remove(place))
    }

    /// Keeps the connection to a service, of which there is no other, as the most recently used one.
    /// Returns the one that makes room.
    pub(super) fn keep(
        &mut self,
        service: Service,
        connection: ClientConnection,
    ) -> Option<(Service, ClientConnection)> {
        let full = self.kept.len() == MAX_CONNECTIONS;
        let oldest = full.then(|| self.kept.remove(0));
        self.kept.push((service, connection));
        oldest
    }

    /// All connections with their services, the most recently used last.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(Service, ClientConnection)> {
        self.kept.iter()
    }

    /// All connections, the most recently used first: it is the likeliest to have work.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut ClientConnection> {
        self.kept.iter_mut().rev().map(|(_, connection)| connection)
    }

    /// All connections of our transport.
    pub(super) fn transports_mut(&mut self) -> impl Iterator<Item = &mut Client> {
        self.iter_mut().filter_map(ClientConnection::transport_mut)
    }

    /// The connection that a datagram is for.
    pub(super) fn addressed(&mut self, addressee: Addressee) -> Option<&mut Client> {
        self.transports_mut()
            .find(|client| client.is_addressed(addressee))
    }
}
