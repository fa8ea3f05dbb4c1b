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
                wire.ends[SERVER].close(wire.now, id);
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
                    return wire.ends[CLIENT].close(wire.now, id);
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
fn a_burst_of_connections_is_served_up_to_the_bound() {
    let mut wire = Wire::new(0.0);
    for n in 0..MAX_TCP_CONNECTIONS {
        wire.connect(if n % 2 == 0 { SERVER4 } else { SERVER6 });
    }
    let full = wire.ends[CLIENT].connect(wire.now, "10.0.0.1:80".parse().unwrap());
    assert_eq!(full, Err(TcpError::TooManyConnections));
    wire.run_for(DELAY * 4);
    let accepted = wire.events(SERVER);
    assert_eq!(accepted.len(), MAX_TCP_CONNECTIONS);
    assert_eq!(wire.ends[SERVER].connections(), MAX_TCP_CONNECTIONS);
    assert_eq!(wire.events(CLIENT).len(), MAX_TCP_CONNECTIONS);

    let one_more = tcp4("10.0.0.77", SERVER4, (1234, 80), true);
    let got = wire.ends[SERVER].handle_packet(wire.now, &one_more, None);
    assert_eq!(got, Demuxed::Dropped(DropReason::ConnectionsFull));

    let TcpEvent::Accepted { id, .. } = accepted[5] else {
        panic!("{accepted:?}")
    };
    wire.ends[SERVER].abort(id);
    wire.run_for(DELAY * 4);
    let [
        TcpEvent::Readable(reset),
        TcpEvent::Closed(_, CloseReason::Reset),
    ] = wire.events(CLIENT)[..]
    else {
        panic!("the reset has not arrived");
    };
    let gone = wire.ends[CLIENT].receive(reset, &mut [0; 1]);
    assert_eq!(gone, Err(TcpError::Unknown));
    let got = wire.ends[SERVER].handle_packet(wire.now, &one_more, None);
    assert_eq!(got, Demuxed::Taken, "the slot is free again");
}

#[test]
fn half_open_connections_do_not_hold_their_slots() {
    let mut stack = server();
    let syn = |n: u16| tcp4(CLIENT4, SERVER4, (1000 + n, 80), true);
    let bound = u16::try_from(MAX_TCP_CONNECTIONS).unwrap();
    for n in 0..bound {
        let _ = stack.handle_packet(Instant::ZERO, &syn(n), None);
        let _ = stack.handle_packet(Instant::ZERO, &syn(n), None);
        transmitted(&mut stack, Instant::ZERO);
    }
    assert_eq!(
        stack.connections(),
        MAX_TCP_CONNECTIONS,
        "a repeated SYN takes no second slot"
    );
    let mut at = |seconds: u64, n: u16| {
        let now = Instant::from_micros(seconds * 1_000_000);
        let taken = stack.handle_packet(now, &syn(n), None) == Demuxed::Taken;
        transmitted(&mut stack, now);
        assert_eq!(
            stack.poll_event(),
            None,
            "half-open ones are never announced"
        );
        taken
    };
    assert!(!at(2, bound));
    assert!(at(3, bound));
    assert!(at(3, bound + 1));
}

#[test]
fn half_open_connections_time_out() {
    let mut wire = Wire::new(1.0);
    let syn = tcp4(CLIENT4, SERVER4, (1000, 80), true);
    let _ = wire.ends[SERVER].handle_packet(wire.now, &syn, None);
    assert_eq!(wire.ends[SERVER].connections(), 1);
    wire.run_for(Duration::from_secs(40));
    assert_eq!(wire.ends[SERVER].connections(), 0);
    assert_eq!(wire.events(SERVER), []);
}

#[test]
fn closed_connections_do_not_hold_their_slots() {
    let mut wire = Wire::new(0.0);
    wire.delay = Duration::from_micros(10);
    for round in 0..3 * MAX_TCP_CONNECTIONS {
        let ours = wire.connect(SERVER4);
        let TcpEvent::Accepted { id, .. } = wire.next_event(SERVER) else {
            panic!("round {round}: not accepted")
        };
        wire.ends[SERVER].close(wire.now, id);
        assert_eq!(wire.next_event(CLIENT), TcpEvent::Connected(ours));
        assert_eq!(wire.next_event(CLIENT), TcpEvent::Readable(ours));
        let end = wire.ends[CLIENT].receive(ours, &mut [0; 1]);
        assert_eq!(end, Err(TcpError::Finished));
        wire.ends[CLIENT].close(wire.now, ours);
        let over = TcpEvent::Closed(ours, CloseReason::Finished);
        assert_eq!(wire.next_event(CLIENT), over, "round {round}");
        while wire.next_event(SERVER) != TcpEvent::Closed(id, CloseReason::Finished) {}
    }
    // TIME-WAIT ends by itself after ten seconds; these were evicted sooner.
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
    wire.connect(SERVER4);
    assert!(matches!(wire.next_event(SERVER), TcpEvent::Accepted { .. }));
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
fn a_reset_half_open_connection_leaves_no_listener() {
    let mut stack = server();
    let syn = tcp4(CLIENT4, SERVER4, (1000, 80), true);
    let _ = stack.handle_packet(Instant::ZERO, &syn, None);
    transmitted(&mut stack, Instant::ZERO);
    let builder = PacketBuilder::ipv4(octets4(CLIENT4), octets4(SERVER4), 9);
    let reset = built(|out| {
        builder
            .tcp(1000, 80, 1001, 0)
            .rst()
            .write(out, &[])
            .unwrap()
    });
    assert_eq!(
        stack.handle_packet(Instant::ZERO, &reset, None),
        Demuxed::Taken
    );
    assert_eq!((stack.connections(), stack.poll_event()), (0, None));
}

#[test]
fn a_writer_learns_of_room() {
    let mut wire = Wire::new(0.0);
    let ours = wire.connect(SERVER4);
    let TcpEvent::Accepted { id, .. } = wire.next_event(SERVER) else {
        panic!("not accepted")
    };
    assert_eq!(wire.ends[SERVER].send_room(id), SERVER_SEND_BYTES);
    let sent = wire.ends[SERVER]
        .send(id, &vec![1; SERVER_SEND_BYTES + 1])
        .unwrap();
    assert_eq!(
        (sent, wire.ends[SERVER].send_room(id)),
        (SERVER_SEND_BYTES, 0)
    );
    assert_eq!(wire.next_event(SERVER), TcpEvent::Writable(id));
    assert!(wire.ends[SERVER].send_room(id) >= SERVER_SEND_BYTES / 2);
    assert_eq!(wire.next_event(CLIENT), TcpEvent::Connected(ours));
}
