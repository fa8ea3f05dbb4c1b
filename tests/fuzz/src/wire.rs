//! Targets of `wire`: the transport's packets both ways, and IP and UDP headers.
//!
//! In: any bytes. Laws: nothing panics; whatever was read, written and read again, is the same.

use headwater::internals::wire::flight::Ecn;
use headwater::internals::wire::ip::{self, Checksum, IpView, MAX_PACKET};
use headwater::internals::wire::segment::{Response, ToClient, ToServer};

/// A datagram as a server receives it.
pub fn to_server(data: &[u8]) {
    let Ok(value) = ToServer::parse(data) else {
        return;
    };
    let mut again = Vec::new();
    match &value {
        ToServer::Open(open) => open.emit(&mut again),
        ToServer::Request(request) => request.emit(&mut again),
    }
    assert_eq!(
        ToServer::parse(&again).as_ref(),
        Ok(&value),
        "written and read again"
    );
}

/// A datagram as a client receives it.
pub fn to_client(data: &[u8]) {
    let Ok(value) = ToClient::parse(data) else {
        return;
    };
    let mut again = Vec::new();
    match value {
        ToClient::Response(response) => return check_response(data, &response),
        ToClient::Challenge(challenge) => challenge.emit(&mut again),
        ToClient::Probed(probed) => probed.emit(&mut again),
        ToClient::Wait(wait) => wait.emit(&mut again),
    }
    assert_eq!(ToClient::parse(&again), Ok(value), "written and read again");
}

fn check_response(data: &[u8], response: &Response<'_>) {
    let mut total = 0;
    for (offset, bytes) in response.chunks() {
        assert!(offset < 1 << 48, "offsets have 48 bits");
        total += bytes.len();
    }
    assert!(total <= data.len(), "no byte stands in two chunks");
    let mut again = Vec::new();
    response
        .header
        .emit(&mut again, response.continuation, response.user);
    let Ok(ToClient::Response(second)) = ToClient::parse(&again) else {
        panic!("the header does not parse again")
    };
    assert_eq!(second.header, response.header);
    assert_eq!(
        (second.continuation, second.user),
        (response.continuation, response.user)
    );
}

/// An IP packet as a device gives it.
pub fn ip(data: &[u8]) {
    let Ok(view) = IpView::parse(data) else {
        assert!(ip::parse_udp(data).is_err());
        return;
    };
    assert!(view.payload.len() <= data.len());
    assert_eq!(view.src.is_ipv4(), view.dst.is_ipv4());
    let _ = view.checksum_holds();
    if let Ok(trusted) = view.udp(Checksum::Trusted) {
        assert!(trusted.payload.len() + 8 == view.payload.len());
    }
    let Ok(Some(udp)) = ip::parse_udp(data) else {
        return;
    };
    let mut packet = vec![0; MAX_PACKET];
    let length = ip::emit_udp(udp.path, udp.ecn, udp.payload, 7, &mut packet)
        .expect("what was read can be written");
    assert_eq!(
        ip::parse_udp(&packet[..length]),
        Ok(Some(udp)),
        "written and read again"
    );
    assert_eq!(Ecn::from_bits(udp.ecn.bits()), udp.ecn);
}
