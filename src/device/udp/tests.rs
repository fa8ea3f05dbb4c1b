//! Tests over the loopback device, which need no privileges.

use super::*;
use crate::wire::ip::MAX_PACKET;

fn loopback(v6: bool) -> SocketAddr {
    let ip: IpAddr = match v6 {
        true => Ipv6Addr::LOCALHOST.into(),
        false => Ipv4Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, 0)
}

/// Datagrams as received: source, destination, ECN and payload; and the number of reads.
#[derive(Debug, Default)]
struct Got {
    paths: Vec<UdpPath>,
    ecn: Vec<Ecn>,
    datagrams: Vec<Vec<u8>>,
    reads: usize,
}

/// Receives until `count` datagrams are there, or none arrives for ten seconds.
fn receive(device: &mut UdpSockets, count: usize) -> Got {
    let mut got = Got::default();
    let mut buffer = vec![0; MAX_PACKET];
    let mut patience = 1000;
    while got.datagrams.len() < count && patience > 0 {
        let Some(received) = device.receive(&mut buffer).unwrap() else {
            wait(device);
            patience -= 1;
            continue;
        };
        let udp = received.udp.expect("a socket has no other packets");
        let view = udp.view(&buffer[..received.len]);
        got.reads += 1;
        got.paths.push(udp.path);
        got.ecn.push(udp.ecn);
        got.datagrams
            .extend(view.datagrams(received.segment).map(<[u8]>::to_vec));
    }
    got
}

/// Waits until the device is readable, 10 ms at most.
fn wait(device: &UdpSockets) {
    let mut events = Vec::with_capacity(1);
    let pause = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    epoll::wait(
        &device.epoll,
        rustix::buffer::spare_capacity(&mut events),
        Some(&pause),
    )
    .unwrap();
}

fn flight(path: UdpPath, ecn: Ecn, segment: usize, len: usize) -> Flight {
    let payload: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
    Flight {
        path,
        ecn,
        segment,
        payload: payload.into(),
    }
}

fn datagrams(flight: &Flight) -> Vec<Vec<u8>> {
    flight.datagrams().map(|one| one.into_owned()).collect()
}

#[test]
fn flights_go_both_ways_with_their_ecn_field() {
    for v6 in [false, true] {
        let mut server = UdpSockets::listen(&[loopback(v6)], false).unwrap();
        let service = server.addresses().next().unwrap();
        let mut client = UdpSockets::connect(None).unwrap();
        let unspecified = match v6 {
            true => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
            false => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        };
        let path = UdpPath {
            src: unspecified,
            dst: service,
        };
        for ecn in [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce] {
            let request = flight(path, ecn, 500, 500);
            client.send_flight(&request).unwrap();
            let got = receive(&mut server, 1);
            assert_eq!((got.datagrams, got.ecn), (datagrams(&request), vec![ecn]));
            assert_eq!(got.paths[0].dst, service);
            assert_eq!(got.paths[0].src.ip(), service.ip(), "loopback");
            let answer = flight(got.paths[0].reversed(), ecn, 1400, 44 * 1400 - 9);
            server.send_flight(&answer).unwrap();
            let got = receive(&mut client, 44);
            assert_eq!(got.datagrams, datagrams(&answer));
            assert!(got.ecn.iter().all(|one| *one == ecn), "{:?}", got.ecn);
            assert!(got.paths.iter().all(|one| *one == path.reversed()));
            assert!(got.reads < 44, "{} reads: not coalesced", got.reads);
        }
        assert_eq!((server.send_drops(), client.send_drops()), (0, 0));
    }
}

#[test]
fn one_device_has_sockets_of_both_families() {
    let mut server = UdpSockets::listen(&[loopback(false), loopback(true)], false).unwrap();
    let services: Vec<_> = server.addresses().collect();
    let mut client = UdpSockets::connect(None).unwrap();
    for round in 0..MAX_READS_IN_A_ROW + 2 {
        for service in &services {
            let src = SocketAddr::new(loopback(service.is_ipv6()).ip(), 0);
            let path = UdpPath { src, dst: *service };
            client
                .send_flight(&flight(path, Ecn::Ect0, 9, 9 + round % 2))
                .unwrap();
        }
    }
    let mut got = receive(&mut server, 3 * (MAX_READS_IN_A_ROW + 2));
    let first = got.paths.first().unwrap().dst;
    let run = got
        .paths
        .iter()
        .take_while(|path| path.dst == first)
        .count();
    assert_eq!(
        run, MAX_READS_IN_A_ROW,
        "then the other socket has its turn"
    );
    got.paths.sort_unstable();
    got.paths.dedup();
    assert_eq!(got.paths.len(), 2);
    for path in got.paths {
        let answer = flight(path.reversed(), Ecn::NotEct, 30, 30);
        server.send_flight(&answer).unwrap();
        assert_eq!(receive(&mut client, 1).datagrams, datagrams(&answer));
    }
}

#[test]
fn a_wildcard_socket_answers_from_the_address_that_was_asked() {
    let mut server = UdpSockets::listen(&["0.0.0.0:0".parse().unwrap()], false).unwrap();
    let port = server.addresses().next().unwrap().port();
    let mut client = UdpSockets::connect(None).unwrap();
    for ip in ["127.0.0.1", "127.0.0.9"] {
        let dst = SocketAddr::new(ip.parse().unwrap(), port);
        let src = "0.0.0.0:0".parse().unwrap();
        client
            .send_flight(&flight(UdpPath { src, dst }, Ecn::NotEct, 9, 9))
            .unwrap();
        let asked = receive(&mut server, 1).paths[0];
        assert_eq!(asked.dst, dst);
        server
            .send_flight(&flight(asked.reversed(), Ecn::NotEct, 9, 9))
            .unwrap();
        assert_eq!(receive(&mut client, 1).paths[0].src, dst);
    }
}

#[test]
fn a_refused_write_disables_no_offload() {
    let mut server = UdpSockets::listen(&["0.0.0.0:0".parse().unwrap()], false).unwrap();
    let port = server.addresses().next().unwrap().port();
    let mut client = UdpSockets::connect(None).unwrap();
    let src = "0.0.0.0:0".parse().unwrap();
    let dst = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    client
        .send_flight(&flight(UdpPath { src, dst }, Ecn::NotEct, 9, 9))
        .unwrap();
    let back = receive(&mut server, 1).paths[0].reversed();
    // The kernel sends from no foreign address.
    let forged = UdpPath {
        src: SocketAddr::new([192, 0, 2, 1].into(), port),
        ..back
    };
    server
        .send_flight(&flight(forged, Ecn::Ect0, 100, 1000))
        .unwrap();
    assert_eq!(server.send_drops(), 10);
    // Nor segments that are longer than the MTU of the route, which is 65,536 bytes here.
    let large = flight(back, Ecn::Ect0, 65_508, 65_508);
    server.send_flight(&large).unwrap();
    assert_eq!(server.send_drops(), 11);
    let answer = flight(back, Ecn::Ect0, 1000, 40_000);
    server.send_flight(&answer).unwrap();
    let got = receive(&mut client, 40);
    assert_eq!(got.datagrams, datagrams(&answer));
    assert!(got.ecn.iter().all(|one| *one == Ecn::Ect0), "{:?}", got.ecn);
    assert!(got.reads < 40, "{} reads: not coalesced", got.reads);
}

#[test]
fn a_port_that_nobody_has_is_reported_and_others_are_served() {
    let dead = UdpSockets::listen(&[loopback(false)], false).unwrap();
    let nobody = dead.addresses().next().unwrap();
    drop(dead);
    let mut server = UdpSockets::listen(&[loopback(false)], false).unwrap();
    let mut client = UdpSockets::connect(None).unwrap();
    let src = "0.0.0.0:0".parse().unwrap();
    let lost = flight(UdpPath { src, dst: nobody }, Ecn::NotEct, 9, 9);
    client.send_flight(&lost).unwrap();
    let dst = server.addresses().next().unwrap();
    // It meets the pending error, and goes all the same.
    let good = flight(UdpPath { src, dst }, Ecn::NotEct, 7, 7);
    client.send_flight(&good).unwrap();
    assert_eq!(receive(&mut server, 1).datagrams, datagrams(&good));
    client.receive(&mut vec![0; MAX_PACKET]).unwrap();
    assert_eq!(client.poll_unreachable(), Some(nobody.ip()));
    assert_eq!(client.poll_unreachable(), None);
    assert_eq!(client.send_drops(), 0);
}

#[test]
fn sockets_that_cannot_be_opened_say_why() {
    let first = UdpSockets::listen(&[loopback(false)], false).unwrap();
    let taken = first.addresses().next().unwrap();
    let cases = [
        (vec![], "no address to listen on"),
        (vec![taken], "end the program that uses it"),
        (
            vec!["192.0.2.1:7600".parse().unwrap()],
            "use an address of this machine",
        ),
        (vec![taken; MAX_SOCKETS + 1], "use at most 16"),
    ];
    for (addresses, want) in cases {
        let error = UdpSockets::listen(&addresses, false).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn shared_sockets_have_one_address() {
    let first = UdpSockets::listen(&[loopback(false)], true).unwrap();
    let address = first.addresses().next().unwrap();
    let second = UdpSockets::listen(&[address], true).unwrap();
    assert_eq!(second.addresses().next(), Some(address));
    assert!(UdpSockets::listen(&[address], false).is_err());
}

#[test]
fn a_full_socket_is_watched_until_it_has_sent_what_waits() {
    let mut device = UdpSockets::connect(None).unwrap();
    let mut server = UdpSockets::listen(&[loopback(false)], false).unwrap();
    let dst = server.addresses().next().unwrap();
    let src = "0.0.0.0:0".parse().unwrap();
    let waiting = flight(UdpPath { src, dst }, Ecn::NotEct, 100, 250);
    // As after a write that the kernel took half of.
    device
        .write(0, |socket, _, _| socket.hold(&waiting, 100))
        .unwrap();
    let behind = flight(UdpPath { src, dst }, Ecn::NotEct, 50, 50);
    device.send_flight(&behind).unwrap();
    wait(&device);
    assert_eq!(device.receive(&mut vec![0; MAX_PACKET]).unwrap(), None);
    let mut want = datagrams(&waiting).split_off(1);
    want.extend(datagrams(&behind));
    assert_eq!(receive(&mut server, 3).datagrams, want);
    for n in 0..queue::MAX_WAITING_FLIGHTS + 2 {
        device
            .write(0, |socket, _, _| socket.hold(&waiting, 0))
            .unwrap();
        let over = (n + 1).saturating_sub(queue::MAX_WAITING_FLIGHTS) as u64;
        assert_eq!(
            device.send_drops(),
            3 * over,
            "a full queue drops whole flights"
        );
    }
}
