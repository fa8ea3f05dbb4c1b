//! Files on a real file system.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;

const URL: &str = "http://10.0.0.1/file";

fn try_output(path: &Path, resume: Resume) -> Result<Box<dyn Output>, Failed> {
    prepare(&Destination::File(path.to_owned()), URL, resume)
}

fn output(path: &Path, resume: Resume) -> Box<dyn Output> {
    try_output(path, resume).unwrap()
}

/// Leaves a `.part` file of an earlier transfer of `url`; returns whether the file system keeps its
/// origin.
fn leave_part(path: &Path, url: &str, bytes: &[u8]) -> bool {
    let _ = fs::remove_file(part(path));
    let destination = Destination::File(path.to_owned());
    let mut out = prepare(&destination, url, Resume::No).unwrap();
    out.begin(0, Some("\"a\"")).unwrap();
    out.write(bytes).unwrap();
    drop(out);
    read_origin(&File::open(part(path)).unwrap()).is_some()
}

fn part(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}{PART_SUFFIX}", path.display()))
}

fn replayed(output: &mut dyn Output) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert!(
        output
            .replay(&mut |piece| bytes.extend_from_slice(piece))
            .unwrap()
    );
    bytes
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "before").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let mut out = output(&path, Resume::No);
    assert_eq!(out.held(), Held::default());
    assert!(
        !part(&path).exists(),
        "nothing is created ahead of a response"
    );
    out.begin(0, Some("\"a\"")).unwrap();
    out.write(b"af").unwrap();
    out.write(b"ter").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"before");
    assert!(part(&path).exists());
    out.finish().unwrap();
    drop(out);
    assert_eq!(fs::read(&path).unwrap(), b"after");
    assert!(!part(&path).exists());
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640, "the mode is kept");
}

#[test]
fn what_is_not_finished_stays_to_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let mut out = output(&path, Resume::No);
    out.begin(0, Some("\"a\"")).unwrap();
    out.write(b"0123").unwrap();
    drop(out);
    assert!(!path.exists());
    if read_origin(&File::open(part(&path)).unwrap()).is_none() {
        return; // A file system without attributes.
    }
    let mut out = output(&path, Resume::Auto);
    assert_eq!(out.held().bytes, 4);
    assert_eq!(out.held().etag.as_deref(), Some("\"a\""));
    assert_eq!(replayed(out.as_mut()), b"0123");
    out.begin(4, None).unwrap();
    out.write(b"45").unwrap();
    out.finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"012345");
}

#[test]
fn a_file_under_its_own_name_is_resumed_on_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "0123").unwrap();
    for (finish, want) in [(false, "0123"), (true, "0129")] {
        let mut out = output(&path, Resume::At(3));
        assert_eq!(out.held().bytes, 3);
        assert_eq!(replayed(out.as_mut()), b"012");
        out.begin(3, None).unwrap();
        out.write(b"9").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0123");
        if finish {
            out.finish().unwrap();
        } else {
            drop(out);
            fs::remove_file(part(&path)).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), want);
    }
}

#[test]
fn a_part_file_comes_before_the_file_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "whole file").unwrap();
    if !leave_part(&path, URL, b"part") {
        return;
    }
    assert_eq!(replayed(output(&path, Resume::Auto).as_mut()), b"part");
    let at = output(&path, Resume::At(5)).held().bytes;
    assert_eq!(at, 5, "the part is too short for this offset");
    let short = try_output(&path, Resume::At(11));
    assert_eq!(short.err().unwrap().exit, Exit::BadResume);
}

#[test]
fn a_part_of_something_else_is_not_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let parts: [fn(&Path); 2] = [
        |path| fs::write(part(path), "unknown").unwrap(),
        |path| {
            leave_part(path, "http://10.0.0.1/other", b"other");
        },
    ];
    for leave in parts {
        leave(&path);
        let mut out = output(&path, Resume::Auto);
        assert_eq!(out.held(), Held::default());
        assert_eq!(
            try_output(&path, Resume::At(3)).err().unwrap().exit,
            Exit::BadResume
        );
        out.begin(0, None).unwrap();
        out.write(b"new").unwrap();
        out.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_part_that_others_may_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for mode in [0o620, 0o602] {
        leave_part(&path, URL, b"part");
        fs::set_permissions(part(&path), fs::Permissions::from_mode(mode)).unwrap();
        for resume in [Resume::Auto, Resume::At(2)] {
            let failed = try_output(&path, resume).err().unwrap();
            assert_eq!(failed.exit, Exit::WriteError);
            assert!(
                failed.message.contains("others may write to it"),
                "{}",
                failed.message
            );
        }
        let begun = output(&path, Resume::No).begin(0, None);
        assert!(
            begun
                .unwrap_err()
                .to_string()
                .contains("others may write to it")
        );
    }
    // Another name of a file of ours, which a part must not overwrite.
    fs::remove_file(part(&path)).unwrap();
    fs::write(dir.path().join("precious"), "precious").unwrap();
    fs::hard_link(dir.path().join("precious"), part(&path)).unwrap();
    assert!(output(&path, Resume::No).begin(0, None).is_err());
    assert_eq!(fs::read(dir.path().join("precious")).unwrap(), b"precious");
}

#[test]
fn a_file_gets_a_mode_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (path, plain) = (dir.path().join("file"), dir.path().join("plain"));
    File::create(&plain).unwrap();
    let of_new = fs::metadata(&plain).unwrap().mode();
    for (before, want) in [(None, of_new & 0o777), (Some(0o4751), 0o751)] {
        if let Some(mode) = before {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut out = output(&path, Resume::No);
        out.begin(0, None).unwrap();
        out.write(b"x").unwrap();
        let mode = fs::metadata(part(&path)).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o600, "nobody else reads what is not verified");
        out.finish().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, want);
    }
}

#[test]
fn hard_links_and_dangling_links_are_written_as_by_curl() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("file"), dir.path().join("other"));
    fs::write(&path, "before, and longer").unwrap();
    fs::hard_link(&path, &other).unwrap();
    let mut out = output(&path, Resume::No);
    out.begin(0, None).unwrap();
    out.write(b"after").unwrap();
    out.finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"after");
    assert_eq!(fs::read(&other).unwrap(), b"after", "all names have it");
    let link = dir.path().join("link");
    symlink("target", &link).unwrap();
    let mut out = output(&link, Resume::No);
    out.begin(0, None).unwrap();
    out.write(b"x").unwrap();
    out.finish().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(dir.path().join("target")).unwrap(), b"x");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn what_was_whole_under_another_name_is_only_renamed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    if !leave_part(&path, URL, b"whole") {
        return;
    }
    output(&path, Resume::Auto).finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"whole");
    output(&path, Resume::Auto).finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"whole");
}

#[test]
fn rewinding_forgets_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    if !leave_part(&path, URL, b"old") {
        return;
    }
    let mut out = output(&path, Resume::Auto);
    out.begin(3, None).unwrap();
    out.write(b"xyz").unwrap();
    out.rewind().unwrap();
    out.begin(0, None).unwrap();
    out.write(b"new").unwrap();
    out.rewind().unwrap();
    drop(out);
    assert!(!part(&path).exists(), "an empty part is removed");
    leave_part(&path, URL, b"old");
    output(&path, Resume::Auto).rewind().unwrap();
    assert!(!part(&path).exists(), "also before a response");
}

#[test]
fn links_devices_and_directories() {
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&path, "x").unwrap();
    symlink(&path, &link).unwrap();
    let mut out = output(&link, Resume::No);
    out.begin(0, None).unwrap();
    out.finish().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&path).unwrap(), b"");

    symlink("/dev/null", part(&path)).unwrap();
    let mut out = output(&path, Resume::No);
    assert!(
        out.begin(0, None).is_err(),
        "a planted symlink is not followed"
    );

    let mut out = output(Path::new("/dev/null"), Resume::No);
    out.begin(0, None).unwrap();
    out.write(b"x").unwrap();
    assert!(out.rewind().is_err());
    out.finish().unwrap();
    assert!(!Path::new("/dev/null.part").exists());

    let failed = try_output(dir.path(), Resume::No);
    assert_eq!(failed.err().unwrap().exit, Exit::WriteError);
}

#[test]
fn two_writers_do_not_share_a_part() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let (mut one, mut two) = (output(&path, Resume::No), output(&path, Resume::No));
    one.begin(0, None).unwrap();
    one.write(b"one").unwrap();
    assert!(two.begin(0, None).is_err());
    drop(two);
    one.finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one");
}

#[test]
fn standard_output_cannot_be_resumed_by_itself() {
    let failed = prepare(&Destination::Stdout, URL, Resume::Auto);
    assert_eq!(failed.err().unwrap().exit, Exit::BadResume);
    let out = prepare(&Destination::Stdout, URL, Resume::At(7)).unwrap();
    assert_eq!(out.held().bytes, 7);
}
