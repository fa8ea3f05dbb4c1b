//! A flood of requests, and a minimal packet forwarder, as a load and a baseline for redirectors.
//!
//! In: IP packets and time. Out: IP packets. The flood sends packets of one size that look like
//! requests of our transport, of several connections in turns, as fast as the device accepts them, and
//! ignores answers. The bounce rewrites the destination of each UDP packet over IPv4 for its own
//! address, and does nothing else. Neither allocates while it runs. For testbeds only.
//! Source: RFC 1624 for incremental checksum updates.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use etherparse::IpNumber;

use crate::host::{Machine, Transmit};
use crate::time::{Instant, Now};
use crate::wire::flight::{Ecn, UdpPath};
use crate::wire::ip::{EmitError, IpView, UdpTemplate, udp_headers};
use crate::wire::segment::Request;

/// Most connections of a flood; one packet of each is stored.
pub const MAX_CONNECTIONS: u32 = 4096;

/// Smallest packet, in bytes: IPv6 and UDP headers, and a header with the connection id.
pub const MIN_PACKET_BYTES: u16 = 100;

/// Sends as fast as possible for a time.
#[derive(Debug)]
pub struct Flood {
    packets: VecDeque<Vec<u8>>,
    began: Instant,
    until: Instant,
    ended: Option<Instant>,
    sent: u64,
}

impl Flood {
    /// Creates a flood along `path` from now on, of IP packets of `bytes` bytes.
    ///
    /// # Errors
    /// [`EmitError`] if the addresses are not of one family.
    pub fn new(
        now: Now,
        path: UdpPath,
        bytes: u16,
        connections: u32,
        time: Duration,
    ) -> Result<Self, EmitError> {
        let template = UdpTemplate::new(path, Ecn::NotEct)?;
        let length = usize::from(bytes.max(MIN_PACKET_BYTES)) - udp_headers(path.dst.ip());
        let connections = 1..=connections.min(MAX_CONNECTIONS);
        let packets = connections.map(|connection| template.packet(&request(connection, length)));
        Ok(Self {
            packets: packets.collect::<Result<_, _>>()?,
            began: now.instant,
            until: now.instant + time,
            ended: None,
            sent: 0,
        })
    }

    /// Whether its time is over.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.ended.is_some()
    }

    /// The number of packets passed to the device, and the time taken.
    #[must_use]
    pub fn sent(&self) -> (u64, Duration) {
        let ended = self.ended.unwrap_or(self.began);
        (self.sent, ended.saturating_since(self.began))
    }
}

/// Builds a datagram of this length with the header of a request.
fn request(connection: u32, length: usize) -> Vec<u8> {
    let mut datagram = Vec::new();
    let request = Request {
        upto: 1,
        reach: 1,
        ..Request::empty(u64::from(connection), 1400, 1)
    };
    request.emit(&mut datagram);
    datagram.resize(length, 0);
    datagram
}

impl Machine for Flood {
    fn handle_packet(&mut self, _now: Now, _packet: &[u8], _segment: Option<usize>) {}

    fn handle_timeout(&mut self, _now: Now) {}

    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        if now.instant >= self.until {
            self.ended.get_or_insert(now.instant);
            return None;
        }
        let packet = self.packets.pop_front()?;
        self.sent += 1;
        Some(Transmit::Packet(packet))
    }

    fn poll_timeout(&mut self, _now: Now) -> Option<(Instant, &'static str)> {
        (!self.is_done()).then_some((self.until, "end"))
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        self.packets.push_back(buffer);
    }
}

/// Forwards packets.
#[derive(Debug)]
pub struct Bounce {
    own: Ipv4Addr,
    to: Ipv4Addr,
    ready: Option<Vec<u8>>,
    spare: Vec<u8>,
}

impl Bounce {
    /// Creates a bounce that rewrites packets for `own` to `to`.
    #[must_use]
    pub const fn new(own: Ipv4Addr, to: Ipv4Addr) -> Self {
        Self {
            own,
            to,
            ready: None,
            spare: Vec::new(),
        }
    }
}

impl Machine for Bounce {
    fn handle_packet(&mut self, _now: Now, packet: &[u8], segment: Option<usize>) {
        let ours = IpView::parse(packet)
            .is_ok_and(|ip| ip.dst == IpAddr::V4(self.own) && ip.protocol == IpNumber::UDP.0);
        if !ours || segment.is_some() {
            return;
        }
        let mut copy = core::mem::take(&mut self.spare);
        copy.clear();
        copy.extend_from_slice(packet);
        self.ready = redirected(&mut copy, self.own, self.to).map(|()| copy);
    }

    fn handle_timeout(&mut self, _now: Now) {}

    fn poll_transmit(&mut self, _now: Now) -> Option<Transmit> {
        self.ready.take().map(Transmit::Packet)
    }

    fn poll_timeout(&mut self, _now: Now) -> Option<(Instant, &'static str)> {
        None
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        self.spare = buffer;
    }
}

/// Rewrites the destination of a valid UDP packet over IPv4 and updates both checksums. `None` if
/// the packet is too short.
fn redirected(packet: &mut [u8], from: Ipv4Addr, to: Ipv4Addr) -> Option<()> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    for at in [IPV4_CHECKSUM, header + UDP_CHECKSUM] {
        let field = packet.get_mut(at..at + 2)?;
        let checksum = u16::from_be_bytes(field.try_into().ok()?);
        field.copy_from_slice(&changed(checksum, from, to).to_be_bytes());
    }
    packet
        .get_mut(IPV4_DESTINATION..IPV4_DESTINATION + 4)?
        .copy_from_slice(&to.octets());
    Some(())
}

/// Updates a checksum for a changed address (RFC 1624 §3, equation 3).
fn changed(checksum: u16, from: Ipv4Addr, to: Ipv4Addr) -> u16 {
    let halves = |address: Ipv4Addr| {
        let [high, low] = [address.to_bits() >> 16, address.to_bits() & 0xffff];
        high + low
    };
    let mut sum = u32::from(!checksum) + (2 * 0xffff - halves(from)) + halves(to);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded to 16 bits.
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

// Offsets of fields in an IPv4 header and in a UDP header.
const IPV4_CHECKSUM: usize = 10;
const IPV4_DESTINATION: usize = 16;
const UDP_CHECKSUM: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixMillis;
    use crate::wire::ip::Checksum;
    use crate::wire::segment::ToServer;

    const fn at(micros: u64) -> Now {
        Now {
            instant: Instant::from_micros(micros),
            unix: UnixMillis::new(1_800_000_000_000),
        }
    }

    fn flood(bytes: u16, connections: u32) -> Flood {
        let path = UdpPath {
            src: "10.0.0.1:9000".parse().unwrap(),
            dst: "10.0.0.2:7600".parse().unwrap(),
        };
        Flood::new(at(0), path, bytes, connections, Duration::from_micros(50)).unwrap()
    }

    fn next(flood: &mut Flood, micros: u64) -> Option<Vec<u8>> {
        let Some(Transmit::Packet(packet)) = flood.poll_transmit(at(micros)) else {
            return None;
        };
        flood.recycle(packet.clone());
        Some(packet)
    }

    #[test]
    fn connections_take_turns_until_the_time_is_over() {
        for bytes in [MIN_PACKET_BYTES, 1438] {
            let mut flood = flood(bytes, 3);
            let packets: Vec<_> = (0..6).map(|n| next(&mut flood, n).unwrap()).collect();
            let seen = packets.iter().map(|packet| {
                assert_eq!(packet.len(), usize::from(bytes));
                let ip = IpView::parse(packet).unwrap();
                ToServer::affinity(ip.udp(Checksum::Verify).unwrap().payload)
            });
            assert!(seen.eq([1, 2, 3, 1, 2, 3].map(Some)), "{bytes}");
            assert!(!flood.is_done());
            assert_eq!(next(&mut flood, 50), None);
            assert!(flood.is_done() && flood.poll_timeout(at(50)).is_none());
            assert_eq!(flood.sent(), (6, Duration::from_micros(50)));
        }
    }

    #[test]
    fn so_many_connections_and_no_more() {
        let flood = flood(MIN_PACKET_BYTES, MAX_CONNECTIONS + 1);
        assert_eq!(flood.packets.len(), MAX_CONNECTIONS as usize);
    }

    #[test]
    fn what_is_passed_on_is_sound() {
        let own = Ipv4Addr::new(10, 0, 0, 2);
        for to in [[10, 9, 8, 7], [255, 255, 255, 254], [0, 0, 0, 1]].map(Ipv4Addr::from) {
            let mut bounce = Bounce::new(own, to);
            let mut flood = flood(200, 40);
            while let Some(packet) = next(&mut flood, 0).filter(|_| flood.sent < 40) {
                bounce.handle_packet(at(0), &packet, None);
                let Some(Transmit::Packet(passed)) = bounce.poll_transmit(at(0)) else {
                    panic!("nothing is passed on");
                };
                let [was, is] = [&packet, &passed].map(|packet| IpView::parse(packet).unwrap());
                assert_eq!(is.dst, IpAddr::V4(to));
                let udp = is.udp(Checksum::Verify).unwrap();
                assert_eq!(udp.payload, was.udp(Checksum::Verify).unwrap().payload);
                bounce.recycle(passed);
            }
        }
    }

    #[test]
    fn what_is_not_for_it_ends_there() {
        let mut bounce = Bounce::new(Ipv4Addr::new(10, 0, 0, 3), Ipv4Addr::new(10, 0, 0, 4));
        let packet = next(&mut flood(200, 1), 0).unwrap();
        bounce.handle_packet(at(0), &packet, None);
        bounce.handle_packet(at(0), &packet[..9], None);
        bounce.handle_packet(at(0), &[], None);
        assert_eq!(bounce.poll_transmit(at(0)), None);
    }
}
