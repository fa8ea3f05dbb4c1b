//! The redirector's outgoing packets, in recycled buffers.
//!
//! In: packets as they are built. Out: the same, by outgoing device, in order. Sent buffers return
//! by [`Outbox::recycle`], so a redirector in steady state does not allocate.

use std::collections::VecDeque;

use super::BackendId;

/// Most queued packets. The driver drains them after each packet read, so only a packet of very
/// many coalesced datagrams reaches this.
pub const MAX_WAITING: usize = 1024;

/// Most empty buffers kept.
pub const MAX_SPARE: usize = 64;

/// Bounded queues of packets: one for the device on which client packets arrive, one for backends
/// with a device of their own.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<Vec<u8>>,
    forwards: VecDeque<(BackendId, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
}

impl Outbox {
    /// Returns a buffer for a packet of `length` bytes; `None` if the queue is full.
    pub fn packet(&mut self, length: usize) -> Option<&mut [u8]> {
        if self.waiting.len() >= MAX_WAITING {
            return None;
        }
        let buffer = self.buffer(length);
        self.waiting.push_back(buffer);
        self.waiting.back_mut().map(Vec::as_mut_slice)
    }

    /// Returns a buffer for a packet of `length` bytes to a backend's own device; `None` if the
    /// queue is full.
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

    /// Removes the next packet.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        self.waiting.pop_front()
    }

    /// Removes the next packet for a backend's own device.
    pub fn pop_forward(&mut self) -> Option<(BackendId, Vec<u8>)> {
        self.forwards.pop_front()
    }

    /// Recycles the buffer of a sent packet.
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
