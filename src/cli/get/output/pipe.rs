//! Outputs that cannot be undone: standard output, a FIFO or a device.
//!
//! In: bytes in order. Out: the same bytes, as fast as their reader takes them. Where the system
//! supports non-blocking writes (pipes, terminals), bytes that would block are buffered and the loop
//! continues: a blocked program answers no packet and misses every timer. For the same reason a FIFO
//! without a reader is opened later: until then it counts as one byte that waits.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::apps::fetch::output::{Held, Output, OutputError};
use crate::files::Place;
use crate::runtime::fifo::{RETRY_INTERVAL, open_now};

/// Standard output, under a path that can be opened again.
const STDOUT: &str = "/proc/self/fd/1";

/// Smallest write that bypasses the buffer, in bytes.
const MIN_DIRECT_BYTES: usize = 16 * 1024;

/// An output that is written as bytes arrive; see the head of this file.
pub(super) struct Pipe {
    file: PipeEnd,
    /// Offset of the first byte in the object.
    offset: u64,
    written: bool,
    kept: VecDeque<u8>,
}

#[derive(Debug)]
enum PipeEnd {
    Open(File),
    /// A FIFO without a reader.
    Awaited(PathBuf),
}

impl Pipe {
    /// Opens standard output. Its descriptor is shared with the parent process, which may not expect
    /// non-blocking mode; so opens another one where possible.
    pub(super) fn stdout(offset: u64) -> io::Result<Self> {
        let shared = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let file = if may_wait(&shared)? {
            let own = Place::of(Path::new(STDOUT)).and_then(|place| place.open_in_place());
            own.unwrap_or(shared)
        } else {
            shared
        };
        Ok(Self::new(PipeEnd::Open(file), offset))
    }

    /// Opens a file that is not a regular one; a FIFO at the latest with its reader.
    pub(super) fn open(path: &Path, offset: u64) -> io::Result<Self> {
        let file = match open_now(path)? {
            Some(file) => PipeEnd::Open(file),
            None => {
                log::info!("{}: waiting for a reader", path.display());
                PipeEnd::Awaited(path.to_owned())
            }
        };
        Ok(Self::new(file, offset))
    }

    const fn new(file: PipeEnd, offset: u64) -> Self {
        Self {
            file,
            offset,
            written: false,
            kept: VecDeque::new(),
        }
    }
}

/// Whether a write may block, and can be made non-blocking.
fn may_wait(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.file_type().is_fifo() || file.is_terminal())
}

/// Writes without blocking; returns the length, or `None` if nothing is left or it would block.
fn write_some(mut file: &File, bytes: &[u8]) -> io::Result<Option<usize>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    loop {
        match file.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Output for Pipe {
    fn held(&self) -> Held {
        Held {
            bytes: self.offset,
            etag: None,
        }
    }

    fn replay(&mut self, _sink: &mut dyn FnMut(&[u8])) -> Result<bool, OutputError> {
        Ok(false)
    }

    fn begin(&mut self, _offset: u64, _etag: Option<&str>) -> Result<(), OutputError> {
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        self.written |= !bytes.is_empty();
        let mut rest = bytes;
        if let PipeEnd::Open(file) = &self.file
            && self.kept.is_empty()
            && bytes.len() >= MIN_DIRECT_BYTES
        {
            while let Some(count) = write_some(file, rest)? {
                rest = rest.get(count..).unwrap_or_default();
            }
        }
        self.kept.extend(rest);
        Ok(())
    }

    fn kept(&self) -> usize {
        match self.file {
            PipeEnd::Open(_) => self.kept.len(),
            PipeEnd::Awaited(_) => self.kept.len().max(1),
        }
    }

    fn flush(&mut self) -> Result<(), OutputError> {
        if let PipeEnd::Awaited(path) = &self.file
            && let Some(file) = open_now(path)?
        {
            self.file = PipeEnd::Open(file);
        }
        let PipeEnd::Open(file) = &self.file else {
            return Ok(());
        };
        while let Some(count) = write_some(file, self.kept.as_slices().0)? {
            self.kept.drain(..count);
        }
        Ok(())
    }

    fn retry_interval(&self) -> Option<Duration> {
        matches!(self.file, PipeEnd::Awaited(_)).then_some(RETRY_INTERVAL)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.file {
            PipeEnd::Open(file) => Some(file.as_fd()),
            PipeEnd::Awaited(_) => None,
        }
    }

    fn rewind(&mut self) -> Result<(), OutputError> {
        // A reader that started at an offset cannot use bytes from 0.
        if self.written || self.offset > 0 {
            return Err(OutputError::CannotRewind);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    use super::*;
    use crate::runtime::fifo::tests::{fifo, reader};

    /// Creates a pipe with a non-blocking write end, like `stdout` and `open`.
    fn pipe() -> (io::PipeReader, Pipe) {
        let (reader, writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        fcntl_setfl(&file, fcntl_getfl(&file).unwrap() | OFlags::NONBLOCK).unwrap();
        (reader, Pipe::new(PipeEnd::Open(file), 0))
    }

    #[test]
    fn what_a_slow_reader_leaves_is_kept_and_written_later() {
        let (mut reader, mut output) = pipe();
        let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        for piece in sent.chunks(MIN_DIRECT_BYTES - 1) {
            output.write(piece).unwrap();
        }
        assert_eq!(
            output.kept(),
            sent.len(),
            "little is not written before `flush`"
        );
        output.flush().unwrap();
        drain(&mut reader, output, &sent);
    }

    #[test]
    fn much_is_written_at_once_as_far_as_the_reader_takes_it() {
        let (mut reader, mut output) = pipe();
        let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let (first, rest) = sent.split_at(MIN_DIRECT_BYTES);
        output.write(first).unwrap();
        assert_eq!(output.kept(), 0);
        output.write(rest).unwrap();
        drain(&mut reader, output, &sent);
    }

    /// Reads the rest of `sent` from a full pipe and from `output`.
    fn drain(reader: &mut io::PipeReader, mut output: Pipe, sent: &[u8]) {
        let before = output.kept();
        assert!(
            before > 0 && before < sent.len(),
            "the pipe is full: {before}"
        );
        let mut got = Vec::new();
        while output.kept() > 0 {
            let mut buffer = [0; 5000];
            let count = reader.read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..count]);
            output.flush().unwrap();
        }
        output.finish().unwrap();
        drop(output);
        reader.read_to_end(&mut got).unwrap();
        assert_eq!(got, sent);
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error() {
        let (reader, mut output) = pipe();
        drop(reader);
        output.write(b"x").unwrap();
        let error = output.flush().unwrap_err();
        assert!(matches!(error, OutputError::Io(error) if error.kind() == ErrorKind::BrokenPipe));
    }

    #[test]
    fn a_fifo_is_opened_with_its_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(&folder);
        let mut output = Pipe::open(&path, 0).unwrap();
        assert_eq!(output.kept(), 1, "an empty body waits, too");
        assert!(output.retry_interval().is_some() && output.descriptor().is_none());
        output.write(&[7; MIN_DIRECT_BYTES]).unwrap();
        output.flush().unwrap();
        assert_eq!(output.kept(), MIN_DIRECT_BYTES);
        let mut reader = reader(&path);
        output.flush().unwrap();
        assert_eq!(output.kept(), 0);
        assert!(output.retry_interval().is_none() && output.descriptor().is_some());
        output.finish().unwrap();
        drop(output);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert_eq!(got, [7; MIN_DIRECT_BYTES]);
    }

    #[test]
    fn only_what_was_not_written_to_can_be_rewound() {
        let (_reader, mut output) = pipe();
        assert!(output.rewind().is_ok());
        output.write(b"x").unwrap();
        assert!(output.rewind().is_err());
    }
}
