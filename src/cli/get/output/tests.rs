//! Files on a real file system.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

fn output(path: &Path, resume: Resume) -> Box<dyn Output> {
    prepare(&Destination::File(path.to_owned()), resume).unwrap()
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
    let mut out = output(&path, Resume::Auto);
    assert_eq!(out.held().bytes, 4);
    if let Some(etag) = out.held().etag {
        assert_eq!(etag, "\"a\"", "file systems without attributes forget it");
    }
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
    fs::write(part(&path), "part").unwrap();
    assert_eq!(replayed(output(&path, Resume::Auto).as_mut()), b"part");
    let at = output(&path, Resume::At(5)).held().bytes;
    assert_eq!(at, 5, "the part is too short for this offset");
    let short = prepare(&Destination::File(path.clone()), Resume::At(11));
    assert_eq!(short.err().unwrap().exit, Exit::BadResume);
}

#[test]
fn what_was_whole_under_another_name_is_only_renamed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(part(&path), "whole").unwrap();
    output(&path, Resume::Auto).finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"whole");
    output(&path, Resume::Auto).finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"whole");
}

#[test]
fn rewinding_forgets_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(part(&path), "old").unwrap();
    let mut out = output(&path, Resume::Auto);
    out.begin(3, None).unwrap();
    out.write(b"xyz").unwrap();
    out.rewind().unwrap();
    out.begin(0, None).unwrap();
    out.write(b"new").unwrap();
    out.rewind().unwrap();
    drop(out);
    assert!(!part(&path).exists(), "an empty part is removed");
    fs::write(part(&path), "old").unwrap();
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

    let failed = prepare(&Destination::File(dir.path().to_owned()), Resume::No);
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
    let failed = prepare(&Destination::Stdout, Resume::Auto);
    assert_eq!(failed.err().unwrap().exit, Exit::BadResume);
    let out = prepare(&Destination::Stdout, Resume::At(7)).unwrap();
    assert_eq!(out.held().bytes, 7);
}
