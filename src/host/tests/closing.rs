//! The end of connections over plain TCP: readers that are slow, and a server that shuts down.

use etherparse::{PacketBuilder, TcpHeader, TcpSlice};

use super::*;
use crate::host::web::{SHUTDOWN_TIMEOUT, WebCounters};
use crate::wire::ip::IpView;

/// The window of a reader, which acknowledges all of it at once.
const WINDOW: u16 = 4096;

/// A client made of hand-made segments.
struct Reader {
    now: Now,
    server: ServerHost<Sizes>,
    sequence: u32,
    expected: u32,
    received: Vec<u8>,
    finished: bool,
    reset: bool,
}

impl Reader {
    /// Connects and sends a request.
    fn new(request: &[u8]) -> Self {
        let now = Now::default();
        let mut reader = Self {
            now,
            server: server(&Rc::default(), address(false, 2), now, 0),
            sequence: 500,
            expected: 0,
            received: Vec::new(),
            finished: false,
            reset: false,
        };
        reader.send(|header| (header.syn, header.ack) = (true, false), &[]);
        reader.sequence += 1;
        reader.send(|_| {}, request);
        reader.sequence += u32::try_from(request.len()).unwrap();
        reader
    }

    fn send(&mut self, change: impl FnOnce(&mut TcpHeader), payload: &[u8]) {
        let mut header = TcpHeader::new(5000, 80, self.sequence, WINDOW);
        (header.ack, header.acknowledgment_number) = (true, self.expected);
        change(&mut header);
        let builder = PacketBuilder::ipv4([10, 9, 0, 1], [10, 9, 0, 2], 9);
        let mut packet = Vec::new();
        builder
            .tcp_header(header)
            .write(&mut packet, payload)
            .unwrap();
        self.server.handle_packet(self.now, &packet, None);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.server.poll_transmit(self.now) {
            for packet in transmit.into_packets().unwrap() {
                self.take(&packet);
            }
        }
    }

    fn take(&mut self, packet: &[u8]) {
        let view = IpView::parse(packet).unwrap();
        assert!(view.checksum_holds());
        let tcp = TcpSlice::from_slice(view.payload).unwrap();
        self.reset |= tcp.rst();
        if tcp.syn() {
            self.expected = tcp.sequence_number().wrapping_add(1);
        } else if tcp.sequence_number() == self.expected && !tcp.rst() {
            self.received.extend_from_slice(tcp.payload());
            let length = u32::try_from(tcp.payload().len()).unwrap();
            self.finished |= tcp.fin();
            self.expected = self.expected.wrapping_add(length + u32::from(tcp.fin()));
        }
    }

    /// Lets a second pass, then acknowledges all received bytes if `reads`.
    fn second(&mut self, reads: bool) {
        for _ in 0..10 {
            self.now.instant += Duration::from_millis(100);
            self.server.handle_timeout(self.now);
            self.drain();
        }
        if reads {
            self.send(|_| {}, &[]);
        }
    }

    fn timeouts(&self) -> u64 {
        let WebCounters { timeouts, .. } = self.server.web_counters().clone();
        timeouts
    }
}

fn get(size: u64, fields: &str) -> Vec<u8> {
    format!("GET /{size} HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes()
}

#[test]
fn a_reader_of_4_kb_a_second_is_served_to_the_end() {
    for fields in ["", "Connection: close\r\n"] {
        let mut reader = Reader::new(&get(400_000, fields));
        let seconds = 400_000 / u64::from(WINDOW) + 5;
        for _ in 0..seconds {
            reader.second(true);
        }
        assert!(reader.received == stream(0, 400_000), "{fields}");
        assert_eq!(reader.finished, !fields.is_empty(), "{fields}");
        assert_eq!((reader.timeouts(), reader.reset), (0, false), "{fields}");
    }
}

#[test]
fn a_reader_that_takes_nothing_is_reset() {
    let mut reader = Reader::new(&get(400_000, ""));
    for second in 0..70 {
        assert!(!reader.reset || second > 55, "after {second} s");
        reader.second(false);
    }
    assert!(reader.reset);
}

#[test]
fn a_server_that_shuts_down_closes_idle_connections() {
    let mut reader = Reader::new(&get(100, ""));
    reader.second(true);
    assert!(reader.received == stream(0, 100) && !reader.finished);
    assert!(!reader.server.is_shut_down());
    reader.server.shut_down(reader.now);
    reader.drain();
    assert!(reader.finished && !reader.server.is_shut_down());
    reader.send(|header| header.fin = true, &[]);
    assert!(reader.server.is_shut_down());
}

#[test]
fn a_server_that_shuts_down_ends_responses_in_time() {
    // The first is over within the time, the second is not.
    for (size, whole) in [(3000, true), (100_000, false)] {
        let mut reader = Reader::new(&get(size, ""));
        let begun = reader.now.instant;
        reader.server.shut_down(reader.now);
        while !reader.server.is_shut_down() {
            reader.second(true);
            if reader.finished {
                reader.send(|header| header.fin = true, &[]);
            }
            assert!(reader.now.instant <= begun + SHUTDOWN_TIMEOUT + Duration::from_secs(1));
        }
        reader.drain();
        assert_eq!(reader.received == stream(0, size), whole);
        assert_eq!((reader.finished, reader.reset), (whole, !whole));
    }
}

#[test]
fn a_server_that_shuts_down_refuses_new_connections() {
    let mut reader = Reader::new(&get(100, ""));
    reader.server.shut_down(reader.now);
    reader.drain();
    assert!(!reader.reset);
    (reader.sequence, reader.reset) = (9000, false);
    let change = |header: &mut TcpHeader| {
        (header.syn, header.ack, header.source_port) = (true, false, 5001);
    };
    reader.send(change, &[]);
    assert!(reader.reset);
}
