//! The real binary from outside: exit codes, its output streams, and the files it writes. Nothing
//! here opens a device but UDP sockets on loopback addresses, so no privileges are needed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

fn headwater(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    let command = command.args(words).stdin(Stdio::null());
    command.env_remove("HEADWATER_LOG").output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn help_and_version_go_to_standard_output() {
    for words in [
        &["--help"][..],
        &["--version"],
        &["get", "--help"],
        &["help", "serve"],
        &["link", "--help"],
        &["link-control", "--help"],
    ] {
        let output = headwater(words);
        assert_eq!(code(&output), 0, "{words:?}");
        assert!(
            !output.stdout.is_empty() && output.stderr.is_empty(),
            "{words:?}"
        );
    }
    let version = text(&headwater(&["--version"]).stdout);
    assert_eq!(
        version,
        concat!("headwater ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn the_help_of_get_lists_every_exit_code() {
    let help = text(&headwater(&["get", "--help"]).stdout);
    for row in [
        "  0  success",
        " 18  partial file",
        " 22  HTTP status 400",
        "130  ended by SIGINT",
    ] {
        assert!(help.contains(row), "{row:?} is missing");
    }
}

/// The arguments, the exit code, and a part of the one line on standard error.
type Wrong<'a> = (&'a [&'a str], i32, &'a str);

const LOCAL: [&str; 4] = ["--tun", "hw-none", "--address", "10.255.255.1"];

#[test]
fn wrong_command_lines_get_one_line_that_helps() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    let cases: [Wrong<'_>; 16] = [
        (&[], 2, "no command"),
        (&["bogus"], 2, "bogus"),
        (&["get"], 2, "<URL>"),
        (&["get", "--tun", "hw0", "h"], 2, "--address <ADDR>"),
        (&["get", "--address", "10.0.0.1", "h"], 2, "--tun <NAME>"),
        (&["get", "--pcap", "file", "h"], 2, "--tun <NAME>"),
        (&["serve", "--root", dir], 2, "use --listen"),
        (
            &[
                "serve",
                "--root",
                dir,
                "--tun",
                "hw0",
                "--listen",
                "[::1]:7600",
            ],
            2,
            "cannot be used with",
        ),
        (&["keygen"], 2, "--out <FILE>"),
        (&["get", "LOCAL", "ftp://10.0.0.1/"], 1, "only http"),
        (&["get", "LOCAL", "http://[fd00::1/"], 3, "malformed URL"),
        (&["get", "LOCAL", "--mtu", "500", "h"], 2, "500"),
        (
            &["get", "LOCAL", "--address", "fd00::1", "--mtu", "1279", "h"],
            2,
            "1280",
        ),
        (
            &["get", "LOCAL", "--address", "224.0.0.1", "h"],
            2,
            "unicast",
        ),
        (&["get", "LOCAL", "-O", "http://10.0.0.1/"], 23, "-o"),
        (&["get", "LOCAL", "--pcap", dir, "h"], 23, "--pcap"),
    ];
    for (words, want, part) in cases {
        let words: Vec<&str> = words
            .iter()
            .flat_map(|word| {
                if *word == "LOCAL" {
                    LOCAL.to_vec()
                } else {
                    vec![*word]
                }
            })
            .collect();
        let output = headwater(&words);
        let error = text(&output.stderr);
        assert_eq!(code(&output), want, "{words:?}: {error}");
        assert!(error.starts_with("headwater: "), "{words:?}: {error}");
        assert!(error.contains(part), "{words:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{words:?}: {error}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn keygen_makes_a_private_file_and_never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let path = keys.to_str().unwrap();
    let output = headwater(&["keygen", "--out", path]);
    assert_eq!(code(&output), 0);
    assert!(output.stdout.is_empty(), "no secret on standard output");
    assert_eq!(
        fs::metadata(&keys).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    let before = fs::read(&keys).unwrap();

    let output = headwater(&["keygen", "--out", path]);
    assert_eq!(code(&output), 115);
    assert!(text(&output.stderr).contains("exists"));
    assert_eq!(fs::read(&keys).unwrap(), before);

    let other = dir.path().join("other");
    headwater(&["keygen", "--out", other.to_str().unwrap()]);
    assert_ne!(
        fs::read(&other).unwrap(),
        before,
        "two rings have one secret"
    );
    let nowhere = dir.path().join("none/keys");
    assert_eq!(
        code(&headwater(&["keygen", "--out", nowhere.to_str().unwrap()])),
        115
    );
}

#[test]
fn serve_says_what_is_wrong_with_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    headwater(&["keygen", "--out", &at("keys")]);
    let ring = fs::read(at("keys")).unwrap();
    for (name, content, mode) in [
        ("open", ring.as_slice(), 0o644),
        ("cut", &ring[..ring.len() / 2], 0o600),
        ("other", b"something else\n", 0o600),
    ] {
        fs::write(at(name), content).unwrap();
        set_mode(Path::new(&at(name)), mode);
    }
    fs::create_dir(at("root")).unwrap();
    fs::write(at("root/file"), "x").unwrap();
    fs::create_dir(at("empty")).unwrap();
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = busy.local_addr().unwrap().to_string();
    let cases = [
        ("missing", "root", None, 115, "headwater keygen"),
        ("open", "root", None, 116, "chmod 600"),
        ("cut", "root", None, 117, "truncated"),
        ("other", "root", None, 117, "keygen"),
        ("keys", "none", None, 118, "does not exist"),
        ("keys", "empty", None, 118, "empty"),
        ("keys", "keys", None, 118, "not a directory"),
        ("keys", "root", Some(busy.as_str()), 119, "--metrics"),
    ];
    for (keys, root, metrics, want, part) in cases {
        let (keys, root) = (at(keys), at(root));
        let mut words = vec!["serve", "--keys", &keys, "--root", &root];
        words.extend(LOCAL);
        words.extend(
            metrics
                .into_iter()
                .flat_map(|address| ["--metrics", address]),
        );
        let output = headwater(&words);
        let error = text(&output.stderr);
        assert_eq!(code(&output), want, "{words:?}: {error}");
        assert!(
            error.contains(part) && error.lines().count() == 1,
            "{words:?}: {error}"
        );
        assert!(output.stdout.is_empty(), "not ready");
    }
}

#[test]
fn a_closed_standard_output_is_a_quiet_failure() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = command
        .args(["get", "--help"])
        .stdout(writer)
        .stderr(Stdio::piped());
    let output = child.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(code(&output), 23);
    assert!(output.stderr.is_empty());
}

/// A server over sockets that its test has started.
struct Serving {
    child: Child,
    port: String,
    tcp: String,
    log: thread::JoinHandle<String>,
}

impl Serving {
    /// Starts a server on a free loopback port, and waits until it is ready.
    fn start(root: &Path, state: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_headwater"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--listen-tcp", "127.0.0.1:0", "--root"])
            .arg(root)
            .env("XDG_STATE_HOME", state)
            .env_remove("HEADWATER_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut port_of = |protocol: &str| {
            let port = lines.by_ref().map(Result::unwrap).find_map(|line| {
                let (_, port) = line.rsplit_once(&format!("listening on {protocol} 127.0.0.1:"))?;
                Some(port.to_owned())
            });
            port.unwrap()
        };
        let (tcp, port) = (port_of("TCP"), port_of("UDP"));
        // Read to the end: a full pipe would lose lines.
        let log = thread::spawn(move || lines.map_while(Result::ok).collect());
        Self {
            child,
            port,
            tcp,
            log,
        }
    }

    /// Ends it by SIGTERM.
    fn end(mut self) {
        let id = self.child.id().to_string();
        let killed = Command::new("kill").arg(&id).status().unwrap();
        assert!(killed.success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        let log = self.log.join().unwrap();
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn files_are_served_and_fetched_over_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("root")).unwrap();
    let content: Vec<u8> = (0..400_000_u64)
        .flat_map(|n| (n * n).to_be_bytes())
        .collect();
    fs::write(at("root/file"), &content).unwrap();
    let server = Serving::start(&at("root"), &at("state"));
    let keys = at("state/headwater/keys");
    let mode = fs::metadata(&keys).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let ring = fs::read(&keys).unwrap();
    let (got, stats) = (at("got"), at("stats"));
    let fetch = |port: &str| {
        let words = ["get", "-sS", "--udp-port", port, "http://127.0.0.1/file"];
        let files = [
            "-o",
            got.to_str().unwrap(),
            "--stats",
            stats.to_str().unwrap(),
        ];
        headwater(&[&words[..], &files[..]].concat())
    };
    let output = fetch(&server.port);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert_eq!(fs::read(&got).unwrap(), content);
    let stats: serde_json::Value = serde_json::from_slice(&fs::read(at("stats")).unwrap()).unwrap();
    assert_eq!(
        (&stats["digest"], &stats["handshakes"]),
        (&"verified".into(), &1.into())
    );

    let busy = format!("127.0.0.1:{}", server.port);
    let root = at("root");
    let words = ["serve", "--listen", &busy, "--root", root.to_str().unwrap()];
    let second = headwater(&[&words[..], &["--keys", keys.to_str().unwrap()]].concat());
    assert_eq!(code(&second), 113);
    assert!(text(&second.stderr).contains("choose another port"));

    let port = server.port.clone();
    server.end();
    let refused = fetch(&port);
    assert_eq!(code(&refused), 7);
    assert!(text(&refused.stderr).contains("failed to connect"));
    let again = Serving::start(&at("root"), &at("state"));
    again.end();
    assert_eq!(fs::read(&keys).unwrap(), ring, "the keys stay");
}

#[test]
fn plain_http_is_served_over_tcp_of_the_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("root")).unwrap();
    let content: Vec<u8> = (0..800_000_u64)
        .flat_map(|n| (n * n).to_be_bytes())
        .collect();
    fs::write(at("root/file"), &content).unwrap();
    let server = Serving::start(&at("root"), &at("state"));
    let connect = || TcpStream::connect(format!("127.0.0.1:{}", server.tcp)).unwrap();
    let (mut idle, mut stream) = (connect(), connect());
    // Two requests at once; the second one ends the connection.
    let requests = "GET /file HTTP/1.1\r\nHost: h\r\n\r\nGET /none HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    stream.write_all(requests.as_bytes()).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    let head = got.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    assert!(got.starts_with(b"HTTP/1.1 200 OK\r\n"));
    let (body, second) = got[head..].split_at(content.len());
    assert!(body == content, "the body differs");
    assert!(second.starts_with(b"HTTP/1.1 404"), "{}", text(second));
    let mut reader = BufReader::new(connect());
    let request = "GET /.dynamic/1/100000000 HTTP/1.1\r\nHost: h\r\n\r\n";
    reader.get_mut().write_all(request.as_bytes()).unwrap();
    let mut status = String::new();
    reader.read_line(&mut status).unwrap();
    assert_eq!(status, "HTTP/1.1 200 OK\r\n");
    // SIGTERM closes the idle connection, and resets the one that its peer does not read.
    server.end();
    assert_eq!(idle.read(&mut [0; 9]).unwrap(), 0);
    assert!(reader.read_to_end(&mut Vec::new()).is_err());
}

/// A file named by mistake is neither taken for tokens nor overwritten, and is no reason to fail.
#[test]
fn a_file_that_holds_no_tokens_is_reported_and_left_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("diary");
    fs::write(&path, "dear diary\n").unwrap();
    let name = path.to_str().unwrap();
    let local = ["--tun", "not/a/name", "--address", "10.255.255.1"];
    let mut words = vec!["get", "--tokens", name, "http://10.255.255.2/"];
    words.extend(local);
    let output = headwater(&words);
    let error = text(&output.stderr);
    assert_eq!(code(&output), 2, "why the run fails is its device: {error}");
    let mut lines = error.lines();
    let warning = lines.next().unwrap();
    assert!(
        warning.contains(name) && warning.contains("--tokens"),
        "{error}"
    );
    assert!(
        lines.next().unwrap().starts_with("headwater: 'not/a/name'"),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"dear diary\n");
}

#[test]
fn statistics_are_written_for_a_run_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stats.json");
    let stats = path.to_str().unwrap();
    let local = ["--tun", "not/a/name", "--address", "10.255.255.1"];
    let mut words = vec!["get", "--stats", stats, "http://10.255.255.2/"];
    words.extend(local);
    let output = headwater(&words);
    assert_eq!(code(&output), 2);
    assert_eq!(text(&output.stderr).lines().count(), 1);
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!((&json["schema"], &json["exit"]), (&1.into(), &2.into()));

    words.push("--silent");
    assert!(headwater(&words).stderr.is_empty());
    words.push("--show-error");
    assert!(!headwater(&words).stderr.is_empty());
}

#[test]
fn link_refuses_nonsense_before_it_makes_anything() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("file"), "keep me").unwrap();
    fs::write(at("trace"), "5\n").unwrap();
    let both = format!("rate=1mbit,rate-trace={}", at("trace"));
    let (file, nowhere) = (at("file"), at("none/socket"));
    let cases: [Wrong<'_>; 25] = [
        (&["--a", "hw-x"], 2, "--b <NAME>"),
        (&["--a", "hw-x", "--b", "hw-x"], 2, "two devices"),
        (&["ENDS", "--delay", "20"], 2, "'20' is not a time"),
        (&["ENDS", "--rate", "10mbps"], 2, "'10mbps' is not a rate"),
        (&["ENDS", "--loss", "101%"], 2, "too large"),
        (&["ENDS", "--queue", "64k"], 2, "set a rate"),
        (
            &["ENDS", "--rate", "1mbit", "--queue", "1bdp"],
            2,
            "a delay",
        ),
        (&["ENDS", "--ab", "loss=1%,loss=2%"], 2, "twice"),
        (&["ENDS", "--ba", "speed=1mbit"], 2, "'speed'"),
        (&["ENDS", "--jitter-order", "maybe"], 2, "keep|free"),
        (&["ENDS", "--outage", "5s"], 2, "START+LENGTH"),
        (&["ENDS", "--mtu", "500"], 2, "500"),
        (&["ENDS", "--aggregate", "2s"], 2, "1us to 1s"),
        (&["ENDS", "--aggregate", "1ms/x"], 2, "[/PACKETS]"),
        (&["ENDS", "--rate-trace", &file], 2, "line 1: 'keep me'"),
        (&["ENDS", "--rate-trace", &nowhere], 2, "cannot read"),
        (&["ENDS", "--ba", &both], 2, "exclude each other"),
        (
            &["ENDS", "--rate", "1mbit", "--rate-trace", &at("trace")],
            2,
            "cannot be used with",
        ),
        (&["ENDS", "--aqm", "red"], 2, "droptail|codel"),
        (&["ENDS", "--aqm", "codel"], 2, "set a rate"),
        (&["ENDS", "--pcap", &nowhere], 23, "--pcap"),
        (&["ENDS", "--metrics", "9100"], 2, "9100"),
        (&["ENDS", "--metrics", "192.0.2.1:1"], 119, "--metrics"),
        (&["ENDS", "--control", &nowhere], 120, "--control"),
        (&["ENDS", "--control", &file], 120, "--control"),
    ];
    for (words, want, part) in cases {
        let ends = ["--a", "hw-x", "--b", "hw-y"];
        let mut typed = vec!["link"];
        for word in words {
            match *word {
                "ENDS" => typed.extend(ends),
                word => typed.push(word),
            }
        }
        let output = headwater(&typed);
        let error = text(&output.stderr);
        assert_eq!(code(&output), want, "{typed:?}: {error}");
        assert!(error.contains(part), "{typed:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{typed:?}: {error}");
        assert!(output.stdout.is_empty(), "not ready");
    }
    assert_eq!(fs::read(&file).unwrap(), b"keep me");
}

#[test]
fn link_control_prints_the_answer_or_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let socket = path.to_str().unwrap();
    let nobody = headwater(&["link-control", socket, "show"]);
    assert_eq!(code(&nobody), 120);
    assert!(text(&nobody.stderr).contains("is it running"));

    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let cases = [
        ("ok\n", 0, "", ""),
        ("{}\nok\n", 0, "{}\n", ""),
        ("a\nb\nok\n", 0, "a\nb\n", ""),
        ("error: no such thing\n", 121, "", "no such thing"),
        ("", 120, "", "is it running"),
        ("{}\n", 120, "", "is it running"),
    ];
    let link = thread::spawn(move || {
        for (answer, ..) in cases {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            stream.read_to_string(&mut line).unwrap();
            assert_eq!(line, "set ab loss=1% delay=2ms\n");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    for (answer, want, stdout, stderr) in cases {
        let output = headwater(&["link-control", socket, "set", "ab", "loss=1%", "delay=2ms"]);
        assert_eq!(code(&output), want, "{answer:?}");
        assert_eq!(text(&output.stdout), stdout, "{answer:?}");
        assert!(text(&output.stderr).contains(stderr), "{answer:?}");
    }
    link.join().unwrap();
}
