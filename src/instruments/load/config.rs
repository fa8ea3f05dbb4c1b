//! What a load generator is set up with, and why it cannot be.
//!
//! In: what the user asks for. Out: a [`LoadConfig`], or a [`LoadError`].

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use crate::instruments::load::downloads;
use crate::instruments::load::schedule::Plan;
use crate::stack::StackError;
use crate::transport::application::MAX_REQUEST_BYTES;

/// How long the connections are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Not at all.
    No,
    /// So long after the last was opened.
    For(Duration),
    /// Until [`LoadHost::release`].
    UntilReleased,
}

/// What a load generator is set up with.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// Own addresses; those of the server's family have [`PORTS`] connections each.
    pub addresses: Vec<IpAddr>,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Address and UDP port of the server.
    pub remote: SocketAddr,
    /// The application request, at most [`MAX_REQUEST_BYTES`].
    pub head: Vec<u8>,
    /// Connections to open.
    pub connections: u32,
    /// Most connections begun in a second.
    pub rate: Option<NonZeroU32>,
    /// How long to keep them.
    pub hold: Hold,
    /// Mutated packets to send once the connections are open.
    pub hostile: u64,
    /// Kept connections that go on at the end; all if there are fewer.
    pub resume_sample: u32,
    /// Instead, requests on kept connections chosen at random.
    pub live: Option<Plan>,
    /// Feeds every random choice.
    pub seed: u64,
}

/// Why a load generator cannot be made. The user is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The addresses cannot be used.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// More connections than own addresses and ports.
    #[error(
        "{have} connections, but {addresses} address(es) of the server's family have ports for {most}: give more --address"
    )]
    TooManyConnections {
        /// As wanted.
        have: u32,
        /// Own addresses of the server's family.
        addresses: usize,
        /// Most that are possible.
        most: u32,
    },
    /// More downloads at once than there may be.
    #[error(
        "{have} downloads at once, at most {} are possible: ask for fewer",
        downloads::MAX_DOWNLOADS
    )]
    TooManyDownloads {
        /// As wanted.
        have: u32,
    },
    /// No own address is of the server's family.
    #[error("no own address is of the server's family: give one as --address")]
    NoAddress,
    /// The request is longer than the transport carries.
    #[error("the request has {have} bytes, at most {MAX_REQUEST_BYTES} fit: shorten the URL")]
    RequestTooLong {
        /// Bytes of the request.
        have: usize,
    },
}

/// Refuses an application request that is too long for our transport.
pub(super) fn check_head(head: &[u8]) -> Result<(), LoadError> {
    let have = head.len();
    match have > MAX_REQUEST_BYTES {
        true => Err(LoadError::RequestTooLong { have }),
        false => Ok(()),
    }
}

/// The own addresses that can speak to `remote`.
pub(super) fn speaking_to(remote: SocketAddr, own: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    own.iter()
        .copied()
        .filter(move |own| own.is_ipv4() == remote.is_ipv4())
}
