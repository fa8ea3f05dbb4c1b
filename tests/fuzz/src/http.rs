//! Targets of `http`: request heads with all that is read from them, and responses in pieces.
//!
//! In: any bytes. Laws: nothing panics; a path never climbs; a response is the same however the
//! stream that carries it is cut.

use headwater::internals::apps::origin::target;
use headwater::internals::http::conditional::{self, EntityTag, Validators};
use headwater::internals::http::range::{self, Selected};
use headwater::internals::http::reader::{ReadError, ReaderEvent, ResponseReader};
use headwater::internals::http::request::{Method, RequestHead};
use headwater::internals::http::response::ResponseHead;
use headwater::internals::http::{MAX_HEAD_BYTES, date, digest};

use super::input::Input;

/// A request head, and the origin's reading of it.
pub fn http_request(data: &[u8]) {
    let Ok((head, length)) = RequestHead::parse(data) else {
        return;
    };
    assert!(length <= data.len() && length <= MAX_HEAD_BYTES);
    let _ = (head.is_persistent(), head.has_body());
    if let Ok(target) = target::parse(&head.target) {
        let climbs = |segment: &[u8]| matches!(segment, b"" | b"." | b"..");
        let mut segments = target.path.split(|byte| *byte == b'/');
        assert!(
            target.path.is_empty() || !segments.any(climbs),
            "{target:?}"
        );
        assert!(!target.path.contains(&0) && target.path.len() <= target::MAX_PATH_BYTES);
        let again = target::parse(&format!("/{}", target::encode(&target.path)));
        assert_eq!(
            again.map(|again| again.path),
            Ok(target.path),
            "encoded and read again"
        );
    }
    let validators = Validators {
        etag: Some(EntityTag::strong("tag")),
        ..Validators::default()
    };
    let _ = conditional::evaluate(&head.headers, &validators);
    let _ = conditional::range_applies(&head.headers, &validators);
    for (name, value) in head.headers.iter() {
        assert!(
            head.headers.get(name).is_some(),
            "a field is found by its name"
        );
        let _ = (
            head.headers.elements(name).count(),
            head.headers.has_token(name, "close"),
        );
        let _ = (digest::parse(value), EntityTag::parse(value));
        let _ = str::from_utf8(value).map(date::parse);
        for size in [0, 1, 1000, u64::MAX] {
            if let Selected::Part(range) = range::select(value, size) {
                assert!(
                    range.first <= range.last && range.last < size,
                    "{range:?} of {size}"
                );
            }
        }
    }
}

/// The reading of a response.
#[derive(Debug, Default, PartialEq)]
struct Read {
    head: Option<ResponseHead>,
    body: Vec<u8>,
    used: usize,
    end: Option<Result<(), ReadError>>,
}

fn read(method: Method, stream: &[u8], mut next_cut: impl FnMut() -> usize) -> Read {
    let mut reader = ResponseReader::new(method);
    let mut read = Read::default();
    let mut pieces = stream;
    while !pieces.is_empty() {
        let (piece, rest) = pieces.split_at(next_cut().clamp(1, pieces.len()));
        pieces = rest;
        let mut left = piece;
        loop {
            let (used, progress) = match reader.read(left) {
                Ok(step) => step,
                Err(error) => {
                    read.end = Some(Err(error));
                    // Where in the stream an error is noticed depends on how it was cut.
                    read.used = 0;
                    return read;
                }
            };
            read.used += used;
            left = &left[used..];
            match progress {
                ReaderEvent::NeedMore => {
                    assert!(left.is_empty(), "more is asked for while there is some");
                    break;
                }
                ReaderEvent::Head(head) => assert!(read.head.replace(head).is_none(), "two heads"),
                ReaderEvent::Body(bytes) => read.body.extend(bytes),
                ReaderEvent::Done => {
                    read.end = Some(reader.end());
                    return read;
                }
            }
        }
    }
    read.end = Some(reader.end());
    read
}

/// A response, whole and in pieces. The first byte says how it is cut.
pub fn http_response(data: &[u8]) {
    let mut input = Input::new(data);
    let cut = input.u8();
    let method = if cut & 1 == 0 {
        Method::Get
    } else {
        Method::Head
    };
    let stream = input.take(data.len());
    let whole = read(method, stream, || stream.len());
    let mut state = u32::from(cut);
    let pieces = read(method, stream, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (state >> 24) as usize % (1 + usize::from(cut) / 8)
    });
    assert_eq!(whole, pieces);
}
