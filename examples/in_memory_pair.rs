//! Drives a server and a client by hand, without I/O and without a clock: packets go over a pair of
//! devices in memory, each takes a millisecond, and time is a number. So every run is the same.

use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

use headwater::{
    Application, Begun, ClientHost, ClientHostConfig, Device, KeyRing, MAX_PACKET, Machine, Memory,
    MemoryOutput, Now, RequestContext, SECRET_BYTES, ServerHost, ServerHostConfig, StreamPart,
    Target, Transfer, TransferConfig, TransferEvent, Transmit, Unavailable, copy_at, pair,
};

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

/// One turn of the loop: packets, the deadline if it has passed, and after each of them everything that
/// the machine wants to send.
fn turn(now: Now, machine: &mut impl Machine, device: &mut Memory) -> io::Result<()> {
    let mut buffer = vec![0; MAX_PACKET];
    while let Some(received) = device.receive(&mut buffer)? {
        let packet = buffer.get(..received.len).unwrap_or_default();
        machine.handle_packet(now, packet, received.segment);
        drain(now, machine, device)?;
    }
    if let Some((at, _why)) = machine.poll_timeout(now)
        && at <= now.instant
    {
        machine.handle_timeout(now);
    }
    drain(now, machine, device)
}

fn drain(now: Now, machine: &mut impl Machine, device: &mut Memory) -> io::Result<()> {
    while let Some(transmit) = machine.poll_transmit(now) {
        match transmit {
            Transmit::Packet(packet) => device.send_packet(&packet)?,
            Transmit::Segments { packet, segment } => device.send_segments(&packet, segment)?,
            Transmit::Flight(flight) => device.send_flight(&flight)?,
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut now = Now::default();
    let (mut left, mut right) = pair(1500);
    let config = ServerHostConfig::builder(["10.0.0.2".parse()?], 1).build()?;
    let keys = KeyRing::with_secret([7; SECRET_BYTES]);
    let mut server = ServerHost::new(now, config, keys, Hello)?;
    let config = ClientHostConfig::builder(["10.0.0.1".parse()?], 2).build()?;
    let mut client = ClientHost::new(now, config)?;

    let body = MemoryOutput::with_limit(1000);
    let target = Target::parse("http://10.0.0.2/")?;
    let output = Box::new(body.clone());
    client.start(
        now,
        Transfer::new(TransferConfig::default(), target, output),
    );
    loop {
        turn(now, &mut client, &mut left)?;
        turn(now, &mut server, &mut right)?;
        match client.poll_event() {
            Some(TransferEvent::Done { .. }) => break,
            Some(TransferEvent::Failed(failure)) => return Err(failure.into()),
            Some(_) | None => now.instant += Duration::from_millis(1),
        }
    }
    let text = String::from_utf8(body.take())?;
    write!(
        io::stdout(),
        "{} ms: {text}",
        now.instant.as_micros() / 1000
    )?;
    Ok(())
}
