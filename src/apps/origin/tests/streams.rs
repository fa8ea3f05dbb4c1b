//! Streams that do not depend on the server, on the split of reads, or on changes to the files
//! meanwhile; and hostile input.

use core::num::NonZeroU32;
use std::fs;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::*;
use crate::apps::origin::dynamic::Dynamic;
use crate::apps::origin::hot::{ASKS_TO_LOAD, Job, Loaded};
use crate::http::range;
use crate::transport::application::MAX_USER_BYTES;

/// Requests whose streams must be identical wherever and however they are read.
fn requests() -> Vec<String> {
    vec![
        get("/", ""),
        get("/data.bin", ""),
        get("/data.bin", "Range: bytes=12345-300000\r\n"),
        get("/bare%20dir/", ""),
        get("/sub", ""),
        get("/none", ""),
        get("/empty", ""),
        get("/data.bin", "Range: bytes=999999999-\r\n"),
        get("/.dynamic/3/50001", "Range: bytes=7-\r\n"),
        get("/.dynamic/3/50001/1000", ""),
        get("/.dynamic/3/50001/4099", "Range: bytes=7-40000\r\n"),
        get("/.watermark/mark/text.txt", ""),
        get("/.watermark/mark/image.ppm", "Range: bytes=100-9000\r\n"),
        "PUT / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
    ]
}

#[test]
fn a_stream_is_the_same_on_every_server_however_it_is_read() {
    let (mut first, mut second) = (Fixture::new(), Fixture::new());
    for request in requests() {
        let begun = first.begin(&request);
        assert_eq!(begun, second.begin(&request), "{request}");
        let whole = first.read(&begun, 1 << 20).unwrap();
        for piece in [1440, 997] {
            assert!(
                second.read(&begun, piece).unwrap() == whole,
                "{request} by {piece}"
            );
        }
        if whole.len() < 1000 {
            assert!(second.read(&begun, 1).unwrap() == whole, "{request} by 1");
        }
    }
}

#[test]
fn a_server_that_never_saw_the_request_goes_on_with_it() {
    let mut first = Fixture::new();
    for request in requests() {
        let begun = first.begin(&request);
        let whole = first.read(&begun, 1 << 20).unwrap();
        let mut restarted = Fixture::new();
        let middle = begun.length.unwrap() / 2;
        let mut rest = vec![0; usize::try_from(begun.length.unwrap() - middle).unwrap()];
        assert_eq!(
            restarted
                .origin
                .read(StreamPart::new(context(0), &begun.user, middle), &mut rest),
            Ok(rest.len())
        );
        assert!(whole.ends_with(&rest), "{request}");
    }
}

#[test]
fn few_streams_are_remembered_and_all_go_on() {
    let mut fixture = Fixture::hot(ROOM, InlineLoader::default());
    let streams: Vec<Begun> = (0..=MAX_RECENT)
        .map(|first| fixture.begin(&get("/data.bin", &format!("Range: bytes={first}-\r\n"))))
        .collect();
    let wholes: Vec<Vec<u8>> = streams
        .iter()
        .map(|begun| fixture.read(begun, 1 << 20).unwrap())
        .collect();
    for offset in (1000..9000).step_by(1000) {
        for (begun, whole) in streams.iter().zip(&wholes) {
            let got = fixture.stage(begun, offset, 1000).unwrap();
            assert!(got == whole[usize::try_from(offset).unwrap()..][..1000]);
            assert!(fixture.origin.recent.len() <= MAX_RECENT);
        }
    }
    assert_eq!(fixture.origin.recent.len(), MAX_RECENT);
    let last = &fixture.origin.recent[MAX_RECENT - 1];
    assert_eq!(last.user, streams[MAX_RECENT].user);
}

/// A change of `data.bin` in the middle of a transfer, and the outcome that a reader may get.
type Change = (&'static str, fn(&Fixture), Result<(), Unavailable>);

const CHANGES: [Change; 9] = [
    ("nothing", |_| {}, Ok(())),
    (
        "touched",
        |fixture| fixture.overwrite("data.bin", |_| {}),
        Ok(()),
    ),
    (
        "one byte in place",
        |fixture| fixture.overwrite("data.bin", |file| file.write_all_at(b"!", 20_000).unwrap()),
        Err(Unavailable::Changed),
    ),
    (
        "truncated",
        |fixture| fixture.overwrite("data.bin", |file| file.set_len(300_000).unwrap()),
        Err(Unavailable::Changed),
    ),
    (
        "grown",
        |fixture| fixture.overwrite("data.bin", |file| file.set_len(400_001).unwrap()),
        Ok(()),
    ),
    (
        "grown, and changed in place",
        |fixture| {
            fixture.overwrite("data.bin", |file| {
                file.set_len(400_001).unwrap();
                file.write_all_at(b"!", 20_000).unwrap();
            });
        },
        Err(Unavailable::Changed),
    ),
    (
        "removed",
        |fixture| fs::remove_file(fixture.path("data.bin")).unwrap(),
        Err(Unavailable::Changed),
    ),
    (
        "replaced by others",
        |fixture| fs::rename(fixture.path("text.txt"), fixture.path("data.bin")).unwrap(),
        Err(Unavailable::Changed),
    ),
    (
        "replaced by the same",
        |fixture| {
            fs::copy(fixture.path("data.bin"), fixture.path("copy")).unwrap();
            fs::rename(fixture.path("copy"), fixture.path("data.bin")).unwrap();
        },
        Ok(()),
    ),
];

#[test]
fn versions_are_never_mixed() {
    for (name, change, want) in CHANGES {
        let mut fixture = Fixture::new();
        let begun = fixture.begin(&get("/data.bin", ""));
        let whole = fixture.read(&begun, 1 << 20).unwrap();
        change(&fixture);
        let mut out = vec![0; 1440];
        let mut outcome = Ok(());
        // Long enough to resolve every path again; each answer is correct or missing.
        for read in 0..2 * files::RECHECK_READS {
            let offset = 1000 + u64::from(read) * 1440;
            match fixture
                .origin
                .read(StreamPart::new(context(0), &begun.user, offset), &mut out)
            {
                Ok(got) => {
                    let at = usize::try_from(offset).unwrap();
                    assert_eq!(out[..got], whole[at..at + got], "{name}: read {read}");
                }
                Err(error) => outcome = Err(error),
            }
        }
        assert_eq!(outcome, want, "{name}");
    }
}

/// Room for every file of a fixture.
const ROOM: u64 = 1 << 20;

/// Begins the response often enough for its file to become hot.
fn begin_hot(fixture: &mut Fixture, request: &str) -> Begun {
    for _ in 1..ASKS_TO_LOAD {
        fixture.begin(request);
    }
    fixture.begin(request)
}

#[test]
fn what_is_staged_is_what_is_read_from_memory_and_from_files() {
    let mut cold = Fixture::new();
    let mut fixture = Fixture::hot(ROOM, InlineLoader::default());
    for request in requests() {
        let begun = begin_hot(&mut fixture, &request);
        let whole = cold.read(&begun, 1 << 20).unwrap();
        for piece in [63_000, 1440, 997] {
            let mut staged = Vec::new();
            while staged.len() < whole.len() {
                let at = staged.len() as u64;
                staged.extend(fixture.stage(&begun, at, piece).unwrap());
            }
            assert!(staged == whole, "{request} by {piece}");
        }
        assert_eq!(
            fixture.stage(&begun, begun.length.unwrap(), 9),
            Ok(Vec::new())
        );
    }
    let from_memory = fixture.origin.hot().counters().staged_bytes;
    assert!(from_memory > 3 * (400_000 - 63_000), "{from_memory}");
}

#[test]
fn versions_are_never_mixed_out_of_memory() {
    for (name, change, want) in CHANGES {
        let mut fixture = Fixture::hot(ROOM, InlineLoader::default());
        let begun = begin_hot(&mut fixture, &get("/data.bin", ""));
        let whole = fixture.read(&begun, 1 << 20).unwrap();
        let hot = |fixture: &Fixture| fixture.origin.hot().counters().staged_bytes;
        assert_eq!(fixture.stage(&begun, 1000, 500).unwrap(), whole[1000..1500]);
        assert_eq!(hot(&fixture), 500, "{name}: it lies in memory");
        change(&fixture);
        let mut outcome = Ok(());
        for read in 0..2 * files::RECHECK_READS {
            let offset = 1000 + u64::from(read) * 1440;
            match fixture.stage(&begun, offset, 1440) {
                Ok(got) => {
                    let at = usize::try_from(offset).unwrap();
                    assert!(got == whole[at..at + got.len()], "{name}: read {read}");
                }
                Err(error) => outcome = Err(error),
            }
        }
        assert_eq!(outcome, want, "{name}");
        // From now on responses are of the new version, also from memory.
        if name == "one byte in place" {
            let begun = begin_hot(&mut fixture, &get("/data.bin", ""));
            // The first read continues the response already begun.
            fixture.stage(&begun, 0, 1).unwrap();
            let before = hot(&fixture);
            assert_ne!(fixture.stage(&begun, 1000, 400_000).unwrap(), whole[1000..]);
            assert!(hot(&fixture) > before);
        }
    }
}

/// Writes to the file between two blocks of a load.
struct Disturbed(PathBuf, InlineLoader);

impl Loader for Disturbed {
    fn load(&mut self, job: Job) -> bool {
        let path = self.0.clone();
        self.1.run(job, &mut || {
            let file = File::options().write(true).open(&path).unwrap();
            file.write_all_at(b"!", 300_000).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
            file.set_times(FileTimes::new().set_modified(time)).unwrap();
            true
        })
    }

    fn loaded(&mut self) -> Option<Loaded> {
        self.1.loaded()
    }
}

#[test]
fn a_file_that_is_written_to_while_it_is_read_does_not_become_hot() {
    let mut fixture = Fixture::new();
    let loader = Disturbed(fixture.path("data.bin"), InlineLoader::default());
    fixture.origin = fixture.origin.with_hot(Hot::new(ROOM, Box::new(loader)));
    let begun = begin_hot(&mut fixture, &get("/data.bin", ""));
    assert_eq!(
        (fixture.origin.hot().files(), fixture.origin.hot().bytes()),
        (0, 0)
    );
    assert_eq!(
        fixture.stage(&begun, 1000, 500),
        Err(Unavailable::Changed),
        "it was begun before it was disturbed"
    );
}

#[test]
fn a_change_shows_in_the_next_response() {
    let mut fixture = Fixture::new();
    let before = fixture.begin(&get("/text.txt", ""));
    fixture.overwrite("text.txt", |file| file.write_all_at(b"L", 0).unwrap());
    let after = fixture.begin(&get("/text.txt", ""));
    assert_ne!(before.user, after.user);
    assert_eq!(
        fixture
            .origin
            .read(StreamPart::new(context(0), &before.user, 0), &mut [0; 500]),
        Err(Unavailable::Changed)
    );
    assert!(fixture.read(&after, 999).is_ok());
}

#[test]
fn streams_of_many_files_need_a_bounded_number_of_descriptors() {
    let mut fixture = Fixture::new();
    let mut begun = Vec::new();
    for index in 0..2 * files::MAX_OPEN_FILES {
        fs::write(
            fixture.path(&format!("f{index}")),
            format!("content {index}"),
        )
        .unwrap();
        begun.push(fixture.begin(&get(&format!("/f{index}"), "")));
        assert!(fixture.origin.open_count() <= files::MAX_OPEN_FILES);
    }
    for (index, begun) in begun.iter().enumerate() {
        let stream = fixture.read(begun, 1 << 20).unwrap();
        assert!(stream.ends_with(format!("content {index}").as_bytes()));
    }
    assert_eq!(fixture.origin.open_count(), files::MAX_OPEN_FILES);
}

fn file_of(path: &[u8], tag: continuation::Tag) -> Resource {
    Resource::File {
        path: path.to_vec(),
        tag,
        size: 13_000,
    }
}

/// Reads nine bytes of a stream from `offset` on.
fn read_nine(fixture: &mut Fixture, user: &[u8], offset: u64) -> Result<usize, Unavailable> {
    let part = StreamPart::new(context(0), user, offset);
    fixture.origin.read(part, &mut [0; 9])
}

#[test]
fn continuations_that_do_not_fit_the_object_are_refused() {
    let mut fixture = Fixture::new();
    let good = fixture.begin(&get("/text.txt", "Range: bytes=0-1\r\n"));
    let good = UserContinuation::decode(&good.user).unwrap();
    let part = |first, last| RequestOutcome::Part(range::ByteRange { first, last });
    let Resource::File { tag, .. } = good.resource else {
        panic!("{good:?}")
    };
    let (path, mark) = (b"text.txt".to_vec(), b"\n".to_vec());
    let file = |path: &[u8]| file_of(path, tag);
    let whole = |resource| (RequestOutcome::Whole, resource);
    let dynamic = |size, period| {
        let period = NonZeroU32::new(period);
        Resource::Dynamic(Dynamic {
            seed: 1,
            size,
            period,
        })
    };
    for (name, (outcome, resource)) in [
        ("behind the end", (part(0, 13_000), file(&path))),
        ("backwards", (part(1, 0), file(&path))),
        ("above the root", whole(file(b"../root/text.txt"))),
        ("absolute", whole(file(b"/etc/passwd"))),
        ("nul", whole(file(b"text.txt\0"))),
        ("directory", whole(file(b"sub"))),
        (
            "file as a page",
            whole(Resource::Listing {
                path: path.clone(),
                tag,
            }),
        ),
        (
            "other mark",
            whole(Resource::Watermark {
                mark,
                path: path.clone(),
                tag,
            }),
        ),
        ("too large", whole(dynamic((1 << 48) - 1, 0))),
        (
            "too long a period",
            whole(dynamic(1, dynamic::MAX_PERIOD_BYTES + 1)),
        ),
    ] {
        let user = UserContinuation {
            outcome,
            resource,
            ..good.clone()
        };
        let got = read_nine(&mut fixture, &user.encode(), 0);
        assert_eq!(got, Err(Unavailable::Changed), "{name}");
    }
    let long = [good.encode(), vec![b'x'; MAX_USER_BYTES]].concat();
    let got = read_nine(&mut fixture, &long, 0);
    assert_eq!(got, Err(Unavailable::Changed), "too long");
    let got = read_nine(&mut fixture, &good.encode(), u64::MAX);
    assert_eq!(got, Ok(0), "far offset");
}

#[test]
fn long_paths_go_on_at_their_server() {
    let mut fixture = Fixture::new();
    let folder = ["x".repeat(200), "y".repeat(200)].join("/");
    fs::create_dir_all(fixture.path(&folder)).unwrap();
    for name in ["file", "index.html"] {
        fs::write(fixture.path(&format!("{folder}/{name}")), name).unwrap();
    }
    for (target, want) in [("/file", "file"), ("/", "index.html")] {
        let begun = fixture.begin(&get(&format!("/{folder}{target}"), ""));
        let stream = fixture.read(&begun, 1000).unwrap();
        assert!(stream.ends_with(want.as_bytes()));
        let other = Fixture::new().read(&begun, 1000);
        assert_eq!(other, Err(Unavailable::Changed), "another server");
    }
    let (head, _) = fixture.get(&format!("/{folder}"), "");
    assert_eq!(header(&head, "location"), format!("/{folder}/"));
    let forged = RequestContext {
        proven: false,
        ..context(NOW)
    };
    let request = get(&format!("/{folder}/file"), "");
    let begun = fixture.origin.begin(forged, request.as_bytes());
    assert!(begun.is_err(), "names are for proven clients");
}

#[test]
fn a_server_that_renders_otherwise_goes_on_with_the_body_only() {
    let mut fixture = Fixture::new();
    let begun = fixture.begin(&get("/data.bin", ""));
    let user = UserContinuation::decode(&begun.user).unwrap();
    let content = fs::read(fixture.path("data.bin")).unwrap();
    for (name, rendering, head) in [
        ("another release", user.rendering + 1, user.head),
        ("a shorter head", user.rendering, user.head - 9),
        ("a longer head", user.rendering, user.head + 9),
    ] {
        let other = UserContinuation {
            rendering,
            head,
            ..user.clone()
        };
        let other = other.encode();
        let mut out = vec![0; 1000];
        let mut read = |offset| {
            let read = fixture
                .origin
                .read(StreamPart::new(context(0), &other, offset), &mut out);
            read.map(|count| out[..count].to_vec())
        };
        let head = u64::from(head);
        for offset in [0, head - 1] {
            assert_eq!(read(offset), Err(Unavailable::Changed), "{name}");
        }
        for at in [0, 399_500] {
            let want = &content[at..content.len().min(at + 1000)];
            let got = read(head + at as u64);
            assert_eq!(got.as_deref(), Ok(want), "{name}");
        }
    }
    let begun = fixture.begin(&get("/none", ""));
    let user = UserContinuation::decode(&begun.user).unwrap();
    let other = UserContinuation {
        rendering: user.rendering + 1,
        ..user
    };
    for offset in [0, begun.length.unwrap() - 1] {
        let read = fixture.origin.read(
            StreamPart::new(context(0), &other.encode(), offset),
            &mut [0; 9],
        );
        assert_eq!(read, Err(Unavailable::Changed), "its text is rendered, too");
    }
}

/// Makes a file whose first response does not wait for its digest.
fn make_large(fixture: &Fixture) -> Vec<u8> {
    let content = b"large".repeat(1 << 20);
    fs::write(fixture.path("large"), &content).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
    let file = File::options()
        .write(true)
        .open(fixture.path("large"))
        .unwrap();
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
    content
}

/// Begins responses without digesting: as when the digest is not known yet.
fn provisional(begun: &Begun, fixture: &Fixture) -> Vec<u8> {
    let mut user = UserContinuation::decode(&begun.user).unwrap();
    let metadata = fs::metadata(fixture.path("large")).unwrap();
    let file = File::open(fixture.path("large")).unwrap();
    let stamp = digest::Stamp::of(&metadata);
    let object = object::Object::file_of(std::sync::Arc::new(file), Vec::new(), stamp, stamp.size);
    let Resource::File { tag, .. } = &mut user.resource else {
        panic!("{user:?}")
    };
    *tag = object.provisional_tag();
    user.provisional = true;
    user.head -= u16::try_from("Repr-Digest: sha-256=::\r\n".len() + 44).unwrap();
    user.encode()
}

#[test]
fn a_provisional_tag_stays_valid_where_the_digest_is_known() {
    let mut fixture = Fixture::new();
    let content = make_large(&fixture);
    let begun = fixture.begin(&get("/large", ""));
    let user = provisional(&begun, &fixture);
    let length = begun.length.unwrap() - 69;
    let head = length - content.len() as u64;
    let mut start = vec![0; usize::try_from(head).unwrap()];
    assert_eq!(
        fixture
            .origin
            .read(StreamPart::new(context(0), &user, 0), &mut start),
        Ok(start.len())
    );
    let (parsed, _) = ResponseHead::parse(&start).unwrap();
    assert_eq!(header(&parsed, "repr-digest"), "", "the head as it began");
    let etag = header(&parsed, "etag");
    let mut out = vec![0; 100];
    assert_eq!(
        fixture
            .origin
            .read(StreamPart::new(context(0), &user, head + 7), &mut out),
        Ok(100)
    );
    assert_eq!(out, content[7..107]);
    for (fields, want) in [
        (format!("If-None-Match: {etag}\r\n"), 304),
        (format!("If-Match: {etag}\r\n"), 200),
        (format!("Range: bytes=5-\r\nIf-Range: {etag}\r\n"), 206),
    ] {
        let (head, _) = fixture.get("/large", &fields);
        assert_eq!(head.status.0, want, "{fields}");
        assert_eq!(header(&head, "etag"), etag, "{fields}");
    }
    let (head, _) = fixture.get("/large", "");
    assert_ne!(header(&head, "etag"), etag);
    assert_ne!(header(&head, "repr-digest"), "");
    fixture.overwrite("large", |file| file.write_all_at(b"LARGE", 0).unwrap());
    let read = fixture
        .origin
        .read(StreamPart::new(context(0), &user, head_of(&user)), &mut out);
    assert_eq!(read, Err(Unavailable::Changed));
}

fn head_of(user: &[u8]) -> u64 {
    u64::from(UserContinuation::decode(user).unwrap().head)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_request_panics_and_each_has_a_stream(
        method in "GET|HEAD|POST|[A-Z]{0,5}",
        target in prop_oneof![
            "/[a-z./%0-9]{0,30}",
            "(/(\\.dynamic|\\.watermark|text\\.txt|sub|[0-9]{1,20}|\\.\\.|m)){0,4}/?",
            "[ -~]{0,30}",
        ],
        fields in "((Range|If-Range|If-Match|If-None-Match|Host|[A-Za-z-]{1,9}): [ -~]{0,20}\r\n){0,4}",
        piece in 1usize..3000,
    ) {
        let mut fixture = Fixture::new();
        let request = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let begun = fixture.begin(&request);
        if begun.length.unwrap() < 1_000_000 {
            let stream = fixture.read(&begun, piece).unwrap();
            prop_assert!(ResponseHead::parse(&stream).is_ok(), "{}", request);
        }
    }

    #[test]
    fn no_bytes_panic(
        request in proptest::collection::vec(any::<u8>(), 0..200),
        mut user in proptest::collection::vec(any::<u8>(), 0..60),
        kind in 0u8..8,
        offset: u64,
    ) {
        let mut fixture = Fixture::new();
        prop_assert!(fixture.origin.begin(context(offset), &request).is_ok());
        if let Some(first) = user.first_mut() {
            *first = 0x20 | kind;
        }
        let _ = fixture.origin.read(StreamPart::new(context(0), &user, offset), &mut [0; 100]);
    }
}
