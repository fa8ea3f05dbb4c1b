//! The loop that carries packets between two devices over an emulated path, in real time.
//!
//! In: packets of the devices a and b, commands at a control socket, requests for metrics, SIGINT
//! and SIGTERM. Out: the packets that the path lets through, each when it has arrived, and if asked
//! for a capture of what passes end a. What the path does to them is all
//! decided in `link`; here is only when to look.
//! One thread, and as few system calls as can be: a read and a write a packet, while packets keep
//! coming hardly any poll, and no timer but before a sleep. Packets get the time at which they
//! are read, in runs short enough that it is the time of their coming, and leave with those that
//! are due a few microseconds later, as a network card gathers interrupts; while they come densely
//! the loop sleeps by the clock, and none wakes it.
//! Sources: epoll(7) on edge-triggered use; Documentation/networking/tuntap.rst of Linux.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::device::Device;
use crate::device::pcap::Recorder;
use crate::link::path::{CommandError, Direction, LinkCommand, LinkPath, LinkReport};
use crate::runtime::control::ControlServer;
use crate::runtime::gather::{self, Gather};
use crate::runtime::metrics::MetricsServer;
use crate::runtime::signals::Signals;
use crate::runtime::timer::Timer;
use crate::runtime::{MAX_EVENTS, OsClock, Signal};
use crate::time::Instant;

/// Packets read from one device before the path is looked after: some ten microseconds.
pub const MAX_READS_PER_TURN: usize = 16;

/// Packets written to one device before the others are looked after.
pub const MAX_WRITES_PER_TURN: usize = 32;

/// Buffers kept for packets to come; those beyond go back to the allocator.
pub const MAX_SPARE_BUFFERS: usize = 1024;

/// How much too early a packet may leave when the loop is awake anyway. A wake-up costs as much as
/// several packets.
const EARLY: Duration = Duration::from_micros(50);

/// Shortest sleep; going to sleep and waking up takes nearly as long.
const LEAST_SLEEP: Duration = Duration::from_micros(20);

/// How long signals and commands may wait while packets keep coming.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

const DEVICES: [Token; 2] = [Token(0), Token(1)];
const TIMER: Token = Token(2);
const SIGNALS: Token = Token(3);

/// What the control socket answers to `help`, without the names that can be set.
pub const HELP: &str = "set ab|ba|both NAME=VALUE...  change a direction, or both\n\
    show                          configuration, counters and queueing delay as JSON\n\
    reset                         set counters and queueing delay to zero\n\
    help                          this";

/// One end of the path.
#[derive(Debug)]
struct End<D> {
    device: D,
    /// The device has not said that it is empty since its last event.
    readable: bool,
    /// Its dropped packets that a reset has taken from the count.
    forgiven: u64,
}

/// The loop and all it holds.
pub struct Relay<D> {
    clock: OsClock,
    /// The ends a and b.
    ends: [End<D>; 2],
    path: LinkPath,
    buffers: Buffers,
    poll: Poll,
    events: Events,
    timer: Timer,
    /// For when the timer is set.
    armed: Option<Instant>,
    signals: Signals,
    control: Option<ControlServer>,
    polled: Instant,
    /// The last turn left something undone.
    more: bool,
    gather: Gather,
    /// Packets read in this turn.
    read: u32,
    metrics: Option<MetricsServer>,
    /// Of what passes end a.
    recorder: Option<Recorder<File>>,
}

impl<D: Device + AsRawFd> Relay<D> {
    /// A loop between `a` and `b`, which are non-blocking. SIGINT and SIGTERM are caught from here
    /// on.
    ///
    /// # Errors
    /// When the operating system gives no descriptors.
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
            control: None,
            polled: Instant::ZERO,
            more: true,
            gather: Gather::default(),
            read: 0,
            metrics: None,
            recorder: None,
        })
    }

    /// Takes commands too.
    ///
    /// # Errors
    /// When the socket cannot be registered.
    pub fn serve_control(&mut self, mut server: ControlServer) -> io::Result<()> {
        server.register(self.poll.registry())?;
        self.control = Some(server);
        Ok(())
    }

    /// Answers requests for metrics too.
    ///
    /// # Errors
    /// When the listener cannot be registered.
    pub fn serve_metrics(&mut self, mut server: MetricsServer) -> io::Result<()> {
        server.register(self.poll.registry())?;
        self.metrics = Some(server);
        Ok(())
    }

    /// Records what passes end a: packets as they come in there, and as they go out.
    pub fn record(&mut self, recorder: Recorder<File>) {
        self.recorder = Some(recorder);
    }

    /// What the path shows of itself.
    #[must_use]
    pub fn report(&self) -> LinkReport {
        report(&self.path, &self.ends, self.clock.instant())
    }

    /// Carries packets until a signal comes.
    ///
    /// # Errors
    /// Those of the devices and of `poll`; the loop is then of no more use.
    pub fn run(&mut self) -> io::Result<Signal> {
        loop {
            if let Some(signal) = self.turn()? {
                return Ok(signal);
            }
        }
    }

    /// Sleeps if there is nothing to do, then carries what there is to carry.
    fn turn(&mut self) -> io::Result<Option<Signal>> {
        // What is due in the pause has left, and what comes in it is late by no more.
        if !self.more && self.gather.is_worth_while() {
            self.timer.sleep(gather::PAUSE)?;
            self.armed = None;
            self.more = true;
        }
        let now = self.clock.instant();
        if self.more {
            for end in &mut self.ends {
                // To try costs less than to ask.
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

    /// Takes packets from where `direction` begins; true if there may be more.
    fn receive(&mut self, direction: Direction) -> io::Result<bool> {
        let [a, b] = &mut self.ends;
        let from = match direction {
            Direction::Ab => a,
            Direction::Ba => b,
        };
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
            // Each by its own time: the delay would otherwise lack what this process had to wait for a
            // processor meanwhile.
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

    /// Hands over the packets that have arrived where `direction` ends; true if there may be more.
    fn deliver(&mut self, direction: Direction) -> io::Result<bool> {
        let [a, b] = &mut self.ends;
        let to = match direction {
            Direction::Ab => b,
            Direction::Ba => a,
        };
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

    /// Sets the timer for when a packet is due; the timeout to give to `poll`.
    fn prepare_sleep(&mut self, now: Instant) -> io::Result<Option<Duration>> {
        if self.control.as_ref().is_some_and(ControlServer::is_busy) {
            return Ok(Some(Duration::ZERO));
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.flush();
        }
        let closing = self.metrics.as_ref().and_then(MetricsServer::deadline);
        let due = self.path.poll_timeout().into_iter().chain(closing).min();
        if let Some(due) = due
            && self.armed != Some(due)
        {
            let pause = due.saturating_since(now).max(LEAST_SLEEP);
            self.timer.arm_exactly(pause)?;
            self.armed = Some(due);
        }
        Ok(None)
    }

    /// Asks what has happened, at the latest after `timeout`.
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
                        if let Some(control) = &mut self.control {
                            control.note(token);
                        }
                        if let Some(metrics) = &mut self.metrics {
                            metrics.note(token);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Answers who has asked for metrics.
    fn show(&mut self) {
        let Some(server) = &mut self.metrics else {
            return;
        };
        let (path, ends, now) = (&self.path, &self.ends, self.clock.instant());
        server.turn(now, self.poll.registry(), || {
            metrics::metrics(&report(path, ends, now))
        });
    }

    /// Carries out what has come at the control socket.
    fn handle_control(&mut self) {
        let Some(control) = &mut self.control else {
            return;
        };
        let (path, ends) = (&mut self.path, &mut self.ends);
        let clock = self.clock;
        control.turn(self.poll.registry(), |line| {
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

/// The time, which a recorder is told.
fn stamp(clock: OsClock, recorder: &mut Option<&mut Recorder<File>>) -> Instant {
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

/// The memory of packets, used again and again.
#[derive(Debug)]
struct Buffers {
    /// Bytes of a buffer: one more than the longest packet, so that a longer one shows.
    size: usize,
    /// What the next packet is read into; of full size.
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

    /// The first `len` bytes of what was read. A short packet gets memory of its own size, so that
    /// many of them do not hold that of long ones.
    fn take(&mut self, len: usize) -> Vec<u8> {
        if len < self.size / 4 {
            return self.next.get(..len).unwrap_or_default().to_vec();
        }
        let spare = self.spare.pop().unwrap_or_else(|| vec![0; self.size]);
        let mut packet = std::mem::replace(&mut self.next, spare);
        packet.truncate(len);
        packet
    }

    /// Keeps the memory of a packet that has gone.
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
