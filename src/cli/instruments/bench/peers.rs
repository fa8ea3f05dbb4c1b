//! Peers to measure: our transport, TCP of the stack, TCP of the kernel; each with a URL.
//!
//! In: arguments as typed. Out: peers, or an error.

use core::fmt::{self, Display};
use core::str::FromStr;

use serde::Serialize;

/// Most peers in a run.
pub(super) const MAX_PEERS: usize = 8;

/// The transport of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PeerKind {
    /// Our transport, from our stack.
    Transport,
    /// smoltcp's TCP, from our stack.
    Smoltcp,
    /// The kernel's TCP, from sockets.
    Kernel,
}

impl PeerKind {
    const ALL: [Self; 3] = [Self::Transport, Self::Smoltcp, Self::Kernel];

    /// Its name, as typed and printed.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Transport => "transport",
            Self::Smoltcp => "smoltcp",
            Self::Kernel => "kernel",
        }
    }
}

impl Display for PeerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Splits an argument at `=` into the kind and the rest.
fn split(text: &str) -> Result<(PeerKind, &str), String> {
    let found = text.split_once('=').and_then(|(label, rest)| {
        let kind = PeerKind::ALL
            .into_iter()
            .find(|kind| kind.label() == label)?;
        Some((kind, rest)).filter(|_| !rest.is_empty())
    });
    found.ok_or_else(|| "not KIND=VALUE: use transport=, smoltcp= or kernel=".to_owned())
}

/// A peer as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// The transport of the requests.
    pub(super) kind: PeerKind,
    /// The URL to fetch.
    pub(super) url: String,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        split(text).map(|(kind, url)| Self {
            kind,
            url: url.to_owned(),
        })
    }
}

/// The process id of a peer's server, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServerPid {
    /// The peers that it serves.
    pub(super) kind: PeerKind,
    /// The process id.
    pub(super) pid: u32,
}

impl FromStr for ServerPid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, pid) = split(text)?;
        let pid = pid
            .parse()
            .map_err(|_| "not a process id: use a number".to_owned())?;
        Ok(Self { kind, pid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let peer = |kind, url: &str| {
            let url = url.to_owned();
            Some(Peer { kind, url })
        };
        let cases = [
            (
                "kernel=http://h/x?a=b",
                peer(PeerKind::Kernel, "http://h/x?a=b"),
            ),
            ("transport=h/x", peer(PeerKind::Transport, "h/x")),
            ("smoltcp=h", peer(PeerKind::Smoltcp, "h")),
            ("http://h/x", None),
            ("udp=http://h/x", None),
            ("kernel=", None),
        ];
        for (text, want) in cases {
            assert_eq!(text.parse().ok(), want, "{text}");
        }
        let (kind, pid) = (PeerKind::Kernel, 17);
        assert_eq!("kernel=17".parse(), Ok(ServerPid { kind, pid }));
        assert!("kernel=x".parse::<ServerPid>().is_err());
    }
}
