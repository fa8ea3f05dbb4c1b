//! The scripted namespace tests as one test of the crate, with the program that cargo built.
//!
//! Ignored by default, since it needs root, `/dev/net/tun` and minutes: `make test` runs the script
//! itself with the release build. By hand: `sudo -E cargo test --test netns -- --ignored`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Exit code of the script if it cannot create namespaces.
const SKIPPED: i32 = 77;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/test-netns.sh")
}

#[test]
#[ignore = "needs root and /dev/net/tun; make test runs scripts/test-netns.sh"]
fn scenarios_pass() {
    let status = Command::new(script())
        .env("HEADWATER", env!("CARGO_BIN_EXE_headwater"))
        .env("OBJECT_MB", "100")
        .status()
        .expect("the script starts");
    assert_ne!(
        status.code(),
        Some(SKIPPED),
        "namespaces cannot be made here"
    );
    assert!(status.success(), "scenarios failed: {status}");
}

/// A scenario that nobody runs proves nothing.
#[test]
fn every_scenario_is_listed() {
    let folder = script().with_file_name("scenarios");
    let files = std::fs::read_dir(folder).expect("the folder is there");
    let text: String = files
        .map(|file| std::fs::read_to_string(file.expect("an entry").path()).expect("text"))
        .collect();
    let mut defined: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("scenario_")?.split_once("() {"))
        .map(|(name, _)| name)
        .collect();
    let listed = Command::new(script())
        .arg("--list")
        .output()
        .expect("the script starts");
    let listed = String::from_utf8(listed.stdout).expect("names are text");
    let mut listed: Vec<&str> = listed.lines().collect();
    defined.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, defined);
}
