//! Addresses that no machine of this program can have or reach, and the sources that addresses belong to.
//!
//! In: an address, from a configuration or a packet. Out: why it is unusable, if it is; the host or
//! network to which shares are given. Sources: RFC 1112 §4 (240/4), RFC 1122 §3.2.1.3, RFC 4291 §2.5,
//! RFC 6890.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is unusable; each continues "ADDRESS is …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// `0.0.0.0/8` or `::`.
    #[error("unspecified: use a host's address")]
    Unspecified,
    /// `127.0.0.0/8` or `::1`.
    #[error("a loopback address, which no other host reaches: use an address of the network")]
    Loopback,
    /// `169.254.0.0/16` or `fe80::/10`.
    #[error("link-local, and packets here have no interface: use a routed address")]
    LinkLocal,
    /// `224.0.0.0/4` or `ff00::/8`.
    #[error("not a unicast address (multicast): use a host's address")]
    Multicast,
    /// `255.255.255.255`.
    #[error("not a unicast address (broadcast): use a host's address")]
    Broadcast,
    /// `240.0.0.0/4`, which routers and hosts drop.
    #[error("reserved (240.0.0.0/4): use a host's address")]
    Reserved,
    /// An IPv4 address in IPv6 notation, which packets of neither family carry.
    #[error("an IPv4 address in IPv6 notation: write {0}")]
    Mapped(Ipv4Addr),
}

/// Returns why `address` cannot be the address of a host.
#[must_use]
pub fn unusable(address: IpAddr) -> Option<Unusable> {
    match address {
        IpAddr::V4(address) => unusable_v4(address),
        IpAddr::V6(address) => unusable_v6(address),
    }
}

const fn unusable_v4(address: Ipv4Addr) -> Option<Unusable> {
    match address.octets() {
        [0, ..] => Some(Unusable::Unspecified),
        [127, ..] => Some(Unusable::Loopback),
        [169, 254, ..] => Some(Unusable::LinkLocal),
        [224..=239, ..] => Some(Unusable::Multicast),
        [255, 255, 255, 255] => Some(Unusable::Broadcast),
        [240..=255, ..] => Some(Unusable::Reserved),
        _ => None,
    }
}

fn unusable_v6(address: Ipv6Addr) -> Option<Unusable> {
    if address.is_unspecified() {
        return Some(Unusable::Unspecified);
    }
    if address.is_loopback() {
        return Some(Unusable::Loopback);
    }
    // Mapped, and the "compatible" form of RFC 4291 §2.5.5.1.
    if let Some(v4) = address.to_ipv4() {
        return Some(Unusable::Mapped(v4));
    }
    match address.segments() {
        [0xff00..=0xffff, ..] => Some(Unusable::Multicast),
        [0xfe80..=0xfebf, ..] => Some(Unusable::LinkLocal),
        _ => None,
    }
}

/// A host, or a network of IPv6 hosts with one owner: the first 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    bits: u64,
    is_network: bool,
}

impl Source {
    /// The source that `address` belongs to.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self {
                bits: u64::from(address.to_bits()),
                is_network: false,
            },
            IpAddr::V6(address) => Self {
                bits: u64::try_from(address.to_bits() >> 64).unwrap_or(u64::MAX),
                is_network: true,
            },
        }
    }

    /// The bits of the host or network; a host and a network may have the same.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_hosts_are_usable() {
        let cases = [
            ("0.0.0.0", Some(Unusable::Unspecified)),
            ("0.1.2.3", Some(Unusable::Unspecified)),
            ("1.0.0.1", None),
            ("10.77.2.100", None),
            ("126.255.255.255", None),
            ("127.0.0.1", Some(Unusable::Loopback)),
            ("128.0.0.1", None),
            ("169.253.0.1", None),
            ("169.254.0.1", Some(Unusable::LinkLocal)),
            ("223.255.255.255", None),
            ("224.0.0.1", Some(Unusable::Multicast)),
            ("239.255.255.255", Some(Unusable::Multicast)),
            ("240.0.0.1", Some(Unusable::Reserved)),
            ("255.255.255.254", Some(Unusable::Reserved)),
            ("255.255.255.255", Some(Unusable::Broadcast)),
            ("::", Some(Unusable::Unspecified)),
            ("::1", Some(Unusable::Loopback)),
            (
                "::ffff:10.0.0.1",
                Some(Unusable::Mapped(Ipv4Addr::new(10, 0, 0, 1))),
            ),
            (
                "::10.0.0.1",
                Some(Unusable::Mapped(Ipv4Addr::new(10, 0, 0, 1))),
            ),
            ("fd77:2::100", None),
            ("2001:db8::1", None),
            ("64:ff9b::a00:1", None),
            ("fe80::1", Some(Unusable::LinkLocal)),
            ("febf::1", Some(Unusable::LinkLocal)),
            ("fec0::1", None),
            ("ff02::1", Some(Unusable::Multicast)),
        ];
        for (text, want) in cases {
            assert_eq!(unusable(text.parse().unwrap()), want, "{text}");
        }
    }

    #[test]
    fn a_network_is_one_source() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("fd00::1"), of("fd00::ffff:1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("fd00::1"), of("fd00:0:0:1::1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_ne!(of("192.0.2.1"), of("::1"));
        assert_ne!(of("0.0.0.1"), of("0:0:0:1::"));
    }
}
