//! A pair of devices joined back to back in memory, for tests and simulated worlds.
//!
//! Each end receives the other's packets, in order and without delay, up to [`MAX_QUEUED_PACKETS`];
//! further packets are dropped and counted, as by a full ring. Not for threads: both ends live in
//! one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use crate::device::{Device, Received};
use crate::wire::flight::Flight;
use crate::wire::ip::{MAX_PACKET, UdpTemplate};

/// Most packets queued in one direction: a little over the largest burst of a TUN's ring.
pub const MAX_QUEUED_PACKETS: usize = 4096;

type Queue = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// One end of a pair; see [`pair`].
#[derive(Debug)]
pub struct Memory {
    mtu: usize,
    inbound: Queue,
    outbound: Queue,
    drops: u64,
}

/// Creates two joined devices of `mtu` bytes.
#[must_use]
pub fn pair(mtu: usize) -> (Memory, Memory) {
    let (there, back) = (Queue::default(), Queue::default());
    let one = Memory {
        mtu,
        inbound: Rc::clone(&there),
        outbound: Rc::clone(&back),
        drops: 0,
    };
    let other = Memory {
        mtu,
        inbound: back,
        outbound: there,
        drops: 0,
    };
    (one, other)
}

impl Device for Memory {
    fn mtu(&self) -> usize {
        self.mtu
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let Some(packet) = self.inbound.borrow_mut().pop_front() else {
            return Ok(None);
        };
        let len = packet.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(&packet) {
            *to = *from;
        }
        Ok(Some(Received::packet(len)))
    }

    fn send_packet(&mut self, packet: &[u8]) -> io::Result<()> {
        let mut queue = self.outbound.borrow_mut();
        if packet.len() > self.mtu || queue.len() >= MAX_QUEUED_PACKETS {
            self.drops += 1;
        } else {
            queue.push_back(packet.to_vec());
        }
        Ok(())
    }

    fn send_flight(&mut self, flight: &Flight) -> io::Result<()> {
        let Ok(template) = UdpTemplate::new(flight.path, flight.ecn) else {
            self.drops += 1;
            return Ok(());
        };
        let mut packet = vec![0; MAX_PACKET];
        for datagram in flight.datagrams() {
            match template.emit(0, &datagram, &mut packet) {
                Ok(len) => self.send_packet(packet.get(..len).unwrap_or_default())?,
                Err(_) => self.drops += 1,
            }
        }
        Ok(())
    }

    fn send_drops(&self) -> u64 {
        self.drops
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::flight::{Ecn, UdpPath};
    use crate::wire::ip::parse_udp;

    #[test]
    fn the_queue_drops_beyond_its_bound() {
        let (mut one, mut other) = pair(100);
        for n in 0..=MAX_QUEUED_PACKETS {
            one.send_packet(&n.to_be_bytes()).unwrap();
        }
        assert_eq!(one.send_drops(), 1);
        let mut buffer = [0; 100];
        let mut received = 0_usize;
        while let Some(got) = other.receive(&mut buffer).unwrap() {
            assert_eq!(buffer[..got.len], received.to_be_bytes()[..]);
            received += 1;
        }
        assert_eq!(received, MAX_QUEUED_PACKETS);
        one.send_packet(&[0; 101]).unwrap();
        assert_eq!(one.send_drops(), 2, "longer than the MTU");
    }

    #[test]
    fn a_flight_becomes_its_datagrams() {
        let (mut one, mut other) = pair(1500);
        let path = UdpPath {
            src: "[2001:db8::1]:1".parse().unwrap(),
            dst: "[2001:db8::2]:2".parse().unwrap(),
        };
        let payload: Vec<u8> = (0..=250).collect();
        let flight = Flight {
            path,
            ecn: Ecn::Ect0,
            segment: 100,
            payload: payload.clone().into(),
        };
        one.send_flight(&flight).unwrap();
        let mut got = Vec::new();
        let mut lengths = Vec::new();
        let mut buffer = [0; 1500];
        while let Some(received) = other.receive(&mut buffer).unwrap() {
            let view = parse_udp(&buffer[..received.len]).unwrap().unwrap();
            assert_eq!((view.path, view.ecn), (path, Ecn::Ect0));
            lengths.push(view.payload.len());
            got.extend_from_slice(view.payload);
        }
        assert_eq!((got, lengths), (payload, vec![100, 100, 51]));
    }
}
