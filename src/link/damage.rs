//! Corruption of the bytes of one IP packet by a bad wire, and of its ECN field by a congested
//! router.
//!
//! In: a whole IPv4 or IPv6 packet, changed in place. The internet checksum detects every
//! corruption made here, so a receiver that checks is never fooled and wrong bytes in a simulation
//! are a defect: each flips 1 to 15 bits in a span shorter than 16 bits within one aligned 16-bit
//! word, which changes the one's complement sum by an amount that is not a multiple of 65535 (RFC
//! 1071). It spares fields that no checksum covers (on IPv6 version, traffic class, flow label and
//! hop limit) and fields that set a checksum's extent (the IPv4 header length, the IPv6 payload
//! length, the UDP length). One case is undetected and harmless: an IPv4 UDP checksum damaged to
//! zero means no checksum, but then the data is intact.

use rand::{Rng, RngExt as _};

use crate::wire::flight::Ecn;

/// Flips one random bit, or a burst of bits within one aligned word. Returns whether the packet
/// changed: one that is not IP, or is too short, is left alone.
pub(super) fn corrupt(packet: &mut [u8], rng: &mut impl Rng) -> bool {
    let Some(layout) = Layout::of(packet) else {
        return false;
    };
    let words = packet.len() / 2;
    // Few words are spared, so a few draws find one; a packet may have none.
    for _ in 0..MAX_DRAWS {
        let at = rng.random_range(0..words) * 2;
        let mask = layout.allowed(at) & burst(rng);
        if mask == 0 {
            continue;
        }
        let [high, low] = mask.to_be_bytes();
        if let Some([first, second]) = packet.get_mut(at..at + 2) {
            *first ^= high;
            *second ^= low;
            return true;
        }
    }
    false
}

/// Whether the packet carries CE.
pub(super) fn is_ce(packet: &[u8]) -> bool {
    let bits = match (packet.first().map(|byte| byte >> 4), packet.get(1)) {
        (Some(4), Some(byte)) => *byte,
        (Some(6), Some(byte)) => *byte >> 4,
        _ => return false,
    };
    Ecn::from_bits(bits) == Ecn::Ce
}

/// Marks an ECN-capable packet CE (RFC 3168 §5) and updates the IPv4 header checksum. Returns
/// whether it did.
pub(super) fn mark_ce(packet: &mut [u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => {
            let &mut [first, ref mut tos, ..] = packet else {
                return false;
            };
            if !markable(Ecn::from_bits(*tos)) {
                return false;
            }
            let before = u16::from_be_bytes([first, *tos]);
            *tos |= Ecn::Ce.bits();
            let after = u16::from_be_bytes([first, *tos]);
            if let Some([high, low]) = packet.get_mut(10..12) {
                let sum = update_checksum(u16::from_be_bytes([*high, *low]), before, after);
                [*high, *low] = sum.to_be_bytes();
            }
            true
        }
        Some(6) => {
            let Some(byte) = packet.get_mut(1) else {
                return false;
            };
            if !markable(Ecn::from_bits(*byte >> 4)) {
                return false;
            }
            *byte |= Ecn::Ce.bits() << 4;
            true
        }
        _ => false,
    }
}

const fn markable(ecn: Ecn) -> bool {
    matches!(ecn, Ecn::Ect0 | Ecn::Ect1)
}

/// Updates a checksum for a change of one 16-bit word (RFC 1624 §3, equation 3).
fn update_checksum(checksum: u16, before: u16, after: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Draws a non-zero mask whose bits span at most 15; half the time one bit.
fn burst(rng: &mut impl Rng) -> u16 {
    let one = 1u16 << rng.random_range(0..16u32);
    if rng.random() {
        return one;
    }
    let span = (rng.random::<u16>() | 1) & 0x7fff;
    if rng.random() { span } else { span << 1 }
}

/// Draws before a packet is left alone.
const MAX_DRAWS: usize = 16;

const UDP: u8 = 17;

/// Positions of the words to spare.
struct Layout {
    version: u8,
    udp_at: Option<usize>,
}

impl Layout {
    fn of(packet: &[u8]) -> Option<Self> {
        let first = *packet.first()?;
        let version = first >> 4;
        let (header, protocol) = match version {
            4 => (usize::from(first & 0x0f) * 4, *packet.get(9)?),
            6 => (40, *packet.get(6)?),
            _ => return None,
        };
        (packet.len() >= header.max(20)).then_some(Self {
            version,
            udp_at: (protocol == UDP).then_some(header),
        })
    }

    /// The bits that may change in the word at byte `at`.
    fn allowed(&self, at: usize) -> u16 {
        match (self.version, at) {
            (4, 0) => 0x00ff,
            // The hop limit is the low byte of the word at 6.
            (6, 6) => 0xff00,
            (6, 0..=5) => 0,
            _ if self.udp_at.is_some_and(|udp| at == udp + 4) => 0,
            _ => 0xffff,
        }
    }
}
