//! A device of one's own: packets over a pair of Unix datagram sockets, between a server on a thread
//! and a client. It needs no privileges and no TUN device.

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::thread;

use headwater::{
    Application, Begun, ClientHost, ClientHostConfig, Device, Endpoint, Flight, KeyRing, OsClock,
    Received, RequestContext, SECRET_BYTES, ServerHost, ServerHostConfig, StreamPart, Transmit,
    Unavailable, copy_at, os_seed,
};

/// Each datagram of the socket is one IP packet.
struct SocketDevice {
    socket: UnixDatagram,
    drops: u64,
}

impl SocketDevice {
    fn pair() -> io::Result<[Self; 2]> {
        let (one, other) = UnixDatagram::pair()?;
        // A device never waits: the loop does, for the descriptor.
        one.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
        Ok([one, other].map(|socket| Self { socket, drops: 0 }))
    }
}

impl Device for SocketDevice {
    fn mtu(&self) -> usize {
        1500
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        match self.socket.recv(buffer) {
            Ok(len) => Ok(Some(Received::packet(len))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn send_packet(&mut self, packet: &[u8]) -> io::Result<()> {
        // A full queue drops, as a network may; the transport sends again.
        self.drops += u64::from(self.socket.send(packet).is_err());
        Ok(())
    }

    fn send_flight(&mut self, flight: &Flight) -> io::Result<()> {
        let packets = Transmit::Flight(flight.clone()).into_packets();
        let packets = packets.map_err(io::Error::other)?;
        packets
            .iter()
            .try_for_each(|packet| self.send_packet(packet))
    }

    fn send_drops(&self) -> u64 {
        self.drops
    }
}

impl AsRawFd for SocketDevice {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";

/// One object, whatever the client requests.
struct Hello;

impl Application for Hello {
    fn begin(&mut self, _context: RequestContext, _request: &[u8]) -> Result<Begun, Unavailable> {
        Ok(Begun {
            user: Vec::new(),
            length: Some(STREAM.len() as u64),
        })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        Ok(copy_at(STREAM, part.offset, out))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let [ours, theirs] = SocketDevice::pair()?;
    let clock = OsClock::new();

    let config = ServerHostConfig::builder(["10.0.0.2".parse()?], os_seed()?).build()?;
    let keys = KeyRing::with_secret([7; SECRET_BYTES]);
    let server = ServerHost::new(clock.now(), config, keys, Hello)?;
    // It ends with the process.
    thread::spawn(move || Endpoint::new(clock, theirs, server)?.run());

    let config = ClientHostConfig::builder(["10.0.0.1".parse()?], os_seed()?).build()?;
    let client = ClientHost::new(clock.now(), config)?;
    let body = Endpoint::new(clock, ours, client)?.fetch("http://10.0.0.2/")?;
    io::stdout().write_all(&body)?;
    Ok(())
}
