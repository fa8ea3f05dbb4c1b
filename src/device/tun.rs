//! A plain TUN device: one system call a packet, no offloads.
//!
//! In: name, MTU and the addresses of the stack behind it; out: packets. [`Tun::open`] creates the
//! device, or attaches to a persistent one, sets it up through the `ip` program (iproute2) and
//! adds a host route to each address, so that the kernel forwards to us. Whatever goes wrong is a
//! [`TunError`] that says in one line what to do.
//! Never blocks, and sets nothing outside its own device and its own host routes. A device that it
//! created disappears with it, and the routes with the device.
//! Sources: Documentation/networking/tuntap.rst of Linux; errno values of drivers/net/tun.c.

use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::process::{Command, Output, Stdio};

use rustix::io::Errno;
use tun_tap::{Iface, Mode};

use crate::device::{Device, Received};
use crate::wire::flight::Flight;
use crate::wire::ip::{MAX_PACKET, UdpTemplate};

/// Slots of the ring between kernel and reader, in packets. The kernel's default of 500 drops at
/// windows beyond that; 2000 full packets are 3 MB.
pub const TX_QUEUE_PACKETS: usize = 2000;

/// Longest interface name, in bytes (IFNAMSIZ less the terminator).
pub const MAX_NAME_BYTES: usize = 15;

/// Most addresses behind one device.
pub const MAX_ADDRESSES: usize = 8;

/// Smallest MTU: what every IPv4 host accepts (RFC 791).
pub const MIN_MTU: u16 = 576;

/// Smallest MTU with an IPv6 address (RFC 8200 §5); below it the kernel switches IPv6 off.
pub const MIN_MTU_V6: u16 = 1280;

/// What a device is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunConfig {
    /// Interface name, 1 to [`MAX_NAME_BYTES`] bytes.
    pub name: String,
    /// Largest IP packet in bytes, from [`MIN_MTU`] or [`MIN_MTU_V6`] on.
    pub mtu: u16,
    /// The stack's own addresses, at most [`MAX_ADDRESSES`]; a host route leads to each.
    pub addresses: Vec<IpAddr>,
}

/// Why a device cannot be had. The message is one line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The name cannot be one of an interface.
    #[error("'{name}' is no interface name: use 1 to 15 of a-z, A-Z, 0-9, '.', '_' and '-'")]
    InvalidName {
        /// As given.
        name: String,
    },
    /// The MTU is too small for the addresses.
    #[error("MTU {mtu} is too small: use at least {least} for these addresses")]
    MtuTooSmall {
        /// As given.
        mtu: u16,
        /// The least that works.
        least: u16,
    },
    /// More addresses than [`MAX_ADDRESSES`].
    #[error("{count} addresses are too many for one device: use at most 8")]
    TooManyAddresses {
        /// As given.
        count: usize,
    },
    /// The process may not administer the network.
    #[error("not permitted to set up a TUN device: run with sudo or give CAP_NET_ADMIN")]
    NoPermission,
    /// There is no device node.
    #[error(
        "/dev/net/tun is missing: run 'modprobe tun', or 'mkdir -p /dev/net && mknod /dev/net/tun c 10 200'"
    )]
    NoDeviceNode,
    /// There is a device node, but no driver behind it.
    #[error("/dev/net/tun has no driver: run 'modprobe tun'")]
    NoDriver,
    /// Another process is attached to the device.
    #[error("device '{name}' is in use by another process: stop it or choose another name")]
    Busy {
        /// The device.
        name: String,
    },
    /// There is an interface of that name that is no plain TUN.
    #[error("interface '{name}' exists and is no plain TUN device: choose another name")]
    NotTun {
        /// The interface.
        name: String,
    },
    /// The kernel itself has the address.
    #[error(
        "address {address} belongs to this machine (interface '{device}'): give the stack one of its own"
    )]
    LocalAddress {
        /// The stack's address.
        address: IpAddr,
        /// Who has it.
        device: String,
    },
    /// A host route to the address leads elsewhere.
    #[error(
        "address {address} is already routed to '{device}': stop its user, or run 'ip route del {address}'"
    )]
    RoutedElsewhere {
        /// The stack's address.
        address: IpAddr,
        /// Where the route leads.
        device: String,
    },
    /// The `ip` program is missing.
    #[error("the program 'ip' is missing: install iproute2")]
    NoIpProgram,
    /// The `ip` program refused.
    #[error("setting up device '{name}' failed: {message}")]
    Refused {
        /// The device.
        name: String,
        /// First line of what `ip` said.
        message: String,
    },
    /// Anything else the operating system says.
    #[error("cannot open TUN device '{name}': {source}")]
    Os {
        /// The device.
        name: String,
        /// What it said.
        source: io::Error,
    },
}

/// An open TUN device.
#[derive(Debug)]
pub struct Tun {
    iface: Iface,
    mtu: usize,
    scratch: Vec<u8>,
    drops: u64,
}

impl Tun {
    /// Creates or attaches to the device and sets it up: MTU, ring, no address autoconfiguration,
    /// up, host routes.
    ///
    /// # Errors
    /// [`TunError`].
    pub fn open(config: &TunConfig) -> Result<Self, TunError> {
        check(config)?;
        check_addresses(config)?;
        let name = &config.name;
        let iface =
            Iface::without_packet_info(name, Mode::Tun).map_err(|error| open_error(name, error))?;
        iface.set_non_blocking().map_err(|source| TunError::Os {
            name: name.clone(),
            source,
        })?;
        set_up(config)?;
        let mtu = usize::from(config.mtu);
        Ok(Self {
            iface,
            mtu,
            scratch: vec![0; MAX_PACKET],
            drops: 0,
        })
    }

    fn count_drop(drops: &mut u64, sent: io::Result<usize>) -> io::Result<()> {
        let Err(error) = sent else { return Ok(()) };
        match Errno::from_io_error(&error) {
            // Down, full, or a packet the kernel will not look at: lost, like on any link.
            Some(Errno::IO | Errno::AGAIN | Errno::NOBUFS | Errno::INVAL) => {
                *drops += 1;
                Ok(())
            }
            _ => Err(error),
        }
    }
}

impl Device for Tun {
    fn mtu(&self) -> usize {
        self.mtu
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        loop {
            match self.iface.recv(buffer) {
                Ok(len) => return Ok(Some(Received { len, segment: None })),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn send_packet(&mut self, packet: &[u8]) -> io::Result<()> {
        if packet.len() > self.mtu {
            self.drops += 1;
            return Ok(());
        }
        Self::count_drop(&mut self.drops, self.iface.send(packet))
    }

    fn send_flight(&mut self, flight: &Flight) -> io::Result<()> {
        let Ok(template) = UdpTemplate::new(flight.path, flight.ecn) else {
            self.drops += 1;
            return Ok(());
        };
        for datagram in flight.datagrams() {
            match template.emit(0, datagram, &mut self.scratch) {
                Ok(len) if len <= self.mtu => {
                    let packet = self.scratch.get(..len).unwrap_or_default();
                    Self::count_drop(&mut self.drops, self.iface.send(packet))?;
                }
                Ok(_) | Err(_) => self.drops += 1,
            }
        }
        Ok(())
    }

    fn send_drops(&self) -> u64 {
        self.drops
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.iface.as_raw_fd()
    }
}

fn check(config: &TunConfig) -> Result<(), TunError> {
    let name = &config.name;
    let usable = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    // A leading '-' would be read as an option by `ip`; "." and ".." are refused by the kernel.
    let odd = name.starts_with('-') || name == "." || name == "..";
    if name.is_empty() || name.len() > MAX_NAME_BYTES || odd || !name.bytes().all(usable) {
        return Err(TunError::InvalidName { name: name.clone() });
    }
    let least = if config.addresses.iter().any(IpAddr::is_ipv6) {
        MIN_MTU_V6
    } else {
        MIN_MTU
    };
    if config.mtu < least {
        return Err(TunError::MtuTooSmall {
            mtu: config.mtu,
            least,
        });
    }
    let count = config.addresses.len();
    if count > MAX_ADDRESSES {
        return Err(TunError::TooManyAddresses { count });
    }
    Ok(())
}

/// Refuses addresses that the kernel holds itself or sends elsewhere.
fn check_addresses(config: &TunConfig) -> Result<(), TunError> {
    for &address in &config.addresses {
        let prefix = host_prefix(address);
        let held = ip(config, &["-o", "addr", "show", "to", &prefix])?;
        // "2: eth0    inet 10.0.0.1/24 …"
        if let Some(device) = held.lines().find_map(|line| line.split_whitespace().nth(1)) {
            return Err(TunError::LocalAddress {
                address,
                device: device.to_owned(),
            });
        }
        let family = if address.is_ipv6() { "-6" } else { "-4" };
        let routes = ip(config, &[family, "-o", "route", "show", "exact", &prefix])?;
        // "10.0.0.1 dev eth0 scope link"
        for line in routes.lines() {
            let mut words = line.split_whitespace().skip_while(|word| *word != "dev");
            let device = words.nth(1).unwrap_or("another destination");
            if device != config.name {
                let device = device.to_owned();
                return Err(TunError::RoutedElsewhere { address, device });
            }
        }
    }
    Ok(())
}

/// The errors of open(2) and TUNSETIFF, which tun-tap passes on without saying which it was.
fn open_error(name: &str, source: io::Error) -> TunError {
    let name = name.to_owned();
    match Errno::from_io_error(&source) {
        Some(Errno::PERM | Errno::ACCESS) => TunError::NoPermission,
        Some(Errno::NOENT) => TunError::NoDeviceNode,
        Some(Errno::NODEV | Errno::NXIO) => TunError::NoDriver,
        Some(Errno::BUSY) => TunError::Busy { name },
        Some(Errno::INVAL) => TunError::NotTun { name },
        _ => TunError::Os { name, source },
    }
}

fn set_up(config: &TunConfig) -> Result<(), TunError> {
    use std::fmt::Write as _;
    let (name, mtu) = (&config.name, config.mtu);
    // Without a generated link-local address and multicast the kernel sends no router
    // solicitations and no listener reports into the device.
    let mut batch = format!(
        "link set dev {name} mtu {mtu} txqueuelen {TX_QUEUE_PACKETS} addrgenmode none\n\
         link set dev {name} multicast off up\n"
    );
    for &address in &config.addresses {
        // Writing to a String cannot fail.
        let _ = writeln!(batch, "route replace {} dev {name}", host_prefix(address));
    }
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| ip_error(config, error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // If `ip` has gone its exit status tells why.
        let _ = stdin.write_all(batch.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| ip_error(config, error))?;
    said(config, &output).map(drop)
}

/// Runs `ip` and returns its standard output.
fn ip(config: &TunConfig, arguments: &[&str]) -> Result<String, TunError> {
    let output = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| ip_error(config, error))?;
    said(config, &output)
}

fn said(config: &TunConfig, output: &Output) -> Result<String, TunError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("Operation not permitted") {
        return Err(TunError::NoPermission);
    }
    let message = stderr
        .lines()
        .next()
        .unwrap_or("'ip' gave no reason")
        .to_owned();
    Err(TunError::Refused {
        name: config.name.clone(),
        message,
    })
}

fn ip_error(config: &TunConfig, source: io::Error) -> TunError {
    if source.kind() == ErrorKind::NotFound {
        return TunError::NoIpProgram;
    }
    TunError::Os {
        name: config.name.clone(),
        source,
    }
}

fn host_prefix(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}/32"),
        IpAddr::V6(address) => format!("{address}/128"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, mtu: u16, addresses: &[&str]) -> TunConfig {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        TunConfig {
            name: name.to_owned(),
            mtu,
            addresses,
        }
    }

    #[test]
    fn bad_configurations_are_refused_before_anything_is_touched() {
        let nine = ["10.0.0.1"; MAX_ADDRESSES + 1];
        for (name, config, want) in [
            ("empty name", config("", 1500, &[]), "no interface name"),
            (
                "16 bytes",
                config("abcdefghijklmnop", 1500, &[]),
                "no interface name",
            ),
            ("slash", config("a/b", 1500, &[]), "no interface name"),
            ("option", config("-batch", 1500, &[]), "no interface name"),
            ("pattern", config("tun%d", 1500, &[]), "no interface name"),
            ("two words", config("a up", 1500, &[]), "no interface name"),
            ("dots", config("..", 1500, &[]), "no interface name"),
            ("MTU", config("t", 575, &[]), "at least 576"),
            (
                "MTU for IPv6",
                config("t", 1279, &["10.0.0.1", "fd00::1"]),
                "at least 1280",
            ),
            ("nine addresses", config("t", 1500, &nine), "too many"),
        ] {
            let error = check(&config).unwrap_err().to_string();
            assert!(
                error.contains(want) && !error.contains('\n'),
                "{name}: {error}"
            );
        }
        check(&config("abcdefghijklmno", 576, &nine[1..])).unwrap();
        check(&config("t.0_-", 1280, &["fd00::1"])).unwrap();
    }

    #[test]
    fn errors_of_the_kernel_say_what_to_do() {
        for (errno, want) in [
            (Errno::PERM, "sudo"),
            (Errno::ACCESS, "sudo"),
            (Errno::NOENT, "mknod"),
            (Errno::NODEV, "modprobe"),
            (Errno::BUSY, "another process"),
            (Errno::INVAL, "no plain TUN"),
            (Errno::NFILE, "cannot open"),
        ] {
            let error = open_error("t", errno.into()).to_string();
            assert!(error.contains(want), "{errno:?}: {error}");
        }
    }

    #[test]
    fn a_failed_write_is_a_drop_unless_the_device_is_gone() {
        let mut drops = 0;
        for (errno, fatal) in [
            (Errno::IO, false),
            (Errno::AGAIN, false),
            (Errno::NOBUFS, false),
            (Errno::INVAL, false),
            (Errno::BADFD, true),
        ] {
            let result = Tun::count_drop(&mut drops, Err(errno.into()));
            assert_eq!(result.is_err(), fatal, "{errno:?}");
        }
        assert_eq!(drops, 4);
    }
}
