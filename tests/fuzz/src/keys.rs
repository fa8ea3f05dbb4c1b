//! Targets of `transport::continuation` and `transport::keys`.
//!
//! In: any bytes. Laws: only bytes that a server would have sealed open; a sealed value opens to the
//! same; a key ring is read as it was written.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use headwater::internals::time::UnixMillis;
use headwater::internals::transport::application::{MAX_STREAM_BYTES, MAX_USER_BYTES};
use headwater::internals::transport::continuation::{Continuation, MAX_AGE, UserContinuation};
use headwater::internals::transport::curve::{Curve, MAX_RTT_US, MAX_WINDOW};
use headwater::internals::transport::epoch::{Epoch, MAX_NUMBER};
use headwater::internals::transport::keys::KeyRing;
use headwater::internals::transport::proof::ProofKey;
use headwater::internals::wire::segment::MAX_CONTINUATION_BYTES;

use super::input::Input;
use super::session::{START_UNIX, keys};

/// The first byte chooses: to open bytes as a continuation, as a user continuation, or to seal one
/// of the fields that the bytes say.
pub fn continuation(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 4 {
        0 => open(input),
        1 => open_user(&mut input, data.len()),
        2 => seal(input),
        _ => seal_user(input),
    }
}

/// Which connection, when, and the bytes.
fn open(mut input: Input<'_>) {
    let connection = u64::from(input.u32()) << 32 | u64::from(input.u32());
    let now = UnixMillis::new(START_UNIX + u64::from(input.u32()));
    let sealed = input.take(usize::MAX);
    let ring = keys();
    let Ok((value, issued)) = Continuation::open(&ring, connection, now, MAX_AGE, sealed) else {
        return;
    };
    assert_eq!(
        value.seal(&ring, connection, issued),
        sealed,
        "only what a server sealed opens"
    );
    assert!(Continuation::open(&ring, connection ^ 1, now, MAX_AGE, sealed).is_err());
    let other = KeyRing::with_secret([0x55; 32]);
    assert!(Continuation::open(&other, connection, now, MAX_AGE, sealed).is_err());
}

fn open_user(input: &mut Input<'_>, length: usize) {
    let sealed = input.take(length);
    let ring = keys();
    if let Ok(value) = UserContinuation::open(&ring, sealed) {
        assert_eq!(value.seal(&ring), sealed, "only what a server sealed opens");
    }
}

fn seal(mut input: Input<'_>) {
    let ring = keys();
    let connection = input.number();
    let now = UnixMillis::new(START_UNIX);
    let bounded = |value: u64, max: u32| u32::try_from(value % u64::from(max)).unwrap() + 1;
    let rtt_us = bounded(input.number(), MAX_RTT_US);
    let window = bounded(input.number(), MAX_WINDOW);
    let curve = match input.u8() & 1 {
        0 => Curve::SlowStart {
            threshold: window,
            rtt_us,
        },
        _ => Curve::Cubic {
            w_max: window,
            rtt_us,
        },
    };
    let epoch = Epoch {
        base: input.number() % MAX_NUMBER,
        c: bounded(input.number(), MAX_WINDOW),
        curve,
    };
    let bits = u128::from(input.number()) << 64 | u128::from(input.number());
    let ip = match input.u8() & 1 {
        0 => Ipv4Addr::from_bits(bits as u32).into(),
        _ => Ipv6Addr::from_bits(bits).into(),
    };
    let value = Continuation {
        identity: ProofKey::new(bits.to_be_bytes()),
        epoch,
        epoch_start: UnixMillis::new(START_UNIX - input.number() % (1 << 14)),
        curve_start: UnixMillis::new(START_UNIX + 8191 - bits as u64 % (1 << 30)),
        proof_base: epoch.base.saturating_sub(bits as u64 % (1 << 20)),
        proven: input.u8() & 1 == 0,
        address: SocketAddr::new(ip, input.u16()),
        datagram_max: input.u16(),
        server: input.u16(),
        site: input.u16(),
    };
    let sealed = value.seal(&ring, connection, now);
    assert!(
        sealed.len() <= MAX_CONTINUATION_BYTES,
        "{} bytes: {value:?}",
        sealed.len()
    );
    let opened = Continuation::open(&ring, connection, now, MAX_AGE, &sealed);
    assert_eq!(opened, Ok((value, now)), "what is sealed opens to the same");
    damaged(input, &sealed, |bytes| {
        assert!(Continuation::open(&ring, connection, now, MAX_AGE, bytes).is_err());
    });
}

fn seal_user(mut input: Input<'_>) {
    let ring = keys();
    let length = input.number() % (MAX_STREAM_BYTES + 1);
    let length = Some(length).filter(|&length| length < MAX_STREAM_BYTES);
    let count = input.below(MAX_USER_BYTES + 1);
    let value = UserContinuation {
        user: input.take(count).to_vec(),
        length,
    };
    let sealed = value.seal(&ring);
    assert_eq!(
        UserContinuation::open(&ring, &sealed),
        Ok(value),
        "what is sealed opens"
    );
    damaged(input, &sealed, |bytes| {
        assert!(UserContinuation::open(&ring, bytes).is_err())
    });
}

/// Gives `check` the bytes with one bit flipped.
fn damaged(mut input: Input<'_>, sealed: &[u8], check: impl Fn(&[u8])) {
    let mut bytes = sealed.to_vec();
    let at = input.below(bytes.len());
    bytes[at] ^= 1 << (input.u8() % 8);
    check(&bytes);
}

/// A key ring file.
pub fn keyring(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let Ok(ring) = KeyRing::parse(text) else {
        return;
    };
    let written = ring.to_text();
    let again = KeyRing::parse(&written).expect("what is written can be read");
    assert_eq!(again.to_text(), written);
    assert!(again.generation(ring.active().generation()).is_some());
}
