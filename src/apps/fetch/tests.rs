//! Transfers over scripted streams.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use super::config::Field;
use super::*;
use crate::http::digest;

/// The calls that an output in memory has received.
#[derive(Default)]
struct Store {
    bytes: Vec<u8>,
    etag: Option<String>,
    finished: bool,
    pipe: bool,
    unreadable: bool,
    room: Option<usize>,
    /// Whether the reader is stopped; and the number of bytes buffered meanwhile.
    stuck: bool,
    kept: usize,
}

#[derive(Clone, Default)]
struct Memory(Rc<RefCell<Store>>);

impl Output for Memory {
    fn held(&self) -> Held {
        let store = self.0.borrow();
        let bytes = u64::try_from(store.bytes.len()).unwrap();
        Held {
            bytes,
            etag: store.etag.clone(),
        }
    }
    fn replay(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<bool, OutputError> {
        let store = self.0.borrow();
        sink(&store.bytes);
        Ok(!store.unreadable)
    }
    fn begin(&mut self, offset: u64, etag: Option<&str>) -> Result<(), OutputError> {
        let mut store = self.0.borrow_mut();
        assert_eq!(offset, u64::try_from(store.bytes.len()).unwrap());
        store.etag = etag.map(str::to_owned);
        Ok(())
    }
    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        let mut store = self.0.borrow_mut();
        store.bytes.extend_from_slice(bytes);
        store.kept += bytes.len();
        if store.room.is_some_and(|room| store.bytes.len() > room) {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        Ok(())
    }
    fn kept(&self) -> usize {
        let store = self.0.borrow();
        if store.stuck { store.kept } else { 0 }
    }
    fn flush(&mut self) -> Result<(), OutputError> {
        let mut store = self.0.borrow_mut();
        store.kept = if store.stuck { store.kept } else { 0 };
        Ok(())
    }
    fn rewind(&mut self) -> Result<(), OutputError> {
        let mut store = self.0.borrow_mut();
        if store.pipe {
            return Err(OutputError::CannotRewind);
        }
        store.bytes.clear();
        store.etag = None;
        Ok(())
    }
    fn finish(&mut self) -> Result<(), OutputError> {
        self.0.borrow_mut().finished = true;
        Ok(())
    }
}

/// One exchange: a part of the expected request, the response bytes, the end of the stream.
type Exchange<'a> = (&'a str, String, Option<End>);

fn sha(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest::ReprDigest(digest.as_ref().try_into().unwrap()).to_string()
}

/// Builds a 200 with the digest of `body`, which may be sent truncated.
fn whole(etag: &str, body: &str, sent: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nETag: \"{etag}\"\r\nRepr-Digest: {}\r\nContent-Length: {}\r\n\r\n{sent}",
        sha(body.as_bytes()),
        body.len(),
    )
}

/// Builds a 206 of `body` from `from` on.
fn rest(etag: &str, body: &str, from: usize) -> String {
    format!(
        "HTTP/1.1 206 Partial Content\r\nETag: \"{etag}\"\r\nRepr-Digest: {}\r\n\
         Content-Range: bytes {from}-{}/{}\r\nContent-Length: {}\r\n\r\n{}",
        sha(body.as_bytes()),
        body.len() - 1,
        body.len(),
        body.len() - from,
        &body[from..],
    )
}

fn held(bytes: &str, etag: Option<&str>) -> Memory {
    let memory = Memory::default();
    memory.0.borrow_mut().bytes = bytes.as_bytes().to_vec();
    memory.0.borrow_mut().etag = etag.map(str::to_owned);
    memory
}

/// Plays exchanges in pieces of 7 bytes; returns the last event, formatted for comparison.
fn play(config: &TransferConfig, memory: &Memory, script: &[Exchange<'_>]) -> String {
    let target = Target::parse("http://10.0.0.1/dir/file").unwrap();
    let mut transfer = Transfer::new(config.clone(), target, Box::new(memory.clone()));
    for (index, (must_hold, response, end)) in script.iter().enumerate() {
        let Some(request) = transfer.poll_request() else {
            panic!("exchange {index}: no request");
        };
        let head = String::from_utf8(request.head).unwrap();
        assert!(
            head.contains(must_hold),
            "exchange {index}: {must_hold:?} not in {head:?}"
        );
        for piece in response.as_bytes().chunks(7) {
            transfer.handle_bytes(piece);
        }
        if let Some(end) = end {
            transfer.handle_end(*end);
        }
    }
    assert!(transfer.poll_request().is_none(), "one request too many");
    let mut last = String::from("nothing");
    while let Some(event) = transfer.poll_event() {
        assert!(!last.starts_with("Done") && !last.starts_with("Failed"));
        last = format!("{event:?}");
    }
    last
}

fn follow() -> TransferConfig {
    TransferConfig {
        follow: true,
        ..TransferConfig::default()
    }
}

const VERIFIED: &str = "Done { digest: Verified }";
const BODY: &str = "The quick brown fox jumps over the lazy dog";

#[test]
fn plain_downloads() {
    let no_digest = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
    let until_close = "HTTP/1.1 200 OK\r\n\r\nab";
    let weak = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno";
    let wrong = whole("a", "AB", "ab");
    let cases: [(&str, &str, Option<End>, &str, &str); 10] = [
        ("whole", &whole("a", BODY, BODY), None, VERIFIED, BODY),
        ("empty", &whole("a", "", ""), None, VERIFIED, ""),
        (
            "no digest",
            no_digest,
            None,
            "Done { digest: Absent }",
            "ab",
        ),
        (
            "until close",
            until_close,
            Some(End::Closed { reused: false }),
            "Done { digest: Absent }",
            "ab",
        ),
        ("wrong digest", &wrong, None, "Failed(DigestMismatch)", ""),
        ("an error page", weak, None, "Done { digest: Absent }", "no"),
        (
            "nothing",
            "",
            Some(End::Closed { reused: false }),
            "Failed(EmptyReply)",
            "",
        ),
        (
            "short",
            &whole("a", BODY, &BODY[..9]),
            Some(End::Closed { reused: false }),
            "Failed(Partial { have: 9, want: Some(43) })",
            &BODY[..9],
        ),
        (
            "broken",
            &whole("a", BODY, &BODY[..9]),
            Some(End::Reset { reused: true }),
            "Failed(Broken { have: 9 })",
            &BODY[..9],
        ),
        ("silence", "", Some(End::TimedOut), "Failed(TimedOut)", ""),
    ];
    for (name, response, end, want, bytes) in cases {
        let memory = Memory::default();
        let script = [("GET /dir/file HTTP/1.1\r\n", response.to_owned(), end)];
        assert_eq!(
            play(&TransferConfig::default(), &memory, &script),
            want,
            "{name}"
        );
        let store = memory.0.borrow();
        assert_eq!(store.bytes, bytes.as_bytes(), "{name}");
        assert_eq!(store.finished, want.starts_with("Done"), "{name}");
    }
}

#[test]
fn weird_replies() {
    for response in [
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ] {
        let got = play(
            &TransferConfig::default(),
            &Memory::default(),
            &[("", response.to_owned(), None)],
        );
        assert!(got.starts_with("Failed(WeirdReply"), "{got}");
    }
}

#[test]
fn statuses_with_fail() {
    let config = TransferConfig {
        fail: true,
        ..TransferConfig::default()
    };
    let memory = Memory::default();
    let response = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno".to_owned();
    let got = play(&config, &memory, &[("", response, None)]);
    assert_eq!(got, "Failed(Status(404))");
    assert!(memory.0.borrow().bytes.is_empty());
}

fn redirect(status: u16, to: &str) -> String {
    format!("HTTP/1.1 {status} x\r\nLocation: {to}\r\nContent-Length: 4\r\n\r\ngone")
}

#[test]
fn redirects() {
    let end = || whole("a", BODY, BODY);
    let cases: [(&str, Vec<Exchange<'_>>, &str); 5] = [
        (
            "relative, then absolute",
            vec![
                ("GET /dir/file ", redirect(302, "other"), None),
                (
                    "GET /dir/other ",
                    redirect(308, "http://10.0.0.2:81/x"),
                    None,
                ),
                ("Host: 10.0.0.2:81\r\n", end(), None),
            ],
            VERIFIED,
        ),
        (
            "without a location it is the answer",
            vec![(
                "",
                "HTTP/1.1 301 x\r\nContent-Length: 0\r\n\r\n".into(),
                None,
            )],
            "Done { digest: Absent }",
        ),
        (
            "to another scheme",
            vec![("", redirect(301, "https://10.0.0.1/"), None)],
            "Failed(Location(Scheme))",
        ),
        (
            "304 is none",
            vec![("", "HTTP/1.1 304 x\r\nLocation: /x\r\n\r\n".into(), None)],
            "Done { digest: Absent }",
        ),
        (
            "at the bound",
            (0..MAX_REDIRECTS)
                .map(|_| ("", redirect(303, "again"), None))
                .chain([("", end(), None)])
                .collect(),
            VERIFIED,
        ),
    ];
    for (name, script, want) in cases {
        assert_eq!(play(&follow(), &Memory::default(), &script), want, "{name}");
    }
    let over: Vec<_> = (0..=MAX_REDIRECTS)
        .map(|_| ("", redirect(303, "again"), None))
        .collect();
    let got = play(&follow(), &Memory::default(), &over);
    assert_eq!(got, "Failed(TooManyRedirects)");
    let memory = Memory::default();
    let once = [("", redirect(301, "other"), None)];
    let got = play(&TransferConfig::default(), &memory, &once);
    assert_eq!(
        got, "Done { digest: Absent }",
        "not followed unless asked for"
    );
    assert_eq!(memory.0.borrow().bytes, b"gone");
}

#[test]
fn a_long_redirect_body_is_left_unread() {
    let target = Target::parse("http://10.0.0.1/").unwrap();
    let mut transfer = Transfer::new(follow(), target, Box::new(Memory::default()));
    for (length, abandon) in [(MAX_DRAIN_BYTES, false), (MAX_DRAIN_BYTES + 1, true)] {
        transfer.poll_request().unwrap();
        let head = format!("HTTP/1.1 302 x\r\nLocation: /\r\nContent-Length: {length}\r\n\r\n");
        transfer.handle_bytes(head.as_bytes());
        if !abandon {
            transfer.handle_bytes(&vec![0; usize::try_from(length).unwrap()]);
        }
        let TransferPhase::Ready { abandon: got, .. } = transfer.phase else {
            panic!("no further request after {length} bytes");
        };
        assert_eq!(got, abandon, "{length}");
    }
}

/// Name, bytes held before, exchanges, last event, bytes held after.
type Resumed<'a> = (&'a str, Memory, Vec<Exchange<'a>>, &'a str, &'a str);

fn check_resumed(cases: Vec<Resumed<'_>>) {
    for (name, memory, script, want, bytes) in cases {
        assert_eq!(
            play(&TransferConfig::default(), &memory, &script),
            want,
            "{name}"
        );
        assert_eq!(memory.0.borrow().bytes, bytes.as_bytes(), "{name}");
    }
}

#[test]
fn resumed_downloads() {
    let start = &BODY[..20];
    let range = "Range: bytes=20-\r\n";
    let cases: Vec<Resumed<'_>> = vec![
        (
            "with a tag",
            held(start, Some("\"a\"")),
            vec![("If-Range: \"a\"\r\n", rest("a", BODY, 20), None)],
            VERIFIED,
            BODY,
        ),
        (
            "without a tag",
            held(start, None),
            vec![(range, rest("a", BODY, 20), None)],
            VERIFIED,
            BODY,
        ),
        (
            "a new version comes whole",
            held(start, Some("\"old\"")),
            vec![(range, whole("a", BODY, BODY), None)],
            VERIFIED,
            BODY,
        ),
        (
            "a new version comes in part",
            held("THE QUICK BROWN FOX ", Some("\"old\"")),
            vec![
                (range, rest("a", BODY, 20), None),
                ("GET", whole("a", BODY, BODY), None),
            ],
            VERIFIED,
            BODY,
        ),
        (
            "only the digest detects a new version",
            held("THE QUICK BROWN FOX ", None),
            vec![
                (range, rest("a", BODY, 20), None),
                ("GET", whole("a", BODY, BODY), None),
            ],
            VERIFIED,
            BODY,
        ),
    ];
    check_resumed(cases);
}

#[test]
fn resumed_downloads_that_do_not_fit() {
    let start = &BODY[..20];
    let range = "Range: bytes=20-\r\n";
    let gone = "HTTP/1.1 416 x\r\nContent-Range: bytes */43\r\nContent-Length: 0\r\n\r\n";
    let head = whole("a", BODY, "");
    let cases: Vec<Resumed<'_>> = vec![
        (
            "ranges are not supported",
            held(start, None),
            vec![(range, whole("a", BODY, BODY), None)],
            "Failed(RangeNotSupported)",
            start,
        ),
        (
            "another range comes",
            held(start, None),
            vec![(range, rest("a", BODY, 19), None)],
            "Failed(RangeNotSupported)",
            start,
        ),
        (
            "an error page is never appended",
            held(start, None),
            vec![(
                range,
                "HTTP/1.1 404 x\r\nContent-Length: 2\r\n\r\nno".into(),
                None,
            )],
            "Failed(Status(404))",
            start,
        ),
        (
            "complete already",
            held(BODY, None),
            vec![
                ("bytes=43-", gone.into(), None),
                ("HEAD /dir/file ", head.clone(), None),
            ],
            VERIFIED,
            BODY,
        ),
        (
            "complete, but not the same",
            held(&BODY.to_uppercase(), None),
            vec![
                ("bytes=43-", gone.into(), None),
                ("HEAD", head, None),
                ("GET", whole("a", BODY, BODY), None),
            ],
            VERIFIED,
            BODY,
        ),
        (
            "longer than the object",
            held("0123456789012345678901234567890123456789012345", None),
            vec![("bytes=46-", gone.into(), None)],
            "Failed(BadResume { have: 46, size: 43 })",
            "0123456789012345678901234567890123456789012345",
        ),
    ];
    check_resumed(cases);
}

#[test]
fn what_cannot_be_read_back_is_not_verified() {
    let memory = held(&BODY[..20], None);
    memory.0.borrow_mut().unreadable = true;
    let script = [("", rest("a", BODY, 20), None)];
    let got = play(&TransferConfig::default(), &memory, &script);
    assert_eq!(got, "Done { digest: Unchecked }");
}

#[test]
fn a_change_midway_starts_again_a_bounded_number_of_times() {
    let change = || ("GET", whole("a", BODY, &BODY[..30]), Some(End::Changed));
    for (restarts, want) in [
        (MAX_RESTARTS, VERIFIED),
        (MAX_RESTARTS + 1, "Failed(Changed)"),
    ] {
        let memory = Memory::default();
        let mut script: Vec<_> = (0..restarts).map(|_| change()).collect();
        if restarts <= MAX_RESTARTS {
            script.push(("GET", whole("b", "new", "new"), None));
        }
        assert_eq!(play(&TransferConfig::default(), &memory, &script), want);
        if restarts <= MAX_RESTARTS {
            assert_eq!(memory.0.borrow().bytes, b"new");
        }
    }
    let pipe = Memory::default();
    pipe.0.borrow_mut().pipe = true;
    let got = play(&TransferConfig::default(), &pipe, &[change()]);
    assert_eq!(got, "Failed(Changed)", "a pipe cannot take bytes back");
}

#[test]
fn an_idle_connection_that_was_closed_is_tried_again() {
    for end in [End::Reset { reused: true }, End::Closed { reused: true }] {
        let script = [
            ("GET", String::new(), Some(end)),
            ("GET", whole("a", BODY, BODY), None),
        ];
        let got = play(&TransferConfig::default(), &Memory::default(), &script);
        assert_eq!(got, VERIFIED, "{end:?}");
    }
}

#[test]
fn a_full_disk_ends_the_transfer() {
    let memory = Memory::default();
    memory.0.borrow_mut().room = Some(10);
    let script = [("", whole("a", BODY, BODY), None)];
    let got = play(&TransferConfig::default(), &memory, &script);
    assert!(got.starts_with("Failed(Output(Io"), "{got}");
}

#[test]
fn ranges_and_heads() {
    let config = TransferConfig {
        range: Some("4-8".into()),
        ..TransferConfig::default()
    };
    let part = "HTTP/1.1 206 x\r\nContent-Range: bytes 4-8/43\r\nContent-Length: 5\r\n\
                Repr-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:\r\n\r\nquick";
    let memory = Memory::default();
    let got = play(
        &config,
        &memory,
        &[("Range: bytes=4-8\r\n", part.into(), None)],
    );
    assert_eq!(got, "Done { digest: Unchecked }");
    assert_eq!(memory.0.borrow().bytes, b"quick");

    let config = TransferConfig {
        method: Method::Head,
        ..TransferConfig::default()
    };
    let memory = Memory::default();
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let got = play(&config, &memory, &[("HEAD /", head.into(), None)]);
    assert_eq!(got, "Done { digest: Absent }");
    assert_eq!(memory.0.borrow().bytes, head.as_bytes());
}

#[test]
fn a_transfer_is_done_when_its_output_is_written() {
    for (size, room) in [(MAX_KEPT_BYTES - 1, true), (MAX_KEPT_BYTES, false)] {
        let memory = Memory::default();
        memory.0.borrow_mut().stuck = true;
        let target = Target::parse("http://10.0.0.1/file").unwrap();
        let mut transfer = Transfer::new(follow(), target, Box::new(memory.clone()));
        transfer.poll_request().unwrap();
        transfer.handle_bytes(whole("a", &"x".repeat(size), &"x".repeat(size)).as_bytes());
        assert_eq!(transfer.has_room(), room, "{size}");
        transfer.flush();
        assert!(matches!(
            transfer.poll_event(),
            Some(TransferEvent::Head { .. })
        ));
        assert!(transfer.poll_event().is_none() && !memory.0.borrow().finished);
        memory.0.borrow_mut().stuck = false;
        transfer.flush();
        assert!(matches!(
            transfer.poll_event(),
            Some(TransferEvent::Done { .. })
        ));
        assert!(memory.0.borrow().finished);
    }
}

#[test]
fn fields_of_the_user() {
    let config = TransferConfig {
        headers: ["Host: example", "user-agent:", "X-Empty;", "X-A: b"]
            .map(|text| Field::parse(text).unwrap())
            .to_vec(),
        ..TransferConfig::default()
    };
    let target = Target::parse("10.0.0.1").unwrap();
    let head = config.emit(Method::Get, &target, None).unwrap();
    let want = "GET / HTTP/1.1\r\nHost: example\r\nX-Empty: \r\nX-A: b\r\n\r\n";
    assert_eq!(String::from_utf8(head).unwrap(), want);
    for text in ["", "no colon", "a b: c", ": x", "A: b\r\nC: d"] {
        assert!(Field::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn the_request_is_bounded() {
    let target = Target::parse("http://10.0.0.1/x").unwrap();
    let mut config = TransferConfig::default();
    let size = config.emit(Method::Get, &target, None).unwrap().len();
    config.request_limit = size;
    assert!(config.emit(Method::Get, &target, None).is_ok());
    config.request_limit = size - 1;
    let got = config.emit(Method::Get, &target, None);
    assert!(
        matches!(got, Err(TransferFailure::RequestTooLong { .. })),
        "{got:?}"
    );
}
