//! The order in which the addresses of a name are tried.
//!
//! In: addresses as a resolver sorted them (RFC 6724). Out: the same without duplicates, families by turns,
//! at most [`MAX_ATTEMPTS`]: if all of one family are unreachable, the second attempt is of the other (RFC 8305 §4).

use std::net::IpAddr;

use super::MAX_ATTEMPTS;

/// Returns the addresses by turns of their families, beginning with that of the first.
#[must_use]
pub fn interleaved(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let Some(first) = addresses.first() else {
        return Vec::new();
    };
    let family = |own: bool| {
        let wanted = move |address: &&IpAddr| (address.is_ipv4() == first.is_ipv4()) == own;
        addresses.iter().filter(wanted)
    };
    let (mut own, mut other) = (family(true), family(false));
    let mut order = Vec::new();
    while order.len() < MAX_ATTEMPTS {
        let pair = [own.next(), other.next()];
        if pair == [None, None] {
            break;
        }
        for &address in pair.into_iter().flatten() {
            if !order.contains(&address) {
                order.push(address);
            }
        }
    }
    order.truncate(MAX_ATTEMPTS);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_duplicates_are_left_out() {
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        let (a, b, c) = (address("::a"), address("::b"), address("::c"));
        let (x, y) = (address("192.0.2.1"), address("192.0.2.2"));
        for (name, given, want) in [
            ("none", vec![], vec![]),
            ("one family", vec![x, y], vec![x, y]),
            ("six first", vec![a, b, c, x, y], vec![a, x, b, y, c]),
            ("four first", vec![x, a, b], vec![x, a, b]),
            ("twice", vec![a, a, x, a], vec![a, x]),
        ] {
            assert_eq!(interleaved(&given), want, "{name}");
        }
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let many: Vec<IpAddr> = (0..=200_u8).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        let order = interleaved(&many);
        assert_eq!(order, many[..MAX_ATTEMPTS]);
        let most = interleaved(&many[..MAX_ATTEMPTS]);
        assert_eq!(most.len(), MAX_ATTEMPTS);
    }
}
