//! Configures a TUN device of either kind over rtnetlink.
//!
//! In: a [`TunConfig`]; out: MTU, ring, no address autoconfiguration, a host route to each address
//! of the stack, so that the kernel forwards to us; or a [`TunError`]. Changes nothing but its own
//! device and host routes, which disappear with it.

use std::io::{self, ErrorKind};
use std::net::IpAddr;

use rustix::io::Errno;

use crate::device::tun::netlink::{Existing, Netlink};
use crate::device::tun::{MAX_ADDRESSES, MAX_NAME_BYTES, MIN_MTU, MIN_MTU_V6, TunConfig, TunError};

pub(super) fn check(config: &TunConfig) -> Result<(), TunError> {
    let name = &config.name;
    let usable = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    // `ip` would parse a leading '-' as an option, and so would its user; the kernel rejects "." and
    // "..".
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

/// Rejects addresses that the kernel owns or routes elsewhere.
pub(super) fn check_addresses(config: &TunConfig) -> Result<(), TunError> {
    let failed = |error| refused(&config.name, "addresses", error);
    let mut netlink = Netlink::open().map_err(failed)?;
    for &address in &config.addresses {
        if let Some(owner) = netlink.owner(address).map_err(failed)? {
            let device = netlink.name_of(owner);
            return Err(TunError::LocalAddress { address, device });
        }
        if let Some(device) = netlink.host_route(address).map_err(failed)? {
            check_route(&netlink, config, address, device)?;
        }
    }
    Ok(())
}

/// Rejects a host route that does not lead to the device.
fn check_route(
    netlink: &Netlink,
    config: &TunConfig,
    address: IpAddr,
    device: Option<u32>,
) -> Result<(), TunError> {
    let name = device.map(|index| netlink.name_of(index));
    if name.as_ref() == Some(&config.name) {
        return Ok(());
    }
    let device = name.unwrap_or_else(|| "another destination".to_owned());
    Err(TunError::RoutedElsewhere { address, device })
}

/// Brings the device up with a transmit queue of `slots` packets; returns its index.
pub(super) fn set_up(config: &TunConfig, slots: usize) -> Result<u32, TunError> {
    let name = &config.name;
    let failed = |what: &str, error| refused(name, what, error);
    let mut netlink = Netlink::open().map_err(|error| failed("link", error))?;
    let index = netlink
        .index_of(name)
        .map_err(|error| failed("link", error))?;
    let slots = u32::try_from(slots).unwrap_or(u32::MAX);
    // Without a generated link-local address and multicast the kernel sends no router
    // solicitations and no listener reports into the device.
    netlink
        .set_size(index, config.mtu, slots)
        .and_then(|()| netlink.no_own_address(index))
        .and_then(|()| netlink.set_up(index))
        .map_err(|error| failed("link", error))?;
    for &address in &config.addresses {
        match netlink.add_route(address, index, Existing::Keep) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let failed = |error| failed("routes", error);
                // None leads to a device if the route rejects packets.
                let device = netlink.host_route(address).map_err(failed)?.flatten();
                check_route(&netlink, config, address, device)?;
            }
            Err(error) => return Err(failed(&format!("route {address}"), error)),
        }
    }
    Ok(index)
}

/// Converts an error of a request about `what`.
pub(super) fn refused(name: &str, what: &str, error: io::Error) -> TunError {
    match Errno::from_io_error(&error) {
        Some(Errno::PERM | Errno::ACCESS) => TunError::NoPermission,
        _ => TunError::Refused {
            name: name.to_owned(),
            message: format!("{what}: {error}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::tun::TunKind;

    fn config(name: &str, mtu: u16, addresses: &[&str]) -> TunConfig {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        TunConfig {
            name: name.to_owned(),
            mtu,
            addresses,
            kind: TunKind::Plain,
            multi_queue: false,
        }
    }

    #[test]
    fn bad_configurations_are_refused_before_anything_is_touched() {
        let nine = ["10.0.0.1"; MAX_ADDRESSES + 1];
        for (name, config, want) in [
            ("empty name", config("", 1500, &[]), "not an interface name"),
            (
                "16 bytes",
                config("abcdefghijklmnop", 1500, &[]),
                "not an interface name",
            ),
            ("slash", config("a/b", 1500, &[]), "not an interface name"),
            (
                "option",
                config("-batch", 1500, &[]),
                "not an interface name",
            ),
            (
                "pattern",
                config("tun%d", 1500, &[]),
                "not an interface name",
            ),
            (
                "two words",
                config("a up", 1500, &[]),
                "not an interface name",
            ),
            ("dots", config("..", 1500, &[]), "not an interface name"),
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
}
