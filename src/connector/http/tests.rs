//! Connections to scripted servers on the loopback device.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use proptest::prelude::*;

use super::*;

/// A server that answers the requests of each connection with the responses of its list, then closes it. Returns the
/// lines and bodies that it received.
fn server(connections: Vec<Vec<Vec<u8>>>) -> (HttpConnection, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        let mut received = Vec::new();
        for responses in connections {
            let (mut peer, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(peer.try_clone().unwrap());
            for response in responses {
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 {
                        break;
                    }
                    let line = line.trim_end().to_owned();
                    if let Some(count) = line.strip_prefix("Content-Length: ") {
                        length = count.parse().unwrap();
                    }
                    if line.is_empty() {
                        break;
                    }
                    received.push(line);
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                received.push(String::from_utf8(body).unwrap());
                // The client may have closed it.
                let _ = peer.write_all(&response);
            }
        }
        received
    });
    (HttpConnection::new("127.0.0.1", port), serving)
}

fn plain(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nX: y\r\n\r\n{body}").into_bytes()
}

fn get(connection: &mut HttpConnection) -> Result<String, HttpError> {
    connection.request(Method::Get, "/", &[], b"")?;
    let mut body = String::new();
    connection.response()?.read_to_string(&mut body)?;
    Ok(body)
}

#[test]
fn requests_follow_each_other_on_one_connection() {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n";
    let empty = b"HTTP/1.1 204 No Content\r\n\r\n".to_vec();
    let until_close = b"HTTP/1.1 200 OK\r\n\r\nfour".to_vec();
    let last = vec![plain("five")];
    let (mut connection, serving) = server(vec![
        vec![plain("one"), chunked.to_vec(), empty, until_close],
        last,
    ]);
    for want in ["one", "two", "", "four", "five"] {
        assert_eq!(get(&mut connection).unwrap(), want);
    }
    let received = serving.join().unwrap();
    assert_eq!(
        received
            .iter()
            .filter(|line| *line == "GET / HTTP/1.1")
            .count(),
        5
    );
}

#[test]
fn heads_and_bodies_are_sent() {
    let (mut connection, serving) = server(vec![vec![plain("1"), plain("2"), plain("3")]]);
    let port = connection.port;
    let requests: [(Method, &[(&str, &str)], &[u8]); 3] = [
        (Method::Post, &[("X-A", "b")], b"body"),
        (Method::Put, &[("Host", "other")], b""),
        (Method::Delete, &[], b""),
    ];
    for (method, fields, body) in requests {
        connection.request(method, "/a?b", fields, body).unwrap();
        let response = connection.response().unwrap();
        assert_eq!((response.status(), response.remaining()), (200, Some(1)));
        assert_eq!(response.headers().get("x"), Some(b"y".as_slice()));
        drop(response);
    }
    let host = format!("Host: 127.0.0.1:{port}");
    let want = [
        "POST /a?b HTTP/1.1",
        &host,
        "X-A: b",
        "Content-Length: 4",
        "body",
        "PUT /a?b HTTP/1.1",
        "Host: other",
        "Content-Length: 0",
        "",
        "DELETE /a?b HTTP/1.1",
        &host,
        "",
    ];
    assert_eq!(serving.join().unwrap(), want);
}

#[test]
fn wrong_calls_are_refused() {
    let (mut connection, serving) = server(vec![vec![plain("x")]]);
    assert!(matches!(connection.response(), Err(HttpError::NoRequest)));
    for (method, target, fields) in [
        (Method::Connect, "/", &[][..]),
        (Method::Unrecognised, "/", &[]),
        (Method::Get, "/ x", &[]),
        (Method::Get, "/", &[("a b", "c")]),
        (Method::Get, "/", &[("a", "b\r\nc: d")]),
    ] {
        let refused = connection.request(method, target, fields, b"");
        let at_fault = matches!(refused, Err(HttpError::Method | HttpError::Request(_)));
        assert!(at_fault, "{method:?} {target} {fields:?}");
        assert!(connection.stream().is_none(), "nothing was sent");
    }
    assert_eq!(get(&mut connection).unwrap(), "x");
    assert!(matches!(connection.response(), Err(HttpError::NoRequest)));
    serving.join().unwrap();
}

#[test]
fn an_unread_body_is_not_taken_for_the_next_response() {
    let long = plain(&"x".repeat(1 << 20));
    let excess = [plain("a"), plain("wrong")].concat();
    let lists = vec![
        vec![long],
        vec![plain("not read"), plain("kept"), excess],
        vec![plain("b")],
    ];
    let (mut connection, serving) = server(lists);
    connection.request(Method::Get, "/", &[], b"").unwrap();
    let mut response = connection.response().unwrap();
    response.read_exact(&mut [0; 3]).unwrap();
    drop(response);
    assert!(connection.stream().is_none(), "a long rest closes it");
    connection.request(Method::Get, "/", &[], b"").unwrap();
    drop(connection.response().unwrap());
    assert!(connection.stream().is_some(), "a short one is discarded");
    for want in ["kept", "a", "b"] {
        assert_eq!(get(&mut connection).unwrap(), want);
    }
    serving.join().unwrap();
}

#[test]
fn broken_responses_are_errors_and_the_next_request_connects_again() {
    let truncated = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort".to_vec();
    let head = b"HTTP/1.1 200 OK\r\nContent".to_vec();
    let lists = vec![
        vec![truncated],
        vec![head],
        vec![Vec::new()],
        vec![b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()],
        vec![plain("whole")],
    ];
    let (mut connection, serving) = server(lists);
    let error = get(&mut connection).unwrap_err();
    let is_short =
        matches!(&error, HttpError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof);
    assert!(is_short, "{error}");
    let error = get(&mut connection).unwrap_err();
    assert!(
        matches!(error, HttpError::Response(ReadError::Truncated)),
        "{error}"
    );
    let error = get(&mut connection).unwrap_err();
    assert!(matches!(error, HttpError::Disconnected), "{error}");
    let error = get(&mut connection).unwrap_err();
    assert!(matches!(error, HttpError::Response(_)), "{error}");
    assert_eq!(get(&mut connection).unwrap(), "whole");
    serving.join().unwrap();
}

#[test]
fn a_tunnel_leads_through_a_proxy() {
    let denied = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_vec();
    let established = b"HTTP/1.1 200 Connection established\r\n\r\n".to_vec();
    let lists = vec![vec![denied], vec![established, plain("through")]];
    let (mut connection, serving) = server(lists);
    connection.set_tunnel("::1", 80, &[("Proxy-Authorization", "Basic x")]);
    let error = get(&mut connection).unwrap_err();
    assert!(
        matches!(error, HttpError::Tunnel { status: 403 }),
        "{error}"
    );
    assert_eq!(get(&mut connection).unwrap(), "through");
    let received = serving.join().unwrap();
    let connect = [
        "CONNECT [::1]:80 HTTP/1.1",
        "Host: [::1]:80",
        "Proxy-Authorization: Basic x",
        "",
    ];
    assert_eq!(received[..4], connect);
    assert_eq!(received[8..], ["GET / HTTP/1.1", "Host: [::1]", ""]);
}

#[test]
fn a_connection_that_the_server_has_closed_meanwhile_is_replaced() {
    let (mut connection, serving) = server(vec![vec![plain("one")], vec![plain("two")]]);
    assert_eq!(get(&mut connection).unwrap(), "one");
    // The server closes it, and the kernel knows.
    let mut stream = connection.stream().unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert_eq!(get(&mut connection).unwrap(), "two");
    serving.join().unwrap();
}

#[test]
fn silence_ends_a_response() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut connection = HttpConnection::new("127.0.0.1", listener.local_addr().unwrap().port());
    connection.set_timeout(Some(Duration::from_millis(20)));
    let error = get(&mut connection).unwrap_err();
    assert!(matches!(error, HttpError::Io(_)), "{error}");
    assert!(connection.stream().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A body arrives whole, however it is framed and read.
    #[test]
    fn bodies_are_whole(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 0..8),
        chunked in any::<bool>(),
        sizes in prop::collection::vec(1usize..5000, 1..8),
    ) {
        let body = pieces.concat();
        let mut response = b"HTTP/1.1 200 OK\r\n".to_vec();
        if chunked {
            response.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for piece in &pieces {
                response.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                response.extend_from_slice(piece);
                response.extend_from_slice(b"\r\n");
            }
            response.extend_from_slice(b"0\r\n\r\n");
        } else {
            response.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            response.extend_from_slice(&body);
        }
        let (mut connection, serving) = server(vec![vec![response, plain("next")]]);
        connection.request(Method::Get, "/", &[], b"").unwrap();
        let mut response = connection.response().unwrap();
        let mut got = Vec::new();
        for size in sizes.iter().cycle() {
            let mut part = vec![0; *size];
            let count = response.read(&mut part).unwrap();
            if count == 0 {
                break;
            }
            got.extend_from_slice(&part[..count]);
        }
        drop(response);
        prop_assert!(got == body);
        prop_assert_eq!(get(&mut connection).unwrap(), "next");
        serving.join().unwrap();
    }
}
