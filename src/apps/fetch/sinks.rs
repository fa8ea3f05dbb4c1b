//! Outputs for programs: a body in memory, and a body written to any writer.
//!
//! Neither can resume an earlier transfer.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use crate::apps::fetch::output::{Output, OutputError};

/// A body in memory. Clones share it: keep one and pass the other to a transfer.
#[derive(Clone, Debug)]
pub struct MemoryOutput {
    bytes: Rc<RefCell<Vec<u8>>>,
    limit: usize,
}

impl MemoryOutput {
    /// Creates an empty output that fails beyond `limit` bytes.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self {
            bytes: Rc::default(),
            limit,
        }
    }

    /// Takes the body out.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        self.bytes.take()
    }
}

impl Output for MemoryOutput {
    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        let mut body = self.bytes.borrow_mut();
        if bytes.len() > self.limit - body.len() {
            return Err(OutputError::Io(io::ErrorKind::FileTooLarge.into()));
        }
        body.extend_from_slice(bytes);
        Ok(())
    }

    fn rewind(&mut self) -> Result<(), OutputError> {
        self.bytes.borrow_mut().clear();
        Ok(())
    }
}

/// A body written to a writer as bytes arrive, so that it cannot start over after the first one. The
/// loop blocks on the writer: pass one that does not block for long.
#[derive(Debug)]
pub struct WriteOutput<W> {
    writer: W,
    written: bool,
}

impl<W: Write> WriteOutput<W> {
    /// Creates an output that writes to `writer`, and flushes it when the body is complete.
    pub const fn new(writer: W) -> Self {
        Self {
            writer,
            written: false,
        }
    }
}

impl<W: Write> Output for WriteOutput<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        self.written |= !bytes.is_empty();
        Ok(self.writer.write_all(bytes)?)
    }

    fn rewind(&mut self) -> Result<(), OutputError> {
        if self.written {
            return Err(OutputError::CannotRewind);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        Ok(self.writer.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_starts_again() {
        let kept = MemoryOutput::with_limit(4);
        let mut output = kept.clone();
        output.begin(0, None).unwrap();
        output.write(b"1234").unwrap();
        let refused = output.write(b"5");
        assert!(matches!(refused, Err(OutputError::Io(error))
            if error.kind() == io::ErrorKind::FileTooLarge));
        output.rewind().unwrap();
        output.begin(0, None).unwrap();
        output.write(b"abcd").unwrap();
        output.finish().unwrap();
        assert_eq!(kept.take(), b"abcd");
    }

    #[test]
    fn what_a_writer_has_taken_cannot_be_taken_back() {
        let mut written = Vec::new();
        let mut output = WriteOutput::new(&mut written);
        output.begin(0, None).unwrap();
        output.rewind().unwrap();
        output.write(b"a").unwrap();
        assert!(matches!(output.rewind(), Err(OutputError::CannotRewind)));
        output.finish().unwrap();
        assert_eq!(written, b"a");
    }
}
