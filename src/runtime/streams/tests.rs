//! Tests over the loopback device, with sockets of the standard library as peers.

mod outgoing;

use std::net::TcpStream as Peer;

use super::*;

fn listening() -> (KernelStreams, SocketAddr) {
    let streams = KernelStreams::listen(&["127.0.0.1:0".parse().unwrap()], false).unwrap();
    let address = streams.addresses().next().unwrap();
    (streams, address)
}

/// Takes turns until `done`, at most for many; returns the events of them all.
fn turns(
    streams: &mut KernelStreams,
    mut done: impl FnMut(&mut KernelStreams, &[TcpEvent]) -> bool,
) -> Vec<TcpEvent> {
    let mut events = Vec::new();
    for n in 1..2_000_000 {
        streams.turn(Instant::from_micros(n)).unwrap();
        events.extend(std::iter::from_fn(|| streams.ready.pop_front()));
        if done(streams, &events) {
            return events;
        }
        std::thread::yield_now();
    }
    panic!("not done after {events:?}");
}

fn accepted(events: &[TcpEvent]) -> Vec<TcpId> {
    let ids = events.iter().filter_map(|event| {
        let TcpEvent::Accepted { id, .. } = event else {
            return None;
        };
        Some(*id)
    });
    ids.collect()
}

fn accept(streams: &mut KernelStreams, count: usize) -> Vec<TcpId> {
    let events = turns(streams, |_, events| accepted(events).len() >= count);
    accepted(&events)
}

fn send(streams: &mut KernelStreams, id: TcpId, byte: u8) -> Result<Option<usize>, TcpError> {
    let sent = streams.send_with(streams.now, id, usize::MAX, |room| {
        room.fill(byte);
        Ok::<_, ()>(room.len())
    })?;
    Ok(sent.map(Result::unwrap))
}

#[test]
fn bytes_go_both_ways_until_both_ends_have_closed() {
    let (mut streams, address) = listening();
    let mut peer = Peer::connect(address).unwrap();
    let [id] = accept(&mut streams, 1)[..] else {
        panic!("one connection");
    };
    peer.write_all(b"hello").unwrap();
    let mut got = Vec::new();
    turns(&mut streams, |streams, _| {
        let mut piece = [0; 3];
        let count = streams.receive(id, &mut piece).unwrap();
        got.extend_from_slice(&piece[..count]);
        got.len() == 5
    });
    assert_eq!(got, b"hello");
    assert_eq!(send(&mut streams, id, b'x'), Ok(Some(STAGE_BYTES)));
    streams.close(id);
    assert_eq!(send(&mut streams, id, b'x'), Err(TcpError::NotOpen));
    let mut all = Vec::new();
    peer.read_to_end(&mut all).unwrap();
    assert_eq!(all, vec![b'x'; STAGE_BYTES]);
    drop(peer);
    let events = turns(&mut streams, |streams, _| {
        streams.receive(id, &mut [0; 9]).is_err()
    });
    assert!(accepted(&events).is_empty());
    let last = streams.poll_event();
    assert_eq!(last, Some(TcpEvent::Closed(id, CloseReason::Finished)));
    assert_eq!(streams.connections(), 0);
}

#[test]
fn a_slow_reader_gets_every_byte_once() {
    let (mut streams, address) = listening();
    let mut peer = Peer::connect(address).unwrap();
    let [id] = accept(&mut streams, 1)[..] else {
        panic!("one connection");
    };
    let whole: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_be_bytes).collect();
    let want = whole.clone();
    let reading = std::thread::spawn(move || {
        let mut got = vec![0; want.len()];
        peer.read_exact(&mut got).unwrap();
        got == want
    });
    let mut offset = 0;
    turns(&mut streams, |streams, _| {
        let mut turn = 0;
        while offset < whole.len() {
            let sent = streams.send_with(streams.now, id, usize::MAX, |room| {
                let count = room.len().min(whole.len() - offset);
                room[..count].copy_from_slice(&whole[offset..][..count]);
                Ok::<_, ()>(count)
            });
            let Some(Ok(sent)) = sent.unwrap() else {
                break;
            };
            offset += sent;
            turn += sent;
        }
        assert!(turn <= MAX_SENT_PER_TURN, "{turn} bytes in one turn");
        offset == whole.len()
    });
    assert!(reading.join().unwrap());
}

#[test]
fn one_connection_leaves_its_turn_to_others() {
    let (mut streams, address) = listening();
    let _peer = Peer::connect(address).unwrap();
    let [id] = accept(&mut streams, 1)[..] else {
        panic!("one connection");
    };
    let mut sent = 0;
    while let Ok(Some(count)) = send(&mut streams, id, 0) {
        sent += count;
    }
    assert!(sent <= MAX_SENT_PER_TURN);
    if sent == MAX_SENT_PER_TURN {
        assert_eq!(streams.deadline(), Some(streams.now), "at once");
        streams.turn(streams.now).unwrap();
        assert!(streams.ready.contains(&TcpEvent::Writable(id)));
    }
    streams.sent = MAX_SENT_TOGETHER;
    assert_eq!(send(&mut streams, id, 0), Ok(None), "of all together");
}

#[test]
fn a_reset_is_reported() {
    let (mut streams, address) = listening();
    let peer = Peer::connect(address).unwrap();
    let [id] = accept(&mut streams, 1)[..] else {
        panic!("one connection");
    };
    set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
    drop(peer);
    turns(&mut streams, |streams, _| {
        streams.receive(id, &mut [0; 9]) == Err(TcpError::Unknown)
    });
    let last = streams.poll_event();
    assert_eq!(last, Some(TcpEvent::Closed(id, CloseReason::Reset)));
    assert_eq!(streams.receive(id, &mut [0; 9]), Err(TcpError::Unknown));
}

#[test]
fn the_largest_source_makes_room() {
    let (mut streams, address) = listening();
    streams.most = 8;
    let peers: Vec<Peer> = (0..8).map(|_| Peer::connect(address).unwrap()).collect();
    let ids = accept(&mut streams, 8);
    // The first one has another address, and the second one has made progress since.
    let [first, second, third, ..] = ids[..] else {
        panic!("eight connections");
    };
    streams.open.get_mut(&first).unwrap().source = Source::of([192, 0, 2, 1].into());
    streams.open.get_mut(&first).unwrap().since = Instant::ZERO;
    assert!(send(&mut streams, second, 0).unwrap().is_some());
    for connection in streams.open.values_mut() {
        connection.since = connection.since.max(Instant::from_micros(1));
    }
    streams.open.get_mut(&third).unwrap().since = Instant::ZERO;
    let _newcomer = Peer::connect(address).unwrap();
    let events = turns(&mut streams, |_, events| !accepted(events).is_empty());
    assert_eq!(streams.connections(), 8);
    let closed = TcpEvent::Closed(third, CloseReason::Evicted);
    assert!(events.contains(&closed), "{events:?}");
    drop(peers);
}

#[test]
fn without_descriptors_accepting_pauses() {
    let (mut streams, address) = listening();
    let _peer = Peer::connect(address).unwrap();
    streams.turn(Instant::from_micros(1)).unwrap();
    streams.paused_until = Some(Instant::from_micros(1000));
    streams.acceptable = true;
    assert_eq!(streams.deadline(), streams.paused_until);
    streams.turn(Instant::from_micros(999)).unwrap();
    assert!(streams.acceptable, "still pending");
    streams.turn(Instant::from_micros(1000)).unwrap();
    assert!(!streams.acceptable);
    let error = io::Error::from(ErrorKind::Other);
    assert!(!streams.spare_descriptors(&error), "one connection remains");
    let peers: Vec<Peer> = (0..SPARE_DESCRIPTORS + 2)
        .map(|_| Peer::connect(address).unwrap())
        .collect();
    accept(&mut streams, peers.len());
    assert!(streams.spare_descriptors(&error));
    assert_eq!((streams.connections(), streams.most), (3, 3));
    streams.stop_listening();
    assert!(Peer::connect(address).is_err());
}

#[test]
fn addresses_in_use_are_refused_unless_shared() {
    let (_streams, address) = listening();
    assert!(KernelStreams::listen(&[address], false).is_err());
    let any = ["[::1]:0".parse().unwrap()];
    let shared = KernelStreams::listen(&any, true).unwrap();
    let address = shared.addresses().next().unwrap();
    assert!(KernelStreams::listen(&[address], true).is_ok());
    let many = vec!["127.0.0.1:0".parse().unwrap(); MAX_KERNEL_LISTENERS + 1];
    assert!(KernelStreams::listen(&many, false).is_err());
}
