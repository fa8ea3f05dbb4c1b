//! The order in which the addresses of a name are tried.
//!
//! In: addresses as a resolver sorted them (RFC 6724). Out: the same without duplicates, families by turns,
//! at most [`MAX_ATTEMPTS`]: if all of one family are unreachable, the second attempt is of the other (RFC 8305 §4).

use std::net::IpAddr;

use super::MAX_ATTEMPTS;

/// Returns the addresses by turns of their families, beginning with that of the first.
#[must_use]
pub fn interleaved(addresses: &[IpAddr]) -> Vec<IpAddr> {
    interleaved_after(&[], addresses)
}

/// Returns those of the addresses that are to be tried after `started`, which came earlier: by turns of their
/// families, beginning with the other one than that of the last that was started.
#[must_use]
pub fn interleaved_after(started: &[IpAddr], addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first = addresses.first().map(IpAddr::is_ipv4);
    let after = started.last().map(|last| !last.is_ipv4());
    let v4_first = after.or(first).unwrap_or_default();
    let family = |v4: bool| {
        let wanted =
            move |address: &&IpAddr| address.is_ipv4() == v4 && !started.contains(*address);
        addresses.iter().filter(wanted)
    };
    let (mut own, mut other) = (family(v4_first), family(!v4_first));
    let most = MAX_ATTEMPTS.saturating_sub(started.len());
    let mut order = Vec::new();
    while order.len() < most {
        let pair = [own.next(), other.next()];
        if pair == [None, None] {
            break;
        }
        for address in pair.into_iter().flatten() {
            if !order.contains(address) {
                order.push(*address);
            }
        }
    }
    order.truncate(most);
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
    fn late_addresses_take_their_turns_after_those_started() {
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        let (a, b) = (address("::a"), address("::b"));
        let (x, y) = (address("192.0.2.1"), address("192.0.2.2"));
        for (name, started, given, want) in [
            ("six late", vec![x], vec![a, b, x, y], vec![a, y, b]),
            ("four late", vec![a], vec![a, b, x, y], vec![x, b, y]),
            (
                "the other family is used up",
                vec![x, y, a],
                vec![a, b, x, y],
                vec![b],
            ),
            ("all started", vec![x, a], vec![a, x], vec![]),
        ] {
            assert_eq!(interleaved_after(&started, &given), want, "{name}");
        }
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let many: Vec<IpAddr> = (0..=200_u8).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        let order = interleaved(&many);
        assert_eq!(order, many[..MAX_ATTEMPTS]);
        let most = interleaved(&many[..MAX_ATTEMPTS]);
        assert_eq!(most.len(), MAX_ATTEMPTS);
        let late = interleaved_after(&many[..MAX_ATTEMPTS - 1], &many);
        assert_eq!(late, [many[MAX_ATTEMPTS - 1]]);
    }
}
