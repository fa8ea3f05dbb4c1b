//! Servers and clients over UDP sockets of the kernel, on the loopback device: without privileges and
//! without a TUN device.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::error::Error;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, ops::ControlFlow, thread};

use headwater::{
    Application, Begun, ClientHost, ClientHostConfig, Endpoint, FetchError, Hooks, Instant,
    KernelStreams, KeyRing, Now, OsClock, Protocol, RequestContext, SECRET_BYTES, ServerHost,
    ServerHostConfig, StreamPart, TransferFailure, UdpSockets, Unavailable, copy_at, os_seed,
};

const BODY_BYTES: usize = 20_000_000;

/// One large object, whatever the client requests.
struct Large {
    stream: Vec<u8>,
    produced: Arc<AtomicUsize>,
}

/// The bytes of the object.
fn body() -> Vec<u8> {
    let words = (0..BODY_BYTES as u64 / 8).flat_map(|n| (n * n).to_be_bytes());
    words.collect()
}

impl Application for Large {
    fn begin(&mut self, _context: RequestContext, _request: &[u8]) -> Result<Begun, Unavailable> {
        Ok(Begun {
            user: Vec::new(),
            length: Some(self.stream.len() as u64),
        })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        let count = copy_at(&self.stream, part.offset, out);
        self.produced.fetch_add(count, Ordering::Relaxed);
        Ok(count)
    }
}

/// Ends a server's loop once the flag is set.
struct Until(Arc<AtomicBool>);

impl<M> Hooks<M> for Until {
    fn turn(&mut self, _now: Now, _machine: &mut M) -> ControlFlow<()> {
        match self.0.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        // Every turn: the loop busy-polls the flag, for a second or two.
        Some(Instant::ZERO)
    }
}

struct Server {
    stop: Arc<AtomicBool>,
    /// Bytes of the object that it has produced.
    produced: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Server {
    fn start(clock: OsClock, device: UdpSockets) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Until(Arc::clone(&stop));
        let produced = Arc::new(AtomicUsize::new(0));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
        let large = Large {
            stream: [head.as_bytes(), &body()].concat(),
            produced: Arc::clone(&produced),
        };
        let thread = thread::spawn(move || serve(clock, device, large, until).expect("it serves"));
        Self {
            stop,
            produced,
            thread,
        }
    }

    /// Ends it, with all that it knows; returns the bytes that it has produced.
    fn kill(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it ends");
        self.produced.load(Ordering::Relaxed)
    }
}

fn serve(
    clock: OsClock,
    device: UdpSockets,
    large: Large,
    mut until: Until,
) -> Result<(), Box<dyn Error>> {
    let config = ServerHostConfig::over_sockets(os_seed()?).build()?;
    let keys = KeyRing::with_secret([7; SECRET_BYTES]);
    let machine = ServerHost::new(clock.now(), config, keys, large)?;
    Endpoint::new(clock, device, machine)?.run_with(&mut until)?;
    Ok(())
}

fn client(clock: OsClock, port: u16) -> Result<Endpoint<UdpSockets, ClientHost>, Box<dyn Error>> {
    let protocol = Protocol::Trickles {
        udp_port: port,
        local_port: None,
    };
    let config = ClientHostConfig::over_sockets(os_seed()?)
        .protocol(protocol)
        .idle_timeout(Duration::from_secs(60))
        .build()?;
    let machine = ClientHost::new(clock.now(), config)?;
    Ok(Endpoint::new(clock, UdpSockets::connect(None)?, machine)?)
}

fn assert_whole(got: &[u8]) {
    let want = body();
    assert_eq!(got.len(), want.len());
    let wrong = (0..)
        .zip(got.iter().zip(&want))
        .find(|(_, (got, want))| got != want);
    assert_eq!(wrong, None);
}

#[test]
fn downloads_over_both_families() -> Result<(), Box<dyn Error>> {
    let clock = OsClock::new();
    let any = [
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
        SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0),
    ];
    let device = UdpSockets::listen(&any, false)?;
    let services: Vec<SocketAddr> = device.addresses().collect();
    let server = Server::start(clock, device);
    for service in services {
        let url = format!("http://{}/", SocketAddr::new(service.ip(), 80));
        let mut client = client(clock, service.port())?;
        assert_whole(&client.fetch(&url)?);
        let report = client.machine().report();
        assert_eq!(report.transport.handshakes, 1);
        assert!(report.stack.bytes_in > BODY_BYTES as u64);
    }
    server.kill();
    Ok(())
}

#[test]
fn a_download_outlives_its_server() -> Result<(), Box<dyn Error>> {
    let clock = OsClock::new();
    let any = [SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)];
    let device = UdpSockets::listen(&any, false)?;
    let service = device.addresses().next().ok_or("no socket")?;
    let server = Server::start(clock, device);
    let fetching = thread::spawn(move || {
        let mut client = client(clock, service.port()).expect("a client");
        let body = client.fetch("http://127.0.0.1/").expect("a body");
        (body, client.machine().report())
    });
    while server.produced.load(Ordering::Relaxed) < BODY_BYTES / 10 {
        assert!(!fetching.is_finished());
        thread::yield_now();
    }
    assert!(server.kill() < BODY_BYTES, "nothing is left to download");
    // Requests meanwhile meet a closed port, and the network says so.
    let server = Server::start(clock, UdpSockets::listen(&[service], false)?);
    let (body, report) = fetching.join().map_err(|_| "the client ends")?;
    assert_whole(&body);
    assert_eq!(report.transport.opens, report.transport.handshakes);
    server.kill();
    Ok(())
}

#[test]
fn a_port_that_nobody_has_is_refused_at_once() -> Result<(), Box<dyn Error>> {
    let clock = OsClock::new();
    for loopback in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let device = UdpSockets::listen(&[SocketAddr::new(loopback, 0)], false)?;
        let nobody = device.addresses().next().ok_or("no socket")?;
        drop(device);
        let url = format!("http://{}/", SocketAddr::new(loopback, 80));
        let refused = client(clock, nobody.port())?.fetch(&url);
        // Not the timeout of a minute.
        let refused_at_once = matches!(
            refused,
            Err(FetchError::Failed(TransferFailure::CannotConnect { .. }))
        );
        assert!(refused_at_once, "{refused:?}");
    }
    Ok(())
}

#[test]
fn a_port_in_use_is_refused() {
    let any = [SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)];
    let first = UdpSockets::listen(&any, false).expect("a port");
    let taken: Vec<SocketAddr> = first.addresses().collect();
    let error = UdpSockets::listen(&taken, false).expect_err("it is in use");
    assert!(error.to_string().contains("in use"), "{error}");
    let kind = io::ErrorKind::AddrInUse;
    let source = error.source().and_then(|source| source.downcast_ref());
    assert_eq!(source.map(io::Error::kind), Some(kind));
}

/// Answers each connection over the kernel's TCP with the next of `responses` per request, and returns how many
/// connections it has accepted once `responses` are used up.
fn plain_server(responses: Vec<Vec<u8>>) -> (SocketAddr, JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let serving = thread::spawn(move || {
        let (mut accepted, mut responses) = (0, responses.into_iter());
        while responses.len() > 0 {
            let (mut peer, _) = listener.accept().expect("a peer");
            accepted += 1;
            let mut lines = BufReader::new(peer.try_clone().expect("a copy")).lines();
            while let Some(Ok(line)) = lines.next() {
                if line.is_empty() {
                    let Some(response) = responses.next() else {
                        break;
                    };
                    // The client may have given it up.
                    let _ = peer.write_all(&response);
                    if responses.len() == 0 {
                        break;
                    }
                }
            }
        }
        accepted
    });
    (address, serving)
}

fn tcp_client() -> Result<Endpoint<UdpSockets, ClientHost>, Box<dyn Error>> {
    let clock = OsClock::new();
    let config = ClientHostConfig::over_sockets(os_seed()?)
        .protocol(Protocol::Tcp)
        .streams(KernelStreams::outgoing()?)
        .build()?;
    let machine = ClientHost::new(clock.now(), config)?;
    Ok(Endpoint::new(clock, UdpSockets::connect(None)?, machine)?)
}

fn response(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

#[test]
fn tcp_of_the_kernel_carries_one_response_after_the_other() -> Result<(), Box<dyn Error>> {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n";
    let large = "x".repeat(5_000_000);
    let responses = vec![response("one"), chunked.to_vec(), response(&large)];
    let (address, serving) = plain_server(responses);
    let mut client = tcp_client()?;
    for want in ["one", "two", &large] {
        let got = client.fetch(&format!("http://{address}/"))?;
        assert!(got == want.as_bytes());
    }
    assert_eq!(serving.join().map_err(|_| "it ends")?, 1, "one connection");
    // It listens no more.
    let refused = client.fetch(&format!("http://{address}/"));
    let Err(FetchError::Failed(TransferFailure::CannotConnect { attempts })) = refused else {
        return Err("it must not connect".into());
    };
    assert!(attempts.to_string().contains("failed after"), "{attempts}");
    Ok(())
}

#[test]
fn bytes_of_one_response_are_not_taken_for_the_next() -> Result<(), Box<dyn Error>> {
    let wrong = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec();
    let wrong = [wrong, response("wrong")].concat();
    let excess = [response("excess"), response("wrong")].concat();
    let last = response("last");
    let (address, serving) = plain_server(vec![wrong, excess, last]);
    let mut client = tcp_client()?;
    let url = format!("http://{address}/");
    assert!(client.fetch(&url).is_err(), "not chunks");
    assert_eq!(client.fetch(&url)?, b"excess");
    assert_eq!(client.fetch(&url)?, b"last");
    assert_eq!(serving.join().map_err(|_| "it ends")?, 3, "one for each");
    Ok(())
}

#[test]
fn silence_over_tcp_ends_a_transfer_after_the_idle_time() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let clock = OsClock::new();
    let config = ClientHostConfig::over_sockets(os_seed()?)
        .protocol(Protocol::Tcp)
        .streams(KernelStreams::outgoing()?)
        .idle_timeout(Duration::from_millis(50))
        .build()?;
    let machine = ClientHost::new(clock.now(), config)?;
    let mut client = Endpoint::new(clock, UdpSockets::connect(None)?, machine)?;
    // The kernel accepts the connection; there is no answer.
    let fetched = client.fetch(&format!("http://{}/", listener.local_addr()?));
    let Err(FetchError::Failed(TransferFailure::TimedOut)) = fetched else {
        return Err("it must time out".into());
    };
    Ok(())
}
