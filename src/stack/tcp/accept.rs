//! Segments of peers: those of connections in the table, and those that begin one.
//!
//! In: TCP segments with valid checksums. Out: connections that have something to send or an event,
//! and packets. A SYN is answered with a cookie and forgotten. A connection enters the table with
//! the first segment that acknowledges the cookie and carries bytes or FIN, so a peer that connects
//! and says nothing takes no place.

use std::net::{IpAddr, SocketAddr};

use etherparse::{PacketBuilder, TcpHeader, TcpOptionElement, TcpSlice};
use smoltcp::iface::SocketSet;

use super::connection::{Cause, Side, TcpConnection, new_socket};
use super::cookie::Offer;
use super::replay::{Isns, Replay};
use super::{Connections, Pair, SERVER, SERVER_RECEIVE_BYTES, SMALLEST_SEND_BYTES, TcpId};
use crate::stack::DropReason;
use crate::stack::queue::{Carrier, Lane};
use crate::time::Instant;
use crate::wire::ip::IpView;

/// Hop limit of packets built here, as smoltcp's.
const HOPS: u8 = 64;

/// Bytes of an IP and a TCP header without options.
const HEADERS_V4: u16 = 40;
const HEADERS_V6: u16 = 60;

impl Connections {
    /// Handles a segment.
    pub(crate) fn handle_segment(
        &mut self,
        now: Instant,
        carrier: &mut Carrier,
        packet: &[u8],
        ip: &IpView<'_>,
        tcp: &TcpSlice<'_>,
    ) -> Result<(), DropReason> {
        let pair = Pair {
            local: SocketAddr::new(ip.dst, tcp.destination_port()),
            remote: SocketAddr::new(ip.src, tcp.source_port()),
        };
        let opens = tcp.syn() && !tcp.ack() && !tcp.rst();
        let mut known = self.find(pair);
        if let Some(id) = known.filter(|&id| opens && self.is_waiting(id)) {
            self.forget(id);
            known = None;
        }
        let id = match known {
            Some(id) => id,
            None if opens && self.listens(pair.local) => {
                return self.answer_syn(now, carrier, pair, tcp);
            }
            None => match self.redeem(now, carrier, pair, tcp)? {
                Redeemed::Connection(id) => id,
                Redeemed::Later => return Ok(()),
                // smoltcp refuses it, unless it is a reset itself.
                Redeemed::Stranger => {
                    let mut nobody = SocketSet::new(Vec::new());
                    return carrier.ingress(now, packet, Lane::Plain, &mut nobody);
                }
            },
        };
        let Some(connection) = self.table.get_mut(&id) else {
            return Ok(());
        };
        carrier.ingress(now, packet, connection.lane, connection.sockets())?;
        connection.window = tcp.window_size();
        self.observe(now, id, Cause::Ingress);
        self.wake(id);
        Ok(())
    }

    /// Answers a SYN with a cookie.
    fn answer_syn(
        &self,
        now: Instant,
        carrier: &mut Carrier,
        pair: Pair,
        tcp: &TcpSlice<'_>,
    ) -> Result<(), DropReason> {
        if carrier.queue().is_full() {
            return Err(DropReason::QueueFull);
        }
        let offer = Offer::of_options(tcp.options());
        let peer = tcp.sequence_number();
        let cookie = self.cookies.issue(now, pair, peer, offer);
        let window = u16::try_from(SERVER_RECEIVE_BYTES).unwrap_or(u16::MAX);
        let Pair { local, remote } = pair;
        let mut header = TcpHeader::new(local.port(), remote.port(), cookie, window);
        (header.syn, header.ack) = (true, true);
        header.acknowledgment_number = peer.wrapping_add(1);
        let own = TcpOptionElement::MaximumSegmentSize(own_mss(local, carrier.mtu()));
        // The window of requests needs no scale, but the peer's is scaled only if ours is.
        let scale = offer.scale.map(|_| TcpOptionElement::WindowScale(0));
        let options = scale.map_or(vec![own.clone()], |scale| vec![own.clone(), scale]);
        let builder = match (local.ip(), remote.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                PacketBuilder::ipv4(from.octets(), to.octets(), HOPS)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                PacketBuilder::ipv6(from.octets(), to.octets(), HOPS)
            }
            _ => return Err(DropReason::BadSource),
        };
        let mut packet = Vec::new();
        let written = header
            .set_options(&options)
            .is_ok()
            .then(|| builder.tcp_header(header).write(&mut packet, &[]));
        if matches!(written, Some(Ok(()))) {
            carrier.queue().push(packet);
        }
        Ok(())
    }

    /// Begins the connection whose cookie a segment acknowledges.
    fn redeem(
        &mut self,
        now: Instant,
        carrier: &mut Carrier,
        pair: Pair,
        tcp: &TcpSlice<'_>,
    ) -> Result<Redeemed, DropReason> {
        if !tcp.ack() || tcp.syn() || tcp.rst() || !self.listens(pair.local) {
            return Ok(Redeemed::Stranger);
        }
        let isns = Isns {
            local: tcp.acknowledgment_number().wrapping_sub(1),
            remote: tcp.sequence_number().wrapping_sub(1),
        };
        let offer = self.cookies.redeem(now, pair, isns.remote, isns.local);
        let Some(mut offer) = offer else {
            return Ok(Redeemed::Stranger);
        };
        if tcp.payload().is_empty() && !tcp.fin() {
            return Ok(Redeemed::Later);
        }
        if !self.make_room(now, carrier) {
            return Err(DropReason::ConnectionsFull);
        }
        offer.mss = offer.mss.min(own_mss(pair.local, carrier.mtu()));
        let mss = usize::from(offer.mss);
        let socket = new_socket(SERVER_RECEIVE_BYTES, SMALLEST_SEND_BYTES, SERVER);
        let connection = Replay::begin(now, pair, isns, offer, socket).and_then(|replay| {
            let (side, lane) = (Side::Server { isns, offer }, Lane::Coalescing { mss });
            TcpConnection::new(now, replay.sockets, side, lane, pair)
        });
        let connection = connection.ok_or(DropReason::BadTcp)?;
        Ok(Redeemed::Connection(self.insert(connection)))
    }
}

/// The result of a segment without a connection.
enum Redeemed {
    /// It begins this one.
    Connection(TcpId),
    /// It acknowledges a cookie, without bytes: the next one begins the connection.
    Later,
    /// It belongs to no connection.
    Stranger,
}

/// Returns the largest payload of a segment at our end.
fn own_mss(local: SocketAddr, mtu: u16) -> u16 {
    mtu.saturating_sub(if local.is_ipv4() {
        HEADERS_V4
    } else {
        HEADERS_V6
    })
}
