//! The parts of the protocol that run for every packet, each as a case that can be repeated.
//!
//! In: the name of a case. Out: a [`Case`], whose `prepare` sets up one call and whose `call` is
//! measured. Everything is seeded and on virtual time, so that equal numbers of
//! calls do equal work.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a benchmark"
)]

mod download;
mod exchange;

use std::hint::black_box;

use headwater::internals::time::{Instant, Now, UnixMillis};
use headwater::internals::transport::continuation::{Continuation, MAX_AGE};
use headwater::internals::transport::curve::Curve;
use headwater::internals::transport::epoch::Epoch;
use headwater::internals::transport::keys::KeyRing;
use headwater::internals::transport::proof::ProofKey;
use headwater::internals::wire::flight::{Ecn, UdpPath};
use headwater::internals::wire::ip::{MAX_PACKET, emit_udp, parse_udp};
use headwater::internals::wire::segment::{ToClient, ToServer};

use download::{Engine, Respond};
use exchange::Exchange;

/// Names of all cases.
pub(crate) const NAMES: [&str; 13] = [
    "parse_ip",
    "parse_request",
    "parse_response",
    "seal",
    "open",
    "proof",
    "window_slow_start",
    "window_cubic",
    "elapsed_cubic",
    "respond_44",
    "engine_44",
    "engine_behind",
    "exchange_1kb",
];

/// Something that is measured again and again.
pub(crate) trait Case {
    /// Makes ready for the next call; not measured.
    fn prepare(&mut self) {}
    /// Runs the measured call.
    fn call(&mut self);
}

/// The case of that name.
pub(crate) fn named(name: &str) -> Option<Box<dyn Case>> {
    Some(match name {
        "parse_ip" => parse_ip(),
        "parse_request" => {
            let request = Respond::new().request().to_vec();
            repeated(move || assert!(ToServer::parse(black_box(&request)).is_ok()))
        }
        "parse_response" => {
            let answer = Engine::new().answer();
            let datagram = answer.datagrams().next().unwrap().to_vec();
            repeated(move || assert!(ToClient::parse(black_box(&datagram)).is_ok()))
        }
        "seal" => {
            let (keys, continuation) = sealing();
            repeated(move || {
                black_box(black_box(&continuation).seal(&keys, 7, NOW.unix));
            })
        }
        "open" => {
            let (keys, continuation) = sealing();
            let sealed = continuation.seal(&keys, 7, NOW.unix);
            repeated(move || {
                let opened = Continuation::open(&keys, 7, NOW.unix, MAX_AGE, black_box(&sealed));
                assert!(opened.is_ok());
            })
        }
        "proof" => {
            let key = ProofKey::new([5; 16]);
            repeated(move || {
                black_box(black_box(&key).fold(black_box(100_000), black_box(100_044)));
            })
        }
        "window_slow_start" => curve(SLOW_START, Curve::window),
        "window_cubic" => curve(CUBIC, Curve::window),
        "elapsed_cubic" => curve(CUBIC, Curve::elapsed_us),
        "respond_44" => Box::new(Respond::new()),
        "engine_44" => Box::new(Engine::new()),
        "engine_behind" => Box::new(Engine::behind()),
        "exchange_1kb" => Box::new(Exchange::new()),
        _ => return None,
    })
}

/// The time of every case that stands still.
const NOW: Now = Now {
    instant: Instant::from_micros(1_000_000),
    unix: UnixMillis::new(1_800_000_000_000),
};

const SLOW_START: Curve = Curve::SlowStart {
    threshold: 1 << 20,
    rtt_us: 20_000,
};

const CUBIC: Curve = Curve::Cubic {
    w_max: 400,
    rtt_us: 20_000,
};

struct Repeated<F>(F);

impl<F: FnMut()> Case for Repeated<F> {
    fn call(&mut self) {
        (self.0)();
    }
}

fn repeated(call: impl FnMut() + 'static) -> Box<dyn Case> {
    Box::new(Repeated(call))
}

fn path() -> UdpPath {
    UdpPath {
        src: "10.0.0.2:5000".parse().unwrap(),
        dst: "10.0.0.1:7600".parse().unwrap(),
    }
}

fn parse_ip() -> Box<dyn Case> {
    let mut packet = vec![0; MAX_PACKET];
    let length = emit_udp(path(), Ecn::Ect0, &[0x5a; 1472], 0, &mut packet).unwrap();
    packet.truncate(length);
    repeated(move || {
        assert!(parse_udp(black_box(&packet)).unwrap().is_some());
    })
}

fn sealing() -> (KeyRing, Continuation) {
    let continuation = Continuation {
        identity: ProofKey::new([9; 16]),
        epoch: Epoch {
            base: 100_000,
            c: 280,
            curve: CUBIC,
        },
        epoch_start: NOW.unix,
        curve_start: NOW.unix,
        proof_base: 100_000,
        proven: true,
        address: path().src,
        datagram_max: 1472,
        server: 1,
        site: 0,
    };
    (KeyRing::with_secret([3; 32]), continuation)
}

/// A curve evaluated at ever other places, a thousand of them in turn.
fn curve<T: 'static>(curve: Curve, value: fn(&Curve, u32, u64) -> T) -> Box<dyn Case> {
    let mut n = 0;
    repeated(move || {
        n = (n + 997) % 1_000_000;
        black_box(value(black_box(&curve), black_box(280), black_box(n)));
    })
}
