//! The configuration of a load generator, and its errors.
//!
//! In: the user's settings. Out: a [`LoadConfig`], or a [`LoadError`].

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use crate::instruments::load::downloads;
use crate::instruments::load::schedule::Plan;
use crate::stack::StackError;
use crate::transport::application::MAX_REQUEST_BYTES;

/// How long to hold the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Not at all.
    No,
    /// For this time after the last one opened.
    For(Duration),
    /// Until [`LoadHost::release`](super::LoadHost::release).
    UntilReleased,
}

/// The server and the request of a load generator, and the addresses that it sends from.
#[derive(Clone, Debug)]
pub struct LoadTarget {
    /// Own addresses; those of the server's family are used.
    pub addresses: Vec<IpAddr>,
    /// MTU: largest IP packet in bytes.
    pub mtu: u16,
    /// Address and port of the server.
    pub remote: SocketAddr,
    /// The application request, at most [`MAX_REQUEST_BYTES`].
    pub head: Vec<u8>,
    /// Seed of every random choice.
    pub seed: u64,
}

/// The configuration of a load generator.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// The server, from own addresses of [`PORTS`](super::PORTS) connections each.
    pub target: LoadTarget,
    /// Connections to open.
    pub connections: u32,
    /// Most connections started per second.
    pub rate: Option<NonZeroU32>,
    /// How long to hold them.
    pub hold: Hold,
    /// Mutated packets to send once the connections are open.
    pub hostile: u64,
    /// Held connections to resume at the end; all if there are fewer.
    pub resume_sample: u32,
    /// Instead, requests on random held connections.
    pub live: Option<Plan>,
}

/// Why a load generator cannot be created. The user is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The addresses are unusable.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// More connections than own addresses and ports.
    #[error(
        "{have} connections, but {addresses} address(es) of the server's family have ports for {most}: add more --address"
    )]
    TooManyConnections {
        /// Connections requested.
        have: u32,
        /// Own addresses of the server's family.
        addresses: usize,
        /// Most possible connections.
        most: u32,
    },
    /// Too many concurrent downloads.
    #[error(
        "{have} concurrent downloads, more than {}: request fewer",
        downloads::MAX_DOWNLOADS
    )]
    TooManyDownloads {
        /// Downloads requested.
        have: u32,
    },
    /// No own address is of the server's family.
    #[error("no own address is of the server's family: add one with --address")]
    NoAddress,
    /// The request is longer than the transport supports.
    #[error("the request has {have} bytes, more than {MAX_REQUEST_BYTES}: shorten the URL")]
    RequestTooLong {
        /// Bytes of the request.
        have: usize,
    },
}

impl LoadTarget {
    /// Rejects an application request that is too long for our transport.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        let have = self.head.len();
        match have > MAX_REQUEST_BYTES {
            true => Err(LoadError::RequestTooLong { have }),
            false => Ok(()),
        }
    }

    /// The own addresses of the server's family.
    pub(super) fn sources(&self) -> impl Iterator<Item = IpAddr> {
        let is_v4 = self.remote.is_ipv4();
        self.addresses
            .iter()
            .copied()
            .filter(move |own| own.is_ipv4() == is_v4)
    }
}
