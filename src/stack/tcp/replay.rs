//! Puts a smoltcp socket into the middle of a connection, by replaying a handshake to it.
//!
//! In: addresses, both sequence numbers, the peer's options, and a new socket. Out: a set with that
//! socket, which behaves as if it had answered the peer's SYN itself. So a connection begins at the
//! acknowledgement of a SYN cookie, and so it gets larger buffers, which smoltcp cannot exchange.
//! smoltcp draws its initial sequence number from a generator whose seed is an argument. [`seed_for`]
//! inverts the generator; [`Replay::begin`] checks the number that smoltcp then chose, and fails if
//! another version draws differently.
//! Source: `rand.rs` and `socket/tcp.rs` of smoltcp 0.14.

use std::net::IpAddr;

use etherparse::{PacketBuilder, TcpHeader, TcpOptionElement, TcpSlice};
use smoltcp::iface::{Interface, SocketSet, SocketStorage};
use smoltcp::socket::tcp::Socket;

use super::{Pair, cookie::Offer, listen_endpoint};
use crate::stack::queue::{Egress, Lane, Phy, interface, smoltcp_time};
use crate::time::Instant;
use crate::wire::ip::IpView;

/// Hop limit of replayed packets, which smoltcp ignores.
const HOPS: u8 = 64;

/// The multiplier and the addend of smoltcp's generator.
const MULTIPLIER: u64 = 0xbb2e_fcec_3c39_611d;
const ADDEND: u64 = 0x7590_ef39;

/// The initial sequence numbers of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Isns {
    /// Ours.
    pub(super) local: u32,
    /// The peer's.
    pub(super) remote: u32,
}

/// A replayed handshake, and the way to replay more of the connection.
pub(super) struct Replay {
    interface: Interface,
    pair: Pair,
    pub(super) sockets: SocketSet<'static>,
}

impl Replay {
    /// Replays the SYN to `socket`, which must be closed. The socket then awaits the acknowledgement of
    /// our SYN. `None` if smoltcp chooses another sequence number.
    pub(super) fn begin(
        now: Instant,
        pair: Pair,
        isns: Isns,
        offer: Offer,
        mut socket: Socket<'static>,
    ) -> Option<Self> {
        let mut egress = Egress::default();
        let mut phy = phy(&mut egress);
        let interface = interface(now, &[pair.local.ip()], seed_for(isns.local), &mut phy);
        socket.listen(listen_endpoint(pair.local)).ok()?;
        let mut sockets = SocketSet::new(vec![SocketStorage::EMPTY]);
        sockets.add(socket);
        let mut replay = Self {
            interface,
            pair,
            sockets,
        };
        let mut syn = replay.header(isns.remote, u16::MAX);
        syn.syn = true;
        let mss = TcpOptionElement::MaximumSegmentSize(offer.mss);
        let scale = offer
            .scale
            .map_or(TcpOptionElement::Noop, TcpOptionElement::WindowScale);
        syn.set_options(&[mss, scale]).ok()?;
        replay.feed(now, syn, &[])?;
        let mut answer = Egress::default();
        let mut phy = self::phy(&mut answer);
        replay
            .interface
            .poll_egress(smoltcp_time(now), &mut phy, &mut replay.sockets);
        let packet = answer.pop()?;
        let view = IpView::parse(&packet.bytes).ok()?;
        let answer = TcpSlice::from_slice(view.payload).ok()?;
        (answer.syn() && answer.sequence_number() == isns.local).then_some(replay)
    }

    /// A header from the peer.
    pub(super) fn header(&self, sequence: u32, window: u16) -> TcpHeader {
        let Pair { local, remote } = self.pair;
        TcpHeader::new(remote.port(), local.port(), sequence, window)
    }

    /// Replays a segment of the peer.
    pub(super) fn feed(&mut self, now: Instant, header: TcpHeader, payload: &[u8]) -> Option<()> {
        let (from, to) = (self.pair.remote.ip(), self.pair.local.ip());
        let builder = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                PacketBuilder::ipv4(from.octets(), to.octets(), HOPS)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                PacketBuilder::ipv6(from.octets(), to.octets(), HOPS)
            }
            _ => return None,
        };
        let mut packet = Vec::with_capacity(128 + payload.len());
        builder
            .tcp_header(header)
            .write(&mut packet, payload)
            .ok()?;
        let mut egress = Egress::default();
        let mut phy = phy(&mut egress);
        phy.packet = Some(&packet);
        self.interface
            .poll_ingress_single(smoltcp_time(now), &mut phy, &mut self.sockets);
        Some(())
    }
}

/// A device whose packets go nowhere.
fn phy(egress: &mut Egress) -> Phy<'_> {
    Phy::new(Lane::Coalescing { mss: usize::MAX }, u16::MAX, egress)
}

/// Returns the seed with which smoltcp draws `number` second; first it draws an identification of
/// 16 bits, and again as long as that is zero. The number leaves 29 bits of the state open, so one of the
/// first states avoids that.
const fn seed_for(number: u32) -> u64 {
    let mut low = 0;
    loop {
        let second = (number as u64) << 29 | low;
        let first = before(second);
        let drawn = output(first);
        if (drawn ^ drawn >> 16) & 0xffff != 0 {
            return before(first);
        }
        low += 1;
    }
}

/// Returns what smoltcp's generator draws in a state. For one below 2^61 that is the state without its
/// last 29 bits.
const fn output(state: u64) -> u64 {
    (state >> (29 - (state >> 61))) & 0xffff_ffff
}

/// Returns the state before.
const fn before(state: u64) -> u64 {
    state.wrapping_sub(ADDEND).wrapping_mul(inverse(MULTIPLIER))
}

/// Returns the inverse of an odd number modulo 2^64, by Newton's iteration: each step doubles the
/// number of right bits, of which the number itself has three.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut step = 0;
    while step < 5 {
        let error = 2_u64.wrapping_sub(odd.wrapping_mul(inverse));
        inverse = inverse.wrapping_mul(error);
        step += 1;
    }
    inverse
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smoltcp::socket::tcp::{SocketBuffer, State};

    use super::*;

    #[test]
    fn the_inverse_is_one() {
        assert_eq!(MULTIPLIER.wrapping_mul(inverse(MULTIPLIER)), 1);
    }

    proptest! {
        #[test]
        fn smoltcp_takes_the_sequence_number(local: u32, remote: u32, v6: bool, scaled: bool) {
            let ends = if v6 { ["[fd00::1]:80", "[fd00::2]:5"] } else { ["10.0.0.1:80", "10.0.0.2:5"] };
            let [ours, theirs] = ends.map(|end| end.parse().unwrap());
            let pair = Pair { local: ours, remote: theirs };
            let buffer = || SocketBuffer::new(vec![0; 100]);
            let socket = Socket::new(buffer(), buffer());
            let isns = Isns { local, remote };
            let offer = Offer::new(Some(1460), scaled.then_some(7));
            let mut replay = Replay::begin(Instant::ZERO, pair, isns, offer, socket).unwrap();
            let mut header = replay.header(remote.wrapping_add(1), 500);
            (header.ack, header.acknowledgment_number) = (true, local.wrapping_add(1));
            replay.feed(Instant::ZERO, header, b"some bytes").unwrap();
            let (_, socket) = replay.sockets.iter_mut().next().unwrap();
            let smoltcp::socket::Socket::Tcp(socket) = socket;
            prop_assert_eq!(socket.state(), State::Established);
            prop_assert_eq!(socket.recv_queue(), 10);
        }
    }
}
