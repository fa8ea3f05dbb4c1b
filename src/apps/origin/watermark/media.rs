//! The position of samples in uncompressed media: WAV, binary PGM and PPM, BMP.
//!
//! In: the first bytes of an object. Out: the position of its samples, or `None` for another format.
//! The end is taken from the header; the caller limits it to the object's size. Sources: RFC
//! 2361 and the RIFF WAVE format; pgm(5) and ppm(5) of Netpbm; BITMAPINFOHEADER of Windows.

use crate::apps::origin::watermark::Samples;

/// PCM samples of a RIFF WAVE object, little-endian.
pub(super) fn wav(header: &[u8]) -> Option<Samples> {
    if header.get(..4)? != b"RIFF" || header.get(8..12)? != b"WAVE" {
        return None;
    }
    let mut at = 12usize;
    let mut stride = None;
    loop {
        let name = header.get(at..at.checked_add(4)?)?;
        let length = usize::try_from(u32_at(header, at.checked_add(4)?)?).ok()?;
        let body = at.checked_add(8)?;
        if name == b"fmt " {
            // 1 is PCM, 0xfffe the extensible form.
            let format = u16_at(header, body)?;
            let sample_bits = u16_at(header, body.checked_add(14)?)?;
            let plain = matches!(format, 1 | 0xfffe) && matches!(sample_bits, 8 | 16 | 24 | 32);
            stride = Some(plain.then_some(u64::from(sample_bits / 8))?);
        }
        if name == b"data" {
            let first = u64::try_from(body).ok()?;
            let end = first.checked_add(u64::try_from(length).ok()?)?;
            return Some(Samples {
                first,
                end,
                stride: stride?,
            });
        }
        // Chunks are padded to an even length.
        at = body.checked_add(length)?.checked_add(length % 2)?;
    }
}

/// Samples of a binary PGM or PPM object; those of two bytes are big-endian.
pub(super) fn pnm(header: &[u8]) -> Option<Samples> {
    let channels = match header.get(..2)? {
        b"P5" => 1,
        b"P6" => 3,
        _ => return None,
    };
    let mut at = 2;
    let mut numbers = [0u64; 3];
    for number in &mut numbers {
        at = skip_space(header, at)?;
        let digits = header
            .get(at..)?
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let text = header.get(at..at + digits)?;
        *number = str::from_utf8(text).ok()?.parse().ok()?;
        at += digits;
    }
    header.get(at).filter(|byte| byte.is_ascii_whitespace())?;
    let [width, height, greatest] = numbers;
    let stride = match greatest {
        1..=255 => 1,
        256..=65_535 => 2,
        _ => return None,
    };
    let start = u64::try_from(at).ok()?.checked_add(1)?;
    let bytes = width
        .checked_mul(height)?
        .checked_mul(channels)?
        .checked_mul(stride)?;
    Some(Samples {
        first: start + stride - 1,
        end: start.checked_add(bytes)?,
        stride,
    })
}

/// Bytes of the pixels of an uncompressed BMP object with 24 or 32 bits a pixel.
pub(super) fn bmp(header: &[u8]) -> Option<Samples> {
    if header.get(..2)? != b"BM" {
        return None;
    }
    let uncompressed = u32_at(header, 30)? == 0 && matches!(u16_at(header, 28)?, 24 | 32);
    // Smaller offsets would lie inside the headers.
    let first = u64::from(u32_at(header, 10)?);
    (uncompressed && first >= 54).then_some(Samples {
        first,
        end: u64::MAX,
        stride: 1,
    })
}

/// Skips white space and comments; at least one byte of them.
fn skip_space(header: &[u8], mut at: usize) -> Option<usize> {
    let start = at;
    loop {
        match header.get(at)? {
            b'#' => at += header.get(at..)?.iter().position(|&byte| byte == b'\n')? + 1,
            byte if byte.is_ascii_whitespace() => at += 1,
            _ => return (at > start).then_some(at),
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|chunk| u16::from_le_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|chunk| u32::from_le_bytes(*chunk))
}
