//! The examples work as documented: those that need no device run whole, the others refuse wrong
//! arguments. `scripts/scenarios/examples.sh` runs the others, one against the other.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::thread;

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
fn the_connector_connects_to_each_service() {
    let listeners = ["127.0.0.1:0", "[::1]:0"].map(|any| TcpListener::bind(any).unwrap());
    let addresses = listeners.each_ref().map(|one| one.local_addr().unwrap());
    let services = addresses.map(|address| address.to_string());
    let output = run("connector", &services.each_ref().map(String::as_str));
    assert!(output.status.success(), "{output:?}");
    let [v4, v6] = services;
    let want = format!("{v4}: {v4}\n{v6}: {v6}\n");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), want);
}

#[test]
fn the_http_connection_carries_one_request_after_the_other() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let serving = thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let lines = BufReader::new(peer.try_clone().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if let Some(path) = line.strip_prefix("GET ") {
                let path = path.split(' ').next().unwrap_or_default();
                let length = path.len();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                peer.write_all(format!("{head}{path}").as_bytes()).unwrap();
            }
        }
    });
    let output = run("http_connection", &["localhost", &port, "/a", "/b"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"/a/b");
    serving.join().unwrap();
}

#[test]
fn wrong_arguments_are_refused() {
    let cases: [(&str, &[&str], &str); 11] = [
        ("connector", &[], "usage: connector HOST:PORT..."),
        ("connector", &["localhost"], "Service"),
        (
            "http_connection",
            &["h"],
            "usage: http_connection HOST PORT PATH...",
        ),
        ("http_connection", &["localhost", "x"], "ParseInt"),
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
