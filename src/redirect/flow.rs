//! What a packet is to be kept together with.
//!
//! In: an IP packet for a service. Out: a [`Flow`], which is a hash and whether the packets of that
//! hash must meet one backend. Packets of the transport need not: any backend answers any of them.
//! TCP must, whatever the segment, and echoes do, so that `ping` tells of one backend.
//! The hash is keyed: who sees only packets cannot find flows that meet.

use core::hash::Hasher as _;
use std::net::IpAddr;

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, UdpHeader};
use siphasher::sip::SipHasher13;

use super::counters::RedirectDrop;
use crate::wire::ip::IpView;
use crate::wire::segment::ToServer;

/// What a choice of backend goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Of the connection, or of addresses and ports.
    pub hash: u64,
    /// Whether every packet of the flow must go to one backend.
    pub sticky: bool,
}

/// Reads flows; equal seeds give equal hashes.
#[derive(Clone, Copy, Debug)]
pub struct Flows(SipHasher13);

impl Flows {
    /// `seed` is that of the configuration.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(SipHasher13::new_with_keys(seed, 0x6865_6164_7761_7465))
    }

    /// The flow of a packet.
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

    /// The flow of a packet of the transport.
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

/// If `ip` is an ICMP "unreachable" whose checksum holds: where the packet was going that it quotes,
/// and that packet's UDP payload as far as it is quoted (RFC 792, RFC 4443 §3.1).
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
    // A packet that was too long says nothing about who it was for.
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
    let payload = quote.get(header + UdpHeader::LEN..)?;
    (protocol == IpNumber::UDP).then_some((to, payload))
}

/// Bytes of a TCP header without options.
const MIN_TCP_BYTES: usize = 20;

const ICMP_ECHO: u8 = 8;
const ICMPV6_ECHO: u8 = 128;
const ICMP_UNREACHABLE: u8 = 3;
const ICMPV6_UNREACHABLE: u8 = 1;

/// Code of "fragmentation needed"; ICMPv6 has a type for that.
const ICMP_TOO_LONG: u8 = 4;

/// Bytes before the quote in an ICMP error, either version.
const ICMP_HEADER: usize = 8;
