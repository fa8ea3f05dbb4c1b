//! A tap on any device: records every packet, in both directions, to a pcap file.
//!
//! In: the packets and flights that pass, and the time of each turn; out: a pcap stream of link
//! type RAW (101: the packet begins with the IP header), with microsecond timestamps, in the order
//! of passing. Flights are recorded as the packets they become, and coalesced datagrams as they
//! were before, except for the hop limit, which is ours; coalesced segments of TCP stay so. Never
//! fails the traffic: a writer that would block loses the packets of one buffer, which are counted;
//! on any other error recording stops and logs so once.
//! Source: draft-ietf-opsawg-pcap, and the list of link types at tcpdump.org.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};

use etherparse::IpNumber;

use crate::device::{Device, Received, ReceivedUdp};
use crate::time::Now;
use crate::wire::flight::Flight;
use crate::wire::ip::{Checksum, IpView, MAX_PACKET, UdpTemplate, complete_checksum};

/// Bytes buffered before a write to the file.
pub const BUFFER_BYTES: usize = 1 << 18;

/// Magic number of a file with microsecond timestamps, in the writer's byte order.
const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;

/// Link type of packets that begin with an IPv4 or IPv6 header.
const LINKTYPE_RAW: u32 = 101;

/// Offset of the checksum in a TCP header (RFC 9293 §3.1).
const TCP_CHECKSUM: usize = 16;

/// A device and its recorder.
#[derive(Debug)]
pub struct Pcap<D, W: Write> {
    device: D,
    recorder: Recorder<W>,
    scratch: Vec<u8>,
}

impl<D: Device, W: Write> Pcap<D, W> {
    /// Starts recording into `file`, which should be empty; needs no buffering of its own. A writer
    /// that blocks delays the traffic: a [`CaptureFile`](crate::CaptureFile) does not.
    ///
    /// # Errors
    /// The file header cannot be written.
    pub fn new(device: D, file: W) -> io::Result<Self> {
        Ok(Self {
            device,
            recorder: Recorder::new(file)?,
            scratch: vec![0; MAX_PACKET],
        })
    }

    /// The underlying device.
    pub const fn device(&self) -> &D {
        &self.device
    }

    fn record_datagram(&mut self, template: &UdpTemplate, datagram: &[u8]) {
        if let Ok(len) = template.emit(0, datagram, &mut self.scratch) {
            self.recorder
                .record(self.scratch.get(..len).unwrap_or_default());
        }
    }

    /// Records datagrams that came without headers, each with new ones.
    fn record_payload(&mut self, udp: ReceivedUdp, payload: &[u8], segment: Option<usize>) {
        if let Ok(template) = UdpTemplate::new(udp.path, udp.ecn) {
            let datagrams = udp.view(payload).datagrams(segment);
            datagrams.for_each(|datagram| self.record_datagram(&template, datagram));
        }
    }

    /// Records a coalesced packet: UDP datagrams one by one, TCP segments as one, as other
    /// recorders on Linux do, with the checksum that the device vouches for.
    fn record_joined(&mut self, packet: &[u8], segment: Option<usize>) {
        let Ok(ip) = IpView::parse(packet) else {
            return self.recorder.record(packet);
        };
        if let Ok(udp) = ip.udp(Checksum::Trusted)
            && ip.protocol == IpNumber::UDP.0
            && let Ok(template) = UdpTemplate::new(udp.path, udp.ecn)
        {
            let datagrams = udp.datagrams(segment);
            return datagrams.for_each(|datagram| self.record_datagram(&template, datagram));
        }
        let start = packet.len() - ip.payload.len();
        let Some(copy) = self.scratch.get_mut(..packet.len()) else {
            return;
        };
        copy.copy_from_slice(packet);
        if !ip.checksum_holds() {
            // A packet is recorded in any case; a field beyond its end is left out.
            let _ = complete_checksum(copy, start, TCP_CHECKSUM);
        }
        self.recorder.record(copy);
    }
}

impl<D: Device, W: Write> Device for Pcap<D, W> {
    fn mtu(&self) -> usize {
        self.device.mtu()
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let received = self.device.receive(buffer)?;
        if let Some(Received { len, segment, udp }) = received {
            let packet = buffer.get(..len).unwrap_or_default();
            match (udp, segment) {
                (Some(udp), _) => self.record_payload(udp, packet, segment),
                (None, None) => self.recorder.record(packet),
                (None, Some(_)) => self.record_joined(packet, segment),
            }
        }
        Ok(received)
    }

    fn send_packet(&mut self, packet: &[u8]) -> io::Result<()> {
        self.recorder.record(packet);
        self.device.send_packet(packet)
    }

    fn send_flight(&mut self, flight: &Flight) -> io::Result<()> {
        if let Ok(template) = UdpTemplate::new(flight.path, flight.ecn) {
            let datagrams = flight.datagrams();
            datagrams.for_each(|datagram| self.record_datagram(&template, &datagram));
        }
        self.device.send_flight(flight)
    }

    fn send_segments(&mut self, packet: &[u8], segment: usize) -> io::Result<()> {
        self.record_joined(packet, Some(segment));
        self.device.send_segments(packet, segment)
    }

    fn send_drops(&self) -> u64 {
        self.device.send_drops()
    }

    fn receive_drops(&self) -> u64 {
        self.device.receive_drops()
    }

    fn capture_losses(&self) -> Option<u64> {
        Some(self.recorder.losses())
    }

    fn set_now(&mut self, now: Now) {
        self.recorder.set_now(now);
        self.device.set_now(now);
    }

    fn idle(&mut self) {
        self.recorder.flush();
        self.device.idle();
    }
}

impl<D: AsRawFd, W: Write> AsRawFd for Pcap<D, W> {
    fn as_raw_fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }
}

/// Writes packets to a pcap stream. Works without a device too, for simulated worlds.
#[derive(Debug)]
pub struct Recorder<W: Write> {
    file: W,
    buffer: Vec<u8>,
    /// Packets in the buffer.
    held: u64,
    losses: u64,
    /// Wall clock minus monotonic clock at the first turn, in microseconds; later timestamps follow
    /// the monotonic clock for its resolution.
    offset: Option<u64>,
    micros: u64,
    broken: bool,
}

impl<W: Write> Recorder<W> {
    /// Writes the file header.
    ///
    /// # Errors
    /// The header cannot be written.
    pub fn new(mut file: W) -> io::Result<Self> {
        let mut head = Vec::with_capacity(24);
        head.extend(MAGIC_MICROSECONDS.to_ne_bytes());
        head.extend(2_u16.to_ne_bytes());
        head.extend(4_u16.to_ne_bytes());
        head.extend([0; 8]);
        head.extend(snap_length().to_ne_bytes());
        head.extend(LINKTYPE_RAW.to_ne_bytes());
        file.write_all(&head)?;
        let buffer = Vec::with_capacity(BUFFER_BYTES + MAX_PACKET + 16);
        Ok(Self {
            file,
            buffer,
            held: 0,
            losses: 0,
            offset: None,
            micros: 0,
            broken: false,
        })
    }

    /// Sets the timestamp of the next packets.
    pub fn set_now(&mut self, now: Now) {
        let monotonic = now.instant.as_micros();
        let wall = now.unix.as_millis().saturating_mul(1000);
        let offset = *self.offset.get_or_insert(wall.saturating_sub(monotonic));
        self.micros = offset.saturating_add(monotonic);
    }

    /// The number of packets lost because the writer would have blocked.
    pub const fn losses(&self) -> u64 {
        self.losses
    }

    /// Records one packet, of which at most [`MAX_PACKET`] bytes.
    pub fn record(&mut self, packet: &[u8]) {
        if self.broken {
            return;
        }
        let kept = packet.get(..MAX_PACKET).unwrap_or(packet);
        // Timestamps have 32 bits of seconds, read as unsigned: valid until the year 2106.
        let seconds = u32::try_from(self.micros / 1_000_000).unwrap_or(u32::MAX);
        let micros = u32::try_from(self.micros % 1_000_000).unwrap_or(0);
        self.buffer.extend(seconds.to_ne_bytes());
        self.buffer.extend(micros.to_ne_bytes());
        self.buffer.extend(length(kept).to_ne_bytes());
        self.buffer.extend(length(packet).to_ne_bytes());
        self.buffer.extend_from_slice(kept);
        self.held += 1;
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    /// Flushes the buffer.
    pub fn flush(&mut self) {
        if self.broken || self.buffer.is_empty() {
            return;
        }
        let written = self.file.write_all(&self.buffer);
        match written.and_then(|()| self.file.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if self.losses == 0 {
                    log::warn!("packets are missing in the capture: its reader is too slow");
                }
                self.losses += self.held;
            }
            Err(error) => {
                log::warn!("packet capture stopped: {error}");
                self.broken = true;
            }
        }
        self.buffer.clear();
        self.held = 0;
    }
}

impl<W: Write> Drop for Recorder<W> {
    fn drop(&mut self) {
        self.flush();
        if self.losses > 0 {
            log::warn!("{} packets are missing in the capture", self.losses);
        }
    }
}

fn snap_length() -> u32 {
    u32::try_from(MAX_PACKET).unwrap_or(u32::MAX)
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::process::Command;

    use super::*;
    use crate::device::memory;
    use crate::time::{Instant, UnixMillis};
    use crate::wire::flight::{Ecn, UdpPath};

    fn flight() -> Flight {
        let path = UdpPath {
            src: "10.0.0.1:7".parse().unwrap(),
            dst: "10.0.0.2:9".parse().unwrap(),
        };
        Flight {
            path,
            ecn: Ecn::NotEct,
            segment: 4,
            payload: b"0123456789".to_vec().into(),
        }
    }

    fn at(micros: u64, unix: u64) -> Now {
        Now {
            instant: Instant::from_micros(micros),
            unix: UnixMillis::new(unix),
        }
    }

    #[test]
    fn tshark_reads_packets_of_both_ways() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let (one, mut other) = memory::pair(1500);
        {
            let mut tapped = Pcap::new(one, file.as_file_mut()).unwrap();
            tapped.set_now(at(500, 1_700_000_000_123));
            tapped.send_flight(&flight()).unwrap();
            tapped.set_now(at(1_750, 1_700_000_000_999));
            other.send_flight(&flight()).unwrap();
            let mut buffer = vec![0; MAX_PACKET];
            while tapped.receive(&mut buffer).unwrap().is_some() {}
        }
        let run = Command::new("tshark")
            .args(["-T", "fields", "-e", "frame.time_epoch", "-e", "udp.length"])
            .args(["-e", "udp.checksum.status", "-e", "ip.checksum.status"])
            .args([
                "-o",
                "udp.check_checksum:TRUE",
                "-o",
                "ip.check_checksum:TRUE",
                "-r",
            ])
            .arg(file.path())
            .output();
        // Not every machine has tshark; the byte test below needs none.
        let Ok(run) = run else { return };
        let text = String::from_utf8(run.stdout).unwrap();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split('\t').collect())
            .collect();
        assert_eq!(rows.len(), 6, "{text}");
        for (n, row) in rows.iter().enumerate() {
            let stamp = if n < 3 {
                "1700000000.123000000"
            } else {
                "1700000000.124250000"
            };
            let length = if n % 3 == 2 { "10" } else { "12" };
            assert_eq!(row[..], [stamp, length, "1", "1"], "row {n}");
        }
    }

    /// A device with one coalesced packet.
    struct Joined(Option<Vec<u8>>, usize);

    impl Device for Joined {
        fn mtu(&self) -> usize {
            1500
        }
        fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
            Ok(self.0.take().map(|packet| {
                buffer[..packet.len()].copy_from_slice(&packet);
                Received {
                    segment: Some(self.1),
                    ..Received::packet(packet.len())
                }
            }))
        }
        fn send_packet(&mut self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn send_flight(&mut self, _: &Flight) -> io::Result<()> {
            Ok(())
        }
        fn send_drops(&self) -> u64 {
            0
        }
    }

    /// Returns the recorded packets of a coalesced one.
    fn recorded(packet: Vec<u8>, segment: usize) -> Vec<Vec<u8>> {
        let mut file = Vec::new();
        let mut tapped = Pcap::new(Joined(Some(packet), segment), &mut file).unwrap();
        tapped.receive(&mut vec![0; MAX_PACKET]).unwrap().unwrap();
        drop(tapped);
        let (mut rest, mut packets) = (&file[24..], Vec::new());
        while let Some((head, after)) = rest.split_at_checked(16) {
            let length = u32::from_ne_bytes(head[8..12].try_into().unwrap()) as usize;
            packets.push(after[..length].to_vec());
            rest = &after[length..];
        }
        packets
    }

    #[test]
    fn joined_datagrams_are_recorded_one_by_one() {
        let flight = flight();
        let template = UdpTemplate::new(flight.path, flight.ecn).unwrap();
        let mut joined = template.partial(10).unwrap().as_slice().to_vec();
        joined.extend(b"0123456789");
        let want = ["0123", "4567", "89"].map(|part| template.packet(part.as_bytes()).unwrap());
        assert_eq!(recorded(joined, 4), want);
    }

    #[test]
    fn joined_segments_get_their_checksum() {
        let flight = flight();
        let template = UdpTemplate::new(flight.path, flight.ecn).unwrap();
        let mut tcp = template.packet(&[0x50; 40]).unwrap();
        // UDP to TCP: 11 less in the sum of the IP header, so 11 more in its checksum.
        tcp[9] = IpNumber::TCP.0;
        let sum = u16::from_be_bytes([tcp[10], tcp[11]]) + 11;
        tcp[10..12].copy_from_slice(&sum.to_be_bytes());
        // The field holds the sum over the pseudo header: addresses, protocol and length.
        let partial = 2 * 0x0a00 + 1 + 2 + 6 + 48_u16;
        tcp[20 + TCP_CHECKSUM..][..2].copy_from_slice(&partial.to_be_bytes());
        assert!(!IpView::parse(&tcp).unwrap().checksum_holds());
        let [whole] = recorded(tcp.clone(), 20).try_into().unwrap();
        assert!(IpView::parse(&whole).unwrap().checksum_holds());
        assert_eq!(recorded(whole.clone(), 20), [whole], "stays as it is");
    }

    #[test]
    fn the_file_holds_head_and_records() {
        let mut file = Vec::new();
        let mut recorder = Recorder::new(&mut file).unwrap();
        recorder.set_now(at(7, 2_000));
        recorder.record(b"packet");
        recorder.record(&vec![1; MAX_PACKET + 1]);
        drop(recorder);
        assert_eq!(file[..4], MAGIC_MICROSECONDS.to_ne_bytes());
        assert_eq!(file[20..24], LINKTYPE_RAW.to_ne_bytes());
        let numbers: Vec<u32> = file[24..40]
            .chunks(4)
            .map(|bytes| u32::from_ne_bytes(bytes.try_into().unwrap()))
            .collect();
        assert_eq!(numbers, [2, 0, 6, 6]);
        assert_eq!(&file[40..46], b"packet");
        assert_eq!(
            file.len(),
            24 + 16 + 6 + 16 + MAX_PACKET,
            "an overlong packet is cut"
        );
    }

    /// A disk that fills up after the head.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A reader that takes nothing but the head, until it may go on.
    struct Stalled<'a>(&'a Cell<bool>, &'a RefCell<Vec<u8>>);

    impl Write for Stalled<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut file = self.1.borrow_mut();
            if self.0.get() && !file.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            file.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn packets_of_a_stalled_reader_are_counted_and_the_rest_recorded() {
        let (stalled, file) = (Cell::new(true), RefCell::new(Vec::new()));
        let mut recorder = Recorder::new(Stalled(&stalled, &file)).unwrap();
        for packet in [b"one", b"two"] {
            recorder.record(packet);
        }
        recorder.flush();
        assert_eq!(recorder.losses(), 2);
        stalled.set(false);
        recorder.record(b"six");
        drop(recorder);
        assert_eq!(file.borrow().len(), 24 + 16 + 3);
        assert!(file.borrow().ends_with(b"six"));
    }

    #[test]
    fn a_full_disk_stops_the_recording_only() {
        let (one, mut other) = memory::pair(1500);
        let mut tapped = Pcap::new(one, Full(24)).unwrap();
        for _ in 0..2 {
            tapped.send_flight(&flight()).unwrap();
            tapped.idle();
        }
        assert!(tapped.recorder.broken);
        let mut buffer = [0; 1500];
        let mut packets = 0;
        while other.receive(&mut buffer).unwrap().is_some() {
            packets += 1;
        }
        assert_eq!(packets, 6);
    }
}
