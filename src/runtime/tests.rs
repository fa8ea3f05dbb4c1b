//! Tests of the loop over devices that need no privileges.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use super::*;
use crate::device::Received;
use crate::wire::flight::Flight;

/// A device that announces its packets with a single edge.
struct OneEdge {
    socket: UnixStream,
    _peer: UnixStream,
    packets: VecDeque<Vec<u8>>,
    endless: bool,
    sent: Vec<Vec<u8>>,
    idle: usize,
}

impl OneEdge {
    fn new(packets: usize) -> Self {
        let (socket, mut peer) = UnixStream::pair().unwrap();
        peer.write_all(b"!").unwrap();
        let packets = (0..packets).map(|n| n.to_be_bytes().to_vec()).collect();
        Self {
            socket,
            _peer: peer,
            packets,
            endless: false,
            sent: Vec::new(),
            idle: 0,
        }
    }
}

impl AsRawFd for OneEdge {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Device for OneEdge {
    fn mtu(&self) -> usize {
        1500
    }
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        if self.endless {
            self.packets.push_back(vec![0; 8]);
        }
        let Some(packet) = self.packets.pop_front() else {
            return Ok(None);
        };
        buffer[..packet.len()].copy_from_slice(&packet);
        Ok(Some(Received::packet(packet.len())))
    }
    fn send_packet(&mut self, packet: &[u8]) -> io::Result<()> {
        self.sent.push(packet.to_vec());
        Ok(())
    }
    fn send_flight(&mut self, _: &Flight) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn send_drops(&self) -> u64 {
        0
    }
    fn idle(&mut self) {
        assert!(self.packets.is_empty(), "goes to sleep though packets wait");
        self.idle += 1;
    }
}

/// Sends packets back; its timer expires every `period`.
#[derive(Default)]
struct Echo {
    answers: VecDeque<Vec<u8>>,
    period: Option<Duration>,
    next: Instant,
    called: Vec<Instant>,
}

impl Machine for Echo {
    fn handle_packet(&mut self, _: Now, packet: &[u8], _: Option<usize>) {
        assert!(
            self.answers.is_empty(),
            "transmissions are drained after each packet"
        );
        self.answers.push_back(packet.to_vec());
    }
    fn handle_timeout(&mut self, now: Now) {
        assert!(now.instant >= self.next, "called too early");
        self.called.push(now.instant);
        self.next = now.instant + self.period.unwrap();
    }
    fn poll_transmit(&mut self, _: Now) -> Option<Transmit> {
        self.answers.pop_front().map(Transmit::Packet)
    }
    fn poll_timeout(&mut self, _: Now) -> Option<(Instant, &'static str)> {
        self.period.map(|_| (self.next, "period"))
    }
}

/// A hook made of a closure; called at least every 5 ms.
struct Hook<F> {
    f: F,
    last: Instant,
}

impl<F> Hook<F> {
    fn new(f: F) -> Self {
        Self {
            f,
            last: Instant::ZERO,
        }
    }
}

impl<F: FnMut(&mut Echo) -> ControlFlow<()>> Hooks<Echo> for Hook<F> {
    fn turn(&mut self, now: Now, machine: &mut Echo) -> ControlFlow<()> {
        self.last = now.instant;
        (self.f)(machine)
    }
    fn deadline(&self) -> Option<Instant> {
        Some(self.last + Duration::from_millis(5))
    }
    fn metrics(&mut self, machine: &Echo) -> Vec<Metric> {
        let calls = u64::try_from(machine.called.len()).unwrap();
        vec![Metric::counter("calls_total", "Calls.", calls)]
    }
}

/// Writes into a pipe whenever it is writable; needs no other wake-up.
struct Writing {
    pipe: UnixStream,
    left: usize,
    turns: usize,
}

impl Hooks<Echo> for Writing {
    fn turn(&mut self, _: Now, _: &mut Echo) -> ControlFlow<()> {
        self.turns += 1;
        while self.left > 0 {
            match self.pipe.write(&vec![0; self.left]) {
                Ok(count) => self.left -= count,
                Err(_) => return ControlFlow::Continue(()),
            }
        }
        ControlFlow::Break(())
    }
    fn waits_for<'a>(&'a self, _: &'a Echo) -> Option<BorrowedFd<'a>> {
        Some(self.pipe.as_fd())
    }
}

#[test]
fn a_slow_reader_wakes_the_loop() {
    let (pipe, mut reader) = UnixStream::pair().unwrap();
    pipe.set_nonblocking(true).unwrap();
    let mut hook = Writing {
        pipe,
        left: 4 << 20,
        turns: 0,
    };
    let thread = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        reader
            .read_exact(&mut buffer)
            .and_then(|()| reader.read_to_end(&mut buffer))
    });
    let stopped = runtime(OneEdge::new(0)).run(&mut Echo::default(), &mut hook);
    assert_eq!(stopped.unwrap(), Stopped::ByHook);
    assert!((2..10_000).contains(&hook.turns), "{} turns", hook.turns);
    drop(hook);
    assert_eq!(thread.join().unwrap().unwrap(), 3 << 20);
}

fn runtime(device: OneEdge) -> Runtime<OneEdge> {
    Runtime::new(OsClock::new(), device).unwrap()
}

#[test]
fn one_edge_is_enough_for_any_number_of_packets() {
    let packets = 3 * MAX_PACKETS_PER_TURN + 5;
    let mut runtime = runtime(OneEdge::new(packets));
    let mut turns = 0;
    let mut hook = Hook::new(|_: &mut Echo| {
        turns += 1;
        if turns == 5 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    let stopped = runtime.run(&mut Echo::default(), &mut hook).unwrap();
    assert_eq!(stopped, Stopped::ByHook);
    let sent: Vec<_> = (0..packets).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(runtime.device().sent, sent);
}

/// Ends the run once the timer of the machine has expired `count` times.
fn until_called(count: usize) -> impl FnMut(&mut Echo) -> ControlFlow<()> {
    move |machine| match machine.called.len() >= count {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

#[test]
fn a_flood_starves_neither_timers_nor_hooks() {
    let mut device = OneEdge::new(0);
    device.endless = true;
    let mut runtime = runtime(device);
    let mut machine = Echo {
        period: Some(Duration::from_micros(100)),
        ..Echo::default()
    };
    let mut hook = Hook::new(until_called(20));
    assert_eq!(
        runtime.run(&mut machine, &mut hook).unwrap(),
        Stopped::ByHook
    );
    assert_eq!(runtime.device().sent.len() % MAX_PACKETS_PER_TURN, 0);
}

#[test]
fn short_sleeps_end_no_earlier_than_asked() {
    let mut runtime = runtime(OneEdge::new(0));
    let mut machine = Echo {
        period: Some(Duration::from_micros(150)),
        ..Echo::default()
    };
    let mut hook = Hook::new(until_called(100));
    runtime.run(&mut machine, &mut hook).unwrap();
    assert!(
        runtime.device().idle >= 50,
        "it slept, and said so to the device"
    );
}

/// Requests metrics over TCP and returns the whole response.
fn scrape(address: SocketAddr, request: &'static [u8]) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        for part in request.chunks(7) {
            stream.write_all(part).unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
}

#[test]
fn metrics_are_served_beside_the_packets() {
    let server = MetricsServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = server.local_addr().unwrap();
    let mut runtime = runtime(OneEdge::new(0));
    runtime.serve_metrics(server).unwrap();
    let answers = [
        scrape(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
        scrape(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ];
    let mut hook = Hook::new(|_: &mut Echo| {
        let done = answers.iter().all(JoinHandle::is_finished);
        if done {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    runtime.run(&mut Echo::default(), &mut hook).unwrap();
    let [metrics, elsewhere] = answers.map(|answer| answer.join().unwrap());
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    assert!(metrics.ends_with(
        "\r\n\r\n# HELP calls_total Calls.\n# TYPE calls_total counter\ncalls_total 0\n"
    ));
    assert!(elsewhere.starts_with("HTTP/1.1 404 "), "{elsewhere}");
}

/// Runs one turn of a server at `now`, after waiting a moment for events.
fn turn(poll: &mut Poll, server: &mut MetricsServer, now: Instant) {
    let mut events = Events::with_capacity(MAX_EVENTS);
    poll.poll(&mut events, Some(Duration::from_millis(50)))
        .unwrap();
    for event in &events {
        server.note(event.token());
    }
    server.turn(now, poll.registry(), Vec::new);
}

#[test]
fn metrics_connections_are_bounded_in_number_and_time() {
    let mut poll = Poll::new().unwrap();
    let server = MetricsServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut server = server.registered(poll.registry()).unwrap();
    let address = server.local_addr().unwrap();
    let mut clients: Vec<_> = (0..=metrics::MAX_CONNECTIONS)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let start = Instant::from_micros(1);
    turn(&mut poll, &mut server, start);
    for client in &clients {
        client.set_nonblocking(true).unwrap();
    }
    assert_eq!(clients[0].read(&mut [0]).unwrap(), 0, "it gave way");
    for client in &mut clients[1..] {
        assert!(client.read(&mut [0]).is_err(), "still open");
    }
    assert_eq!(server.deadline(), Some(start + metrics::MAX_DURATION));
    turn(&mut poll, &mut server, start + metrics::MAX_DURATION);
    assert_eq!(server.deadline(), None, "all have used up their time");
    clients[1].set_nonblocking(false).unwrap();
    assert_eq!(clients[1].read(&mut [0]).unwrap(), 0);
}

#[test]
fn seeds_differ() {
    assert_ne!(os_seed().unwrap(), os_seed().unwrap());
}

#[test]
fn the_clocks_go_forward_from_zero() {
    let clock = OsClock::new();
    let (first, second) = (clock.now(), clock.now());
    assert!(first.instant <= second.instant);
    assert!(first.instant < Instant::from_micros(60_000_000));
    assert!(first.unix > UnixMillis::new(1_700_000_000_000));
}

/// Runs four turns from `awake_until`; returns the number of sleeps, and the new `awake_until`.
fn sleeps(packets: usize, awake_until: Instant, busy_poll: Duration) -> (usize, Instant) {
    let mut runtime = runtime(OneEdge::new(packets));
    runtime.busy_poll(busy_poll);
    runtime.awake_until = awake_until;
    let mut turns = 0;
    let mut hook = Hook::new(|_: &mut Echo| {
        turns += 1;
        match turns {
            4 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    let stopped = runtime.run(&mut Echo::default(), &mut hook).unwrap();
    assert_eq!(stopped, Stopped::ByHook);
    // The end of the run counts as one.
    (runtime.device.idle - 1, runtime.awake_until)
}

#[test]
fn a_loop_that_is_awake_does_not_sleep() {
    let long = Instant::from_micros(3_600_000_000);
    assert_eq!(sleeps(0, long, Duration::ZERO), (0, long));
    let (slept, _) = sleeps(0, Instant::ZERO, Duration::from_secs(1));
    assert!(slept > 0, "no packet, no reason to be awake");
    let (_, awake) = sleeps(1, Instant::ZERO, Duration::from_secs(1));
    assert_eq!(awake, Instant::ZERO, "one packet promises no other");
    let (_, awake) = sleeps(2, Instant::ZERO, Duration::from_secs(1));
    assert!(awake >= Instant::ZERO + MAX_BUSY_POLL, "two do");
    let mut runtime = runtime(OneEdge::new(0));
    for (asked, want) in [
        (MAX_BUSY_POLL, MAX_BUSY_POLL),
        (MAX_BUSY_POLL * 2, MAX_BUSY_POLL),
    ] {
        runtime.busy_poll(asked);
        assert_eq!(runtime.busy_poll, want);
    }
}
