//! SYN cookies: the initial sequence number of a SYN, ACK carries all that its connection needs.
//!
//! In: a SYN's addresses, sequence number and options. Out: our initial sequence number, and at the
//! peer's acknowledgement of it the options again. Between the two there is no state, so a flood of
//! SYNs costs one hash and one packet each, which is not longer than the SYN.
//! A cookie is a tag of 24 bits, a SipHash-2-4 under a key of this stack over addresses, the peer's
//! sequence number and the time in units of [`EPOCH`], and 8 bits of options. Who guesses blindly
//! hits once in 2^23 segments, since two units are accepted at a time. SACK and time stamps are
//! never offered: smoltcp's sender uses neither.
//! Source: RFC 4987 §3.6; D. J. Bernstein, SYN cookies (1996).

use core::hash::Hasher as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use siphasher::sip::SipHasher24;

use super::Pair;
use crate::time::Instant;

/// Unit of a cookie's age. A cookie is valid for one to two of them.
pub(super) const EPOCH: Duration = Duration::from_secs(64);

/// The segment sizes that a cookie can express, in ascending order. A peer's is rounded down; the
/// smallest also stands for less.
const SEGMENT_SIZES: [u16; 16] = [
    216, 536, 1024, 1160, 1200, 1220, 1280, 1300, 1340, 1360, 1380, 1400, 1420, 1440, 1460, 8940,
];

/// The segment size of a SYN without the option (RFC 9293 §3.7.1).
const DEFAULT_SEGMENT_SIZE: u16 = 536;

/// The largest window scale (RFC 7323 §2.3).
const LARGEST_SCALE: u8 = 14;

/// Kinds of options (RFC 9293 §3.2, RFC 7323 §2.2).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS_OPTION: u8 = 2;
const SCALE_OPTION: u8 = 3;

/// The value for a SYN without window scaling.
const NO_SCALE: u8 = 15;

/// The second half of the key, so that the same seed serves other uses.
const DOMAIN: u64 = 0x6865_6164_636f_6f6b;

/// The options of a SYN that its sender wants respected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// Most payload bytes of a segment to the peer.
    pub(super) mss: u16,
    /// The scale of the peer's window.
    pub(super) scale: Option<u8>,
}

impl Offer {
    /// The offer of a SYN with these options.
    pub(super) fn new(mss: Option<u16>, scale: Option<u8>) -> Self {
        Self {
            mss: mss.unwrap_or(DEFAULT_SEGMENT_SIZE),
            scale: scale.map(|scale| scale.min(LARGEST_SCALE)),
        }
    }

    /// The offer in the options of a SYN. Unknown ones are skipped, and so is all that follows a malformed
    /// one (RFC 9293 §3.1).
    pub(super) fn of_options(mut options: &[u8]) -> Self {
        let (mut mss, mut scale) = (None, None);
        loop {
            options = match *options {
                [NO_OPERATION, ref rest @ ..] => rest,
                [kind, length, ..] if kind != END_OF_OPTIONS && length >= 2 => {
                    let Some((option, rest)) = options.split_at_checked(usize::from(length)) else {
                        break;
                    };
                    match *option {
                        [MSS_OPTION, 4, high, low] => mss = Some(u16::from_be_bytes([high, low])),
                        [SCALE_OPTION, 3, shift] => scale = Some(shift),
                        _ => {}
                    }
                    rest
                }
                _ => break,
            };
        }
        Self::new(mss, scale)
    }

    fn to_byte(self) -> u8 {
        let sizes = SEGMENT_SIZES.iter().filter(|size| **size <= self.mss);
        let index = u8::try_from(sizes.count().saturating_sub(1)).unwrap_or(0);
        index << 4 | self.scale.unwrap_or(NO_SCALE)
    }

    fn from_byte(byte: u8) -> Self {
        let size = SEGMENT_SIZES.get(usize::from(byte >> 4));
        let scale = byte & 0x0f;
        Self {
            mss: size.copied().unwrap_or(DEFAULT_SEGMENT_SIZE),
            scale: (scale <= LARGEST_SCALE).then_some(scale),
        }
    }
}

/// Issues and redeems cookies; equal seeds give equal cookies.
#[derive(Clone, Copy)]
pub(super) struct Cookies(SipHasher24);

impl Cookies {
    pub(super) fn new(seed: u64) -> Self {
        Self(SipHasher24::new_with_keys(seed, DOMAIN))
    }

    /// Returns our initial sequence number for a SYN.
    pub(super) fn issue(&self, now: Instant, pair: Pair, peer: u32, offer: Offer) -> u32 {
        let (tag, mask) = self.digest(epoch(now), pair, peer);
        tag << 8 | u32::from(offer.to_byte() ^ mask)
    }

    /// Returns the offer of the SYN that `cookie` was issued for, if it was issued lately.
    pub(super) fn redeem(&self, now: Instant, pair: Pair, peer: u32, cookie: u32) -> Option<Offer> {
        let latest = epoch(now);
        let epochs = [Some(latest), latest.checked_sub(1)];
        epochs.into_iter().flatten().find_map(|epoch| {
            let (tag, mask) = self.digest(epoch, pair, peer);
            let [options, ..] = cookie.to_le_bytes();
            (cookie >> 8 == tag).then(|| Offer::from_byte(options ^ mask))
        })
    }

    /// Returns the tag, and the mask of the options: sequence numbers should look random.
    fn digest(&self, epoch: u64, pair: Pair, peer: u32) -> (u32, u8) {
        let mut hasher = self.0;
        hasher.write(&epoch.to_be_bytes());
        hasher.write(&peer.to_be_bytes());
        for end in [pair.local, pair.remote] {
            write_address(&mut hasher, end);
        }
        let [mask, _, _, _, a, b, c, _] = hasher.finish().to_be_bytes();
        (u32::from_be_bytes([0, a, b, c]), mask)
    }
}

/// Hashes an address and a port, unambiguously.
pub(super) fn write_address(hasher: &mut impl core::hash::Hasher, end: SocketAddr) {
    match end.ip() {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
    hasher.write(&end.port().to_be_bytes());
}

fn epoch(now: Instant) -> u64 {
    now.as_micros() / u64::try_from(EPOCH.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(port: u16) -> Pair {
        Pair {
            local: "10.0.0.1:80".parse().unwrap(),
            remote: SocketAddr::new("10.0.0.2".parse().unwrap(), port),
        }
    }

    proptest! {
        #[test]
        fn a_cookie_brings_back_the_offer(
            seed: u64, peer: u32, port: u16, mss: u16, scale in 0..20_u8, seconds in 0..1000_u64,
            waited in 0..64_u64,
        ) {
            let cookies = Cookies::new(seed);
            let (issued, redeemed) = (seconds * 1_000_000, (seconds + waited) * 1_000_000);
            let (issued, redeemed) = (Instant::from_micros(issued), Instant::from_micros(redeemed));
            let offer = Offer::new(Some(mss), (scale < 16).then_some(scale));
            let cookie = cookies.issue(issued, pair(port), peer, offer);
            let got = cookies.redeem(redeemed, pair(port), peer, cookie).unwrap();
            prop_assert_eq!(got.scale, offer.scale);
            prop_assert!(got.mss <= mss.max(216));
            for wrong in [
                cookies.redeem(redeemed, pair(port), peer.wrapping_add(1), cookie),
                cookies.redeem(redeemed, pair(port ^ 1), peer, cookie),
                cookies.redeem(redeemed, pair(port), peer, cookie ^ 0x100),
                cookies.redeem(redeemed + EPOCH * 2, pair(port), peer, cookie),
                Cookies::new(!seed).redeem(redeemed, pair(port), peer, cookie),
            ] {
                // One in eight million would be a coincidence.
                prop_assert_eq!(wrong, None);
            }
        }
    }

    #[test]
    fn options_are_found_among_others() {
        let offer = Offer::new;
        for (options, want) in [
            (&[][..], offer(None, None)),
            (&[2, 4, 5, 180, 1, 3, 3, 7], offer(Some(1460), Some(7))),
            (
                &[30, 4, 1, 2, 254, 2, 2, 4, 5, 180],
                offer(Some(1460), None),
            ),
            (&[3, 3, 99, 0, 2, 4, 5, 180], offer(None, Some(14))),
            (&[2, 4, 5, 180, 8, 0, 3, 3, 7], offer(Some(1460), None)),
            (&[8, 10, 3, 3, 7], offer(None, None)),
            (&[2, 3, 5, 3, 3, 7], offer(None, Some(7))),
            (&[2], offer(None, None)),
        ] {
            assert_eq!(Offer::of_options(options), want, "{options:?}");
        }
    }

    #[test]
    fn sizes_are_rounded_down() {
        for (mss, want) in [
            (None, 536),
            (Some(0), 216),
            (Some(536), 536),
            (Some(1459), 1440),
            (Some(1460), 1460),
            (Some(8939), 1460),
            (Some(u16::MAX), 8940),
        ] {
            let offer = Offer::new(mss, None);
            let got = Offer::from_byte(offer.to_byte());
            assert_eq!((got.mss, got.scale), (want, None), "{mss:?}");
        }
        assert!(SEGMENT_SIZES.is_sorted());
    }
}
