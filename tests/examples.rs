//! The examples work as documented: those that need no device run whole, the others refuse wrong
//! arguments. `scripts/scenarios/examples.sh` runs the others, one against the other.

use std::process::{Command, Output};

/// Runs an example that cargo has built beside this test.
fn run(name: &str, words: &[&str]) -> Output {
    let test = std::env::current_exe().unwrap_or_else(|error| panic!("own path: {error}"));
    let folder = test.ancestors().nth(2).unwrap_or(&test);
    let path = folder.join("examples").join(name);
    let output = Command::new(&path).args(words).output();
    output.unwrap_or_else(|error| panic!("{}: {error}: build the examples", path.display()))
}

#[test]
fn the_pair_in_memory_fetches_in_one_round_trip_of_two_steps() {
    let first = run("in_memory_pair", &[]);
    assert!(first.status.success(), "{first:?}");
    let text = String::from_utf8(first.stdout).unwrap();
    let (time, body) = text.split_once(": ").unwrap();
    assert_eq!(body, "hello\n");
    let millis: u32 = time.trim_end_matches(" ms").parse().unwrap();
    assert!(millis <= 2, "{text}");
    let again = run("in_memory_pair", &[]);
    assert_eq!(again.stdout, text.into_bytes(), "the same again");
}

#[test]
fn the_custom_device_carries_a_body() {
    let output = run("custom_device", &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"hello\n");
}

#[test]
fn wrong_arguments_are_refused() {
    let cases: [(&str, &[&str], &str); 7] = [
        ("slow_origin", &[], "usage: slow_origin TUN ADDRESS KEYS"),
        ("serve_bytes", &[], "usage: serve_bytes TUN ADDRESS KEYS"),
        ("serve_bytes", &["hw0", "host", "keys"], "AddrParse"),
        ("serve_bytes", &["hw0", "10.0.0.2", "/none"], "NotFound"),
        ("fetch_url", &[], "usage: fetch_url TUN ADDRESS URL"),
        ("fetch_url", &["hw0", "host", "http://a/"], "AddrParse"),
        ("fetch_url", &["hw0", "10.0.0.2", "ftp://a/"], "Scheme"),
    ];
    for (name, words, want) in cases {
        let output = run(name, words);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{name} {words:?}");
        assert!(text.contains(want), "{name} {words:?}: {text}");
    }
}
