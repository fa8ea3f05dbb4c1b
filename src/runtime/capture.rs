//! A thread that writes a capture, so that neither a disk nor the reader of a FIFO delays the loop.
//!
//! In: a path or a file, and the pieces of a [`Recorder`](crate::device::pcap::Recorder). Out: the
//! same bytes in order. At most [`MAX_PENDING_BYTES`] wait; a piece beyond them fails as a whole with
//! `WouldBlock`, and the recorder counts its packets as lost.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::host::metrics::Metric;
use crate::runtime::fifo::{open_now, open_patiently, write_patiently};

/// Most bytes that wait for the file.
pub const MAX_PENDING_BYTES: usize = 8 << 20;

/// Time that the end of a program leaves a slow reader to take the rest of its capture.
const READER_GRACE: Duration = Duration::from_secs(1);

/// The same for a disk.
const DISK_GRACE: Duration = Duration::from_secs(10);

/// Formats the packets that a capture lost.
pub(super) fn losses(packets: u64) -> Metric {
    Metric::counter(
        "headwater_capture_lost_packets_total",
        "Packets missing in the capture because its reader was too slow.",
        packets,
    )
}

/// A capture file, written by a thread of its own.
#[derive(Debug)]
pub struct CaptureFile {
    shared: Arc<Shared>,
    grace: Duration,
    /// `None` only while dropping.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<u8>,
    /// Bytes that the thread is writing; they count as pending.
    writing: usize,
    failed: Option<io::Error>,
    /// No bytes follow.
    closing: bool,
    /// The rest is not worth waiting for.
    abandoned: bool,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn goes_on(&self) -> bool {
        !self.lock().abandoned
    }
}

impl CaptureFile {
    /// Creates a file at `path`, or opens the FIFO there, whose reader may come later.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = open_now(path)?;
        Self::start(path.to_owned(), file)
    }

    /// Writes to an open file.
    ///
    /// # Errors
    /// If the operating system has no thread left.
    pub fn new(file: File) -> io::Result<Self> {
        Self::start(PathBuf::new(), Some(file))
    }

    fn start(path: PathBuf, file: Option<File>) -> io::Result<Self> {
        let disk = |file: &File| file.metadata().is_ok_and(|of| of.is_file());
        let grace = match file.as_ref().is_some_and(disk) {
            true => DISK_GRACE,
            false => READER_GRACE,
        };
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let run = move || {
            let written = write_pending(&of_thread, &path, file);
            let mut state = of_thread.lock();
            (state.failed, state.ended) = (written.err(), true);
            of_thread.changed.notify_all();
        };
        let thread = thread::Builder::new().name("capture".to_owned()).spawn(run);
        Ok(Self {
            shared,
            grace,
            thread: Some(thread?),
        })
    }
}

/// Writes pieces as they come, until the last one is written or abandoned.
fn write_pending(shared: &Shared, path: &Path, file: Option<File>) -> io::Result<()> {
    let mut goes_on = || shared.goes_on();
    let file = match file {
        Some(file) => Some(file),
        None => open_patiently(path, &mut goes_on)?,
    };
    let Some(file) = file else {
        return Ok(());
    };
    let mut piece = Vec::new();
    loop {
        piece.clear();
        {
            let wait = |state: &mut State| state.pending.is_empty() && !state.closing;
            let waited = shared.changed.wait_while(shared.lock(), wait);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            core::mem::swap(&mut state.pending, &mut piece);
            state.writing = piece.len();
        }
        if piece.is_empty() || !write_patiently(&file, &piece, &mut goes_on)? {
            return Ok(());
        }
        shared.lock().writing = 0;
    }
}

impl Write for CaptureFile {
    /// Queues all of `bytes`, or none with `WouldBlock`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        if state.ended {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if state.pending.len() + state.writing + bytes.len() > MAX_PENDING_BYTES {
            return Err(ErrorKind::WouldBlock.into());
        }
        state.pending.extend_from_slice(bytes);
        drop(state);
        self.shared.changed.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for CaptureFile {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closing = true;
        self.shared.changed.notify_all();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, self.grace, |state| !state.ended);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !state.ended {
            let left = state.pending.len() + state.writing;
            log::warn!("the end of the capture is lost: nobody has read its last {left} bytes");
            // The thread may hang in a write to a disk: it ends with the process at the latest.
            state.abandoned = true;
            return;
        }
        if let Some(error) = state.failed.take() {
            log::warn!("the end of the capture is lost: {error}");
        }
        drop(state);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the capture thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::runtime::fifo::tests::{fifo, reader};

    #[test]
    fn bytes_arrive_in_order() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut capture = CaptureFile::create(file.path()).unwrap();
        for n in 0..100_u8 {
            capture.write_all(&[n; 1000]).unwrap();
        }
        drop(capture);
        let want: Vec<u8> = (0..100_u8).flat_map(|n| [n; 1000]).collect();
        assert_eq!(std::fs::read(file.path()).unwrap(), want);
    }

    #[test]
    fn a_reader_that_never_comes_costs_the_bound_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut capture = CaptureFile::create(&fifo(&folder)).unwrap();
        let piece = vec![1; MAX_PENDING_BYTES / 4];
        for _ in 0..4 {
            capture.write_all(&piece).unwrap();
        }
        let full = capture.write_all(&[2]).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn a_reader_that_stalls_gets_whole_pieces_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(&folder);
        let mut reader = reader(&path);
        let mut capture = CaptureFile::create(&path).unwrap();
        let piece = vec![1; 1 << 20];
        let mut queued = 0;
        while capture.write_all(&piece).is_ok() {
            queued += piece.len();
        }
        assert!(queued >= MAX_PENDING_BYTES);
        let reads = thread::spawn(move || {
            let (mut got, mut buffer) = (0, vec![0; 1 << 16]);
            while got < queued {
                // Without bytes at hand the read fails at once.
                got += reader.read(&mut buffer).unwrap_or_default();
            }
            got
        });
        assert_eq!(reads.join().unwrap(), queued);
        drop(capture);
    }

    #[test]
    fn a_reader_that_leaves_ends_the_capture() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(&folder);
        let reader = reader(&path);
        let mut capture = CaptureFile::create(&path).unwrap();
        drop(reader);
        let failed = loop {
            if let Err(error) = capture.write_all(b"x") {
                break error;
            }
        };
        assert_eq!(failed.kind(), ErrorKind::BrokenPipe);
        assert!(capture.write_all(b"x").is_err(), "and stays so");
    }
}
