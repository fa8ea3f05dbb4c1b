//! Copies the gather list of a flight into one contiguous buffer, for one offloaded write.
//!
//! In: a payload. Out: its next bytes, appended to a buffer. Memory that will be copied soon is
//! prefetched.

use crate::device::prefetch::prefetch;
use crate::wire::payload::{Payload, PayloadReader};

/// Distance between prefetch and copy: four datagrams gained more than one or two.
const AHEAD_BYTES: usize = 4 * 1442;

/// The bytes of a payload that are still to be copied.
#[derive(Debug)]
pub(super) struct Gatherer<'p> {
    reader: PayloadReader<'p>,
    /// Reads ahead of the copy.
    scout: PayloadReader<'p>,
}

impl<'p> Gatherer<'p> {
    pub(super) fn new(payload: &'p Payload) -> Self {
        let reader = payload.reader();
        Self {
            scout: reader.clone(),
            reader,
        }
    }

    /// The number of bytes left.
    pub(super) const fn count(&self) -> usize {
        self.reader.left()
    }

    /// Leaves out the next `bytes`.
    pub(super) fn skip(&mut self, bytes: usize) {
        let end = self.count().saturating_sub(bytes);
        while self.reader.next(self.reader.left() - end).is_some() {}
        self.scout = self.reader.clone();
    }

    /// Appends the next `bytes` to `out`.
    pub(super) fn append(&mut self, bytes: usize, out: &mut Vec<u8>) {
        let end = self.count().saturating_sub(bytes);
        loop {
            while self.reader.left() < self.scout.left() + AHEAD_BYTES
                && let Some(soon) = self.scout.next(AHEAD_BYTES)
            {
                prefetch(soon);
            }
            match self.reader.next(self.reader.left() - end) {
                Some(slice) => out.extend_from_slice(slice),
                None => return,
            }
        }
    }
}
