//! Token files on a real file system.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::thread;

use super::*;
use crate::cli::records::{self, RecordFileError, save};
use crate::host::tokens::MAX_TOKENS;
use crate::transport::continuation::MAX_TOKEN_AGE;

fn load(path: &Path) -> Result<Tokens, RecordFileError> {
    records::load(path)
}

fn parse(text: &str) -> Option<Tokens> {
    records::parse(text)
}

fn emit(tokens: &Tokens) -> String {
    let mut text = format!("{HEAD}\n");
    tokens.emit(&mut text);
    text
}

/// The first line of a file.
const HEAD: &str = "# headwater address tokens";

const NOW: u64 = 1_800_000_000_000;

fn token(port: u16, received: u64) -> Remembered {
    Remembered {
        local: "fd00::1".parse().unwrap(),
        service: format!("[fd00::2]:{port}").parse().unwrap(),
        received: UnixMillis::new(received),
        token: AddressToken {
            connection: u64::from(port) << 40,
            sealed: (0..MAX_CONTINUATION_BYTES)
                .map(|n| n as u8 ^ 0xa5)
                .collect(),
        },
    }
}

fn tokens(all: impl IntoIterator<Item = Remembered>) -> Tokens {
    let mut tokens = Tokens::default();
    all.into_iter().for_each(|token| tokens.remember(token));
    tokens
}

fn ports(tokens: &Tokens) -> Vec<u16> {
    tokens.iter().map(|known| known.service.port()).collect()
}

fn is_foreign<T>(result: Result<T, RecordFileError>) -> bool {
    matches!(result, Err(RecordFileError::Foreign(_)))
}

#[test]
fn what_is_saved_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    assert!(load(&path).unwrap().is_empty(), "no file, no tokens");
    let now = UnixMillis::new(NOW);
    save(&path, &Tokens::default(), now).unwrap();
    assert!(!path.exists(), "nothing to remember makes no file");
    let four = Remembered {
        local: "10.0.0.1".parse().unwrap(),
        service: "10.0.0.2:7600".parse().unwrap(),
        ..token(1, NOW - 5)
    };
    let all = tokens([four, token(1, NOW - 4), token(2, NOW)]);
    save(&path, &all, now).unwrap();
    assert_eq!(load(&path).unwrap(), all);
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o600);
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing beside it"
    );
}

#[test]
fn a_run_adds_to_what_another_has_written_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    let age = u64::try_from(MAX_TOKEN_AGE.as_millis()).unwrap();
    let before = tokens([token(1, NOW - age), token(2, NOW - 9), token(3, NOW)]);
    save(&path, &before, UnixMillis::new(NOW)).unwrap();
    let now = UnixMillis::new(NOW + 1);
    save(&path, &tokens([token(2, NOW + 1), token(3, NOW - 1)]), now).unwrap();
    let after = load(&path).unwrap();
    assert_eq!(after, tokens([token(3, NOW), token(2, NOW + 1)]));
}

#[test]
fn runs_at_the_same_time_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    thread::scope(|scope| {
        for run in 0..8 {
            let path = &path;
            scope.spawn(move || {
                for n in 0..20 {
                    let one = tokens([token(1 + run * 20 + n, NOW)]);
                    save(path, &one, UnixMillis::new(NOW)).unwrap();
                    load(path).unwrap();
                }
            });
        }
    });
    let mut kept = ports(&load(&path).unwrap());
    kept.sort_unstable();
    assert_eq!(kept, (1..=160).collect::<Vec<u16>>());
}

#[test]
fn what_is_no_token_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let one = tokens([token(1, NOW)]);
    let (full, now) = (emit(&one), UnixMillis::new(NOW));
    let long = |bytes: u64| {
        let mut text = full.clone();
        text.extend(std::iter::repeat_n(
            '\n',
            usize::try_from(bytes).unwrap() - full.len(),
        ));
        text
    };
    let cases: [(&str, Vec<u8>, bool); 8] = [
        ("empty", Vec::new(), true),
        ("head", format!("{HEAD}\n").into(), true),
        (
            "lines that are none",
            format!("{full}x\n1 2 3 4 5\n").into(),
            true,
        ),
        ("at the bound", long(MAX_TOKEN_FILE_BYTES).into(), true),
        ("beyond it", long(MAX_TOKEN_FILE_BYTES + 1).into(), false),
        ("text", b"my diary\n".to_vec(), false),
        ("no head", full.lines().nth(1).unwrap().into(), false),
        ("binary", [full.as_bytes(), &[0xff]].concat(), false),
    ];
    for (name, content, good) in cases {
        let path = dir.path().join(name);
        fs::write(&path, &content).unwrap();
        assert_eq!(load(&path).is_ok(), good, "{name}");
        assert_eq!(save(&path, &one, now).is_ok(), good, "{name}");
        if good {
            assert_eq!(load(&path).unwrap(), one, "{name}");
        } else {
            assert!(is_foreign(load(&path)), "{name}");
            assert_eq!(fs::read(&path).unwrap(), content, "{name}");
        }
    }
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for path in [dir.path(), &socket] {
        assert!(is_foreign(load(path)) && is_foreign(save(path, &one, now)));
    }
    let nowhere = dir.path().join("none/tokens");
    assert!(load(&nowhere).unwrap().is_empty());
    assert!(matches!(
        save(&nowhere, &one, now),
        Err(RecordFileError::Io(_))
    ));
}

#[test]
fn the_file_behind_a_symlink_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("tokens"), dir.path().join("link"));
    symlink(&path, &link).unwrap();
    for port in [1, 2] {
        save(&link, &tokens([token(port, NOW)]), UnixMillis::new(NOW)).unwrap();
    }
    assert_eq!(ports(&load(&path).unwrap()), [1, 2]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn a_full_file_is_read_whole() {
    let ports = 1..=u16::try_from(MAX_TOKENS).unwrap();
    let all = tokens(ports.map(|port| token(port, u64::MAX)));
    let text = emit(&all);
    assert!(
        text.len() as u64 * 2 < MAX_TOKEN_FILE_BYTES,
        "{}",
        text.len()
    );
    assert_eq!(parse(&text), Some(all));
}

#[test]
fn lines_that_are_no_tokens_are_passed_over() {
    let good = "10.0.0.1 10.0.0.2:7600 5 ff 0a1B";
    assert!(parse_line(good).is_some());
    let long = format!(
        "10.0.0.1 10.0.0.2:7600 5 ff {}",
        "00".repeat(MAX_CONTINUATION_BYTES + 1)
    );
    for line in [
        "",
        "10.0.0.1 10.0.0.2:7600 5 ff",
        "10.0.0.1 10.0.0.2:7600 5 ff 0a1b more",
        "10.0.0.1 10.0.0.2:7600 5 ff 0a1",
        "10.0.0.1 10.0.0.2:7600 5 ff 0g",
        "10.0.0.1 10.0.0.2:7600 5 ff +1",
        "10.0.0.1 10.0.0.2:7600 -5 ff 0a",
        "10.0.0.1 10.0.0.2:7600 5 1ffffffffffffffff 0a",
        "10.0.0.1 10.0.0.2 5 ff 0a",
        "fd00::1 10.0.0.2:7600 5 ff 0a",
        &long,
    ] {
        assert_eq!(parse_line(line), None, "{line}");
    }
}
