//! Where a transfer puts the body: a contract that `cli` fulfils with files and pipes, and tests
//! with memory.
//!
//! Bytes come in order and without gaps. An output presents nothing as whole before `finish`.

use std::io;
use std::os::fd::BorrowedFd;

/// What an output holds of an earlier attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes from the start of the object; 0 if there are none.
    pub bytes: u64,
    /// The strong entity tag they were sent under, if it is remembered.
    pub etag: Option<String>,
}

/// Why an output cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The operating system refused.
    #[error("cannot write the output ({0}): free some space or choose another file")]
    Io(#[from] io::Error),
    /// What was written cannot be taken back (a pipe).
    #[error("the output cannot be rewound")]
    CannotRewind,
}

/// A place for one body.
pub trait Output {
    /// What is held of an earlier attempt and is to be continued.
    fn held(&self) -> Held;

    /// Gives the first `held().bytes` bytes to `sink`, in order; `false` if they cannot be read
    /// back.
    ///
    /// # Errors
    /// [`OutputError::Io`].
    fn replay(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<bool, OutputError>;

    /// A response was accepted: its body is to stand at `offset`, which is 0 or `held().bytes`.
    /// `etag` is its strong entity tag, worth remembering for a later attempt.
    ///
    /// # Errors
    /// [`OutputError`].
    fn begin(&mut self, offset: u64, etag: Option<&str>) -> Result<(), OutputError>;

    /// Appends bytes; those that would have to wait for a slow reader may be kept back.
    ///
    /// # Errors
    /// [`OutputError::Io`].
    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError>;

    /// How many bytes are kept back.
    fn kept(&self) -> usize {
        0
    }

    /// Writes what is kept back, as far as that needs no waiting.
    ///
    /// # Errors
    /// [`OutputError::Io`].
    fn flush(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    /// What becomes writable when `flush` is worth a call, if it keeps anything back.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Forgets everything, also what was held: the next `begin` is at 0.
    ///
    /// # Errors
    /// [`OutputError`]; then nothing more may be written.
    fn rewind(&mut self) -> Result<(), OutputError>;

    /// The body is whole, and nothing is kept back: present it.
    ///
    /// # Errors
    /// [`OutputError::Io`].
    fn finish(&mut self) -> Result<(), OutputError>;
}
