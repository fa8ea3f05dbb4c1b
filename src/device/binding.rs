//! The interface or the own address that sockets of the kernel use.
//!
//! In: an interface or an address, as curl's `--interface`. Out: sockets bound to it. Without one the kernel chooses.
//! Source: socket(7) on `SO_BINDTODEVICE`, which needs no privileges while the socket is not bound to an interface.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Longest name of an interface, in bytes (Linux' `IFNAMSIZ`).
const MAX_INTERFACE_BYTES: usize = 15;

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketBinding {
    interface: Option<String>,
    address: Option<IpAddr>,
}

/// Why text is not a [`SocketBinding`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is neither the name of an interface nor an IP address")]
pub struct BindingError(String);

impl SocketBinding {
    /// Parses `NAME`, `ADDRESS`, `if!NAME` or `host!ADDRESS`.
    ///
    /// # Errors
    /// [`BindingError`].
    pub fn parse(text: &str) -> Result<Self, BindingError> {
        let error = || BindingError(text.to_owned());
        let (name, address) = match text.split_once('!') {
            Some(("if", name)) => (name, None),
            Some(("host", address)) => ("", Some(address.parse().map_err(|_| error())?)),
            Some(_) => return Err(error()),
            None => (text, text.parse().ok()),
        };
        if let Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED) | IpAddr::V6(Ipv6Addr::UNSPECIFIED)) = address
        {
            return Err(error());
        }
        let valid = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
            (1..=MAX_INTERFACE_BYTES).contains(&name.len()) && name.bytes().all(plain)
        };
        match address {
            Some(_) => Ok(Self {
                interface: None,
                address,
            }),
            None if valid(name) => Ok(Self {
                interface: Some(name.to_owned()),
                address: None,
            }),
            None => Err(error()),
        }
    }

    /// Creates one of an own address, or one that leaves the choice to the kernel.
    #[must_use]
    pub const fn of_address(address: Option<IpAddr>) -> Self {
        Self {
            interface: None,
            address,
        }
    }

    /// The own address for sockets of the family of `remote`, with a port; `None` if they cannot have the address.
    pub(super) fn own_address(&self, remote: IpAddr, port: u16) -> Option<SocketAddr> {
        let own = match self.address {
            Some(own) => Some(own).filter(|own| own.is_ipv4() == remote.is_ipv4()),
            None if remote.is_ipv4() => Some(Ipv4Addr::UNSPECIFIED.into()),
            None => Some(Ipv6Addr::UNSPECIFIED.into()),
        };
        own.map(|own| SocketAddr::new(own, port))
    }

    /// Binds a socket to the interface, if there is one.
    pub(super) fn bind_interface(&self, socket: SockRef<'_>) -> io::Result<()> {
        match &self.interface {
            Some(name) => {
                let bound = socket.bind_device(Some(name.as_bytes()));
                bound.map_err(|error| io::Error::other(format!("interface {name}: {error}")))
            }
            None => Ok(()),
        }
    }

    /// Opens a UDP socket that is connected to `remote`, from a random port; it does not block.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn udp_to(&self, remote: SocketAddr) -> io::Result<OwnedFd> {
        Ok(self.connected(remote)?.into())
    }

    /// Begins a TCP connection to `remote`; the socket is writable once it is established.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn tcp_to(&self, remote: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(remote, Type::STREAM, Protocol::TCP)?;
        match socket.connect(&remote.into()) {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
            Ok(()) | Err(_) => Ok(socket.into()),
        }
    }

    /// Returns the own address of packets to `remote`, without sending any; `None` if no route leads there.
    #[must_use]
    pub fn source(&self, remote: IpAddr) -> Option<IpAddr> {
        /// Any port serves: nothing is sent.
        const DISCARD: u16 = 9;
        let socket = self.connected(SocketAddr::new(remote, DISCARD)).ok()?;
        Some(socket.local_addr().ok()?.as_socket()?.ip())
    }

    fn connected(&self, remote: SocketAddr) -> io::Result<Socket> {
        let socket = self.socket(remote, Type::DGRAM, Protocol::UDP)?;
        socket.connect(&remote.into())?;
        Ok(socket)
    }

    fn socket(&self, remote: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let own = self.own_address(remote.ip(), 0);
        let own = own.ok_or(io::Error::from(Errno::ADDRNOTAVAIL))?;
        let socket = Socket::new(Domain::for_address(remote), kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        self.bind_interface(SockRef::from(&socket))?;
        if !own.ip().is_unspecified() {
            socket.bind(&own.into())?;
        }
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_and_addresses_are_named_as_to_curl() {
        let interface = |name: &str| {
            let interface = Some(name.to_owned());
            Ok(SocketBinding {
                interface,
                address: None,
            })
        };
        let address = |text: &str| {
            let address = Some(text.parse().unwrap());
            Ok(SocketBinding {
                interface: None,
                address,
            })
        };
        for (text, want) in [
            ("eth0", interface("eth0")),
            ("if!eth0.1", interface("eth0.1")),
            ("192.0.2.1", address("192.0.2.1")),
            ("host!2001:db8::1", address("2001:db8::1")),
        ] {
            assert_eq!(SocketBinding::parse(text), want, "{text}");
        }
        for text in [
            "",
            "a b",
            "a/b",
            "abcdefghijklmnop",
            "host!eth0",
            "x!y",
            "if!",
            "0.0.0.0",
            "::",
        ] {
            assert_eq!(
                SocketBinding::parse(text),
                Err(BindingError(text.to_owned()))
            );
        }
    }

    #[test]
    fn sockets_use_the_address_or_none() {
        let local = SocketBinding::parse("127.0.0.2").unwrap();
        let remote: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(local.source(remote), Some("127.0.0.2".parse().unwrap()));
        let any = SocketBinding::default();
        assert_eq!(any.source(remote), Some(remote));
        let group = Ipv4Addr::BROADCAST.into();
        assert_eq!(any.source(group), None, "no right to send there");
        assert_eq!(local.source("::1".parse().unwrap()), None, "another family");
        assert!(local.udp_to("[::1]:9".parse().unwrap()).is_err());
        let nowhere = SocketBinding::parse("no-such-if").unwrap();
        assert_eq!(nowhere.source(remote), None);
    }
}
