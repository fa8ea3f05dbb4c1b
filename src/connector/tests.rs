//! Races over the loopback device: to listeners, to closed ports, and to full listeners, which are silent.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::thread;

use proptest::prelude::*;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::time::{ClockId, clock_gettime};

use super::*;

/// An address of the loopback device where nothing listens.
fn closed(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 1, last], 9))
}

/// A listener whose queue is full: further connections get no answer until it accepts.
struct Full {
    listener: TcpListener,
    address: SocketAddr,
    _held: Vec<TcpStream>,
}

impl Full {
    fn new() -> Self {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        );
        let socket = socket.unwrap();
        set_socket_reuseaddr(&socket, true).unwrap();
        bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listen(&socket, 0).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        // A backlog of 0 holds one connection.
        let _held = vec![TcpStream::connect(address).unwrap()];
        Self {
            listener,
            address,
            _held,
        }
    }
}

fn connector(pace: Pace, millis: u64) -> Connector {
    let limit = Duration::from_millis(millis);
    Connector::builder().timeout(limit).pace(pace).build()
}

fn race(connector: &Connector, addresses: &[SocketAddr]) -> Result<TcpStream, ConnectError> {
    connector.race(connector.clock.instant() + connector.timeout, addresses)
}

#[test]
fn the_first_that_answers_is_connected_and_blocking() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let dead = Full::new();
    for pace in [Pace::All, Pace::Paced] {
        let refused = [closed(1), closed(2), dead.address, address];
        let mut stream = race(&connector(pace, 60_000), &refused).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        let (mut peer, _) = listener.accept().unwrap();
        let writing = thread::spawn(move || {
            thread::yield_now();
            io::Write::write_all(&mut peer, b"x")
        });
        assert_eq!(stream.read(&mut [0; 2]).unwrap(), 1, "it waits for bytes");
        writing.join().unwrap().unwrap();
    }
}

#[test]
fn every_failed_attempt_is_in_the_error() {
    let refused: Vec<SocketAddr> = (1..=3).map(closed).collect();
    let error = race(&connector(Pace::Sequential, 60_000), &refused).unwrap_err();
    let text = error.to_string();
    for address in ["127.0.1.1:9", "127.0.1.2:9", "127.0.1.3:9"] {
        let attempt = format!("{address}: Connection refused");
        assert!(text.contains(&attempt), "{text}");
    }
    let error = io::Error::from(error);
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let dead = Full::new();
    let error = race(&connector(Pace::All, 50), &[closed(1), dead.address]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("connection timed out (127.0.1.1:9: "),
        "{text}"
    );
    assert!(
        text.contains(&format!("{}: no answer)", dead.address)),
        "{text}"
    );
}

/// Refused sockets must not keep the wait awake, as they did in connie: 96 % of a processor.
#[test]
fn waiting_after_refusals_takes_no_processor_time() {
    let dead = Full::new();
    let mut addresses: Vec<SocketAddr> = (1..=10).map(closed).collect();
    addresses.push(dead.address);
    let cpu = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(
            time.tv_sec.unsigned_abs(),
            u32::try_from(time.tv_nsec).unwrap(),
        )
    };
    let before = cpu();
    let error = race(&connector(Pace::Paced, 500), &addresses).unwrap_err();
    let took = cpu() - before;
    assert!(matches!(error, ConnectError::TimedOut(_)), "{error}");
    assert!(took < Duration::from_millis(50), "{took:?} of 500 ms");
}

#[test]
fn a_loser_is_reset_and_leaves_nothing() {
    let slow = Full::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let fast = listener.local_addr().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [fast, other.local_addr().unwrap(), slow.address];
    let stream = race(&connector(Pace::All, 60_000), &addresses).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), fast);
    // The kernel removes a connection that was reset before it was accepted, or reports the reset.
    other.set_nonblocking(true).unwrap();
    if let Ok((mut peer, _)) = other.accept() {
        peer.set_nonblocking(false).unwrap();
        let error = peer.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    let mut held = slow.listener.accept().unwrap().0;
    held.set_nonblocking(true).unwrap();
    let error = held.read(&mut [0]).unwrap_err();
    assert_eq!(
        error.kind(),
        io::ErrorKind::WouldBlock,
        "the one that fills it"
    );
}

#[test]
fn connections_come_from_the_source_address() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let source = "127.0.0.77".parse().unwrap();
    let connector = Connector::builder().source(source).build();
    let stream = connector.connect(&format!("127.0.0.1:{port}")).unwrap();
    assert_eq!(stream.local_addr().unwrap().ip(), source);
    let error = connector.connect(&format!("[::1]:{port}")).unwrap_err();
    assert!(matches!(error, ConnectError::Family { .. }), "{error}");
    // An address that is no one's fails each attempt, not the program.
    let foreign = Connector::builder()
        .source("192.0.2.1".parse().unwrap())
        .build();
    let error = foreign.connect(&format!("127.0.0.1:{port}")).unwrap_err();
    assert!(matches!(error, ConnectError::Failed(_)), "{error}");
}

#[test]
fn services_are_parsed() {
    let connector = Connector::default();
    for text in [
        "host",
        ":80",
        "host:",
        "host:0",
        "host:65536",
        "::1:80",
        "host:x",
        "",
    ] {
        let error = connector.connect(text).unwrap_err();
        assert!(
            matches!(error, ConnectError::Service { .. }),
            "{text}: {error}"
        );
    }
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let address = listener.local_addr().unwrap();
    assert!(connector.connect(&address.to_string()).is_ok());
    let error = connector.connect("no-such-name.invalid:80").unwrap_err();
    assert!(matches!(error, ConnectError::Resolve { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever the addresses, a live one is connected if there is any; else every failure is reported, and nothing
    /// outlives the time limit.
    #[test]
    fn a_live_address_is_found(kinds in prop::collection::vec(0u8..3, 1..12), paced in any::<bool>()) {
        let live = TcpListener::bind("127.0.0.1:0").unwrap();
        let (up, dead) = (live.local_addr().unwrap(), Full::new());
        let address = |(last, kind): (u8, &u8)| match kind {
            0 => closed(last),
            1 => dead.address,
            _ => up,
        };
        let addresses: Vec<SocketAddr> = (1..).zip(&kinds).map(address).collect();
        let pace = if paced { Pace::Paced } else { Pace::All };
        let limit = if kinds.contains(&2) { 60_000 } else { 150 };
        match race(&connector(pace, limit), &addresses) {
            Ok(stream) => prop_assert_eq!(stream.peer_addr().unwrap(), up),
            Err(ConnectError::Failed(FailedAttempts(attempts))) => {
                prop_assert!(kinds.iter().all(|kind| *kind == 0));
                prop_assert!(attempts.iter().all(|one| one.error.is_some()));
                prop_assert_eq!(attempts.len(), kinds.len());
            }
            Err(ConnectError::TimedOut(FailedAttempts(attempts))) => {
                prop_assert!(kinds.contains(&1) && !kinds.contains(&2));
                for (attempt, kind) in attempts.iter().zip(&kinds) {
                    prop_assert_eq!(attempt.error.is_some(), *kind == 0);
                }
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        }
    }
}

#[test]
fn races_at_once_have_bounded_descriptors() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connector = connector(Pace::All, 60_000);
    let dead = Full::new();
    let mut addresses = vec![dead.address; crate::connect::MAX_ATTEMPTS - 1];
    addresses.extend([address; 100]);
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = count();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| race(&connector, &addresses).unwrap());
        }
    });
    // Other tests of this process open some meanwhile.
    assert!(count() < before + 64, "none is left open");
    assert!(listener.as_fd().try_clone_to_owned().is_ok());
}
