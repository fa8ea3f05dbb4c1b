//! Tests of TCP with many peers, whose segments are made by hand.

use etherparse::{TcpHeader, TcpSlice};

use super::*;

/// A peer of the server, by its number.
struct Peer {
    from: [u8; 4],
    port: u16,
    /// The next sequence number, and the next one expected.
    sequence: u32,
    expected: u32,
}

impl Peer {
    fn new(source: u32, port: u16) -> Self {
        Self {
            from: (0x0b00_0000 + source).to_be_bytes(),
            port,
            sequence: 77,
            expected: 0,
        }
    }

    fn segment(&self, change: impl FnOnce(&mut TcpHeader), payload: &[u8]) -> Vec<u8> {
        let mut header = TcpHeader::new(self.port, 80, self.sequence, 4000);
        header.acknowledgment_number = self.expected;
        change(&mut header);
        let builder = PacketBuilder::ipv4(self.from, octets4(SERVER4), 9);
        built(|out| builder.tcp_header(header).write(out, payload).unwrap())
    }

    /// Sends a SYN and takes the answer; returns the lengths of both.
    fn knock(&mut self, stack: &mut Stack, now: Instant) -> (usize, usize) {
        let syn = self.segment(|header| header.syn = true, &[]);
        assert_eq!(stack.handle_packet(now, &syn, None), Demuxed::Taken);
        let mut answers = transmitted(stack, now);
        answers.retain(|packet| {
            let view = IpView::parse(packet).unwrap();
            let tcp = TcpSlice::from_slice(view.payload).unwrap();
            tcp.syn() && view.dst == IpAddr::from(self.from)
        });
        assert_eq!(answers.len(), 1);
        let view = IpView::parse(&answers[0]).unwrap();
        let tcp = TcpSlice::from_slice(view.payload).unwrap();
        self.sequence += 1;
        assert!(tcp.ack() && tcp.acknowledgment_number() == self.sequence);
        self.expected = tcp.sequence_number().wrapping_add(1);
        (syn.len(), answers[0].len())
    }

    fn say(&mut self, stack: &mut Stack, now: Instant, payload: &[u8]) -> Demuxed<'static> {
        let packet = self.segment(|header| header.ack = true, payload);
        let taken = match stack.handle_packet(now, &packet, None) {
            Demuxed::Taken => Demuxed::Taken,
            Demuxed::Dropped(reason) => Demuxed::Dropped(reason),
            Demuxed::Transport(_) => panic!("not of the transport"),
        };
        self.sequence += u32::try_from(payload.len()).unwrap();
        taken
    }
}

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn events(stack: &mut Stack) -> Vec<TcpEvent> {
    std::iter::from_fn(|| stack.poll_event()).collect()
}

/// Lets a peer connect and say something; returns its connection.
fn enter(stack: &mut Stack, now: Instant, peer: &mut Peer) -> TcpId {
    peer.knock(stack, now);
    assert_eq!(peer.say(stack, now, b"GET"), Demuxed::Taken);
    let events = events(stack);
    let Some(TcpEvent::Accepted { id, .. }) = events
        .iter()
        .find(|event| matches!(event, TcpEvent::Accepted { .. }))
    else {
        panic!("{events:?}")
    };
    *id
}

#[test]
fn a_syn_leaves_nothing_behind() {
    let mut stack = server();
    for n in 0..20_000 {
        let mut peer = Peer::new(n, 1000);
        let (asked, answered) = peer.knock(&mut stack, at(1));
        assert!(answered <= asked + 4, "the segment size is an option");
        assert_eq!(peer.say(&mut stack, at(1), b""), Demuxed::Taken);
    }
    assert_eq!(transmitted(&mut stack, at(1)).len(), 0);
    assert_eq!((stack.connections(), events(&mut stack)), (0, vec![]));
    assert_eq!(stack.poll_timeout(at(1)), None);
}

#[test]
fn the_first_bytes_begin_a_connection_while_the_cookie_is_fresh() {
    let mut stack = server();
    for (name, wait, want) in [("soon", 60, 1), ("late", 200, 0)] {
        let mut peer = Peer::new(5, 1000 + wait);
        peer.knock(&mut stack, at(1));
        let now = at(1 + u64::from(wait));
        assert_eq!(peer.say(&mut stack, now, b"GET"), Demuxed::Taken);
        let accepted = events(&mut stack);
        let count = accepted
            .iter()
            .filter(|e| matches!(e, TcpEvent::Accepted { .. }))
            .count();
        assert_eq!(count, want, "{name}");
        let answers = transmitted(&mut stack, now);
        if want == 0 {
            let view = IpView::parse(&answers[0]).unwrap();
            assert!(TcpSlice::from_slice(view.payload).unwrap().rst(), "{name}");
        }
    }
}

#[test]
fn a_fin_also_begins_a_connection() {
    let mut stack = server();
    let mut peer = Peer::new(5, 1000);
    peer.knock(&mut stack, at(1));
    let fin = peer.segment(|header| (header.ack, header.fin) = (true, true), &[]);
    assert_eq!(stack.handle_packet(at(1), &fin, None), Demuxed::Taken);
    let [TcpEvent::Accepted { id, .. }, TcpEvent::Readable(_)] = events(&mut stack)[..] else {
        panic!("not accepted")
    };
    let end = stack.receive(id, &mut [0; 1]);
    assert_eq!(end, Err(TcpError::Finished));
}

#[test]
fn a_forged_acknowledgement_is_refused() {
    let mut stack = server();
    let mut peer = Peer::new(5, 1000);
    peer.knock(&mut stack, at(1));
    peer.expected = peer.expected.wrapping_add(0x100);
    peer.say(&mut stack, at(1), b"GET");
    assert_eq!((stack.connections(), events(&mut stack)), (0, vec![]));
    let answers = transmitted(&mut stack, at(1));
    let view = IpView::parse(&answers[0]).unwrap();
    assert!(TcpSlice::from_slice(view.payload).unwrap().rst());
}

#[test]
fn in_a_full_table_the_longest_idle_makes_room() {
    let mut stack = server();
    let bound = u32::try_from(MAX_TCP_CONNECTIONS).unwrap();
    let mut first = Peer::new(0, 1000);
    let oldest = enter(&mut stack, at(1), &mut first);
    for n in 1..bound {
        enter(&mut stack, at(2), &mut Peer::new(n, 1000));
        stack.poll_transmit(at(2));
    }
    assert_eq!(stack.connections(), MAX_TCP_CONNECTIONS);
    let mut newcomer = Peer::new(bound, 1000);
    newcomer.knock(&mut stack, at(3));
    newcomer.say(&mut stack, at(3), b"GET");
    assert_eq!(
        (stack.connections(), stack.evictions()),
        (MAX_TCP_CONNECTIONS, 1)
    );
    let events = events(&mut stack);
    let gone = TcpEvent::Closed(oldest, CloseReason::Evicted);
    assert_eq!(events[0], gone);
    assert!(matches!(events[1], TcpEvent::Accepted { .. }));
    let resets = transmitted(&mut stack, at(3)).into_iter().filter(|packet| {
        let view = IpView::parse(packet).unwrap();
        let tcp = TcpSlice::from_slice(view.payload).unwrap();
        tcp.rst() && view.dst == IpAddr::from(first.from)
    });
    assert_eq!(resets.count(), 1);
}

#[test]
fn a_full_table_of_active_peers_refuses() {
    let mut stack = server();
    for n in 0..u32::try_from(MAX_TCP_CONNECTIONS).unwrap() {
        let id = enter(&mut stack, at(1), &mut Peer::new(n, 1000));
        assert_eq!(stack.send(id, b"response"), Ok(8));
        stack.poll_transmit(at(1));
    }
    let mut newcomer = Peer::new(1 << 20, 1000);
    newcomer.knock(&mut stack, at(2));
    let full = Demuxed::Dropped(DropReason::ConnectionsFull);
    assert_eq!(newcomer.say(&mut stack, at(2), b"GET"), full);
    newcomer.sequence -= 3;
    assert_eq!(
        newcomer.say(&mut stack, at(7), b"GET"),
        Demuxed::Taken,
        "they have stalled"
    );
}

#[test]
fn one_source_does_not_crowd_out_others() {
    let mut stack = server();
    let bound = u16::try_from(MAX_TCP_CONNECTIONS).unwrap();
    let mut lonely = Peer::new(1, 1000);
    let idle = enter(&mut stack, at(1), &mut lonely);
    for n in 1..bound {
        let id = enter(&mut stack, at(2), &mut Peer::new(2, 1000 + n));
        assert_eq!(stack.send(id, b"response"), Ok(8));
        stack.poll_transmit(at(2));
    }
    enter(&mut stack, at(3), &mut Peer::new(3, 1000));
    assert!(
        stack.progress(idle).is_some(),
        "it stays, though it is idle longest"
    );
    assert_eq!(stack.evictions(), 1);
}

#[test]
fn send_buffers_share_a_budget() {
    let mut stack = server();
    let (mut total, mut smallest) = (0, usize::MAX);
    for n in 0..2000 {
        let id = enter(&mut stack, at(1), &mut Peer::new(n, 1000));
        stack.expect_to_send(at(1), id, u64::MAX);
        let room = stack.send_room(id);
        (total, smallest) = (total + room - FLOOR_SEND_BYTES, smallest.min(room));
        transmitted(&mut stack, at(1));
    }
    assert!(total <= MAX_GROWN_BYTES, "{total}");
    assert!(total > MAX_GROWN_BYTES / 2, "{total}");
    assert!(
        (FLOOR_SEND_BYTES..FLOOR_SEND_BYTES * 2).contains(&smallest),
        "{smallest}"
    );
}

#[test]
fn idle_connections_give_their_buffers_back() {
    let mut stack = server();
    let mut ids = Vec::new();
    for n in 0..2000 {
        let id = enter(&mut stack, at(1), &mut Peer::new(n, 1000));
        stack.expect_to_send(at(1), id, u64::MAX);
        stack.expect_to_send(at(1), id, 0);
        ids.push(id);
        transmitted(&mut stack, at(1));
    }
    let rooms: Vec<_> = ids.iter().map(|&id| stack.send_room(id)).collect();
    assert_eq!(rooms[1999], SERVER_SEND_BYTES);
    assert_eq!(rooms[0], SMALLEST_SEND_BYTES);
}
