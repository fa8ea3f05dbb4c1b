//! The server from a client's view: statuses, heads, ranges and conditions.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::*;
use crate::apps::origin::hot::{InlineLoader, Loader};
use crate::apps::origin::target::MAX_PATH_BYTES;
use crate::apps::origin::work::InlineWorkers;
use crate::http::conditional::EntityTag;
use crate::http::range::ContentRange;
use crate::http::response::ResponseHead;
use crate::transport::application::MAX_USER_BYTES;
use crate::wire::payload::Pool;

const NOW: u64 = 784_111_777_500;

/// A tree and a server of it. Two fixtures have the same content at different times and inodes.
const fn context(now_ms: u64) -> RequestContext {
    RequestContext {
        now: crate::time::UnixMillis::new(now_ms),
        proven: true,
        source: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    origin: Origin,
    /// Each request arrives in a millisecond of its own.
    now: u64,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("sub/deep")).unwrap();
        fs::create_dir_all(root.join("bare dir")).unwrap();
        fs::create_dir_all(root.join("odd/index.html")).unwrap();
        fs::write(folder.path().join("secret"), b"secret").unwrap();
        for (name, content) in [
            ("index.html", b"<p>start</p>".to_vec()),
            ("sub/index.html", b"<p>sub</p>".to_vec()),
            ("bare dir/x&y", b"".to_vec()),
            ("text.txt", b"line of text\n".repeat(1000)),
            (
                "data.bin",
                (0..100_000u32).flat_map(u32::to_le_bytes).collect(),
            ),
            (
                "image.ppm",
                [b"P6 64 64 255\n".to_vec(), vec![77; 64 * 64 * 3]].concat(),
            ),
            ("empty", Vec::new()),
            ("no-extension", b"x".to_vec()),
        ] {
            fs::write(root.join(name), content).unwrap();
        }
        symlink("text.txt", root.join("link.txt")).unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink("sub", root.join("sublink")).unwrap();
        let origin = Origin::new(&root, Box::<InlineWorkers>::default()).unwrap();
        let now = NOW;
        Self {
            folder,
            origin,
            now,
        }
    }

    /// Creates a fixture that caches `most` bytes of hot content.
    fn hot(most: u64, loader: impl Loader + 'static) -> Self {
        let Self {
            folder,
            origin,
            now,
        } = Self::new();
        let origin = origin.with_hot(Hot::new(most, Box::new(loader)));
        Self {
            folder,
            origin,
            now,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("root").join(name)
    }

    fn begin(&mut self, request: &str) -> Begun {
        self.now += 1;
        let context = context(self.now);
        let begun = self.origin.begin(context, request.as_bytes()).unwrap();
        assert!(begun.user.len() <= MAX_USER_BYTES);
        begun
    }

    fn read(&mut self, begun: &Begun, piece: usize) -> Result<Vec<u8>, Unavailable> {
        let mut stream = Vec::new();
        let length = usize::try_from(begun.length.unwrap()).unwrap();
        while stream.len() < length {
            let mut out = vec![0; piece.min(length - stream.len())];
            let read = self.origin.read(
                StreamPart::new(context(0), &begun.user, stream.len().try_into().unwrap()),
                &mut out,
            )?;
            assert_eq!(read, out.len());
            stream.extend(out);
        }
        assert_eq!(
            self.origin.read(
                StreamPart::new(context(0), &begun.user, begun.length.unwrap()),
                &mut [0; 10]
            ),
            Ok(0)
        );
        Ok(stream)
    }

    /// Stages a part of a stream, as for a flight.
    fn stage(&mut self, begun: &Begun, offset: u64, bytes: usize) -> Result<Vec<u8>, Unavailable> {
        let mut gathered = Gathered::default();
        let staged = self.origin.stage(
            StreamPart::new(context(0), &begun.user, offset),
            bytes,
            &mut gathered,
        )?;
        assert_eq!(gathered.refer(0, usize::MAX), staged);
        Ok(Pool::default().lend(&mut gathered).to_vec())
    }

    /// Returns the head and the body of a request's response.
    fn answer(&mut self, request: &str) -> (ResponseHead, Vec<u8>) {
        let begun = self.begin(request);
        let stream = self.read(&begun, 1 << 20).unwrap();
        let (head, length) = ResponseHead::parse(&stream).unwrap();
        (head, stream[length..].to_vec())
    }

    fn get(&mut self, target: &str, fields: &str) -> (ResponseHead, Vec<u8>) {
        self.answer(&get(target, fields))
    }

    /// Writes a file in place so that the change is detectable even with a coarse clock.
    fn overwrite(&self, name: &str, change: impl FnOnce(&File)) {
        let file = File::options().write(true).open(self.path(name)).unwrap();
        change(&file);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }
}

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

fn header(head: &ResponseHead, name: &str) -> String {
    head.headers.get_str(name).unwrap_or("").to_owned()
}

#[test]
fn targets_have_their_status() {
    let mut fixture = Fixture::new();
    let long = format!("/{}", "x".repeat(MAX_PATH_BYTES + 1));
    let fits = format!("/{}", "x".repeat(MAX_PATH_BYTES));
    for (target, want) in [
        ("/", 200),
        ("/text.txt", 200),
        ("/text.txt?query", 200),
        ("/link.txt", 200),
        ("/sub/", 200),
        ("/sublink/", 200),
        ("/bare%20dir/", 200),
        ("/odd/", 200),
        ("http://other/text.txt", 200),
        ("/.dynamic/1/10", 200),
        ("/.dynamic/1/10/3", 200),
        ("/.watermark/m/text.txt", 200),
        ("/.watermark/m/image.ppm", 200),
        ("/.watermark/m/sub/", 200),
        ("/sub", 301),
        ("/sublink", 301),
        ("/bare%20dir", 301),
        ("/%zz", 400),
        ("/a%00b", 400),
        ("*", 400),
        ("/out", 403),
        ("/../secret", 403),
        ("/%2e%2e/secret", 403),
        ("/sub/../../secret", 403),
        ("/..%2fsecret", 404),
        ("/%2fetc%2fpasswd", 404),
        ("/none", 404),
        ("/text.txt/", 404),
        ("/text.txt/x", 404),
        ("/.dynamic/1", 404),
        ("/.dynamic/1/2/", 404),
        ("/.dynamic/1/2/0", 404),
        ("/.dynamic/x/2", 404),
        ("/.dynamic/1/140737488355329", 404),
        ("/.watermark/m/", 404),
        ("/.watermark/m%20m/text.txt", 404),
        ("/.watermark/m/data.bin", 404),
        ("/.watermark/m/none", 404),
        ("/.watermark/m/sub", 404),
        ("/.watermark/m/out", 403),
        (&fits, 404),
        (&long, 414),
    ] {
        let (head, body) = fixture.get(target, "");
        assert_eq!(head.status.0, want, "{target}");
        assert!(
            !body.windows(6).any(|window| window == b"secret"),
            "{target}"
        );
        assert_eq!(
            header(&head, "date"),
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "{target}"
        );
        assert_eq!(
            header(&head, "content-length"),
            body.len().to_string(),
            "{target}"
        );
    }
}

#[test]
fn requests_have_their_status() {
    let mut fixture = Fixture::new();
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(64));
    for (name, request, want) in [
        ("no host in 1.0", "GET / HTTP/1.0\r\n\r\n", 200),
        ("empty", "", 400),
        ("cut", "GET / HTTP/1.1\r\nHost: h\r\n", 400),
        ("nonsense", "\x01\x02\r\n\r\n", 400),
        ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
        (
            "two hosts",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            400,
        ),
        ("a wrong host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (
            "two lengths",
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
        ),
        (
            "not a length",
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
            400,
        ),
        ("post", "POST / HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        ("delete", "DELETE /none HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        ("options", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        ("unknown", "BREW / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        ("lower case", "get / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        ("version", "GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        ("too many fields", &many, 431),
    ] {
        let (head, _) = fixture.answer(request);
        assert_eq!(head.status.0, want, "{name}");
        let allow = if want == 405 { "GET, HEAD" } else { "" };
        assert_eq!(header(&head, "allow"), allow, "{name}");
    }
}

#[test]
fn a_file_has_a_compact_head_and_its_bytes() {
    let mut fixture = Fixture::new();
    let (head, body) = fixture.get("/text.txt", "");
    let content = fs::read(fixture.path("text.txt")).unwrap();
    assert_eq!(body, content);
    assert_eq!(header(&head, "content-type"), "text/plain");
    assert_eq!(header(&head, "accept-ranges"), "bytes");
    assert_eq!(header(&head, "last-modified"), "");
    let digest = head
        .headers
        .get("repr-digest")
        .and_then(crate::http::digest::parse);
    assert_eq!(digest, Some(digest::hash(&[&content])));
    assert!(EntityTag::parse(header(&head, "etag").as_bytes()).is_some_and(|tag| !tag.weak));
    let begun = fixture.begin(&get("/text.txt", ""));
    assert_eq!(begun.user.len(), 27 + "text.txt".len());
    let head_bytes = begun.length.unwrap() - u64::try_from(content.len()).unwrap();
    assert!(head_bytes <= 240, "{head_bytes} bytes of head");
}

#[test]
fn content_types_follow_the_name() {
    let mut fixture = Fixture::new();
    for (target, want) in [
        ("/", "text/html"),
        ("/sub/", "text/html"),
        ("/bare%20dir/", "text/html; charset=utf-8"),
        ("/data.bin", "application/octet-stream"),
        ("/no-extension", "application/octet-stream"),
        ("/image.ppm", "image/x-portable-pixmap"),
        ("/.dynamic/1/1", "application/octet-stream"),
        ("/none", "text/plain"),
    ] {
        assert_eq!(
            header(&fixture.get(target, "").0, "content-type"),
            want,
            "{target}"
        );
    }
}

#[test]
fn redirects_stay_on_this_server() {
    let mut fixture = Fixture::new();
    for (target, want) in [
        ("/sub", "/sub/"),
        ("//sub", "/sub/"),
        ("/bare%20dir?x", "/bare%20dir/"),
        ("/sub/../sub/deep", "/sub/deep/"),
    ] {
        let (head, _) = fixture.get(target, "");
        assert_eq!(
            (head.status.0, header(&head, "location")),
            (301, want.to_owned()),
            "{target}"
        );
    }
}

#[test]
fn ranges_give_their_part() {
    let mut fixture = Fixture::new();
    let content = fs::read(fixture.path("data.bin")).unwrap();
    let size = content.len();
    for (range, status, part) in [
        ("bytes=0-0", 206, 0..1),
        ("bytes=10-19", 206, 10..20),
        ("bytes=399990-", 206, 399_990..size),
        ("bytes=-5", 206, size - 5..size),
        ("bytes=0-999999999", 206, 0..size),
        ("bytes=1-2,5-6", 200, 0..size),
        ("bytes=9-2", 200, 0..size),
        ("chapters=1-2", 200, 0..size),
    ] {
        let (head, body) = fixture.get("/data.bin", &format!("Range: {range}\r\n"));
        assert_eq!(head.status.0, status, "{range}");
        assert_eq!(body, &content[part.clone()], "{range}");
        let content_range = head
            .headers
            .get("content-range")
            .and_then(ContentRange::parse);
        let want = (status == 206).then_some(Some(u64::try_from(size).unwrap()));
        assert_eq!(content_range.map(|range| range.size), want, "{range}");
        assert!(
            head.headers.get("repr-digest").is_some(),
            "{range}: of the whole"
        );
    }
    for (target, range, size) in [
        ("/data.bin", "bytes=400000-", 400_000),
        ("/empty", "bytes=0-", 0),
    ] {
        let (head, _) = fixture.get(target, &format!("Range: {range}\r\n"));
        assert_eq!(head.status.0, 416, "{target}");
        assert_eq!(
            header(&head, "content-range"),
            format!("bytes */{size}"),
            "{target}"
        );
    }
}

#[test]
fn conditions_are_kept() {
    let mut fixture = Fixture::new();
    let etag = header(&fixture.get("/text.txt", "").0, "etag");
    let future = "Sun, 06 Nov 2094 08:49:37 GMT";
    for (fields, want) in [
        (format!("If-None-Match: {etag}\r\n"), 304),
        (format!("If-None-Match: W/{etag}\r\n"), 304),
        ("If-None-Match: \"x\"\r\n".to_owned(), 200),
        (format!("If-Match: {etag}\r\n"), 200),
        ("If-Match: \"x\"\r\n".to_owned(), 412),
        (format!("If-Match: \"x\"\r\nIf-None-Match: {etag}\r\n"), 412),
        (format!("If-Modified-Since: {future}\r\n"), 200),
        (
            "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n".to_owned(),
            200,
        ),
        (format!("Range: bytes=0-1\r\nIf-Range: {etag}\r\n"), 206),
        ("Range: bytes=0-1\r\nIf-Range: \"x\"\r\n".to_owned(), 200),
        (format!("Range: bytes=0-1\r\nIf-Range: {future}\r\n"), 200),
        (
            format!("Range: bytes=0-1\r\nIf-None-Match: {etag}\r\n"),
            304,
        ),
        ("Range: bytes=99999-\r\nIf-Match: \"x\"\r\n".to_owned(), 412),
    ] {
        let (head, body) = fixture.get("/text.txt", &fields);
        assert_eq!(head.status.0, want, "{fields}");
        if want == 304 {
            assert!(body.is_empty(), "{fields}");
            assert_eq!(header(&head, "etag"), etag, "{fields}");
            assert_eq!(header(&head, "content-length"), "", "{fields}");
        }
    }
    let (head, _) = fixture.get("/none", "If-None-Match: *\r\n");
    assert_eq!(head.status.0, 404, "conditions are for what exists");
}

#[test]
fn head_is_get_without_a_body() {
    let mut fixture = Fixture::new();
    for request in [
        get("/text.txt", ""),
        get("/", "If-Match: \"x\"\r\n"),
        get("/none", ""),
        get("/sub", ""),
        get("/.dynamic/1/99999999999", ""),
        get("/.watermark/m/text.txt", ""),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
    ] {
        let (head, body) = fixture.answer(&request.replacen("GET", "HEAD", 1));
        assert!(body.is_empty(), "{request}");
        let begun = fixture.begin(&request);
        let mut start = vec![0; 300];
        let read = fixture
            .origin
            .read(StreamPart::new(context(0), &begun.user, 0), &mut start)
            .unwrap();
        assert_eq!(
            ResponseHead::parse(&start[..read]).unwrap().0,
            head,
            "{request}"
        );
    }
    let (head, _) =
        fixture.answer("HEAD /text.txt HTTP/1.1\r\nHost: h\r\nRange: bytes=0-1\r\n\r\n");
    assert_eq!(head.status.0, 200, "Range is for GET");
}

#[test]
fn dynamic_objects_are_what_a_client_can_compute() {
    let mut fixture = Fixture::new();
    let (head, body) = fixture.get("/.dynamic/7/1000", "Range: bytes=5-104\r\n");
    let mut want = vec![0; 100];
    dynamic::fill(7, 5, &mut want);
    assert_eq!((head.status.0, body), (206, want));
    let most = dynamic::MAX_DYNAMIC_BYTES;
    let begun = fixture.begin(&get(&format!("/.dynamic/7/{most}"), ""));
    assert!(begun.length.unwrap() <= crate::transport::application::MAX_STREAM_BYTES);
    let mut tail = [0; 16];
    assert_eq!(
        fixture.origin.read(
            StreamPart::new(context(0), &begun.user, begun.length.unwrap() - 9),
            &mut tail
        ),
        Ok(9)
    );
    let mut want = [0; 9];
    dynamic::fill(7, most - 9, &mut want);
    assert_eq!(tail[..9], want);
    let (head, body) = fixture.get("/.dynamic/7/1000/300", "");
    let mut block = [0; 300];
    dynamic::fill(7, 0, &mut block);
    assert_eq!(body, block.repeat(4)[..1000]);
    assert_ne!(
        header(&head, "etag"),
        header(&fixture.get("/.dynamic/7/1000", "").0, "etag")
    );
}

#[test]
fn marks_are_found_in_what_was_sent() {
    let mut fixture = Fixture::new();
    for (name, content_type) in [
        ("text.txt", "text/plain"),
        ("image.ppm", "image/x-portable-pixmap"),
    ] {
        let mut etags = Vec::new();
        for mark in ["alice", "bob-2"] {
            let (head, body) = fixture.get(&format!("/.watermark/{mark}/{name}"), "");
            assert_eq!(
                watermark::extract(content_type, &body).as_deref(),
                Some(mark.as_bytes())
            );
            etags.push(header(&head, "etag"));
        }
        etags.push(header(&fixture.get(&format!("/{name}"), "").0, "etag"));
        etags.sort();
        etags.dedup();
        assert_eq!(etags.len(), 3, "{name}: each has a tag of its own");
    }
}

mod streams;
