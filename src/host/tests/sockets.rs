//! Machines whose datagrams come from sockets of the kernel, without headers.

use std::net::SocketAddr;

use super::*;
use crate::wire::ip::UdpView;

const SERVICE: &str = "192.0.2.1:7600";

const START_MS: u64 = 1_800_000_000_000;

/// A client and a server behind sockets, and the address that the client's kernel chooses.
struct Sockets {
    now: Now,
    client: ClientHost,
    server: ServerHost<Sizes>,
    chosen: SocketAddr,
    memory: Memory,
}

impl Sockets {
    fn new(url: &str) -> Self {
        let now = Now {
            instant: Instant::from_micros(1),
            unix: UnixMillis::new(START_MS),
        };
        let version = Rc::new(RefCell::new(0));
        let app = Sizes {
            version,
            unready: 0,
            cached: (u8::MAX, 0, Vec::new()),
        };
        let keys = KeyRing::with_secret([3; 32]);
        let config = ServerHostConfig::over_sockets(5).build().unwrap();
        let server = ServerHost::new(now, config, keys, app).unwrap();
        let config = ClientHostConfig::over_sockets(9).build().unwrap();
        let mut client = ClientHost::new(now, config).unwrap();
        let memory = Memory::default();
        let target = Target::parse(url).unwrap();
        let output = Box::new(memory.clone());
        client.start(
            now,
            Transfer::new(TransferConfig::default(), target, output),
        );
        Self {
            now,
            client,
            server,
            chosen: "198.51.100.7:40000".parse().unwrap(),
            memory,
        }
    }

    /// Lets time pass until `at`, on both clocks.
    fn pass(&mut self, at: Instant) {
        let later = at.saturating_since(self.now.instant);
        self.now.instant += later;
        let passed = self.now.instant.as_micros() / 1000;
        self.now.unix = UnixMillis::new(START_MS + passed);
    }

    /// Carries the flights of the client to the server, and the answers back, `rounds` times.
    fn carry(&mut self, rounds: usize) {
        for _ in 0..rounds {
            let now = self.now;
            let requests = flights(|| self.client.poll_transmit(now));
            if requests.is_empty() {
                return;
            }
            self.pass(now.instant + ONE_WAY);
            for flight in requests {
                let UdpPath { src, dst } = flight.path;
                assert!(src.ip().is_unspecified() && src.port() == 0, "{src}");
                let src = self.chosen;
                let (payload, segment) = (flight.payload.to_vec(), Some(flight.segment));
                let view = arrival(UdpPath { src, dst }, flight.ecn, &payload);
                self.server.handle_datagrams(self.now, &view, segment);
            }
            let now = self.now;
            let answers = flights(|| self.server.poll_transmit(now));
            self.pass(now.instant + ONE_WAY);
            for flight in answers {
                let UdpPath { src, dst } = flight.path;
                assert_eq!(dst, self.chosen);
                let dst = SocketAddr::new([0, 0, 0, 0].into(), 0);
                let (payload, segment) = (flight.payload.to_vec(), Some(flight.segment));
                let view = arrival(UdpPath { src, dst }, flight.ecn, &payload);
                self.client.handle_datagrams(self.now, &view, segment);
            }
        }
    }

    fn finish(&mut self) -> String {
        for _ in 0..10_000 {
            self.carry(usize::MAX);
            while let Some(event) = self.client.poll_event() {
                if matches!(event, TransferEvent::Done { .. } | TransferEvent::Failed(_)) {
                    return format!("{event:?}");
                }
            }
            let (at, _) = self.client.poll_timeout(self.now).unwrap();
            self.pass(at);
            self.client.handle_timeout(self.now);
        }
        "no end".to_owned()
    }
}

fn flights(mut poll: impl FnMut() -> Option<Transmit>) -> Vec<Flight> {
    let flights = core::iter::from_fn(|| match poll()? {
        Transmit::Flight(flight) => Some(flight),
        other @ (Transmit::Packet(_) | Transmit::Segments { .. }) => {
            panic!("sockets carry no {other:?}")
        }
    });
    flights.collect()
}

fn arrival(path: UdpPath, ecn: Ecn, payload: &[u8]) -> UdpView<'_> {
    UdpView { path, ecn, payload }
}

fn forged() -> IpAddr {
    SERVICE.parse::<SocketAddr>().unwrap().ip()
}

#[test]
fn a_download_continues_from_another_address() {
    let mut sockets = Sockets::new("http://192.0.2.1/300000");
    sockets.carry(5);
    assert!(!sockets.memory.0.borrow().1);
    sockets.chosen = "203.0.113.9:50000".parse().unwrap();
    assert_eq!(sockets.finish(), VERIFIED);
    assert_eq!(sockets.memory.0.borrow().0, body(0, 300_000));
    assert_eq!(sockets.client.report().transport.handshakes, 1);
}

#[test]
fn a_forged_report_ends_nothing_that_a_server_has_answered() {
    let mut sockets = Sockets::new("http://192.0.2.1/300000");
    sockets
        .client
        .handle_unreachable(sockets.now, [192, 0, 2, 9].into());
    sockets.carry(2);
    for _ in 0..100 {
        sockets.client.handle_unreachable(sockets.now, forged());
    }
    assert_eq!(sockets.finish(), VERIFIED);
    sockets.client.handle_unreachable(sockets.now, forged());
    assert!(sockets.client.poll_event().is_none());
}

#[test]
fn an_address_that_is_unreachable_fails_at_once() {
    let mut sockets = Sockets::new("http://192.0.2.1/1000");
    assert!(sockets.client.poll_transmit(sockets.now).is_some());
    sockets.client.handle_unreachable(sockets.now, forged());
    let end = sockets.finish();
    assert!(end.starts_with("Failed(CannotConnect"), "{end}");
    assert_eq!(sockets.client.poll_transmit(sockets.now), None, "given up");
}

#[test]
fn datagrams_of_impossible_addresses_are_dropped() {
    let mut sockets = Sockets::new("http://192.0.2.1/1000");
    let Some(Transmit::Flight(open)) = sockets.client.poll_transmit(sockets.now) else {
        panic!("no OPEN");
    };
    let payload = open.payload.to_vec();
    let answers = |sockets: &mut Sockets, src: &str, dst: &str| {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        let view = arrival(UdpPath { src, dst }, Ecn::NotEct, &payload);
        sockets.server.handle_datagrams(sockets.now, &view, None);
        sockets.server.poll_transmit(sockets.now).is_some()
    };
    for (src, dst, answered) in [
        ("127.0.0.1:9", SERVICE, true),
        ("198.51.100.7:0", SERVICE, false),
        ("224.0.0.1:9", SERVICE, false),
        ("255.255.255.255:9", SERVICE, false),
        ("0.0.0.0:9", SERVICE, false),
        ("198.51.100.7:9", "224.0.0.1:7600", false),
        ("[fe80::1]:9", "[2001:db8::1]:7600", true),
    ] {
        assert_eq!(answers(&mut sockets, src, dst), answered, "{src} to {dst}");
    }
    let drops = &sockets.server.stack_counters().drops;
    let counted: u64 = drops.iter().map(|(_, count)| count).sum();
    assert_eq!(counted, 5);
}
