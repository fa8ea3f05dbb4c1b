//! The relay between sockets in place of devices, with the operating system's clock. Scheduling
//! delays must not fail a test: times are bounded from below only.

use std::io::{Read, Write};
use std::os::fd::RawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use super::*;
use crate::device::Received;
use crate::link::settings::LinkSpec;
use crate::runtime::control::MAX_CLIENTS;
use crate::wire::flight::Flight;

/// One end of a socket pair.
struct Socket {
    socket: UnixDatagram,
    drops: u64,
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Device for Socket {
    fn mtu(&self) -> usize {
        1500
    }
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        match self.socket.recv(buffer) {
            Ok(len) => Ok(Some(Received::packet(len))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
    fn send_packet(&mut self, packet: &[u8]) -> io::Result<()> {
        if packet.len() > self.mtu() || self.socket.send(packet).is_err() {
            self.drops += 1;
        }
        Ok(())
    }
    fn send_flight(&mut self, _: &Flight) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn send_drops(&self) -> u64 {
        self.drops
    }
}

/// Creates a relay, and the far ends of its devices a and b.
fn relay(ab: &str, ba: &str) -> (Relay<Socket>, UnixDatagram, UnixDatagram) {
    let spec = |text: &str| {
        let mut spec = LinkSpec::default();
        if !text.is_empty() {
            spec.apply(&text.parse().unwrap(), Instant::ZERO);
        }
        spec
    };
    let path = LinkPath::new(spec(ab), spec(ba), 5).unwrap();
    let pair = || {
        let (near, far) = UnixDatagram::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        (
            Socket {
                socket: near,
                drops: 0,
            },
            far,
        )
    };
    let ((a, far_a), (b, far_b)) = (pair(), pair());
    let relay = Relay::new(OsClock::new(), a, b, path).unwrap();
    (relay, far_a, far_b)
}

/// Runs turns until `far` receives a packet.
fn await_packet(relay: &mut Relay<Socket>, far: &UnixDatagram) -> Vec<u8> {
    let mut buffer = [0; 2000];
    loop {
        if let Ok(len) = far.recv(&mut buffer) {
            return buffer[..len].to_vec();
        }
        relay.turn().unwrap();
    }
}

#[test]
fn packets_of_all_lengths_come_out_whole_and_in_order() {
    let (mut relay, a, b) = relay("", "");
    for round in 0..3u8 {
        for len in [1, 40, 374, 375, 376, 1499, 1500] {
            for (from, to) in [(&a, &b), (&b, &a)] {
                let packet: Vec<u8> = (0..len).map(|n| n as u8 ^ round).collect();
                from.send(&packet).unwrap();
                assert_eq!(await_packet(&mut relay, to), packet, "{len} bytes");
            }
        }
    }
    let count = 60u8;
    let batches = (0..count).collect::<Vec<u8>>();
    for batch in batches.chunks(8) {
        for n in batch {
            a.send(&[*n; 1000]).unwrap();
        }
        for n in batch {
            assert_eq!(await_packet(&mut relay, &b), [*n; 1000]);
        }
    }
}

#[test]
fn no_packet_is_more_than_a_little_early() {
    let (mut relay, a, b) = relay("delay=20ms", "delay=5ms");
    let clock = OsClock::new();
    for (from, to, least) in [(&a, &b, 20), (&b, &a, 5)] {
        for _ in 0..3 {
            let before = clock.instant();
            from.send(&[1; 100]).unwrap();
            await_packet(&mut relay, to);
            let took = clock.instant().saturating_since(before);
            assert!(took + EARLY >= Duration::from_millis(least), "{took:?}");
        }
    }
}

#[test]
fn a_packet_beyond_the_mtu_is_not_cut_but_dropped_and_counted() {
    let (mut relay, a, b) = relay("", "");
    a.send(&[7; 1600]).unwrap();
    a.send(&[8; 1500]).unwrap();
    assert_eq!(await_packet(&mut relay, &b), [8; 1500]);
    assert_eq!(relay.report().ab.unsent, 1);
    assert_eq!(relay.report().ba.unsent, 0);
}

#[test]
fn spare_buffers_are_bounded_and_of_one_size() {
    let mut buffers = Buffers::new(100);
    let packets: Vec<Vec<u8>> = (0..MAX_SPARE_BUFFERS + 10)
        .map(|_| buffers.take(90))
        .collect();
    for packet in packets {
        buffers.give_back(packet);
    }
    buffers.give_back(vec![0; 20]);
    assert_eq!(buffers.spare.len(), MAX_SPARE_BUFFERS);
    assert!(buffers.spare.iter().all(|spare| spare.len() == 101));
    assert_eq!(buffers.take(10).capacity(), 10, "short packets hold little");
}

/// A client, driven together with the relay.
struct Client {
    stream: UnixStream,
}

impl Client {
    fn connect(path: &std::path::Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self { stream }
    }

    /// Runs turns until a reply is complete or the connection closes.
    fn answer(&mut self, relay: &mut Relay<Socket>) -> String {
        let mut text = String::new();
        let mut buffer = [0; 4096];
        loop {
            let last = text.lines().last().unwrap_or_default();
            if text.ends_with('\n') && (last == "ok" || last.starts_with("error: ")) {
                return text;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return text,
                Ok(len) => text.push_str(std::str::from_utf8(&buffer[..len]).unwrap()),
                Err(_) => {
                    relay.turn().unwrap();
                }
            }
        }
    }

    /// Sends a command and returns the reply; empty if the connection is closed.
    fn ask(&mut self, relay: &mut Relay<Socket>, line: &str) -> String {
        if writeln!(self.stream, "{line}").is_err() {
            return String::new();
        }
        self.answer(relay)
    }
}

/// A relay with a control socket, and its two ends.
fn controlled(socket: &std::path::Path) -> (Relay<Socket>, UnixDatagram, UnixDatagram) {
    let (mut relay, a, b) = relay("", "");
    let control = ControlServer::bind(socket).unwrap();
    relay.serve_control(control).unwrap();
    (relay, a, b)
}

#[test]
fn commands_change_and_show_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control");
    let (mut relay, a, b) = controlled(&socket);
    let mut client = Client::connect(&socket);
    assert_eq!(client.ask(&mut relay, "set ab delay=3ms"), "ok\n");
    let refused = client.ask(&mut relay, "set both delay=5ms loss=2");
    assert!(refused.starts_with("error: loss: '2'"), "{refused}");
    a.send(&[1; 100]).unwrap();
    await_packet(&mut relay, &b);
    let shown = client.ask(&mut relay, "show");
    let json: serde_json::Value = serde_json::from_str(shown.lines().next().unwrap()).unwrap();
    assert_eq!(json["ab"]["config"]["delay_us"], 3000);
    assert_eq!(json["ba"]["config"]["delay_us"], 0);
    assert_eq!(json["ab"]["counters"]["popped"], 1);
    assert_eq!(client.ask(&mut relay, "reset"), "ok\n");
    assert_eq!(relay.report().ab.counters.popped, 0);
    assert!(client.ask(&mut relay, "help").contains("set ab|ba|both"));

    // Two lines at once are two commands; the last may lack its newline.
    client.stream.write_all(b"reset\nshwo").unwrap();
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers = client.answer(&mut relay);
    while !answers.contains("error") {
        answers.push_str(&client.answer(&mut relay));
    }
    assert!(
        answers.starts_with("ok\nerror: unknown command 'shwo'"),
        "{answers}"
    );
    drop(relay);
    assert!(!socket.exists(), "the name goes with the program");
}

#[test]
fn clients_that_misbehave_do_not_disturb() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control");
    let (mut relay, a, b) = controlled(&socket);
    let mut long = Client::connect(&socket);
    long.stream.write_all(&[b'x'; 4096]).unwrap();
    let mut deaf = Client::connect(&socket);
    let mut torrent = b"show\n".repeat(2000);
    let mut gone = Client::connect(&socket);
    gone.stream.write_all(b"show\nshow\n").unwrap();
    drop(gone);
    let mut binary = Client::connect(&socket);
    binary.stream.write_all(b"\xff\xfe\n").unwrap();
    for n in 0..2000u32 {
        let sent = deaf.stream.write(&torrent).unwrap_or(0);
        torrent.drain(..sent);
        a.send(&n.to_be_bytes()).unwrap();
        assert_eq!(await_packet(&mut relay, &b), n.to_be_bytes());
    }
    assert!(binary.answer(&mut relay).contains("UTF-8"));
    long.stream.write_all(b"yz").unwrap();
    assert!(long.answer(&mut relay).contains("longer than 4096 bytes"));
    assert_eq!(long.stream.read(&mut [0; 10]).unwrap_or(0), 0);

    // The oldest client makes room for a new one.
    let mut clients: Vec<Client> = (0..MAX_CLIENTS + 3)
        .map(|_| Client::connect(&socket))
        .collect();
    let mut ask = |client: &mut Client| client.ask(&mut relay, "reset");
    assert_eq!(ask(clients.last_mut().unwrap()), "ok\n");
    let served = clients
        .iter_mut()
        .filter_map(|client| (ask(client) == "ok\n").then_some(()));
    assert_eq!(served.count(), MAX_CLIENTS);
}

#[test]
fn a_socket_is_replaced_only_if_nobody_listens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    let first = ControlServer::bind(&path).unwrap();
    assert!(ControlServer::bind(&path).is_err(), "in use");
    drop(first);
    let stale = std::os::unix::net::UnixListener::bind(&path).unwrap();
    drop(stale);
    assert!(path.exists());
    let second = ControlServer::bind(&path).unwrap();
    // Leaves another program's socket at our path alone.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    drop(second);
    assert!(path.exists());
    assert!(ControlServer::bind(&path).is_err(), "a plain file");
}

#[test]
fn metrics_are_shown_while_packets_pass() {
    let (mut relay, a, b) = relay("loss=0%", "rate=8mbit");
    let server = MetricsServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = server.local_addr().unwrap();
    relay.serve_metrics(server).unwrap();
    a.send(&[1; 100]).unwrap();
    await_packet(&mut relay, &b);
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut answer = Vec::new();
    while stream.read_to_end(&mut answer).is_err() {
        a.send(&[1; 100]).unwrap();
        await_packet(&mut relay, &b);
    }
    let answer = String::from_utf8(answer).unwrap();
    for line in [
        "headwater_link_received_bytes_total{direction=\"ba\"} 0",
        "headwater_link_dropped_packets_total{direction=\"ab\",cause=\"codel\"} 0",
        "headwater_link_sojourn_microseconds{direction=\"ba\",quantile=\"0.95\"} 0",
        "headwater_link_queued_packets{direction=\"ab\"} 0",
    ] {
        assert!(answer.lines().any(|have| have == line), "{line}:\n{answer}");
    }
    let delivered = "headwater_link_delivered_packets_total{direction=\"ab\"} ";
    let count = answer.lines().find_map(|line| line.strip_prefix(delivered));
    assert!(count.unwrap().parse::<u64>().unwrap() >= 1);
}

#[test]
fn the_capture_shows_end_a_both_ways() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (mut relay, a, b) = relay("delay=2ms", "corrupt=0%");
    relay.record(Recorder::new(CaptureFile::create(file.path()).unwrap()).unwrap());
    a.send(&[1; 100]).unwrap();
    await_packet(&mut relay, &b);
    b.send(&[2; 60]).unwrap();
    await_packet(&mut relay, &a);
    drop(relay);
    let bytes = std::fs::read(file.path()).unwrap();
    let (first, second) = bytes[24..].split_at(16 + 100);
    assert_eq!(first[16..], [1; 100]);
    assert_eq!(second[16..], [2; 60]);
    let number = |at: usize, record: &[u8]| {
        u64::from(u32::from_ne_bytes(record[at..at + 4].try_into().unwrap()))
    };
    let micros = |record: &[u8]| number(0, record) * 1_000_000 + number(4, record);
    let between = micros(second) - micros(first);
    assert!(
        between + 50 >= 2000,
        "{between} µs: the way to b lies between"
    );
}

#[test]
fn a_dense_flow_is_gathered_until_it_stops() {
    let (mut relay, a, b) = relay("", "");
    let clock = OsClock::new();
    let mut buffer = [0; 100];
    // As long as necessary: the machine may be busy.
    while !relay.gather.is_worth_while() {
        for _ in 0..2 * MAX_READS_PER_TURN {
            a.send(&[1; 40]).unwrap();
            relay.turn().unwrap();
            while b.recv(&mut buffer).is_ok() {}
        }
        assert!(clock.instant() < Instant::from_micros(20_000_000));
    }
    // Without packets the turn still ends; a further one would wait for a packet.
    relay.turn().unwrap();
    assert!(!relay.more && !relay.gather.is_worth_while());
}
