//! Packets on their way out of the redirector, in buffers that are used again.
//!
//! In: packets as they are made. Out: the same, by where they leave, in order. A
//! buffer that has been sent comes back by [`Outbox::recycle`], so that a redirector at work does
//! not allocate.

use std::collections::VecDeque;

use super::BackendId;

/// Most packets that wait. The driver drains them after each packet read, so only a device that
/// joins very many datagrams into one packet gets here.
pub const MAX_WAITING: usize = 1024;

/// Most empty buffers that are kept.
pub const MAX_SPARE: usize = 64;

/// Bounded queues of packets: one of those that leave through the device that packets for the service
/// come from, one of those for backends with a device of their own.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<Vec<u8>>,
    forwards: VecDeque<(BackendId, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
}

impl Outbox {
    /// Room for a packet of `length` bytes; `None` if too many wait.
    pub fn packet(&mut self, length: usize) -> Option<&mut [u8]> {
        if self.waiting.len() >= MAX_WAITING {
            return None;
        }
        let buffer = self.buffer(length);
        self.waiting.push_back(buffer);
        self.waiting.back_mut().map(Vec::as_mut_slice)
    }

    /// Room for a packet of `length` bytes to a backend's own device; `None` if too many wait.
    pub fn forward(&mut self, to: BackendId, length: usize) -> Option<&mut [u8]> {
        if self.forwards.len() >= MAX_WAITING {
            return None;
        }
        let buffer = self.buffer(length);
        self.forwards.push_back((to, buffer));
        self.forwards
            .back_mut()
            .map(|(_, buffer)| buffer.as_mut_slice())
    }

    fn buffer(&mut self, length: usize) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.resize(length, 0);
        buffer
    }

    /// The next packet.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        self.waiting.pop_front()
    }

    /// The next packet for a backend's own device.
    pub fn pop_forward(&mut self) -> Option<(BackendId, Vec<u8>)> {
        self.forwards.pop_front()
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
            assert_eq!(outbox.packet(length).unwrap().len(), length);
            let forward = outbox.forward(BackendId(1), length);
            assert_eq!(forward.unwrap().len(), length);
        }
        assert!(outbox.packet(1).is_none() && outbox.forward(BackendId(1), 1).is_none());
        let mut sent = 0;
        while let Some(buffer) = outbox.pop() {
            assert_eq!(buffer.len(), sent);
            outbox.recycle(buffer);
            sent += 1;
        }
        assert_eq!(outbox.pop_forward(), Some((BackendId(1), Vec::new())));
        assert_eq!((sent, outbox.spare.len()), (MAX_WAITING, MAX_SPARE));
        let room = outbox.spare.last().unwrap().capacity();
        outbox.packet(1).unwrap();
        assert_eq!(outbox.waiting.front().unwrap().capacity(), room);
    }
}
