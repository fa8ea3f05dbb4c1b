//! The order of the addresses of a name.
//!
//! In: addresses, and the own address that the system would use towards each. Out: the same, the best first. The
//! rules about deprecated, home and encapsulated addresses are left out: a TUN device and a socket know of none.
//! Source: RFC 6724 §6, with the policy table of §2.1.

use core::cmp::Reverse;
use std::net::{IpAddr, Ipv6Addr};

/// Most bits of a prefix that rule 9 compares: those beyond are of an interface, not of a network.
const NETWORK_BITS: u32 = 64;

/// Sorts addresses, the best first; equals stay in their order. `source` returns the own address that speaks to
/// an address, `None` if it cannot be reached.
pub fn sort_addresses(addresses: &mut [IpAddr], source: impl Fn(IpAddr) -> Option<IpAddr>) {
    addresses.sort_by_cached_key(|&address| Rank::of(address, source(address)));
}

/// The properties that the rules compare, in their order; the least is best.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Rule 1: avoid unusable destinations.
    unreachable: bool,
    /// Rule 2: prefer matching scope.
    foreign_scope: bool,
    /// Rule 5: prefer matching label.
    foreign_label: bool,
    /// Rule 6: prefer higher precedence.
    precedence: Reverse<u8>,
    /// Rule 8: prefer smaller scope.
    scope: u8,
    /// Rule 9: prefer the longest matching prefix. Only of IPv6: names of several IPv4 addresses spread their load
    /// by their order.
    common_bits: Reverse<u32>,
}

impl Rank {
    fn of(address: IpAddr, source: Option<IpAddr>) -> Self {
        let (precedence, label) = policy(address);
        let source = source.filter(|own| own.is_ipv4() == address.is_ipv4());
        let common_bits = match (address, source) {
            (IpAddr::V6(address), Some(IpAddr::V6(own))) => {
                let differ = u128::from(address) ^ u128::from(own);
                differ.leading_zeros().min(NETWORK_BITS)
            }
            _ => 0,
        };
        Self {
            unreachable: source.is_none(),
            foreign_scope: source.is_none_or(|own| scope(own) != scope(address)),
            foreign_label: source.is_none_or(|own| policy(own).1 != label),
            precedence: Reverse(precedence),
            scope: scope(address),
            common_bits: Reverse(common_bits),
        }
    }
}

/// The scope of an address (RFC 6724 §3.1, §3.2).
const fn scope(address: IpAddr) -> u8 {
    const LINK: u8 = 0x2;
    const SITE: u8 = 0x5;
    const GLOBAL: u8 = 0xe;
    match address {
        IpAddr::V4(v4) if v4.is_link_local() || v4.is_loopback() => LINK,
        IpAddr::V4(_) => GLOBAL,
        IpAddr::V6(v6) => match v6.segments() {
            _ if v6.is_loopback() => LINK,
            [first, ..] if first & 0xff00 == 0xff00 => (first & 0xf) as u8,
            [first, ..] if first & 0xffc0 == 0xfe80 => LINK,
            [first, ..] if first & 0xffc0 == 0xfec0 => SITE,
            _ => GLOBAL,
        },
    }
}

/// The precedence and the label of an address (RFC 6724 §2.1).
fn policy(address: IpAddr) -> (u8, u8) {
    let v6 = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let is_in = |prefix: Ipv6Addr, bits: u32| {
        let differ = u128::from(prefix) ^ u128::from(v6);
        differ.leading_zeros() >= bits
    };
    let prefix = |first, second| Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0);
    match () {
        () if v6.is_loopback() => (50, 0),
        () if is_in(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96) => (35, 4),
        () if is_in(prefix(0, 0), 96) => (1, 3),
        () if is_in(prefix(0x2001, 0), 32) => (5, 5),
        () if is_in(prefix(0x2002, 0), 16) => (30, 2),
        () if is_in(prefix(0x3ffe, 0), 16) => (1, 12),
        () if is_in(prefix(0xfec0, 0), 10) => (1, 11),
        () if is_in(prefix(0xfc00, 0), 7) => (3, 13),
        () => (40, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Sorts the addresses of `pairs`, `ADDRESS<OWN` each, from this order and from the reverse.
    fn sorted(pairs: &str) -> [Vec<IpAddr>; 3] {
        let pairs = pairs.split(' ').map(|pair| pair.split_once('<').unwrap());
        let source = |address| {
            let own = pairs.clone().find(|(known, _)| ip(known) == address);
            own.unwrap().1.parse().ok()
        };
        let want: Vec<IpAddr> = pairs.clone().map(|(address, _)| ip(address)).collect();
        let (mut kept, mut reversed) = (want.clone(), want.clone());
        reversed.reverse();
        sort_addresses(&mut kept, source);
        sort_addresses(&mut reversed, source);
        [want, kept, reversed]
    }

    /// The examples of RFC 6724 §10.2 that need no rule that is left out, and others.
    #[test]
    fn addresses_are_ordered_by_the_rules() {
        for (rule, pairs) in [
            ("1", "10.1.2.3<10.1.2.4 2001:db8::1<none"),
            ("2", "198.51.100.121<198.51.100.117 2001:db8:1::1<fe80::1"),
            (
                "2",
                "2001:db8:1::1<2001:db8:1::2 198.51.100.121<169.254.13.78",
            ),
            (
                "5",
                "2002:c633:6401::1<2002:c633:6401::2 2001:db8:1::1<2002:c633:6401::2",
            ),
            ("5, unique local", "10.1.2.3<10.1.2.4 2001:db8::1<fd00::2"),
            ("6", "2001:db8:1::1<2001:db8:1::2 10.1.2.3<10.1.2.4"),
            (
                "6, 6to4",
                "2001:db8:1::1<2001:db8:1::2 2002:c633:6401::1<2002:c633:6401::2",
            ),
            ("6, loopback", "::1<::1 127.0.0.1<127.0.0.1"),
            ("8", "fe80::1<fe80::2 2001:db8:1::1<2001:db8:1::2"),
            (
                "9",
                "2001:db8:1::1<2001:db8:1::2 2001:db8:3ffe::1<2001:db8:1::2",
            ),
        ] {
            let [want, kept, reversed] = sorted(pairs);
            assert_eq!(kept, want, "rule {rule}");
            assert_eq!(reversed, want, "rule {rule}, reversed");
        }
    }

    #[test]
    fn equal_addresses_stay_in_the_order_of_the_server() {
        for pairs in [
            "2001:db8::1:1<2001:db8::2 2001:db8::3<2001:db8::2",
            "192.0.2.1<10.0.0.1 10.0.0.2<10.0.0.1",
        ] {
            let [want, kept, reversed] = sorted(pairs);
            assert_eq!(kept, want);
            assert_ne!(reversed, want);
        }
    }

    proptest! {
        #[test]
        fn every_address_stays(addresses: Vec<IpAddr>, own: Option<IpAddr>) {
            let mut sorted = addresses.clone();
            sort_addresses(&mut sorted, |_| own);
            for address in &addresses {
                let count = |list: &[IpAddr]| list.iter().filter(|other| *other == address).count();
                prop_assert_eq!(count(&addresses), count(&sorted));
            }
            let mut again = sorted.clone();
            sort_addresses(&mut again, |_| own);
            prop_assert_eq!(again, sorted);
        }
    }
}
