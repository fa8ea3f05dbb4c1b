//! Tests of TCP: two stacks joined by a lossy wire, in virtual time.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;

/// Two stacks, a wire with a delay, and virtual time.
struct Wire {
    now: Instant,
    ends: [Stack; 2],
    flying: VecDeque<(Instant, usize, Vec<u8>)>,
    loss: f64,
    delay: Duration,
    random: rand::rngs::ChaCha8Rng,
}

const DELAY: Duration = Duration::from_millis(5);

const CLIENT: usize = 0;
const SERVER: usize = 1;

impl Wire {
    fn new(loss: f64) -> Self {
        let random = rand::rngs::ChaCha8Rng::seed_from_u64(7);
        Self {
            now: Instant::ZERO,
            ends: [client(), server()],
            flying: VecDeque::new(),
            loss,
            delay: DELAY,
            random,
        }
    }

    fn connect(&mut self, address: &str) -> TcpId {
        self.ends[CLIENT]
            .connect(self.now, SocketAddr::new(address.parse().unwrap(), 80))
            .unwrap()
    }

    /// Opens a connection; the client sends one byte.
    fn open(&mut self, address: &str) -> (TcpId, TcpId) {
        let ours = self.connect(address);
        assert_eq!(self.next_event(CLIENT), TcpEvent::Connected(ours));
        assert_eq!(self.ends[CLIENT].send(ours, b"?"), Ok(1));
        let TcpEvent::Accepted { id, .. } = self.next_event(SERVER) else {
            panic!("not accepted")
        };
        (ours, id)
    }

    fn send_all(&mut self) {
        for end in [CLIENT, SERVER] {
            for packet in transmitted(&mut self.ends[end], self.now) {
                if !self.random.random_bool(self.loss) {
                    self.flying
                        .push_back((self.now + self.delay, 1 - end, packet));
                }
            }
        }
    }

    /// Advances to the next arrival or deadline; false if there is none.
    fn step(&mut self) -> bool {
        self.send_all();
        let now = self.now;
        let arrival = self.flying.front().map(|(at, ..)| *at);
        let timers = self
            .ends
            .iter_mut()
            .filter_map(|end| Some(end.poll_timeout(now)?.0))
            .min();
        let Some(next) = arrival.into_iter().chain(timers).min() else {
            return false;
        };
        self.now = next;
        while let Some((_, end, packet)) = self.flying.pop_front_if(|(at, ..)| *at <= next) {
            let _ = self.ends[end].handle_packet(next, &packet, None);
            self.send_all();
        }
        for end in &mut self.ends {
            if end.poll_timeout(next).is_some_and(|(at, _)| at <= next) {
                end.handle_timeout(next);
            }
        }
        true
    }

    fn events(&mut self, end: usize) -> Vec<TcpEvent> {
        std::iter::from_fn(|| self.ends[end].poll_event()).collect()
    }

    /// Steps until `end` has an event.
    fn next_event(&mut self, end: usize) -> TcpEvent {
        for _ in 0..10_000 {
            if let Some(event) = self.ends[end].poll_event() {
                return event;
            }
            if !self.step() {
                return self.ends[end]
                    .poll_event()
                    .expect("nothing happens any more");
            }
        }
        panic!("no event");
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end && self.step() {}
        self.now = end.max(self.now);
    }
}

fn content(offset: usize, len: usize) -> Vec<u8> {
    (offset..offset + len)
        .map(|n| u8::try_from((n * 7 + n / 251) % 256).unwrap())
        .collect()
}

/// Runs the server's half of a transfer: sends `total` bytes and closes.
#[derive(Default)]
struct Sender {
    peer: Option<TcpId>,
    sent: usize,
    closed: bool,
}

impl Sender {
    fn turn(&mut self, wire: &mut Wire, total: usize) {
        for event in wire.events(SERVER) {
            if let TcpEvent::Accepted { id, .. } = event {
                self.peer = Some(id);
                let bytes = u64::try_from(total).unwrap();
                wire.ends[SERVER].expect_to_send(wire.now, id, bytes);
            }
            if let TcpEvent::Closed(_, reason) = event {
                assert_eq!(reason, CloseReason::Finished);
                self.closed = true;
            }
        }
        while let Some(id) = self.peer.filter(|_| self.sent < total) {
            let bytes = content(self.sent, 65_536.min(total - self.sent));
            let taken = wire.ends[SERVER].send(id, &bytes).unwrap();
            self.sent += taken;
            if self.sent == total {
                wire.ends[SERVER].close(id);
            }
            if taken == 0 {
                break;
            }
        }
    }
}

/// Runs the client's half: reads to the end and closes.
#[derive(Default)]
struct Reader {
    got: usize,
    closed: bool,
}

impl Reader {
    fn turn(&mut self, wire: &mut Wire) {
        for event in wire.events(CLIENT) {
            if let TcpEvent::Connected(id) = event {
                wire.ends[CLIENT].send(id, b"?").unwrap();
            }
            if let TcpEvent::Readable(id) = event {
                self.drain(wire, id);
            }
            if let TcpEvent::Closed(_, reason) = event {
                assert_eq!(reason, CloseReason::Finished);
                self.closed = true;
            }
        }
    }

    fn drain(&mut self, wire: &mut Wire, id: TcpId) {
        let mut buffer = vec![0; 65_536];
        loop {
            match wire.ends[CLIENT].receive(id, &mut buffer) {
                Ok(0) => return,
                Ok(len) => {
                    assert!(
                        buffer[..len] == content(self.got, len),
                        "wrong bytes at {}",
                        self.got
                    );
                    self.got += len;
                }
                Err(error) => {
                    assert_eq!(error, TcpError::Finished);
                    return wire.ends[CLIENT].close(id);
                }
            }
        }
    }
}

/// Transfers `total` bytes from server to client and returns the time taken.
fn transfer(address: &str, loss: f64, total: usize) -> Instant {
    let mut wire = Wire::new(loss);
    wire.connect(address);
    let (mut sender, mut reader) = (Sender::default(), Reader::default());
    for _ in 0..2_000_000 {
        sender.turn(&mut wire, total);
        reader.turn(&mut wire);
        if sender.closed && reader.closed {
            assert_eq!(reader.got, total);
            return wire.now;
        }
        assert!(
            wire.step(),
            "nothing happens any more at {} of {total} bytes",
            reader.got
        );
    }
    panic!(
        "stuck at {} of {total} bytes, time {:?}",
        reader.got, wire.now
    );
}

#[test]
fn ten_megabytes_arrive_without_loss() {
    // Slow start with a round trip of 10 ms fills the window of 1 MiB within 12 rounds.
    let took = transfer(SERVER4, 0.0, 10_000_000);
    assert!(took < Instant::from_micros(500_000), "{took:?}");
}

#[test]
fn ten_megabytes_arrive_in_spite_of_loss() {
    transfer(SERVER4, 0.02, 10_000_000);
    transfer(SERVER6, 0.02, 2_000_000);
}

#[test]
fn closed_connections_do_not_hold_their_slots() {
    let mut wire = Wire::new(0.0);
    wire.delay = Duration::from_micros(10);
    for round in 0..300 {
        let (ours, id) = wire.open(SERVER4);
        wire.ends[SERVER].close(id);
        assert_eq!(wire.next_event(CLIENT), TcpEvent::Readable(ours));
        let end = wire.ends[CLIENT].receive(ours, &mut [0; 1]);
        assert_eq!(end, Err(TcpError::Finished));
        wire.ends[CLIENT].close(ours);
        let over = TcpEvent::Closed(ours, CloseReason::Finished);
        assert_eq!(wire.next_event(CLIENT), over, "round {round}");
        while wire.next_event(SERVER) != TcpEvent::Closed(id, CloseReason::Finished) {}
    }
    assert!(wire.now < Instant::from_micros(5_000_000), "{:?}", wire.now);
    wire.run_for(Duration::from_secs(60));
    assert_eq!(wire.ends.each_ref().map(Stack::connections), [0, 0]);
    assert!(!wire.step(), "nothing is left to do");
}

#[test]
fn a_port_without_listener_refuses() {
    let mut wire = Wire::new(0.0);
    let id = wire.ends[CLIENT]
        .connect(wire.now, "10.0.0.1:81".parse().unwrap())
        .unwrap();
    assert_eq!(
        wire.next_event(CLIENT),
        TcpEvent::Closed(id, CloseReason::Reset)
    );
    assert_eq!(wire.ends[CLIENT].connections(), 0);
    assert_eq!(wire.ends[CLIENT].send(id, b"x"), Err(TcpError::Unknown));
}

#[test]
fn a_silent_peer_times_out() {
    let mut wire = Wire::new(1.0);
    let id = wire.connect(SERVER6);
    assert_eq!(
        wire.next_event(CLIENT),
        TcpEvent::Closed(id, CloseReason::TimedOut)
    );
    assert!(wire.now >= Instant::from_micros(30_000_000));
    assert_eq!(wire.ends[CLIENT].connections(), 0);
}

#[test]
fn an_idle_peer_is_kept_and_a_dead_one_is_not() {
    let mut wire = Wire::new(0.0);
    let (_, id) = wire.open(SERVER4);
    assert_eq!(wire.next_event(SERVER), TcpEvent::Readable(id));
    assert_eq!(wire.ends[SERVER].receive(id, &mut [0; 2]), Ok(1));
    wire.run_for(Duration::from_secs(300));
    assert_eq!(wire.ends.each_ref().map(Stack::connections), [1, 1]);
    wire.loss = 1.0;
    let readable = wire.next_event(SERVER);
    assert!(matches!(readable, TcpEvent::Readable(_)), "{readable:?}");
    assert!(matches!(
        wire.next_event(SERVER),
        TcpEvent::Closed(_, CloseReason::TimedOut)
    ));
    assert_eq!(wire.ends[SERVER].connections(), 0);
}

#[test]
fn a_writer_learns_of_room() {
    let mut wire = Wire::new(0.0);
    let (_, id) = wire.open(SERVER4);
    let server = &mut wire.ends[SERVER];
    assert_eq!(server.send_room(id), SMALLEST_SEND_BYTES);
    server.expect_to_send(wire.now, id, 1 << 40);
    assert_eq!(server.send_room(id), SERVER_SEND_BYTES);
    let sent = server.send(id, &vec![1; SERVER_SEND_BYTES + 1]).unwrap();
    assert_eq!((sent, server.send_room(id)), (SERVER_SEND_BYTES, 0));
    let full = server.send_with(wire.now, id, 1, |_| (0, ()));
    assert_eq!(full, Ok(None));
    let progress = server.progress(id).unwrap();
    assert_eq!(progress.queued, SERVER_SEND_BYTES);
    assert!(matches!(wire.next_event(SERVER), TcpEvent::Readable(_)));
    assert_eq!(wire.next_event(SERVER), TcpEvent::Writable(id));
    assert!(wire.ends[SERVER].send_room(id) >= SERVER_SEND_BYTES / 2);
    assert!(wire.ends[SERVER].progress(id).unwrap().since > progress.since);
}

#[test]
fn what_leaves_in_a_row_is_one_packet() {
    for (address, headers) in [(SERVER4, 40), (SERVER6, 60)] {
        let mut wire = Wire::new(0.0);
        let (ours, id) = wire.open(address);
        let mut buffer = vec![0; 1 << 20];
        wire.ends[SERVER].expect_to_send(wire.now, id, 1 << 20);
        // The first opens the congestion window.
        for round in 0..2 {
            let sent = content(round, 1 << 20);
            assert_eq!(wire.ends[SERVER].send(id, &sent), Ok(1 << 20));
            let packet = wire.ends[SERVER].poll_transmit(wire.now).unwrap();
            assert_eq!(packet.segment, Some(1500 - headers));
            if round == 1 {
                assert!(packet.bytes.len() > MAX_COALESCED_BYTES - 8);
            }
            let arrival = wire.now + wire.delay;
            let packets = single(packet).into_iter();
            wire.flying
                .extend(packets.map(|packet| (arrival, CLIENT, packet)));
            wire.run_for(Duration::from_secs(5));
            assert_eq!(wire.ends[CLIENT].receive(ours, &mut buffer), Ok(1 << 20));
            assert!(buffer == sent, "{address}");
        }
    }
}

#[test]
fn buffers_are_exchanged_without_a_trace() {
    for (loss, address) in [(0.0, SERVER4), (0.05, SERVER6)] {
        let mut wire = Wire::new(loss);
        let (ours, id) = wire.open(address);
        let (mut asked, mut answered, mut read) = (1, 0, 0);
        for (round, size) in [3000, 20_000, 5, 100_000, 70_000, 1_000_000, 9]
            .into_iter()
            .enumerate()
        {
            // A further request arrives and is read only after the exchange.
            asked += wire.ends[CLIENT].send(ours, &content(asked, 700)).unwrap();
            wire.run_for(Duration::from_secs(20));
            if round == 6 {
                wire.ends[CLIENT].close(ours);
                wire.run_for(Duration::from_secs(20));
            }
            let server = &mut wire.ends[SERVER];
            server.expect_to_send(wire.now, id, size as u64);
            assert!(
                server.send_room(id) >= size.min(SERVER_SEND_BYTES),
                "{size}"
            );
            let mut buffer = vec![0; 65_536];
            let count = server.receive(id, &mut buffer).unwrap();
            let skipped = usize::from(read == 0);
            assert!(buffer[skipped..count] == content(read + skipped, count - skipped));
            read += count;
            assert_eq!(read, asked, "round {round}");
            if round == 6 {
                assert_eq!(server.receive(id, &mut buffer), Err(TcpError::Finished));
            }
            assert_eq!(server.send(id, &content(answered, size)), Ok(size));
            server.expect_to_send(wire.now, id, 0);
            wire.run_for(Duration::from_secs(30));
            let mut got = vec![0; size];
            let count = wire.ends[CLIENT].receive(ours, &mut got).unwrap();
            assert_eq!(count, size, "round {round}");
            assert!(got == content(answered, size), "round {round}");
            answered += size;
        }
    }
}
