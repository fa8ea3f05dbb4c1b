//! Serves an application that answers later: `http://ADDRESS/THINK/LINES/PAUSE` thinks for THINK
//! milliseconds, and then has one line after the other, PAUSE milliseconds apart. The length of the
//! response is not known before its end. No call of the application blocks: it returns a ticket, and a
//! thread wakes the loop.
//!
//! ```sh
//! headwater keygen --out service.keys
//! sudo target/debug/examples/slow_origin hw0 10.77.0.2 service.keys &
//! curl http://10.77.0.2/3000/10/200
//! ```

use std::error::Error;
use std::io::Write;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use headwater::{
    Application, Begun, Endpoint, KeyRing, LoopWaker, OsClock, RequestContext, RequestHead,
    ServerHost, ServerHostConfig, StreamPart, Ticket, Tun, TunConfig, Unavailable, copy_at,
    os_seed,
};

/// Most responses in the making or in memory.
const MAX_RESPONSES: usize = 64;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n";

/// A response as far as it is there.
struct Response {
    ticket: Ticket,
    path: Vec<u8>,
    stream: Vec<u8>,
    complete: bool,
}

/// More of a response: its index, the bytes, and whether they are the last.
type Piece = (usize, Vec<u8>, bool);

/// The application. A user continuation is the path, so that a restarted server thinks again and
/// continues the same stream.
struct Slow {
    responses: Vec<Response>,
    sender: Sender<Piece>,
    receiver: Receiver<Piece>,
    waker: Option<LoopWaker>,
}

impl Slow {
    fn new() -> Self {
        let (sender, receiver) = channel();
        Self {
            responses: Vec::new(),
            sender,
            receiver,
            waker: None,
        }
    }

    /// Returns the response for a path, or starts to make it.
    fn response(&mut self, context: RequestContext, path: &[u8]) -> Result<&Response, Unavailable> {
        let known = self.responses.iter().position(|known| known.path == path);
        let index = known.unwrap_or(self.responses.len());
        let ticket = Ticket(index as u64);
        if known.is_none() && context.proven && index < MAX_RESPONSES {
            self.responses.push(Response {
                ticket,
                path: path.to_vec(),
                stream: Vec::new(),
                complete: false,
            });
            let (sender, waker) = (self.sender.clone(), self.waker.clone());
            let path = path.to_vec();
            thread::spawn(move || think(index, &path, &sender, waker.as_ref()));
        }
        let have = self.responses.get(index);
        let have = have.filter(|have| !have.stream.is_empty());
        have.ok_or(Unavailable::NotReady(ticket))
    }
}

/// Makes a response, on a thread of its own.
#[expect(
    clippy::disallowed_methods,
    reason = "this thread stands for a slow back end"
)]
fn think(index: usize, path: &[u8], sender: &Sender<Piece>, waker: Option<&LoopWaker>) {
    let path = String::from_utf8_lossy(path);
    let mut numbers = path
        .split('/')
        .skip(1)
        .map(|part| part.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let (think, lines, pause) = (next(), next(), next());
    let send = |bytes: Vec<u8>, last| {
        let sent = sender.send((index, bytes, last)).is_ok();
        if let Some(waker) = waker.filter(|_| sent) {
            waker.wake();
        }
    };
    thread::sleep(Duration::from_millis(think));
    send(HEAD.to_vec(), lines == 0);
    for line in 1..=lines {
        thread::sleep(Duration::from_millis(pause));
        send(format!("line {line}\n").into_bytes(), line == lines);
    }
}

impl Application for Slow {
    fn begin(&mut self, context: RequestContext, request: &[u8]) -> Result<Begun, Unavailable> {
        let path = RequestHead::parse(request).map(|(head, _)| head.target);
        let path = path.unwrap_or_default().into_bytes();
        self.response(context, &path)?;
        Ok(Begun {
            user: path,
            length: None,
        })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        let response = self.response(part.context, part.user)?;
        match copy_at(&response.stream, part.offset, out) {
            0 => Err(Unavailable::NotReady(response.ticket)),
            count => Ok(count),
        }
    }

    fn length(&mut self, context: RequestContext, user: &[u8]) -> Option<u64> {
        let response = self.response(context, user).ok()?;
        response.complete.then_some(response.stream.len() as u64)
    }

    fn poll_ready(&mut self) -> Option<Ticket> {
        let (index, bytes, last) = self.receiver.try_recv().ok()?;
        let response = self.responses.get_mut(index)?;
        response.stream.extend(bytes);
        response.complete = last;
        Some(response.ticket)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [tun, address, keys] = words.as_slice() else {
        return Err("usage: slow_origin TUN ADDRESS KEYS".into());
    };
    let address: [IpAddr; 1] = [address.parse()?];
    let keys = KeyRing::parse(&std::fs::read_to_string(keys)?)?;
    let clock = OsClock::new();
    let config = ServerHostConfig::builder(address, os_seed()?).build()?;
    let machine = ServerHost::new(clock.now(), config, keys, Slow::new())?;
    let device = Tun::open(&TunConfig::builder(tun).addresses(address).build()?)?;
    let mut endpoint = Endpoint::new(clock, device, machine)?;
    let waker = endpoint.runtime_mut().waker()?;
    endpoint.machine_mut().application_mut().waker = Some(waker);
    writeln!(std::io::stdout(), "ready")?;
    endpoint.run()?;
    Ok(())
}
