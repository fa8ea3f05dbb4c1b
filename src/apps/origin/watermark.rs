//! Objects with a client's mark embedded: `/.watermark/MARK/PATH`, after a sample application of
//! Trickles (NSDI 2005).
//!
//! The output depends only on (content, mark), and each range of it on a bounded part of the content,
//! so that a server needs no state but the user continuation. Two schemes:
//!
//! - **Text** (`text/*` in an encoding that keeps ASCII): each block of [`BLOCK`] bytes of the
//!   content, including a last, shorter one, gets the line `[watermark MARK]` once, after the
//!   block's last line end, or before its last character if it has none. So output block
//!   i begins at i · (BLOCK + length of the line). Removing the lines restores the content.
//! - **Samples** (uncompressed WAV, binary PGM and PPM, BMP with 24 or 32 bits): the least
//!   significant bit of sample k is bit k modulo the frame's length of the frame
//!   `HW | length 1 | MARK`, most significant bit first. The length of the object is unchanged.

use crate::transport::application::copy_at;

/// Longest mark in bytes.
pub const MAX_MARK_BYTES: usize = 64;

/// Bytes of content between two marks in a text.
pub const BLOCK: u64 = 4096;

/// Bytes from the start of an object that [`Scheme::detect`] may need.
pub const HEADER_BYTES: usize = 4096;

/// Whether these bytes are a valid mark: 1 to [`MAX_MARK_BYTES`] of `A-Z a-z 0-9 . _ -`.
#[must_use]
pub fn is_mark(mark: &[u8]) -> bool {
    (1..=MAX_MARK_BYTES).contains(&mark.len())
        && mark
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

/// How a mark is embedded in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// As lines of text.
    Text,
    /// In the least significant bits of samples.
    Samples(Samples),
}

/// The position of the samples' low bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Samples {
    /// Offset of the first one.
    pub first: u64,
    /// Offset after the last sample.
    pub end: u64,
    /// Distance between samples in bytes; at least 1.
    pub stride: u64,
}

impl Scheme {
    /// Detects the scheme for an object of `size` bytes that starts with `header` (its first
    /// [`HEADER_BYTES`], or all of it); `None` if it cannot hold a mark.
    #[must_use]
    pub fn detect(content_type: &str, header: &[u8], size: u64) -> Option<Self> {
        if content_type.starts_with("text/") {
            return Some(Self::Text);
        }
        let samples = media::wav(header)
            .or_else(|| media::pnm(header))
            .or_else(|| media::bmp(header))?;
        let samples = Samples {
            end: samples.end.min(size),
            ..samples
        };
        (samples.first < samples.end).then_some(Self::Samples(samples))
    }
}

/// An object with a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    scheme: Scheme,
    size: u64,
    /// The line, or the frame.
    woven: Vec<u8>,
}

impl Marked {
    /// Creates the object of `size` bytes with `mark` embedded. `None` if the mark is invalid
    /// ([`is_mark`]) or the samples have no room for it.
    #[must_use]
    pub fn new(scheme: Scheme, size: u64, mark: &[u8]) -> Option<Self> {
        if !is_mark(mark) {
            return None;
        }
        let woven = match scheme {
            Scheme::Text => line(mark),
            Scheme::Samples(samples) => {
                let frame = [FRAME_START, &[u8::try_from(mark.len()).ok()?], mark].concat();
                let room = (samples.end - samples.first).div_ceil(samples.stride.max(1));
                (bits(&frame) <= room).then_some(frame)?
            }
        };
        Some(Self {
            scheme,
            size,
            woven,
        })
    }

    /// Length in bytes, including the mark.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self.scheme {
            Scheme::Text => self.size + self.size.div_ceil(BLOCK) * length(&self.woven),
            Scheme::Samples(_) => self.size,
        }
    }

    /// Fills `out` from `offset` on; returns the number of bytes, which is short only at the end.
    /// `source` reads the unmarked content in the same manner.
    ///
    /// # Errors
    /// Those of `source`.
    pub fn read_at<E>(
        &self,
        offset: u64,
        out: &mut [u8],
        mut source: impl FnMut(u64, &mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let samples = match self.scheme {
            Scheme::Text => return self.read_text(offset, out, source),
            Scheme::Samples(samples) => samples,
        };
        let filled = source(offset, out)?;
        if filled == 0 {
            return Ok(0);
        }
        let stride = samples.stride.max(1);
        let index = offset.saturating_sub(samples.first).div_ceil(stride);
        let skip = samples.first + index * stride - offset.min(samples.first + index * stride);
        let left = samples
            .end
            .saturating_sub(offset)
            .min(length(out))
            .min(filled as u64);
        let end = usize::try_from(left).unwrap_or(usize::MAX);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        if let Some(samples) = out.get_mut(skip..end) {
            let step = usize::try_from(stride).unwrap_or(usize::MAX);
            self.weave(index, samples, step);
        }
        Ok(filled)
    }

    /// Sets the low bits of samples, from number `index` on, a sample at the start of each `step` bytes.
    fn weave(&self, index: u64, mut samples: &mut [u8], step: usize) {
        let frame: Vec<u8> = (0..bits(&self.woven))
            .map(|index| bit(&self.woven, index))
            .collect();
        let mut place = usize::try_from(index % length(&frame).max(1)).unwrap_or(0);
        while let Some(frame) = frame.get(place..).filter(|frame| !frame.is_empty()) {
            let most = samples.len().min(frame.len().saturating_mul(step));
            let (now, after) = samples.split_at_mut(most);
            // Of neighbours, whole vectors at a time.
            if step == 1 {
                for (byte, bit) in now.iter_mut().zip(frame) {
                    *byte = *byte & !1 | bit;
                }
            } else {
                for (byte, bit) in now.iter_mut().step_by(step).zip(frame) {
                    *byte = *byte & !1 | bit;
                }
            }
            if after.is_empty() {
                return;
            }
            (samples, place) = (after, 0);
        }
    }

    fn read_text<E>(
        &self,
        offset: u64,
        out: &mut [u8],
        mut source: impl FnMut(u64, &mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let stride = BLOCK + length(&self.woven);
        let mut filled = 0;
        let mut at = offset;
        let mut content = vec![0; BLOCK_BYTES];
        while at < self.size() && filled < out.len() {
            let index = at / stride;
            let got = source(index * BLOCK, &mut content)?;
            let block = content.get(..got).unwrap_or(&[]);
            let (before, after) = block
                .split_at_checked(insertion(block))
                .unwrap_or((block, &[]));
            let mut skip = at % stride;
            let mut copied = 0;
            for part in [before, &self.woven, after] {
                let rest = out.get_mut(filled + copied..).unwrap_or_default();
                copied += copy_at(part, skip, rest);
                skip = skip.saturating_sub(length(part));
            }
            if copied == 0 {
                break;
            }
            filled += copied;
            at += u64::try_from(copied).unwrap_or(u64::MAX);
        }
        Ok(filled)
    }
}

/// Extracts the mark of a complete marked object; `None` if there is none.
#[must_use]
pub fn extract(content_type: &str, marked: &[u8]) -> Option<Vec<u8>> {
    let size = u64::try_from(marked.len()).ok()?;
    match Scheme::detect(
        content_type,
        marked.get(..HEADER_BYTES).unwrap_or(marked),
        size,
    )? {
        Scheme::Text => extract_text(marked).map(|(mark, _)| mark),
        Scheme::Samples(samples) => {
            let mut frames = LowBits {
                marked,
                samples,
                next: 0,
            };
            if [frames.byte()?, frames.byte()?] != FRAME_START {
                return None;
            }
            let mark = (0..frames.byte()?)
                .map(|_| frames.byte())
                .collect::<Option<Vec<u8>>>()?;
            is_mark(&mark).then_some(mark)
        }
    }
}

/// Splits a complete marked text into its mark and the original text; `None` if it has no mark.
#[must_use]
pub fn extract_text(marked: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let first = marked
        .get(..BLOCK_BYTES + line(&[b'm'; MAX_MARK_BYTES]).len())
        .unwrap_or(marked);
    // The content may quote a line like ours: the true one is in every block.
    first
        .windows(LINE_START.len())
        .enumerate()
        .rev()
        .find_map(|(at, window)| {
            if window != LINE_START {
                return None;
            }
            let rest = first.get(at + LINE_START.len()..)?;
            let mark = rest.get(..rest.iter().position(|&byte| byte == b']')?)?;
            if !is_mark(mark) {
                return None;
            }
            without(marked, &line(mark)).map(|text| (mark.to_vec(), text))
        })
}

/// Removes the line from each of its blocks; `None` if a block lacks it.
fn without(marked: &[u8], line: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(marked.len());
    for block in marked.chunks(BLOCK_BYTES + line.len()) {
        let found = block
            .windows(line.len())
            .enumerate()
            .rev()
            .find_map(|(at, window)| {
                let content = [block.get(..at)?, block.get(at + line.len()..)?].concat();
                (window == line && insertion(&content) == at).then_some(content)
            });
        text.extend(found?);
    }
    Some(text)
}

/// Returns the position in a block of content at which to insert the line.
fn insertion(block: &[u8]) -> usize {
    if let Some(at) = last(block, |byte| byte == b'\n') {
        return at + 1;
    }
    if block.len() < BLOCK_BYTES {
        return block.len();
    }
    // A character may extend beyond the end of the block, so the line precedes its first byte
    // (RFC 3629 §3: the others are 10xxxxxx).
    last(block, |byte| byte & 0xc0 != 0x80).unwrap_or(block.len())
}

/// Returns the position of the last byte that matches; passes over pieces without one quickly.
fn last(block: &[u8], matches: impl Fn(u8) -> bool) -> Option<usize> {
    let mut end = block.len();
    for piece in block.rchunks(PIECE_BYTES) {
        let found = piece.iter().fold(false, |any, &byte| any | matches(byte));
        end -= piece.len();
        if found {
            let at = piece.iter().rposition(|&byte| matches(byte));
            return at.map(|at| end + at);
        }
    }
    None
}

fn line(mark: &[u8]) -> Vec<u8> {
    [LINE_START, mark, b"]\n"].concat()
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(0)
}

fn bits(frame: &[u8]) -> u64 {
    length(frame) * 8
}

/// Returns bit `index` of the frame.
fn bit(frame: &[u8], index: u64) -> u8 {
    let byte = usize::try_from(index / 8)
        .ok()
        .and_then(|at| frame.get(at))
        .copied()
        .unwrap_or(0);
    byte >> (7 - index % 8) & 1
}

/// Iterates over the least significant bits of the samples.
struct LowBits<'a> {
    marked: &'a [u8],
    samples: Samples,
    next: u64,
}

impl LowBits<'_> {
    fn byte(&mut self) -> Option<u8> {
        let mut value = 0;
        for _ in 0..8 {
            let at = self.samples.first + self.next * self.samples.stride;
            if at >= self.samples.end {
                return None;
            }
            value = value << 1 | self.marked.get(usize::try_from(at).ok()?)? & 1;
            self.next += 1;
        }
        Some(value)
    }
}

const LINE_START: &[u8] = b"[watermark ";

const FRAME_START: &[u8] = b"HW";

/// Bytes that are searched at a time.
const PIECE_BYTES: usize = 128;

/// [`BLOCK`] as a length in memory.
const BLOCK_BYTES: usize = 4096;

mod media;

#[cfg(test)]
mod tests;
