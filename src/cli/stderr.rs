//! Standard error without waiting: a reader that stalls must not stop the loop.
//!
//! In: lines of the log. Out: the same, at most [`MAX_LOG_LINE_BYTES`] of each. A line that finds no
//! room is lost; the next one that finds some says how many were.
//! Source: pipe(7): a write of at most `PIPE_BUF` bytes to a pipe that poll(2) calls writable does not
//! block.

use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Longest line, in bytes (`PIPE_BUF` of Linux).
pub(super) const MAX_LOG_LINE_BYTES: usize = 4096;

/// Writes whole lines, or loses them.
#[derive(Debug)]
pub(super) struct LogWriter<W> {
    out: W,
    lost: u64,
}

impl LogWriter<io::Stderr> {
    /// Creates a writer to standard error.
    pub(super) fn stderr() -> Self {
        Self::new(io::stderr())
    }
}

impl<W: Write + AsFd> LogWriter<W> {
    const fn new(out: W) -> Self {
        Self { out, lost: 0 }
    }

    /// Whether a write does not block; an error is for the write to report.
    fn has_room(&self) -> bool {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut writable = [PollFd::new(&self.out, PollFlags::OUT)];
        !matches!(poll(&mut writable, Some(&now)), Ok(0))
    }
}

impl<W: Write + AsFd> Write for LogWriter<W> {
    /// Writes one line, which `bytes` must hold whole.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.has_room() {
            self.lost += 1;
            return Ok(bytes.len());
        }
        let mut line = Vec::with_capacity(bytes.len().min(MAX_LOG_LINE_BYTES));
        if self.lost > 0 {
            writeln!(line, "{} lines lost: standard error is too slow", self.lost)?;
        }
        line.extend_from_slice(bytes);
        if line.len() > MAX_LOG_LINE_BYTES {
            line.truncate(MAX_LOG_LINE_BYTES - 1);
            line.push(b'\n');
        }
        self.out.write_all(&line)?;
        self.lost = 0;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn lines_without_room_are_lost_and_counted() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut log = LogWriter::new(writer);
        let long = vec![b'x'; 2 * MAX_LOG_LINE_BYTES];
        let mut written = 0;
        while log.lost < 3 {
            log.write_all(&long).unwrap();
            written += usize::from(log.lost == 0);
        }
        let mut buffer = vec![0; written * MAX_LOG_LINE_BYTES];
        reader.read_exact(&mut buffer).unwrap();
        let lines = buffer.split_inclusive(|byte| *byte == b'\n');
        assert!(lines.clone().all(|line| line.len() == MAX_LOG_LINE_BYTES));
        log.write_all(b"next\n").unwrap();
        drop(log);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "3 lines lost: standard error is too slow\nnext\n");
    }
}
