//! Sealed parts open unchanged on every server of the ring; nothing else opens.

use super::*;
use proptest::prelude::*;

const NOW: UnixMillis = UnixMillis::new(1_800_000_000_000);

fn ring() -> KeyRing {
    KeyRing::with_secret([9; 32])
}

fn sample() -> Continuation {
    Continuation {
        identity: ProofKey::new([5; 16]),
        epoch: Epoch {
            base: 77,
            c: 10,
            curve: Curve::Cubic {
                w_max: 20,
                rtt_us: 40_000,
            },
        },
        epoch_start: UnixMillis::new(NOW.as_millis() - 1234),
        curve_start: UnixMillis::new(NOW.as_millis() - 234),
        proof_base: 70,
        proven: true,
        address: "192.0.2.7:4000".parse().unwrap(),
        datagram_max: 1472,
        server: 3,
        site: 1,
    }
}

fn open(
    keys: &KeyRing,
    connection: u64,
    now: UnixMillis,
    sealed: &[u8],
) -> Result<Continuation, OpenError> {
    Continuation::open(keys, connection, now, MAX_AGE, sealed).map(|(continuation, _)| continuation)
}

fn later(by: Duration) -> UnixMillis {
    UnixMillis::new(NOW.as_millis() + u64::try_from(by.as_millis()).unwrap())
}

proptest! {
    #[test]
    fn opens_unchanged(
        identity: [u8; 16], base in 0u64..1 << 62, opening: bool, numbers in (1u32..=1 << 20, 1u32..=1 << 20, 1u32..=1_000_000), cubic: bool, proven: bool,
        age in 0u64..1 << 14, paid in 0u64..1 << 30, unproven in 0u64..=1 << 20, ip: [u8; 16], v6: bool, rest: (u16, u16, u16, u16), connection: u64,
    ) {
        let (c, first, rtt_us) = numbers;
        let curve = if cubic { Curve::Cubic { w_max: first, rtt_us } } else { Curve::SlowStart { threshold: first, rtt_us } };
        let ip = if v6 { IpAddr::from(ip) } else { IpAddr::from([ip[0], ip[1], ip[2], ip[3]]) };
        let base = if opening { 0 } else { base };
        let curve_start = if opening { NOW.as_millis() } else { NOW.as_millis() + 8191 - paid };
        let continuation = Continuation {
            identity: ProofKey::new(identity),
            curve_start: UnixMillis::new(curve_start), proof_base: base.saturating_sub(unproven),
            epoch: if opening { Epoch::opening(c) } else { Epoch { base, c, curve } },
            epoch_start: UnixMillis::new(NOW.as_millis() - age), proven,
            address: SocketAddr::new(ip, rest.0), datagram_max: rest.1, server: rest.2, site: rest.3,
        };
        let sealed = continuation.seal(&ring(), connection, NOW);
        prop_assert_eq!(sealed.len(), continuation.sealed_bytes(NOW));
        prop_assert!(sealed.len() <= MAX_CONTINUATION_BYTES, "{} bytes", sealed.len());
        prop_assert_eq!(open(&ring(), connection, NOW, &sealed), Ok(continuation));
    }

    #[test]
    fn altered_never_opens(bit in 0usize..8 * 80, cut in 0usize..80) {
        let sealed = sample().seal(&ring(), 42, NOW);
        let mut flipped = sealed.clone();
        let bit = bit % (8 * sealed.len());
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(open(&ring(), 42, NOW, &flipped).is_err());
        prop_assert!(open(&ring(), 42, NOW, &sealed[..cut.min(sealed.len() - 1)]).is_err());
    }

    #[test]
    fn user_continuations_round_trip(user in proptest::collection::vec(any::<u8>(), 0..=MAX_USER_BYTES), length in 0..=MAX_STREAM_BYTES, bit: usize) {
        let user = UserContinuation {
            user,
            length: Some(length),
        };
        let sealed = user.seal(&ring());
        prop_assert_eq!(UserContinuation::open(&ring(), &sealed), Ok(user));
        let mut flipped = sealed.clone();
        let bit = bit % (8 * sealed.len());
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(UserContinuation::open(&ring(), &flipped).is_err());
    }

    #[test]
    fn random_bytes_never_open(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(open(&ring(), 1, NOW, &bytes).is_err());
        prop_assert!(UserContinuation::open(&ring(), &bytes).is_err());
    }
}

#[test]
fn refusals_are_told_apart() {
    let ring = ring();
    let sealed = sample().seal(&ring, 42, NOW);
    let other = KeyRing::with_secret([8; 32]);
    let newer = ring.staged([8; 32]).unwrap().rotated([0; 32]).unwrap();
    let sealed_newer = sample().seal(&newer, 42, NOW);
    let second = Duration::from_secs(1);
    let cases = [
        ("fresh", open(&ring, 42, NOW, &sealed), Ok(sample())),
        (
            "another connection",
            open(&ring, 43, NOW, &sealed),
            Err(OpenError::Forged),
        ),
        (
            "other keys",
            open(&other, 42, NOW, &sealed),
            Err(OpenError::Forged),
        ),
        (
            "after a rotation",
            open(&newer, 42, NOW, &sealed),
            Ok(sample()),
        ),
        (
            "before a rotation",
            open(&ring, 42, NOW, &sealed_newer),
            Err(OpenError::Generation),
        ),
        (
            "old",
            open(&ring, 42, later(MAX_AGE), &sealed),
            Ok(sample()),
        ),
        (
            "too old",
            open(&ring, 42, later(MAX_AGE + second), &sealed),
            Err(OpenError::Expired),
        ),
        (
            "ahead",
            open(&ring, 42, UnixMillis::new(NOW.as_millis() - 1000), &sealed),
            Ok(sample()),
        ),
        (
            "too far ahead",
            open(&ring, 42, UnixMillis::new(NOW.as_millis() - 1001), &sealed),
            Err(OpenError::Future),
        ),
        (
            "a user continuation",
            open(&ring, 42, NOW, &[&[USER], &sealed[1..]].concat()),
            Err(OpenError::Version),
        ),
        ("empty", open(&ring, 42, NOW, &[]), Err(OpenError::Length)),
    ];
    for (name, got, want) in cases {
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn a_first_continuation_is_small() {
    let first = Continuation {
        epoch: Epoch {
            base: 0,
            c: 3,
            curve: Curve::SlowStart {
                threshold: 3,
                rtt_us: 1,
            },
        },
        epoch_start: NOW,
        curve_start: NOW,
        proof_base: 0,
        ..sample()
    };
    assert_eq!(first.seal(&ring(), 1, NOW).len(), 73);
}

#[test]
fn sealing_is_a_pure_function_and_nonces_differ() {
    let seal = |c: u32, connection| {
        let epoch = Epoch {
            c,
            ..sample().epoch
        };
        Continuation { epoch, ..sample() }.seal(&ring(), connection, NOW)
    };
    assert_eq!(seal(10, 1), seal(10, 1));
    assert_ne!(seal(10, 1)[8..20], seal(11, 1)[8..20]);
    assert_ne!(seal(10, 1)[8..20], seal(10, 2)[8..20]);
}
