//! The destination of a body: a trait that `cli` implements with files and pipes, and tests with
//! memory.
//!
//! Bytes arrive in order and without gaps. An output presents nothing as complete before `finish`.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// The bytes that an output holds of an earlier transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes from the start of the object; 0 if there are none.
    pub bytes: u64,
    /// The strong entity tag of their response, if known.
    pub etag: Option<String>,
}

/// Why an output failed.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The operating system's error.
    #[error("cannot write the output ({0}): free some space or choose another file")]
    Io(#[from] io::Error),
    /// Written bytes cannot be undone (a pipe).
    #[error("the output cannot be rewound")]
    CannotRewind,
}

/// A destination for one body.
pub trait Output {
    /// The bytes of an earlier transfer, to be resumed. Default: none.
    fn held(&self) -> Held {
        Held::default()
    }

    /// Passes the first `held().bytes` bytes to `sink`, in order; `false` if they cannot be read
    /// back. Default: `true`, for an output that holds none.
    ///
    /// # Errors
    /// [`OutputError::Io`].
    fn replay(&mut self, _sink: &mut dyn FnMut(&[u8])) -> Result<bool, OutputError> {
        Ok(true)
    }

    /// Begins a body at `offset`, which is 0 or `held().bytes`, after a response was accepted. `etag`:
    /// its strong entity tag, to be saved for a later transfer. Default: rewinds, for an output that
    /// holds none.
    ///
    /// # Errors
    /// [`OutputError`].
    fn begin(&mut self, _offset: u64, _etag: Option<&str>) -> Result<(), OutputError> {
        self.rewind()
    }

    /// Appends bytes; may buffer those that would block.
    ///
    /// # Errors
    /// [`OutputError::Io`].
    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError>;

    /// The number of bytes buffered.
    fn kept(&self) -> usize {
        0
    }

    /// Writes buffered bytes as far as possible without blocking.
    ///
    /// # Errors
    /// [`OutputError::Io`].
    fn flush(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    /// The descriptor whose writability makes `flush` worthwhile, if anything is buffered.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The interval after which `flush` should be called again although nothing is written and no
    /// descriptor announces room: a FIFO without a reader cannot be opened.
    fn retry_interval(&self) -> Option<Duration> {
        None
    }

    /// Discards everything, including bytes held: the next `begin` is at 0.
    ///
    /// # Errors
    /// [`OutputError`]; nothing may be written afterwards.
    fn rewind(&mut self) -> Result<(), OutputError>;

    /// Presents the body, which is complete and not buffered. Default: does nothing.
    ///
    /// # Errors
    /// [`OutputError::Io`].
    fn finish(&mut self) -> Result<(), OutputError> {
        Ok(())
    }
}
