//! Decodes the chunked transfer coding incrementally (RFC 9112 §7.1).
//!
//! In: arbitrary slices of the coded stream. Out: slices of the data, without a copy. Skips
//! extensions and trailer fields, and bounds their length.

/// Longest chunk-size line in bytes, extensions included.
pub const MAX_CHUNK_LINE: usize = 1024;

/// Longest trailer section in bytes.
pub const MAX_TRAILER_BYTES: usize = 8 * 1024;

/// The sender's violation of the coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The size is not hexadecimal, or exceeds 64 bits.
    #[error("malformed chunk size")]
    Size,
    /// A line does not end with CR LF.
    #[error("a chunk does not end with CR LF")]
    LineEnd,
    /// A size line exceeds [`MAX_CHUNK_LINE`].
    #[error("chunk line exceeds {MAX_CHUNK_LINE} bytes")]
    LineTooLong,
    /// The trailer section exceeds [`MAX_TRAILER_BYTES`].
    #[error("trailer section exceeds {MAX_TRAILER_BYTES} bytes")]
    TrailerTooLong,
}

/// The outcome of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The input is consumed.
    NeedMore,
    /// Body bytes.
    Data(&'a [u8]),
    /// The last chunk and the trailer section are complete.
    Done,
}

/// The position in the coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkedState {
    /// In the digits of a size line, `line` bytes into it.
    Size {
        value: u64,
        digits: usize,
        line: usize,
    },
    /// After the digits, before the CR.
    Extension {
        value: u64,
        line: usize,
    },
    /// After the CR of a size line.
    SizeLf {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// In the trailer section, `column` bytes after the last LF, CR not counted.
    Trailer {
        column: usize,
        total: usize,
    },
    Done,
}

/// A decoder of one body.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: ChunkedState,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkedDecoder {
    /// Creates a decoder at the start of a body.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: ChunkedState::START,
        }
    }

    /// Consumes some of `input`; returns how many bytes, and the outcome. Call again with the rest
    /// until `NeedMore` or `Done`.
    ///
    /// # Errors
    /// [`ChunkError`]; the body is then unusable.
    pub fn step<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Step<'a>), ChunkError> {
        let mut used = 0;
        loop {
            if self.state == ChunkedState::Done {
                return Ok((used, Step::Done));
            }
            let rest = input.get(used..).unwrap_or(&[]);
            let Some(&byte) = rest.first() else {
                return Ok((used, Step::NeedMore));
            };
            if let ChunkedState::Data { left } = self.state {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                let data = rest.get(..take).unwrap_or(rest);
                let left = left - u64::try_from(take).unwrap_or(left);
                self.state = if left == 0 {
                    ChunkedState::DataCr
                } else {
                    ChunkedState::Data { left }
                };
                return Ok((used + take, Step::Data(data)));
            }
            self.state = self.state.after(byte)?;
            used += 1;
        }
    }
}

impl ChunkedState {
    /// Before the first digit of a size line.
    const START: Self = Self::Size {
        value: 0,
        digits: 0,
        line: 0,
    };

    /// Returns the state after one byte that is not data.
    fn after(self, byte: u8) -> Result<Self, ChunkError> {
        Ok(match (self, byte) {
            (Self::Size { digits: 0, .. }, b'\r' | b';' | b' ' | b'\t') => {
                return Err(ChunkError::Size);
            }
            (Self::Size { value, .. } | Self::Extension { value, .. }, b'\r') => {
                Self::SizeLf { value }
            }
            (Self::Size { line, .. } | Self::Extension { line, .. }, _)
                if line >= MAX_CHUNK_LINE =>
            {
                return Err(ChunkError::LineTooLong);
            }
            (Self::Size { value, line, .. }, b';' | b' ' | b'\t') => Self::Extension {
                value,
                line: line + 1,
            },
            (
                Self::Size {
                    value,
                    digits,
                    line,
                },
                _,
            ) => {
                let digit = char::from(byte).to_digit(16).ok_or(ChunkError::Size)?;
                let value = value.checked_mul(16).ok_or(ChunkError::Size)? | u64::from(digit);
                Self::Size {
                    value,
                    digits: digits + 1,
                    line: line + 1,
                }
            }
            (Self::Extension { .. }, b'\n') => return Err(ChunkError::LineEnd),
            (Self::Extension { value, line }, _) => Self::Extension {
                value,
                line: line + 1,
            },
            (Self::SizeLf { value: 0 }, b'\n') => Self::Trailer {
                column: 0,
                total: 0,
            },
            (Self::SizeLf { value }, b'\n') => Self::Data { left: value },
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::START,
            (Self::SizeLf { .. } | Self::DataCr | Self::DataLf, _) => {
                return Err(ChunkError::LineEnd);
            }
            (Self::Trailer { column: 0, .. }, b'\n') => Self::Done,
            (Self::Trailer { total, .. }, _) if total >= MAX_TRAILER_BYTES => {
                return Err(ChunkError::TrailerTooLong);
            }
            (Self::Trailer { total, .. }, b'\n') => Self::Trailer {
                column: 0,
                total: total + 1,
            },
            (Self::Trailer { column, total }, b'\r') => Self::Trailer {
                column,
                total: total + 1,
            },
            (Self::Trailer { column, total }, _) => Self::Trailer {
                column: column + 1,
                total: total + 1,
            },
            (Self::Data { .. } | Self::Done, _) => self,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(input: &[u8], piece: usize) -> Result<(Vec<u8>, bool, usize), ChunkError> {
        let mut decoder = ChunkedDecoder::new();
        let (mut out, mut used) = (Vec::new(), 0);
        for mut slice in input.chunks(piece.max(1)) {
            loop {
                let (n, step) = decoder.step(slice)?;
                slice = &slice[n..];
                used += n;
                match step {
                    Step::NeedMore => break,
                    Step::Data(data) => out.extend_from_slice(data),
                    Step::Done => return Ok((out, true, used)),
                }
            }
        }
        Ok((out, false, used))
    }

    #[test]
    fn bodies_are_decoded_in_pieces_of_any_size() {
        let coded =
            b"4\r\nWiki\r\n5;x=\"y\"\r\npedia\r\n0000A \r\n0123456789\r\n0\r\nA: b\r\n\r\nNEXT";
        for piece in 1..=coded.len() {
            let (data, done, used) = decode(coded, piece).unwrap();
            assert_eq!(data, b"Wikipedia0123456789");
            assert!(done);
            assert_eq!(used, coded.len() - 4, "what follows is not touched");
        }
    }

    #[test]
    fn broken_codings_are_refused() {
        let long = |n: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(n));
        let trailer = |n: usize| format!("0\r\n{}\r\n\r\n", "t".repeat(n));
        for (name, coded, want) in [
            ("no digits", "\r\n".to_owned(), ChunkError::Size),
            ("not hex", "g\r\n".to_owned(), ChunkError::Size),
            (
                "overflow",
                "10000000000000000\r\n".to_owned(),
                ChunkError::Size,
            ),
            ("bare lf", "1;a\nx".to_owned(), ChunkError::LineEnd),
            ("no lf", "1\rx".to_owned(), ChunkError::LineEnd),
            (
                "data too long",
                "1\r\nxy\r\n".to_owned(),
                ChunkError::LineEnd,
            ),
            (
                "long line",
                long(MAX_CHUNK_LINE - 1),
                ChunkError::LineTooLong,
            ),
            (
                "long trailer",
                trailer(MAX_TRAILER_BYTES),
                ChunkError::TrailerTooLong,
            ),
        ] {
            assert_eq!(decode(coded.as_bytes(), 7).map(|_| ()), Err(want), "{name}");
        }
        assert!(
            decode(long(MAX_CHUNK_LINE - 2).as_bytes(), 7).unwrap().1,
            "line at the limit"
        );
        assert!(
            decode(trailer(MAX_TRAILER_BYTES - 3).as_bytes(), 7)
                .unwrap()
                .1,
            "trailer at it"
        );
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_data(
            chunks in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 1..50), 0..10),
            piece in 1usize..40,
        ) {
            let mut coded = Vec::new();
            for chunk in &chunks {
                coded.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                coded.extend_from_slice(chunk);
                coded.extend_from_slice(b"\r\n");
            }
            coded.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(decode(&coded, piece), Ok((chunks.concat(), true, coded.len())));
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, 13);
        }
    }
}
