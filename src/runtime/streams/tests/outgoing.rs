//! Outgoing connections over the loopback device, to listeners of the standard library.

use std::net::TcpListener as Listener;

use super::*;
use crate::host::streams::OutgoingStreams;

/// Collects events until one of the connection comes, and returns it.
fn event(streams: &mut KernelStreams, id: TcpId) -> TcpEvent {
    let of_it = |event: &TcpEvent| match *event {
        TcpEvent::Connected(of) | TcpEvent::Closed(of, _) => of == id,
        TcpEvent::Accepted { .. } | TcpEvent::Readable(_) | TcpEvent::Writable(_) => false,
    };
    let events = turns(streams, |_, events| events.iter().any(of_it));
    events.into_iter().find(of_it).unwrap()
}

/// An address where nothing listens.
fn closed_port() -> SocketAddr {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn connect(streams: &mut KernelStreams, to: SocketAddr) -> TcpId {
    OutgoingStreams::connect(streams, Instant::ZERO, to).unwrap()
}

#[test]
fn a_request_goes_out_and_its_response_comes_back() {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let mut streams = KernelStreams::outgoing().unwrap();
    let id = connect(&mut streams, listener.local_addr().unwrap());
    assert_eq!(
        OutgoingStreams::send(&mut streams, id, b"early"),
        Err(TcpError::NotOpen)
    );
    assert_eq!(OutgoingStreams::receive(&mut streams, id, &mut [0]), Ok(0));
    assert_eq!(event(&mut streams, id), TcpEvent::Connected(id));
    let (mut peer, _) = listener.accept().unwrap();
    assert_eq!(
        OutgoingStreams::send(&mut streams, id, b"request"),
        Ok("request".len())
    );
    let mut got = [0; 7];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"request");
    peer.write_all(b"response").unwrap();
    drop(peer);
    let (mut response, mut piece) = (Vec::new(), [0; 3]);
    turns(&mut streams, |streams, _| {
        let received = OutgoingStreams::receive(streams, id, &mut piece);
        response.extend_from_slice(&piece[..received.unwrap_or(0)]);
        received == Err(TcpError::Finished)
    });
    assert_eq!(response, b"response");
    OutgoingStreams::abort(&mut streams, id);
    assert_eq!(streams.connections(), 0);
}

#[test]
fn a_refused_connection_is_reported_once_and_costs_no_more_turns() {
    let mut streams = KernelStreams::outgoing().unwrap();
    let id = connect(&mut streams, closed_port());
    let refused = TcpEvent::Closed(id, CloseReason::Reset);
    assert_eq!(event(&mut streams, id), refused);
    assert_eq!(streams.connections(), 0);
    assert_eq!(OutgoingStreams::deadline(&streams), None);
    for n in 0..10 {
        streams.collect(Instant::from_micros(n));
        assert_eq!(OutgoingStreams::poll_event(&mut streams), None);
    }
}

#[test]
fn an_attempt_that_is_given_up_is_not_accepted_as_a_connection() {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let mut streams = KernelStreams::outgoing().unwrap();
    let id = connect(&mut streams, listener.local_addr().unwrap());
    assert_eq!(event(&mut streams, id), TcpEvent::Connected(id));
    let (mut peer, _) = listener.accept().unwrap();
    OutgoingStreams::abort(&mut streams, id);
    let error = peer.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "no FIN");
}

#[test]
fn connections_and_the_bytes_of_a_turn_are_bounded() {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut streams = KernelStreams::outgoing().unwrap();
    streams.most = 1;
    let id = connect(&mut streams, address);
    assert_eq!(
        OutgoingStreams::connect(&mut streams, Instant::ZERO, address),
        Err(TcpError::TooManyConnections)
    );
    assert_eq!(event(&mut streams, id), TcpEvent::Connected(id));
    let (mut peer, _) = listener.accept().unwrap();
    let sending = std::thread::spawn(move || peer.write_all(&vec![7; 8 << 20]));
    let mut all = 0;
    turns(&mut streams, |streams, _| {
        let (mut turn, mut piece) = (0, vec![0; 64 << 10]);
        while let Ok(count @ 1..) = OutgoingStreams::receive(streams, id, &mut piece) {
            turn += count;
        }
        assert!(turn < MAX_RECEIVED_PER_TURN + piece.len(), "{turn} bytes");
        if turn >= MAX_RECEIVED_PER_TURN {
            assert_eq!(OutgoingStreams::deadline(streams), Some(streams.now));
        }
        all += turn;
        all == 8 << 20
    });
    sending.join().unwrap().unwrap();
}
