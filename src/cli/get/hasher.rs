//! A digest computed on a thread of its own, so that the slower of download and digest bounds the
//! rate, not their sum.
//!
//! In: bytes in order, of any length. Out: their digest. The bytes travel in pieces of one size
//! whose memory is reused; a body shorter than a piece needs no thread. A full queue of pieces
//! blocks the caller until the thread has hashed one.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use crate::apps::fetch::verify::{Hasher, Sha256};
use crate::http::digest::SHA256_BYTES;

/// Most pieces that wait to be hashed.
pub const MAX_PIECES: usize = 64;

/// Size of a piece in bytes, at least: about one coalesced packet (GRO).
pub const PIECE_BYTES: usize = 64 * 1024;

/// Moves a digest to a thread if there is a processor for it.
pub(super) fn go_on(digest: Sha256) -> Box<dyn Hasher> {
    match thread::available_parallelism() {
        Ok(processors) if processors.get() > 1 => Box::new(ThreadHasher::new(digest)),
        Ok(_) | Err(_) => digest.go_on(),
    }
}

/// A hasher with a thread; see the head of this file.
struct ThreadHasher {
    piece: Vec<u8>,
    worker: Worker,
}

enum Worker {
    /// No thread is needed, or the system refused it.
    Here(Sha256),
    There {
        pieces: SyncSender<Vec<u8>>,
        used: Receiver<Vec<u8>>,
        thread: JoinHandle<Sha256>,
    },
}

impl ThreadHasher {
    const fn new(digest: Sha256) -> Self {
        Self {
            piece: Vec::new(),
            worker: Worker::Here(digest),
        }
    }
}

impl Hasher for ThreadHasher {
    fn update(&mut self, bytes: &[u8]) {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() < PIECE_BYTES {
            return;
        }
        self.worker.start();
        self.piece = self.worker.give(core::mem::take(&mut self.piece));
    }

    fn finish(self: Box<Self>) -> [u8; SHA256_BYTES] {
        let Self { piece, mut worker } = *self;
        worker.give(piece);
        match worker {
            Worker::Here(digest) => Box::new(digest).finish(),
            Worker::There { pieces, thread, .. } => {
                drop(pieces);
                // A thread that panicked leaves no digest; all zeros match no object.
                let digest = thread.join().ok();
                digest.map_or([0; SHA256_BYTES], |digest| Box::new(digest).finish())
            }
        }
    }
}

impl Worker {
    /// Starts the thread, unless it runs or the system refuses it.
    fn start(&mut self) {
        let Self::Here(digest) = self else { return };
        let mut digest = digest.clone();
        let (pieces, given) = sync_channel::<Vec<u8>>(MAX_PIECES);
        let (back, used) = channel();
        let builder = thread::Builder::new().name("digest".to_owned());
        let spawned = builder.spawn(move || {
            for mut piece in given {
                digest.update(&piece);
                piece.clear();
                // At the end no one receives the buffer.
                let _ = back.send(piece);
            }
            digest
        });
        if let Ok(thread) = spawned {
            *self = Self::There {
                pieces,
                used,
                thread,
            };
        }
    }

    /// Sends a piece to the thread and returns an empty buffer.
    fn give(&mut self, mut piece: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Here(digest) => {
                digest.update(&piece);
                piece.clear();
                piece
            }
            Self::There { pieces, used, .. } => {
                // The thread is gone only after a panic; `finish` reports it.
                let _ = pieces.send(piece);
                used.try_recv().unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(hasher: Box<dyn Hasher>, bytes: usize, step: usize) -> [u8; SHA256_BYTES] {
        let body: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        let mut hasher = hasher;
        for piece in body.chunks(step) {
            hasher.update(piece);
        }
        hasher.finish()
    }

    #[test]
    fn the_digest_is_the_same_wherever_it_is_computed() {
        let before = || {
            let mut digest = Sha256::new();
            digest.update(b"held before");
            digest
        };
        for (name, bytes, step) in [
            ("nothing", 0, 1),
            ("less than a piece", PIECE_BYTES - 1, 1400),
            ("a piece", PIECE_BYTES, PIECE_BYTES),
            ("many", 5_000_000, 1400),
            (
                "more than may wait",
                (MAX_PIECES + 9) * PIECE_BYTES,
                PIECE_BYTES,
            ),
            ("long ones", 5_000_000, 200_000),
        ] {
            let there = Box::new(ThreadHasher::new(before()));
            let want = digest(before().go_on(), bytes, step);
            assert_eq!(digest(there, bytes, step), want, "{name}");
        }
    }

    #[test]
    fn no_more_pieces_wait_than_may() {
        let (pieces, given) = sync_channel::<Vec<u8>>(MAX_PIECES);
        let waiting = core::iter::repeat_with(|| pieces.try_send(Vec::new()));
        assert_eq!(waiting.take_while(Result::is_ok).count(), MAX_PIECES);
        drop(given);
    }

    #[test]
    fn a_short_body_starts_no_thread() {
        let mut hasher = ThreadHasher::new(Sha256::new());
        hasher.update(&[1; PIECE_BYTES - 1]);
        assert!(matches!(hasher.worker, Worker::Here(_)));
        hasher.update(&[1]);
        assert!(matches!(hasher.worker, Worker::There { .. }));
    }
}
