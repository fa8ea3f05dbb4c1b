//! Reads a trace of rates from a file.
//!
//! In: the name of a file, from a command line or a control socket. Out: the trace, or a message that
//! names the file, the line and the remedy.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::sync::Arc;

use crate::link::trace::{RateTrace, TraceError};

/// Most bytes of a file of a trace.
pub(super) const MAX_TRACE_BYTES: u64 = 8 << 20;

/// The reason for rejecting a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceFileError {
    /// The operating system cannot read it.
    #[error("cannot read '{file}': {error}")]
    Unreadable {
        /// Its name.
        file: String,
        /// The error.
        error: String,
    },
    /// A folder, a device or a pipe, which could block.
    #[error("'{file}' is not a regular file")]
    Irregular {
        /// Its name.
        file: String,
    },
    /// Longer than [`MAX_TRACE_BYTES`].
    #[error("'{file}' has more than {MAX_TRACE_BYTES} bytes: use a shorter trace")]
    TooLong {
        /// Its name.
        file: String,
    },
    /// The content is not a trace.
    #[error("'{file}', {error}")]
    Content {
        /// Its name.
        file: String,
        /// The error.
        error: TraceError,
    },
}

/// Reads the trace in `file`.
///
/// # Errors
/// [`TraceFileError`].
pub(super) fn read(file: &str) -> Result<Arc<RateTrace>, TraceFileError> {
    let name = || file.escape_debug().to_string();
    let unreadable = |error: io::Error| TraceFileError::Unreadable {
        file: name(),
        error: error.to_string(),
    };
    if !fs::metadata(file).map_err(unreadable)?.is_file() {
        return Err(TraceFileError::Irregular { file: name() });
    }
    let mut text = Vec::new();
    let opened = File::open(file).map_err(unreadable)?;
    let read = opened.take(MAX_TRACE_BYTES + 1).read_to_end(&mut text);
    if u64::try_from(read.map_err(unreadable)?).unwrap_or(u64::MAX) > MAX_TRACE_BYTES {
        return Err(TraceFileError::TooLong { file: name() });
    }
    let trace = RateTrace::parse(&text).map_err(|error| TraceFileError::Content {
        file: name(),
        error,
    })?;
    Ok(Arc::new(trace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_or_the_message_names_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let longest = usize::try_from(MAX_TRACE_BYTES).unwrap();
        // Digits and white space, in no more lines than a trace may have.
        let padded = |len: usize| [b"7".as_slice(), &vec![b' '; len - 1]].concat();
        let cases: [(&str, &[u8], Option<&str>); 5] = [
            ("good", b"0\n5\n5\n", None),
            ("longest", &padded(longest), None),
            (
                "long",
                &padded(longest + 1),
                Some("more than 8388608 bytes"),
            ),
            (
                "letters",
                b"1\n2x\n",
                Some("letters', line 2: '2x' is not a time"),
            ),
            ("empty", b"", Some("empty', no times")),
        ];
        for (name, content, want) in cases {
            fs::write(at(name), content).unwrap();
            let error = read(&at(name)).err().map(|error| error.to_string());
            match want {
                None => assert_eq!(error, None, "{name}"),
                Some(want) => assert!(error.as_ref().unwrap().contains(want), "{error:?}"),
            }
        }
        for (name, want) in [("none", "cannot read"), ("", "not a regular file")] {
            let error = read(&at(name)).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
