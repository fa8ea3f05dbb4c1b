//! IP packets for tests: taken apart loosely and made sound again after they were damaged.
//!
//! In: any bytes. Out: the same bytes with lengths and checksums that hold, as far as there are
//! headers at all. Written apart from `wire::ip` on purpose: one must not test itself.
//! Sources: RFC 791, RFC 8200, RFC 1071.

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Puts right all lengths and checksums of `packet`, so that damage gets past the checks that find
/// damage. A packet without valid headers is left alone.
pub fn repair(packet: &mut [u8]) {
    let total = packet.len();
    let Some(short) = u16::try_from(total).ok() else {
        return;
    };
    let (payload, protocol, pseudo) = match packet.first().map(|byte| byte >> 4) {
        Some(4) if total >= 20 => {
            let header = usize::from(packet[0] & 15) * 4;
            if header < 20 || header > total {
                return;
            }
            packet[2..4].copy_from_slice(&short.to_be_bytes());
            packet[10..12].fill(0);
            let checksum = !fold(sum(&packet[..header]));
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            (header, packet[9], sum(&packet[12..20]))
        }
        Some(6) if total >= 40 => {
            packet[4..6].copy_from_slice(&(short - 40).to_be_bytes());
            (40, packet[6], sum(&packet[8..40]))
        }
        _ => return,
    };
    let body = &mut packet[payload..];
    let length = body.len() as u64;
    let pseudo = pseudo + u64::from(protocol) + length;
    let (at, pseudo) = match protocol {
        UDP if body.len() >= 8 => {
            body[4..6].copy_from_slice(&(length as u16).to_be_bytes());
            (6, pseudo)
        }
        TCP if body.len() >= 20 => (16, pseudo),
        ICMP if body.len() >= 4 => (2, 0),
        ICMPV6 if body.len() >= 4 => (2, pseudo),
        _ => return,
    };
    body[at..at + 2].fill(0);
    let checksum = match !fold(pseudo + sum(body)) {
        0 if protocol == UDP => u16::MAX,
        checksum => checksum,
    };
    body[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Where the payload of IP starts, and its protocol, if there is a header.
pub fn payload_of(packet: &[u8]) -> Option<(usize, u8)> {
    match packet.first()? >> 4 {
        4 => Some((usize::from(packet[0] & 15) * 4, *packet.get(9)?)),
        6 => Some((40, *packet.get(6)?)),
        _ => None,
    }
}

fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2);
    words
        .map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0)))
        .sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
