//! Segmentation of TCP segments that were coalesced into one packet, and their checksums.
//!
//! In: a coalesced packet and its segment size, from a device or from the stack. Out: the single
//! packets, with lengths, sequence numbers, flags and checksums of their own.
//! Sources: RFC 9293 §3.1, RFC 3168 §6.1.2 (CWR), RFC 6864; Documentation/networking/
//! segmentation-offloads.rst of Linux.

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, TcpHeaderSlice};

use super::{EmitError, IpView, Malformed, addresses, fold, put, sum, word, written};

/// Offsets in a TCP header.
const SEQUENCE: usize = 4;
const OFFSET: usize = 12;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;

/// Flags of the last segment only.
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;

/// Flag of the first segment only: it acknowledges one mark.
const CWR: u8 = 0x80;

/// A coalesced packet with valid headers. Borrows from the packet.
#[derive(Clone, Copy, Debug)]
pub struct JoinedTcp<'a> {
    ip: &'a [u8],
    tcp: &'a [u8],
    payload: &'a [u8],
    /// Payload bytes of each segment but the last.
    size: usize,
    /// Over addresses and protocol.
    pseudo_sum: u64,
    sequence: u32,
}

impl<'a> JoinedTcp<'a> {
    /// Parses a coalesced packet.
    ///
    /// # Errors
    /// [`Malformed`]: of the IP header, or [`Malformed::Truncated`] and [`Malformed::BadLength`] of
    /// the TCP header.
    pub fn parse(packet: &'a [u8], segment: usize) -> Result<Self, Malformed> {
        let view = IpView::parse(packet)?;
        // Only the IP header lies between the start of the packet and its payload.
        let ip = match packet.first() {
            Some(first) if first >> 4 == 4 => usize::from(first & 0x0f) * 4,
            _ => Ipv6Header::LEN,
        };
        let header = TcpHeaderSlice::from_slice(view.payload).map_err(|error| match error {
            etherparse::err::tcp::HeaderSliceError::Len(_) => Malformed::Truncated,
            etherparse::err::tcp::HeaderSliceError::Content(_) => Malformed::BadLength,
        })?;
        let (tcp, payload) = view.payload.split_at(header.slice().len());
        let protocol = word([0, 0, 0, IpNumber::TCP.0]);
        Ok(Self {
            ip: packet.get(..ip).ok_or(Malformed::Truncated)?,
            tcp,
            payload,
            size: segment.max(1),
            pseudo_sum: addresses(view.src, view.dst).wrapping_add(protocol),
            sequence: header.sequence_number(),
        })
    }

    /// The number of segments.
    #[must_use]
    pub const fn count(&self) -> usize {
        let count = self.payload.len().div_ceil(self.size);
        if count == 0 { 1 } else { count }
    }

    /// Writes the packet of segment `index` into `out` and returns its length.
    ///
    /// # Errors
    /// [`EmitError::NoRoom`], [`EmitError::TooLong`]; the content of `out` is then undefined.
    pub fn emit(&self, index: usize, out: &mut [u8]) -> Result<usize, EmitError> {
        let last = index + 1 >= self.count();
        let start = index.saturating_mul(self.size).min(self.payload.len());
        let end = start.saturating_add(self.size).min(self.payload.len());
        let payload = self.payload.get(start..end).unwrap_or_default();
        let parts = [self.ip, self.tcp, payload];
        let need = parts.iter().map(|part| part.len()).sum();
        let have = out.len();
        let packet = out
            .get_mut(..need)
            .ok_or(EmitError::NoRoom { need, have })?;
        let mut at = 0;
        for part in parts {
            if let Some(room) = packet.get_mut(at..at + part.len()) {
                room.copy_from_slice(part);
            }
            at += part.len();
        }
        let (ip, tcp) = packet.split_at_mut(self.ip.len());
        let small = |len: usize| u16::try_from(len).map_err(|_| EmitError::TooLong { len });
        number_ip(ip, small(need)?, small(tcp.len())?, small(index)?);
        self.number_tcp(tcp, start, index == 0, last);
        Ok(need)
    }

    /// Returns the packets of all segments.
    ///
    /// # Errors
    /// As of [`emit`](Self::emit).
    pub fn packets(&self) -> Result<Vec<Vec<u8>>, EmitError> {
        let longest = self.ip.len() + self.tcp.len() + self.size.min(self.payload.len());
        let packet = |index| {
            let mut packet = vec![0; longest];
            let length = self.emit(index, &mut packet)?;
            packet.truncate(length);
            Ok(packet)
        };
        (0..self.count()).map(packet).collect()
    }

    fn number_tcp(&self, tcp: &mut [u8], start: usize, first: bool, last: bool) {
        let offset = u32::try_from(start).unwrap_or(u32::MAX);
        let [a, b, c, d] = self.sequence.wrapping_add(offset).to_be_bytes();
        put(tcp, SEQUENCE, [a, b]);
        put(tcp, SEQUENCE + 2, [c, d]);
        if let Some(flags) = tcp.get_mut(FLAGS) {
            let early = if last { 0 } else { FIN | PSH };
            let late = if first { 0 } else { CWR };
            *flags &= !(early | late);
        }
        put(tcp, CHECKSUM, [0, 0]);
        let length = u32::try_from(tcp.len()).unwrap_or(u32::MAX);
        let total = self
            .pseudo_sum
            .wrapping_add(word(length.to_be_bytes()))
            .wrapping_add(sum(tcp));
        put(tcp, CHECKSUM, written(total));
    }
}

/// Writes the checksum of a TCP packet that has none yet. Returns `mss` if the payload is longer: the
/// packet then holds several segments, and the field gets the sum over the pseudo-header, to which a
/// device adds the rest. Leaves other packets as they are.
pub fn seal(packet: &mut [u8], mss: usize) -> Option<usize> {
    let view = IpView::parse(packet).ok()?;
    let headers = usize::from(view.payload.get(OFFSET)? >> 4) * 4;
    if view.protocol != IpNumber::TCP.0 {
        return None;
    }
    let length = view.payload.len();
    let coalesced = length.saturating_sub(headers) > mss;
    let pseudo = addresses(view.src, view.dst)
        .wrapping_add(word([0, 0, 0, IpNumber::TCP.0]))
        .wrapping_add(word(
            u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes(),
        ));
    let tcp = packet.get_mut(packet.len() - length..)?;
    put(tcp, CHECKSUM, [0, 0]);
    let checksum = if coalesced {
        fold(pseudo).to_ne_bytes()
    } else {
        written(pseudo.wrapping_add(sum(tcp)))
    };
    put(tcp, CHECKSUM, checksum);
    coalesced.then_some(mss)
}

/// Sets the lengths of an IP header, and in IPv4 an identification that differs from those of the
/// preceding segments.
fn number_ip(ip: &mut [u8], total: u16, payload: u16, index: u16) {
    if ip.len() == Ipv6Header::LEN && ip.first().is_some_and(|first| first >> 4 == 6) {
        put(ip, 4, payload.to_be_bytes());
        return;
    }
    debug_assert!(ip.len() >= Ipv4Header::MIN_LEN, "a header that was parsed");
    let before = ip.get(4..6).and_then(|bytes| bytes.first_chunk::<2>());
    let ident = u16::from_be_bytes(before.copied().unwrap_or_default());
    put(ip, 2, total.to_be_bytes());
    put(ip, 4, ident.wrapping_add(index).to_be_bytes());
    put(ip, 10, [0, 0]);
    let checksum = !fold(sum(ip));
    put(ip, 10, checksum.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    const SEQUENCE_NUMBER: u32 = u32::MAX - 1000;

    /// Builds a packet with FIN, PSH, CWR and ACK and with options.
    fn joined(v6: bool, payload: &[u8]) -> Vec<u8> {
        let options = [1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9];
        let mut header = etherparse::TcpHeader::new(40000, 80, SEQUENCE_NUMBER, 5000);
        header.acknowledgment_number = 77;
        (header.ack, header.fin, header.psh, header.cwr) = (true, true, true, true);
        header.set_options_raw(&options).unwrap();
        let mut packet = Vec::new();
        if v6 {
            PacketBuilder::ipv6([1; 16], [2; 16], 60)
                .tcp_header(header)
                .write(&mut packet, payload)
        } else {
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 60)
                .tcp_header(header)
                .write(&mut packet, payload)
        }
        .unwrap();
        packet
    }

    fn emitted(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
        let joined = JoinedTcp::parse(packet, size).unwrap();
        let mut out = vec![0; packet.len()];
        let emit = |index| {
            let length = joined.emit(index, &mut out).unwrap();
            out[..length].to_vec()
        };
        (0..joined.count()).map(emit).collect()
    }

    proptest! {
        #[test]
        fn segments_are_what_was_joined(v6: bool, length in 0..5000_usize, size in 1..2000_usize) {
            let payload: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let whole = joined(v6, &payload);
            let segments = emitted(&whole, size);
            prop_assert_eq!(segments.len(), length.div_ceil(size).max(1));
            let mut bytes = Vec::<u8>::new();
            for (index, segment) in segments.iter().enumerate() {
                let view = IpView::parse(segment).unwrap();
                prop_assert!(view.checksum_holds());
                let tcp = TcpHeaderSlice::from_slice(view.payload).unwrap();
                let offset = u32::try_from(index * size).unwrap();
                prop_assert_eq!(tcp.sequence_number(), SEQUENCE_NUMBER.wrapping_add(offset));
                let last = index + 1 == segments.len();
                prop_assert_eq!((tcp.fin(), tcp.psh(), tcp.ack()), (last, last, true));
                prop_assert_eq!(tcp.cwr(), index == 0);
                prop_assert_eq!((tcp.acknowledgment_number(), tcp.options().len()), (77, 12));
                if !v6 {
                    prop_assert_eq!(segment[5], whole[5].wrapping_add(index as u8));
                }
                bytes.extend(&view.payload[tcp.slice().len()..]);
            }
            prop_assert_eq!(bytes, payload);
        }

        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), size: usize) {
            let mut packet = joined(false, &bytes);
            let at = bytes.len() % packet.len();
            packet[at] ^= 0x55;
            for packet in [&bytes, &packet] {
                if let Ok(joined) = JoinedTcp::parse(packet, size) {
                    let _ = joined.emit(usize::from(bytes.is_empty()), &mut [0; 2000]);
                }
            }
        }
    }

    #[test]
    fn a_sealed_packet_has_the_checksum_of_its_kind() {
        for v6 in [false, true] {
            let whole = joined(v6, &[3; 101]);
            let mut single = whole.clone();
            let field = single.len() - 101 - 32 + CHECKSUM;
            single[field..field + 2].fill(0x55);
            assert_eq!(seal(&mut single, 101), None);
            assert_eq!(single, whole);
            let mut coalesced = whole.clone();
            assert_eq!(seal(&mut coalesced, 100), Some(100));
            // Completed over header and payload, the partial sum becomes the checksum.
            assert_ne!(coalesced, whole);
            super::super::complete_checksum(&mut coalesced, field - CHECKSUM, CHECKSUM).unwrap();
            assert_eq!(coalesced, whole);
            assert_eq!(
                JoinedTcp::parse(&whole, 50).unwrap().packets().unwrap(),
                emitted(&whole, 50)
            );
        }
        let mut other = vec![0x45; 10];
        assert_eq!(seal(&mut other, 100), None);
    }

    #[test]
    fn one_segment_is_the_packet_itself() {
        for v6 in [false, true] {
            let whole = joined(v6, &[3; 100]);
            assert_eq!(emitted(&whole, 100), [whole]);
        }
    }

    #[test]
    fn what_cannot_be_taken_apart_or_put_is_refused() {
        let whole = joined(false, &[3; 100]);
        let cut = |tcp: usize| {
            let mut packet = whole[..20 + tcp].to_vec();
            number_ip(&mut packet[..20], u16::try_from(20 + tcp).unwrap(), 0, 0);
            JoinedTcp::parse(&packet, 50).map(|joined| joined.count())
        };
        assert_eq!(cut(19), Err(Malformed::Truncated));
        assert_eq!(cut(31), Err(Malformed::Truncated), "options cut short");
        assert_eq!(cut(32), Ok(1));
        let mut small = whole.clone();
        small[20 + 12] = 0x40;
        let refused = JoinedTcp::parse(&small, 50).map(|joined| joined.count());
        assert_eq!(refused, Err(Malformed::BadLength));
        let joined = JoinedTcp::parse(&whole, 50).unwrap();
        let error = joined.emit(0, &mut [0; 101]).unwrap_err();
        assert_eq!(
            error,
            EmitError::NoRoom {
                need: 102,
                have: 101
            }
        );
    }
}
