//! Packets on their way out of the redirector, in buffers that are used again.
//!
//! In: packets as they are made. Out: the same, by the interface they leave through, in order. A
//! buffer that has been sent comes back by [`Outbox::recycle`], so that a redirector at work does
//! not allocate.

use std::collections::VecDeque;

use super::BackendId;

/// Most packets that wait. The driver drains them after each packet read, so only a device that
/// joins very many datagrams into one packet gets here.
pub const MAX_WAITING: usize = 1024;

/// Most empty buffers that are kept.
pub const MAX_SPARE: usize = 64;

/// Where a packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The device that packets for the service come from.
    Main,
    /// The own device of a backend.
    Backend(BackendId),
}

/// A bounded queue of packets with their ports.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<(Port, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
}

impl Outbox {
    /// Room for `length` bytes of a packet that will leave through `port`; `None` if too many wait.
    pub fn packet(&mut self, port: Port, length: usize) -> Option<&mut [u8]> {
        if self.waiting.len() >= MAX_WAITING {
            return None;
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.resize(length, 0);
        self.waiting.push_back((port, buffer));
        self.waiting
            .back_mut()
            .map(|(_, buffer)| buffer.as_mut_slice())
    }

    /// The next packet.
    pub fn pop(&mut self) -> Option<(Port, Vec<u8>)> {
        self.waiting.pop_front()
    }

    /// Whether the next packet leaves through a backend's own device.
    #[must_use]
    pub fn next_port(&self) -> Option<Port> {
        self.waiting.front().map(|(port, _)| *port)
    }

    /// Takes back the buffer of a packet that has been sent.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_bounded_and_buffers_come_back() {
        let mut outbox = Outbox::default();
        for length in 0..MAX_WAITING {
            assert_eq!(outbox.packet(Port::Main, length).unwrap().len(), length);
        }
        assert!(outbox.packet(Port::Main, 1).is_none());
        let mut sent = 0;
        while let Some((port, buffer)) = outbox.pop() {
            assert_eq!((port, buffer.len()), (Port::Main, sent));
            outbox.recycle(buffer);
            sent += 1;
        }
        assert_eq!((sent, outbox.spare.len()), (MAX_WAITING, MAX_SPARE));
        let room = outbox.spare.last().unwrap().capacity();
        outbox.packet(Port::Main, 1).unwrap();
        assert_eq!(outbox.waiting.front().unwrap().1.capacity(), room);
    }
}
