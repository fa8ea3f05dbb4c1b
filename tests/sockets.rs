//! Servers and clients over UDP sockets of the kernel, on the loopback device: without privileges and
//! without a TUN device.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::error::Error;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, ops::ControlFlow, thread};

use headwater::{
    Application, Begun, ClientHost, ClientHostConfig, Endpoint, FetchError, Hooks, Instant,
    KeyRing, Now, OsClock, Protocol, RequestContext, SECRET_BYTES, ServerHost, ServerHostConfig,
    StreamPart, TransferFailure, UdpSockets, Unavailable, copy_at, os_seed,
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
