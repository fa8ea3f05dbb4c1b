//! The flow of a packet: packets that may have to reach the same backend.
//!
//! In: an IP packet for a service. Out: a [`Flow`], which is a hash and whether its packets must
//! reach one backend. Packets of the transport need not: any backend answers any of them. TCP must,
//! in every segment, and so do echoes, so that `ping` measures one backend.
//! The hash is keyed: an observer of packets cannot construct collisions.

use core::hash::Hasher as _;
use std::net::IpAddr;

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, UdpHeader};
use siphasher::sip::SipHasher13;

use super::counters::RedirectDrop;
use crate::wire::ip::IpView;
use crate::wire::segment::ToServer;

/// The input to the choice of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Hash of the connection, or of addresses and ports.
    pub hash: u64,
    /// Whether all packets of the flow must reach one backend.
    pub sticky: bool,
}

/// Computes flows; equal seeds give equal hashes.
#[derive(Clone, Copy, Debug)]
pub struct Flows(SipHasher13);

impl Flows {
    /// Creates a flow hash; `seed` is that of the configuration.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(SipHasher13::new_with_keys(seed, 0x6865_6164_7761_7465))
    }

    /// Returns the flow of a packet.
    ///
    /// # Errors
    /// [`RedirectDrop::Malformed`], [`RedirectDrop::NotTransport`], [`RedirectDrop::BadTcp`],
    /// [`RedirectDrop::IcmpNotEcho`], [`RedirectDrop::UnknownProtocol`].
    pub fn of(&self, ip: &IpView<'_>) -> Result<Flow, RedirectDrop> {
        match (IpNumber(ip.protocol), ip.dst) {
            (IpNumber::UDP, _) => {
                let datagram = ip.payload.get(UdpHeader::LEN..).unwrap_or_default();
                self.of_datagram(datagram)
            }
            (IpNumber::TCP, _) if ip.payload.len() < MIN_TCP_BYTES => Err(RedirectDrop::BadTcp),
            (IpNumber::TCP, _) => {
                let ports = ip.payload.get(..4).unwrap_or_default();
                Ok(self.of_addresses(ip, ports))
            }
            (IpNumber::ICMP, IpAddr::V4(_)) => self.of_echo(ip, ICMP_ECHO),
            (IpNumber::IPV6_ICMP, IpAddr::V6(_)) => self.of_echo(ip, ICMPV6_ECHO),
            _ => Err(RedirectDrop::UnknownProtocol),
        }
    }

    /// Returns the flow of a packet of the transport.
    ///
    /// # Errors
    /// [`RedirectDrop::NotTransport`].
    pub fn of_datagram(&self, datagram: &[u8]) -> Result<Flow, RedirectDrop> {
        let affinity = ToServer::affinity(datagram).ok_or(RedirectDrop::NotTransport)?;
        let mut hasher = self.0;
        hasher.write_u64(affinity);
        Ok(Flow {
            hash: hasher.finish(),
            sticky: false,
        })
    }

    fn of_echo(&self, ip: &IpView<'_>, echo_request: u8) -> Result<Flow, RedirectDrop> {
        match ip.payload.first() == Some(&echo_request) {
            true => Ok(self.of_addresses(ip, &[])),
            false => Err(RedirectDrop::IcmpNotEcho),
        }
    }

    fn of_addresses(&self, ip: &IpView<'_>, ports: &[u8]) -> Flow {
        let mut hasher = self.0;
        hasher.write_u8(ip.protocol);
        for address in [ip.src, ip.dst] {
            match address {
                IpAddr::V4(address) => hasher.write(&address.octets()),
                IpAddr::V6(address) => hasher.write(&address.octets()),
            }
        }
        hasher.write(ports);
        Flow {
            hash: hasher.finish(),
            sticky: true,
        }
    }
}

/// Parses an ICMP "unreachable" with a valid checksum: the destination of the quoted packet, and its
/// UDP payload, if it is quoted whole (RFC 792, RFC 4443 §3.1).
#[must_use]
pub fn unreachable<'a>(ip: &IpView<'a>) -> Option<(IpAddr, &'a [u8])> {
    let kind = match IpNumber(ip.protocol) {
        IpNumber::ICMP => ICMP_UNREACHABLE,
        IpNumber::IPV6_ICMP => ICMPV6_UNREACHABLE,
        _ => return None,
    };
    if ip.payload.first() != Some(&kind) || !ip.checksum_holds() {
        return None;
    }
    // "Fragmentation needed" does not mean that the destination is unreachable.
    if kind == ICMP_UNREACHABLE && ip.payload.get(1) == Some(&ICMP_TOO_LONG) {
        return None;
    }
    let quote = ip.payload.get(ICMP_HEADER..)?;
    let (to, protocol, header) = if ip.dst.is_ipv4() {
        let header = Ipv4HeaderSlice::from_slice(quote).ok()?;
        let to = IpAddr::from(header.destination_addr());
        (to, header.protocol(), header.slice().len())
    } else {
        let header = Ipv6HeaderSlice::from_slice(quote).ok()?;
        let to = IpAddr::from(header.destination_addr());
        (to, header.next_header(), header.slice().len())
    };
    // A router may pad the quote (RFC 4884 §4.1): the length in the UDP header counts.
    let datagram = quote.get(header..)?;
    let length = u16::from_be_bytes(*datagram.get(4..)?.first_chunk()?);
    let payload = datagram.get(UdpHeader::LEN..usize::from(length))?;
    (protocol == IpNumber::UDP).then_some((to, payload))
}

/// Bytes of a TCP header without options.
const MIN_TCP_BYTES: usize = 20;

const ICMP_ECHO: u8 = 8;
const ICMPV6_ECHO: u8 = 128;
const ICMP_UNREACHABLE: u8 = 3;
const ICMPV6_UNREACHABLE: u8 = 1;

/// Code of "fragmentation needed", a type of its own in ICMPv6.
const ICMP_TOO_LONG: u8 = 4;

/// Bytes before the quote in an ICMP error, in either version.
const ICMP_HEADER: usize = 8;
