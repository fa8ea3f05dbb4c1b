//! The loop that forwards packets between two devices over an emulated path, in real time.
//!
//! In: packets of the devices a and b, commands on a control socket, requests for metrics, SIGINT
//! and SIGTERM. Out: the packets that the path delivers, each at its arrival time, and on request a
//! capture at end a. `link` decides the fate of each packet; this file only schedules.
//! One thread with few system calls: one read and one write per packet, rarely a poll under load, and
//! a timer only before a sleep. Each packet gets the time of its read, which is close to its arrival
//! because runs of reads are short. It leaves together with packets due a few microseconds later, as
//! a network card coalesces interrupts; under dense traffic the loop sleeps by the clock and no
//! packet wakes it.
//! Sources: epoll(7) on edge-triggered mode; Documentation/networking/tuntap.rst of Linux.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::device::Device;
use crate::device::pcap::Recorder;
use crate::link::path::{CommandError, Direction, LinkCommand, LinkPath, LinkReport};
use crate::runtime::admin::Admin;
use crate::runtime::capture::{self, CaptureFile};
use crate::runtime::control::ControlServer;
use crate::runtime::gather::{self, Gather};
use crate::runtime::metrics::MetricsServer;
use crate::runtime::signals::Signals;
use crate::runtime::timer::Timer;
use crate::runtime::{MAX_EVENTS, OsClock, Signal};
use crate::time::Instant;

/// Most packets read from a device at a time: about ten microseconds.
pub const MAX_READS_PER_TURN: usize = 16;

/// Most packets written to a device at a time.
pub const MAX_WRITES_PER_TURN: usize = 32;

/// Most spare packet buffers; the allocator gets the rest.
pub const MAX_SPARE_BUFFERS: usize = 1024;

/// How much too early a packet may leave while the loop is awake: a wake-up costs as much as
/// several packets.
const EARLY: Duration = Duration::from_micros(50);

/// Shortest sleep: a sleep and a wake-up take nearly as long.
const LEAST_SLEEP: Duration = Duration::from_micros(20);

/// Longest time that signals and commands wait under load.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

const DEVICES: [Token; 2] = [Token(0), Token(1)];
const TIMER: Token = Token(2);
const SIGNALS: Token = Token(3);

/// Reply of the control socket to `help`, without the names of settings.
pub const HELP: &str = "set ab|ba|both NAME=VALUE...  change a direction, or both\n\
    show                          configuration, counters and queueing delay as JSON\n\
    reset                         set counters and queueing delay to zero\n\
    help                          print this list";

/// One end of the path.
#[derive(Debug)]
struct End<D> {
    device: D,
    /// Edge-triggered: whether the device may have packets.
    readable: bool,
    /// The device's drops at the last reset, which its count excludes.
    forgiven: u64,
}

/// The loop and its devices.
pub struct Relay<D> {
    clock: OsClock,
    /// The ends a and b.
    ends: [End<D>; 2],
    path: LinkPath,
    buffers: Buffers,
    poll: Poll,
    events: Events,
    timer: Timer,
    /// Expiry of the timer, if armed.
    armed: Option<Instant>,
    signals: Signals,
    admin: Admin,
    polled: Instant,
    /// Whether the last turn stopped at a bound.
    more: bool,
    gather: Gather,
    /// Packets read in this turn.
    read: u32,
    /// Capture at end a.
    recorder: Option<Recorder<CaptureFile>>,
}

impl<D: Device + AsRawFd> Relay<D> {
    /// Creates a loop between `a` and `b`, which must be non-blocking. Catches SIGINT and SIGTERM
    /// from now on.
    ///
    /// # Errors
    /// If the operating system has no descriptors left.
    pub fn new(clock: OsClock, a: D, b: D, path: LinkPath) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = Timer::new()?;
        let mut signals = Signals::new()?;
        let registry = poll.registry();
        for (device, token) in [&a, &b].into_iter().zip(DEVICES) {
            let descriptor = device.as_raw_fd();
            registry.register(&mut SourceFd(&descriptor), token, Interest::READABLE)?;
        }
        registry.register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        registry.register(signals.source(), SIGNALS, Interest::READABLE)?;
        let longest = a.mtu().max(b.mtu());
        let end = |device| End {
            device,
            readable: true,
            forgiven: 0,
        };
        Ok(Self {
            clock,
            ends: [end(a), end(b)],
            path,
            buffers: Buffers::new(longest),
            poll,
            events: Events::with_capacity(MAX_EVENTS),
            timer,
            armed: None,
            signals,
            admin: Admin::default(),
            polled: Instant::ZERO,
            more: true,
            gather: Gather::default(),
            read: 0,
            recorder: None,
        })
    }

    /// Also executes commands of a control socket.
    ///
    /// # Errors
    /// If the socket cannot be registered.
    pub fn serve_control(&mut self, server: ControlServer) -> io::Result<()> {
        self.admin.serve_control(self.poll.registry(), server)
    }

    /// Also serves requests for metrics.
    ///
    /// # Errors
    /// If the listener cannot be registered.
    pub fn serve_metrics(&mut self, server: MetricsServer) -> io::Result<()> {
        self.admin.serve_metrics(self.poll.registry(), server)
    }

    /// Captures packets at end a, as they enter and as they leave.
    pub fn record(&mut self, recorder: Recorder<CaptureFile>) {
        self.recorder = Some(recorder);
    }

    /// The path's report.
    #[must_use]
    pub fn report(&self) -> LinkReport {
        report(&self.path, &self.ends, self.clock.instant())
    }

    /// Forwards packets until a signal arrives.
    ///
    /// # Errors
    /// Those of the devices and of `poll`; the loop is unusable afterwards.
    pub fn run(&mut self) -> io::Result<Signal> {
        loop {
            if let Some(signal) = self.turn()? {
                return Ok(signal);
            }
        }
    }

    /// Sleeps if there is nothing to do, then forwards due packets.
    fn turn(&mut self) -> io::Result<Option<Signal>> {
        // Packets due during the pause were sent early; new ones are late by the pause at most.
        if !self.more && self.gather.is_worth_while() {
            self.timer.sleep(gather::PAUSE)?;
            self.armed = None;
            self.more = true;
        }
        let now = self.clock.instant();
        if self.more {
            for end in &mut self.ends {
                // A read is as cheap as a poll.
                end.readable = true;
            }
        }
        if !self.more || now.saturating_since(self.polled) >= POLL_INTERVAL {
            let timeout = match self.more {
                true => Some(Duration::ZERO),
                false => self.prepare_sleep(now)?,
            };
            self.poll(timeout)?;
            self.polled = now;
            if let Some(signal) = self.signals.take() {
                return Ok(Some(signal));
            }
            self.handle_control();
            self.show();
        }
        self.more = false;
        self.read = 0;
        for direction in Direction::BOTH {
            self.more |= self.receive(direction)?;
        }
        self.gather.note(now, self.read);
        for direction in Direction::BOTH {
            self.more |= self.deliver(direction)?;
        }
        Ok(None)
    }

    /// Reads packets at the start of `direction`; true if there may be more.
    fn receive(&mut self, direction: Direction) -> io::Result<bool> {
        let [from, _] = along(direction, &mut self.ends);
        if !from.readable {
            return Ok(false);
        }
        let recorder = self.recorder.as_mut();
        let mut recorder = recorder.filter(|_| direction == Direction::Ab);
        let link = self.path.link_mut(direction);
        for _ in 0..MAX_READS_PER_TURN {
            let Some(received) = from.device.receive(self.buffers.next())? else {
                from.readable = false;
                return Ok(false);
            };
            // The time of each packet: a common one would exclude waits of this process for a processor
            // from the delay.
            let now = stamp(self.clock, &mut recorder);
            let packet = self.buffers.take(received.len);
            if let Some(recorder) = &mut recorder {
                recorder.record(&packet);
            }
            link.push(now, packet);
            self.read += 1;
        }
        Ok(true)
    }

    /// Writes arrived packets at the end of `direction`; true if there may be more.
    fn deliver(&mut self, direction: Direction) -> io::Result<bool> {
        let [_, to] = along(direction, &mut self.ends);
        let link = self.path.link_mut(direction);
        if link.poll_timeout().is_none() {
            return Ok(false);
        }
        let recorder = self.recorder.as_mut();
        let mut recorder = recorder.filter(|_| direction == Direction::Ba);
        let now = stamp(self.clock, &mut recorder);
        for _ in 0..MAX_WRITES_PER_TURN {
            let Some(packet) = link.pop_early(now, EARLY) else {
                return Ok(false);
            };
            if let Some(recorder) = &mut recorder {
                recorder.record(&packet);
            }
            to.device.send_packet(&packet)?;
            self.buffers.give_back(packet);
        }
        Ok(true)
    }

    /// Arms the timer for the next due packet; returns the timeout for `poll`.
    fn prepare_sleep(&mut self, now: Instant) -> io::Result<Option<Duration>> {
        if self.admin.is_busy() {
            return Ok(Some(Duration::ZERO));
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.flush();
        }
        let due = [self.path.poll_timeout(), self.admin.deadline()];
        let due = due.into_iter().flatten().min();
        if let Some(due) = due
            && self.armed != Some(due)
        {
            let pause = due.saturating_since(now).max(LEAST_SLEEP);
            self.timer.arm_exactly(pause)?;
            self.armed = Some(due);
        }
        Ok(None)
    }

    /// Polls for events, for `timeout` at most.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for event in &self.events {
            match event.token() {
                TIMER => self.armed = None,
                SIGNALS => self.signals.drain(),
                token => {
                    let mut devices = self.ends.iter_mut().zip(DEVICES);
                    if let Some((end, _)) = devices.find(|(_, device)| *device == token) {
                        end.readable = true;
                    } else {
                        self.admin.note(token);
                    }
                }
            }
        }
        Ok(())
    }

    /// Serves requests for metrics.
    fn show(&mut self) {
        let (path, ends, clock) = (&self.path, &self.ends, self.clock);
        let lost = self.recorder.as_ref().map(Recorder::losses);
        self.admin.answer(clock, self.poll.registry(), || {
            let mut metrics = metrics::metrics(&report(path, ends, clock.instant()));
            metrics.extend(lost.map(capture::losses));
            metrics
        });
    }

    /// Executes commands of the control socket.
    fn handle_control(&mut self) {
        let (path, ends) = (&mut self.path, &mut self.ends);
        let clock = self.clock;
        self.admin.execute(self.poll.registry(), |line| {
            let now = clock.instant();
            match line
                .parse()
                .map_err(|error: CommandError| error.to_string())?
            {
                LinkCommand::Set(directions, settings) => path
                    .set(now, &directions, &settings)
                    .map(|()| String::new())
                    .map_err(|error| error.to_string()),
                LinkCommand::Show => {
                    let report = report(path, ends, now);
                    serde_json::to_string(&report).map_err(|error| error.to_string())
                }
                LinkCommand::Reset => {
                    path.reset();
                    for end in ends.iter_mut() {
                        end.forgiven = end.device.send_drops();
                    }
                    Ok(String::new())
                }
                LinkCommand::Help => Ok(HELP.to_owned()),
            }
        });
    }
}

/// Sorts the ends a and b into the first and the last of `direction`.
const fn along<D>(direction: Direction, [a, b]: &mut [End<D>; 2]) -> [&mut End<D>; 2] {
    match direction {
        Direction::Ab => [a, b],
        Direction::Ba => [b, a],
    }
}

/// Reads the clock and passes the time to the recorder.
fn stamp(clock: OsClock, recorder: &mut Option<&mut Recorder<CaptureFile>>) -> Instant {
    match recorder {
        None => clock.instant(),
        Some(recorder) => {
            let now = clock.now();
            recorder.set_now(now);
            now.instant
        }
    }
}

fn report<D: Device>(path: &LinkPath, [a, b]: &[End<D>; 2], now: Instant) -> LinkReport {
    let unsent = |end: &End<D>| end.device.send_drops() - end.forgiven;
    path.report(now, [unsent(b), unsent(a)])
}

/// Packet buffers, reused.
#[derive(Debug)]
struct Buffers {
    /// Size of a buffer in bytes: one more than the longest packet, to detect longer ones.
    size: usize,
    /// Buffer for the next packet, of full size.
    next: Vec<u8>,
    spare: Vec<Vec<u8>>,
}

impl Buffers {
    fn new(longest: usize) -> Self {
        let size = longest + 1;
        Self {
            size,
            next: vec![0; size],
            spare: Vec::new(),
        }
    }

    fn next(&mut self) -> &mut [u8] {
        &mut self.next
    }

    /// Takes the first `len` bytes read. A short packet moves to a buffer of its own size, so that
    /// many of them do not hold full-sized buffers.
    fn take(&mut self, len: usize) -> Vec<u8> {
        if len < self.size / 4 {
            return self.next.get(..len).unwrap_or_default().to_vec();
        }
        let spare = self.spare.pop().unwrap_or_else(|| vec![0; self.size]);
        let mut packet = std::mem::replace(&mut self.next, spare);
        packet.truncate(len);
        packet
    }

    /// Takes back the buffer of a sent packet.
    fn give_back(&mut self, mut packet: Vec<u8>) {
        if packet.capacity() >= self.size && self.spare.len() < MAX_SPARE_BUFFERS {
            packet.resize(self.size, 0);
            self.spare.push(packet);
        }
    }
}

mod metrics;
#[cfg(test)]
mod tests;
