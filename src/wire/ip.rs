//! IPv4, IPv6 and UDP headers: bytes to values and back.
//!
//! In: one whole IP packet from a device; out: a view that borrows from it, or a [`Malformed`]
//! reason. The other way: [`UdpTemplate`] builds the headers of a UDP path once and prepends them
//! to any number of payloads.
//! Nothing here panics on any input, allocates, fragments, or reassembles.
//! Sources: RFC 791, RFC 8200, RFC 768, RFC 1071 (checksum), RFC 6864 (identification), RFC 3168.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::err::{ipv4, ipv6};
use etherparse::{
    IpEcn, IpNumber, Ipv4Header, Ipv4HeaderSlice, Ipv6Header, Ipv6HeaderSlice, UdpHeader,
    UdpHeaderSlice,
};

use crate::wire::flight::{Ecn, UdpPath};

pub mod tcp;

/// Bytes of an IPv4 header without options and of a UDP header.
pub const UDP4_HEADERS: usize = Ipv4Header::MIN_LEN + UdpHeader::LEN;

/// Bytes of an IPv6 header and of a UDP header.
pub const UDP6_HEADERS: usize = Ipv6Header::LEN + UdpHeader::LEN;

/// Bytes of the IP and UDP headers of a datagram to or from `address`.
#[must_use]
pub const fn udp_headers(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => UDP4_HEADERS,
        IpAddr::V6(_) => UDP6_HEADERS,
    }
}

/// Largest UDP payload of a packet of `mtu` bytes to or from `address`.
#[must_use]
pub fn max_datagram(mtu: u16, address: IpAddr) -> u16 {
    let most = usize::from(mtu).saturating_sub(udp_headers(address));
    u16::try_from(most).unwrap_or(u16::MAX)
}

/// Hop limit (time to live) of emitted packets.
pub const HOP_LIMIT: u8 = 64;

/// Default MTU in bytes: that of Ethernet.
pub const DEFAULT_MTU: u16 = 1500;

/// Smallest MTU, in bytes: every IPv4 host accepts it (RFC 791).
pub const MIN_MTU: u16 = 576;

/// Smallest MTU with an IPv6 address, in bytes (RFC 8200 §5); below it the kernel disables IPv6.
pub const MIN_MTU_V6: u16 = 1280;

/// Largest IP packet by its length fields, and from any device, in bytes.
pub const MAX_PACKET: usize = Ipv6Header::LEN + 65_535;

/// The reason for rejecting a packet. The sender or the path is at fault; the receiver drops the
/// packet and counts the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the headers announce.
    #[error("packet is truncated")]
    Truncated,
    /// Neither version 4 nor 6.
    #[error("IP version is neither 4 nor 6")]
    BadVersion,
    /// A length field contradicts another, or is smaller than its own header.
    #[error("length fields contradict each other")]
    BadLength,
    /// The IPv4 header checksum is wrong.
    #[error("IPv4 header checksum is wrong")]
    BadHeaderChecksum,
    /// A fragment, in either version: nothing here reassembles.
    #[error("packet is a fragment")]
    Fragment,
    /// An IPv6 extension header precedes the transport header.
    #[error("IPv6 extension header is not supported")]
    UnsupportedExtension,
    /// The UDP checksum is wrong.
    #[error("UDP checksum is wrong")]
    BadUdpChecksum,
    /// The UDP checksum is zero, that is absent: forbidden over IPv6 (RFC 8200 §8.1), and rejected
    /// over IPv4 too, where one flipped bit could otherwise disable verification.
    #[error("UDP checksum is absent")]
    NoUdpChecksum,
}

/// The verification of a UDP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Verify it.
    Verify,
    /// Trust it: the device that coalesced the packet vouches for each segment.
    Trusted,
}

impl Checksum {
    /// Returns the mode for a packet from a device; `segment`: the segment size of a coalesced one.
    #[must_use]
    pub const fn of(segment: Option<usize>) -> Self {
        match segment {
            Some(_) => Self::Trusted,
            None => Self::Verify,
        }
    }
}

/// An IP packet with valid headers. Borrows from the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpView<'a> {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// The ECN field.
    pub ecn: Ecn,
    /// Protocol number of the payload (6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6).
    pub protocol: u8,
    /// The bytes after the IP header, up to its length.
    pub payload: &'a [u8],
}

/// A UDP datagram with valid headers. Borrows from the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpView<'a> {
    /// Source and destination.
    pub path: UdpPath,
    /// The ECN field of the IP header.
    pub ecn: Ecn,
    /// The UDP payload.
    pub payload: &'a [u8],
}

impl<'a> UdpView<'a> {
    /// Returns the UDP payloads: several if the device coalesced datagrams of `segment` bytes each,
    /// else one, which may be empty.
    pub fn datagrams(&self, segment: Option<usize>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let size = segment.unwrap_or(self.payload.len()).max(1);
        let empty = self.payload.is_empty().then_some(self.payload);
        self.payload.chunks(size).chain(empty)
    }
}

impl<'a> IpView<'a> {
    /// Parses the IP header of `packet`. Bytes beyond its length are ignored, since a link may pad.
    ///
    /// # Errors
    /// Every [`Malformed`] but those of UDP.
    pub fn parse(packet: &'a [u8]) -> Result<Self, Malformed> {
        match packet.first().map(|byte| byte >> 4) {
            None => Err(Malformed::Truncated),
            Some(4) => Self::parse_v4(packet),
            Some(6) => Self::parse_v6(packet),
            Some(_) => Err(Malformed::BadVersion),
        }
    }

    fn parse_v4(packet: &'a [u8]) -> Result<Self, Malformed> {
        let header = Ipv4HeaderSlice::from_slice(packet).map_err(|error| match error {
            ipv4::HeaderSliceError::Len(_) => Malformed::Truncated,
            ipv4::HeaderSliceError::Content(_) => Malformed::BadLength,
        })?;
        if fold(sum(header.slice())) != u16::MAX {
            return Err(Malformed::BadHeaderChecksum);
        }
        let total = usize::from(header.total_len());
        if total < header.slice().len() {
            return Err(Malformed::BadLength);
        }
        let payload = packet
            .get(header.slice().len()..total)
            .ok_or(Malformed::Truncated)?;
        if header.is_fragmenting_payload() {
            return Err(Malformed::Fragment);
        }
        Ok(Self {
            src: header.source_addr().into(),
            dst: header.destination_addr().into(),
            ecn: Ecn::from_bits(header.ecn().value()),
            protocol: header.protocol().0,
            payload,
        })
    }

    fn parse_v6(packet: &'a [u8]) -> Result<Self, Malformed> {
        let header = Ipv6HeaderSlice::from_slice(packet).map_err(|error| match error {
            ipv6::HeaderSliceError::Len(_) => Malformed::Truncated,
            ipv6::HeaderSliceError::Content(_) => Malformed::BadVersion,
        })?;
        let end = Ipv6Header::LEN + usize::from(header.payload_length());
        let payload = packet
            .get(Ipv6Header::LEN..end)
            .ok_or(Malformed::Truncated)?;
        let next = header.next_header();
        if next == IpNumber::IPV6_FRAGMENTATION_HEADER {
            return Err(Malformed::Fragment);
        }
        if next.is_ipv6_ext_header_value() {
            return Err(Malformed::UnsupportedExtension);
        }
        Ok(Self {
            src: header.source_addr().into(),
            dst: header.destination_addr().into(),
            ecn: Ecn::from_bits(header.ecn().value()),
            protocol: next.0,
            payload,
        })
    }

    /// Parses the payload as UDP, whatever `protocol` is.
    ///
    /// # Errors
    /// [`Malformed::Truncated`], [`Malformed::BadLength`], [`Malformed::NoUdpChecksum`],
    /// [`Malformed::BadUdpChecksum`].
    pub fn udp(&self, checksum: Checksum) -> Result<UdpView<'a>, Malformed> {
        let header = UdpHeaderSlice::from_slice(self.payload).map_err(|_| Malformed::Truncated)?;
        // RFC 768 would allow bytes after the datagram; no sender adds any, and no checksum covers
        // the IPv6 length field, so a difference means corruption.
        if usize::from(header.length()) != self.payload.len() {
            return Err(Malformed::BadLength);
        }
        if checksum == Checksum::Verify {
            if header.checksum() == 0 {
                return Err(Malformed::NoUdpChecksum);
            }
            if !self.checksum_holds() {
                return Err(Malformed::BadUdpChecksum);
            }
        }
        let payload = self
            .payload
            .get(UdpHeader::LEN..)
            .ok_or(Malformed::Truncated)?;
        Ok(UdpView {
            path: UdpPath {
                src: SocketAddr::new(self.src, header.source_port()),
                dst: SocketAddr::new(self.dst, header.destination_port()),
            },
            ecn: self.ecn,
            payload,
        })
    }

    /// Whether the checksum inside the payload is valid, for TCP, UDP and ICMPv6 together with the
    /// pseudo-header (RFC 8200 §8.1), for ICMP without.
    #[must_use]
    pub fn checksum_holds(&self) -> bool {
        let pseudo = if self.protocol == IpNumber::ICMP.0 {
            0
        } else {
            let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
            addresses(self.src, self.dst)
                .wrapping_add(word(length.to_be_bytes()))
                .wrapping_add(word([0, 0, 0, self.protocol]))
        };
        fold(pseudo.wrapping_add(sum(self.payload))) == u16::MAX
    }
}

/// Parses a whole packet; `None` if it is valid but not UDP.
///
/// # Errors
/// Every [`Malformed`].
pub fn parse_udp(packet: &[u8]) -> Result<Option<UdpView<'_>>, Malformed> {
    let ip = IpView::parse(packet)?;
    if ip.protocol != IpNumber::UDP.0 {
        return Ok(None);
    }
    ip.udp(Checksum::Verify).map(Some)
}

/// The reason why a packet cannot be emitted. The caller is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// Source and destination are of different families.
    #[error("source and destination address are of different families")]
    MixedFamilies,
    /// The payload does not fit the length fields.
    #[error("payload of {len} bytes does not fit an IP packet")]
    TooLong {
        /// Bytes of the payload.
        len: usize,
    },
    /// The buffer is too small.
    #[error("buffer of {have} bytes, {need} needed")]
    NoRoom {
        /// Bytes of the packet.
        need: usize,
        /// Bytes of the buffer.
        have: usize,
    },
}

/// The IP and UDP headers of one path, with the sums over their constant part.
///
/// Built once per flight; [`emit`](Self::emit) then patches lengths and checksums.
#[derive(Clone, Copy, Debug)]
pub struct UdpTemplate {
    bytes: [u8; UDP6_HEADERS],
    /// Length of IP and UDP header together.
    len: usize,
    /// Over the IPv4 header with length and identification zero.
    ip_sum: u64,
    /// Over addresses and protocol.
    pseudo_sum: u64,
    /// Over addresses, protocol and ports.
    udp_sum: u64,
}

impl UdpTemplate {
    /// Builds headers for datagrams of `path`: no options, "don't fragment", hop limit
    /// [`HOP_LIMIT`].
    ///
    /// # Errors
    /// [`EmitError::MixedFamilies`].
    pub fn new(path: UdpPath, ecn: Ecn) -> Result<Self, EmitError> {
        let udp = UdpHeader {
            source_port: path.src.port(),
            destination_port: path.dst.port(),
            length: 0,
            checksum: 0,
        }
        .to_bytes();
        let mut bytes = [0; UDP6_HEADERS];
        let len = match (path.src.ip(), path.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let ip = ipv4_header(src, dst, ecn).to_bytes();
                write(&mut bytes, ip.iter().chain(&udp))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let ip = ipv6_header(src, dst, ecn).to_bytes();
                write(&mut bytes, ip.iter().chain(&udp))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                return Err(EmitError::MixedFamilies);
            }
        };
        let (ip, udp) = bytes.split_at(len - UdpHeader::LEN);
        let pseudo_sum =
            addresses(path.src.ip(), path.dst.ip()).wrapping_add(word([0, 0, 0, IpNumber::UDP.0]));
        let udp_sum = pseudo_sum.wrapping_add(sum(udp));
        Ok(Self {
            bytes,
            len,
            ip_sum: sum(ip),
            pseudo_sum,
            udp_sum,
        })
    }

    /// The length of the headers, in bytes.
    #[must_use]
    pub const fn headers_len(&self) -> usize {
        self.len
    }

    /// Returns a packet with `payload` in a buffer of its own.
    ///
    /// # Errors
    /// [`EmitError::TooLong`].
    pub fn packet(&self, payload: &[u8]) -> Result<Vec<u8>, EmitError> {
        let mut packet = vec![0; self.len + payload.len()];
        self.emit(0, payload, &mut packet)?;
        Ok(packet)
    }

    /// Writes headers and `payload` into `out` and returns the packet's length. `ident` is the IPv4
    /// identification, meaningless in packets that may not be fragmented (RFC 6864 §4.1); IPv6 has
    /// none.
    ///
    /// # Errors
    /// [`EmitError::TooLong`], [`EmitError::NoRoom`]; `out` is then untouched.
    pub fn emit(&self, ident: u16, payload: &[u8], out: &mut [u8]) -> Result<usize, EmitError> {
        let prepared = self.headers(ident, payload.len())?;
        let need = self.len + payload.len();
        let have = out.len();
        let packet = out
            .get_mut(..need)
            .ok_or(EmitError::NoRoom { need, have })?;
        let (head, body) = packet.split_at_mut(self.len);
        body.copy_from_slice(payload);
        self.seal(prepared, head, body);
        Ok(need)
    }

    /// Writes headers before a payload of `payload` bytes, which is in `out` already, after room
    /// for them, and returns the packet.
    ///
    /// # Errors
    /// [`EmitError::TooLong`], [`EmitError::NoRoom`].
    pub fn enclose<'o>(&self, payload: usize, out: &'o mut [u8]) -> Result<&'o [u8], EmitError> {
        let prepared = self.headers(0, payload)?;
        let need = self.len + payload;
        let have = out.len();
        let packet = out
            .get_mut(..need)
            .ok_or(EmitError::NoRoom { need, have })?;
        let (head, body) = packet.split_at_mut(self.len);
        self.seal(prepared, head, body);
        Ok(packet)
    }

    /// Writes the headers with the checksum over `body`.
    fn seal(&self, (mut headers, length): (Headers, u64), head: &mut [u8], body: &[u8]) {
        // The length counts twice: in the pseudo-header and in the UDP header.
        let total = self
            .udp_sum
            .wrapping_add(2 * length)
            .wrapping_add(sum(body));
        put(&mut headers.bytes, self.len - 2, written(total));
        head.copy_from_slice(headers.as_slice());
    }

    /// Returns the headers for `payload` bytes with a partial UDP checksum, the sum over the
    /// pseudo-header, which the device completes.
    ///
    /// # Errors
    /// [`EmitError::TooLong`].
    pub fn partial(&self, payload: usize) -> Result<Headers, EmitError> {
        let (mut headers, length) = self.headers(0, payload)?;
        let pseudo = fold(self.pseudo_sum.wrapping_add(length));
        put(&mut headers.bytes, self.len - 2, pseudo.to_ne_bytes());
        Ok(headers)
    }

    /// Returns headers with lengths, without the UDP checksum; and the UDP length as part of a sum.
    fn headers(&self, ident: u16, payload: usize) -> Result<(Headers, u64), EmitError> {
        let too_long = EmitError::TooLong { len: payload };
        let udp_len = u16::try_from(UdpHeader::LEN + payload).map_err(|_| too_long)?;
        let mut bytes = self.bytes;
        let ip_len = self.len - UdpHeader::LEN;
        if ip_len == Ipv4Header::MIN_LEN {
            let total = u16::try_from(self.len + payload).map_err(|_| too_long)?;
            put(&mut bytes, 2, total.to_be_bytes());
            put(&mut bytes, 4, ident.to_be_bytes());
            let changed = half(total.to_be_bytes()) + half(ident.to_be_bytes());
            let checksum = !fold(self.ip_sum.wrapping_add(changed));
            put(&mut bytes, 10, checksum.to_ne_bytes());
        } else {
            put(&mut bytes, 4, udp_len.to_be_bytes());
        }
        put(&mut bytes, ip_len + 4, udp_len.to_be_bytes());
        let len = self.len;
        Ok((Headers { bytes, len }, half(udp_len.to_be_bytes())))
    }
}

/// The IP and UDP headers of one packet.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    bytes: [u8; UDP6_HEADERS],
    len: usize,
}

impl Headers {
    /// The bytes of the headers.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Completes a checksum whose field, at `offset` from `start`, holds the pseudo-header sum, over
/// `packet` from `start` on. `None` if the field lies outside the packet.
pub fn complete_checksum(packet: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let covered = packet.get_mut(start..)?;
    let checksum = written(sum(covered));
    covered
        .get_mut(offset..)?
        .get_mut(..2)?
        .copy_from_slice(&checksum);
    Some(())
}

/// Writes one UDP datagram with its IP header into `out` and returns the packet's length. For many
/// datagrams of one path use a [`UdpTemplate`].
///
/// # Errors
/// As of [`UdpTemplate::new`] and [`UdpTemplate::emit`].
pub fn emit_udp(
    path: UdpPath,
    ecn: Ecn,
    payload: &[u8],
    ident: u16,
    out: &mut [u8],
) -> Result<usize, EmitError> {
    UdpTemplate::new(path, ecn)?.emit(ident, payload, out)
}

fn ipv4_header(src: Ipv4Addr, dst: Ipv4Addr, ecn: Ecn) -> Ipv4Header {
    Ipv4Header {
        ecn: IpEcn::try_new(ecn.bits()).unwrap_or_default(),
        dont_fragment: true,
        time_to_live: HOP_LIMIT,
        protocol: IpNumber::UDP,
        source: src.octets(),
        destination: dst.octets(),
        ..Ipv4Header::default()
    }
}

fn ipv6_header(src: Ipv6Addr, dst: Ipv6Addr, ecn: Ecn) -> Ipv6Header {
    Ipv6Header {
        traffic_class: ecn.bits(),
        next_header: IpNumber::UDP,
        hop_limit: HOP_LIMIT,
        source: src.octets(),
        destination: dst.octets(),
        ..Ipv6Header::default()
    }
}

/// Copies `from` to the start of `out`, as much as fits, and returns its length.
fn write<'b>(out: &mut [u8], from: impl Iterator<Item = &'b u8>) -> usize {
    out.iter_mut()
        .zip(from)
        .map(|(to, byte)| *to = *byte)
        .count()
}

fn put(out: &mut [u8], at: usize, bytes: [u8; 2]) {
    if let Some(slot) = out.get_mut(at..at + 2) {
        slot.copy_from_slice(&bytes);
    }
}

/// Returns the one's complement sum of `bytes` in native byte order, unfolded (RFC 1071 §2: the sum
/// does not depend on byte order, nor on how many 16-bit words are added at once). Further `bytes`
/// must start at an even offset.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let whole = words
        .iter()
        .fold(0_u64, |total, bytes| total.wrapping_add(word(*bytes)));
    let mut last = [0; 4];
    write(&mut last, rest.iter());
    whole.wrapping_add(word(last))
}

fn addresses(src: IpAddr, dst: IpAddr) -> u64 {
    let one = |address: IpAddr| match address {
        IpAddr::V4(address) => word(address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    };
    one(src).wrapping_add(one(dst))
}

fn word(bytes: [u8; 4]) -> u64 {
    u64::from(u32::from_ne_bytes(bytes))
}

fn half(bytes: [u8; 2]) -> u64 {
    u64::from(u16::from_ne_bytes(bytes))
}

/// Returns a sum as checksum bytes. RFC 768: zero is sent as all ones, since zero means no
/// checksum; other protocols treat both alike.
fn written(sum: u64) -> [u8; 2] {
    match !fold(sum) {
        0 => u16::MAX,
        checksum => checksum,
    }
    .to_ne_bytes()
}

/// Folds a sum into 16 bits with end-around carry.
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
