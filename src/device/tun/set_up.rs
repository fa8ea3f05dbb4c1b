//! Configures a TUN device of either kind through the `ip` program (iproute2).
//!
//! In: a [`TunConfig`]; out: MTU, ring, no address autoconfiguration, a host route to each address
//! of the stack, so that the kernel forwards to us; or a [`TunError`]. Changes nothing but its own
//! device and host routes, which disappear with it.

use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::process::{Command, Output, Stdio};

use crate::device::tun::{MAX_ADDRESSES, MAX_NAME_BYTES, MIN_MTU, MIN_MTU_V6, TunConfig, TunError};

pub(super) fn check(config: &TunConfig) -> Result<(), TunError> {
    let name = &config.name;
    let usable = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    // `ip` would parse a leading '-' as an option; the kernel rejects "." and "..".
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

/// Brings the device up with a transmit queue of `slots` packets.
pub(super) fn set_up(config: &TunConfig, slots: usize) -> Result<(), TunError> {
    use std::fmt::Write as _;
    let (name, mtu) = (&config.name, config.mtu);
    // Without a generated link-local address and multicast the kernel sends no router
    // solicitations and no listener reports into the device.
    let mut batch = format!(
        "link set dev {name} mtu {mtu} txqueuelen {slots} addrgenmode none\n\
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
        // If `ip` has exited, its exit status has the reason.
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
        .unwrap_or("'ip' reported no reason")
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
