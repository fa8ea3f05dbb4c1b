//! The loop that drives a machine over a device in real time: mio, the operating system's clocks,
//! randomness and signals.
//!
//! In: packets of the device, deadlines of the machine, signals, requests for metrics, commands on a
//! control socket. Out: the machine's packets. Reads the clocks once per turn, and again for each
//! packet. Never blocks except in `poll`, and never lets one source starve the others: packets and
//! transmissions of a turn are bounded.
//! Sources: epoll(7) on edge-triggered mode, timerfd_create(2).
#![expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clocks"
)]
#![expect(
    clippy::disallowed_types,
    reason = "the one place that reads the clocks"
)]

mod admin;
pub mod capture;
pub mod control;
pub mod endpoint;
pub mod fifo;
mod gather;
pub mod loader;
pub mod metrics;
pub mod queries;
pub mod relay;
pub mod resolver;
pub(crate) mod signals;
mod slots;
pub mod streams;
pub(crate) mod timer;
pub mod workers;

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use ring::rand::{SecureRandom, SystemRandom};

use crate::device::Device;
use crate::host::metrics::Metric;
use crate::host::{Machine, Transmit};
use crate::time::{Instant, Now, UnixMillis};
use crate::wire::ip::MAX_PACKET;

pub use signals::{Notice, Signal, release_signals};

use admin::Admin;
use control::ControlServer;
use metrics::MetricsServer;
use signals::Signals;
use timer::Timer;

/// Most packets read in one turn, before timers, signals and metrics.
pub const MAX_PACKETS_PER_TURN: usize = 32;

/// Most packets and flights sent in one turn.
pub const MAX_TRANSMITS_PER_TURN: usize = 1024;

/// Longest busy-poll time: with a longer one, a peer that sends a packet every millisecond would
/// occupy a processor.
pub const MAX_BUSY_POLL: Duration = Duration::from_millis(1);

/// Reads of the device between two polls, which also check signals and other sources.
const MAX_LOOKS_PER_POLL: u32 = 16;

/// Events returned by one poll; the next poll returns the rest.
pub(crate) const MAX_EVENTS: usize = 64;

/// The operating system's clocks. The monotonic one starts at zero.
#[derive(Clone, Copy, Debug)]
pub struct OsClock {
    start: std::time::Instant,
}

impl OsClock {
    /// Creates a clock whose monotonic time starts now.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a default that reads a clock would surprise"
    )]
    pub fn new() -> Self {
        Self {
            start: std::time::Instant::now(),
        }
    }

    /// The monotonic time.
    #[must_use]
    pub fn instant(&self) -> Instant {
        let micros = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        Instant::from_micros(micros)
    }

    /// The time of both clocks, read once.
    #[must_use]
    pub fn now(&self) -> Now {
        let since_epoch = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let millis = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        Now {
            instant: self.instant(),
            unix: UnixMillis::new(millis),
        }
    }
}

/// The default busy-poll time: about the time to wake a thread on another processor, or 0 where the peer
/// may need the only processor.
#[must_use]
pub fn default_busy_poll() -> Duration {
    let several = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    if several {
        Duration::from_micros(50)
    } else {
        Duration::ZERO
    }
}

/// Draws a seed from the operating system's randomness.
///
/// # Errors
/// If the operating system has none.
pub fn os_seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the operating system returned no random bytes"))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The program's part of the loop, beside the machine.
pub trait Hooks<M> {
    /// Called once per turn, after packets and timers, to take events and issue commands. `Break`
    /// ends the loop once pending packets are sent.
    fn turn(&mut self, now: Now, machine: &mut M) -> ControlFlow<()>;

    /// The latest time of the next call of `turn`; `None`: at the next event.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// A descriptor that the machine or the hook waits to write to: the loop calls `turn` when it is
    /// writable. Called before each sleep.
    fn waits_for<'a>(&'a self, _machine: &'a M) -> Option<BorrowedFd<'a>> {
        None
    }

    /// Handles a signal. `Continue` lets the machine end in its own time; a further signal calls it
    /// again.
    fn signal(&mut self, _now: Now, _signal: Signal, _machine: &mut M) -> ControlFlow<()> {
        ControlFlow::Break(())
    }

    /// Handles a signal registered with [`Runtime::catch`].
    fn notice(&mut self, _now: Now, _notice: Notice, _machine: &mut M) {}

    /// Sends the machine's packets for other devices; called after every drain of its transmissions.
    ///
    /// # Errors
    /// Those of the device; they end the loop.
    fn forward(&mut self, _machine: &mut M) -> io::Result<()> {
        Ok(())
    }

    /// Executes a command of the control socket; returns the reply or the error.
    fn command(&mut self, _now: Now, _line: &str, _machine: &mut M) -> Result<String, String> {
        Err("no commands are supported".to_owned())
    }

    /// Collects the metrics; called once per request.
    fn metrics(&mut self, _machine: &M) -> Vec<Metric> {
        Vec::new()
    }
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The hook returned `Break`.
    ByHook,
    /// A signal arrived.
    BySignal(Signal),
}

/// Wakes a loop from another thread, which then calls the hook's `turn`. Clones wake the same loop.
#[derive(Clone, Debug)]
pub struct LoopWaker(Arc<Waker>);

impl LoopWaker {
    /// Wakes the loop; no effect if it has ended.
    pub fn wake(&self) {
        if let Err(error) = self.0.wake() {
            log::error!("cannot wake the loop: {error}");
        }
    }
}

/// A loop over one device.
pub struct Runtime<D> {
    clock: OsClock,
    device: D,
    poll: Poll,
    events: Events,
    timer: Timer,
    signals: Signals,
    admin: Admin,
    waker: Option<LoopWaker>,
    buffer: Vec<u8>,
    /// Busy-poll time after a packet, and the time until which the loop does not sleep.
    busy_poll: Duration,
    awake_until: Instant,
    last_packet: Option<Instant>,
    /// Reads of the device while busy-polling.
    looks: u32,
    /// Edge-triggered: whether the device may have packets; it sends no event until read empty.
    readable: bool,
}

const DEVICE: Token = Token(0);
const TIMER: Token = Token(1);
const SIGNALS: Token = Token(2);
const SINK: Token = Token(3);
const WAKER: Token = Token(4);
const WATCHED: Token = Token(5);

impl<D: Device + AsRawFd> Runtime<D> {
    /// Creates a loop over `device`, which must be non-blocking. Catches SIGINT and SIGTERM from now
    /// on.
    ///
    /// # Errors
    /// If the operating system has no descriptors left.
    pub fn new(clock: OsClock, device: D) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = Timer::new()?;
        let mut signals = Signals::new()?;
        let registry = poll.registry();
        registry.register(
            &mut SourceFd(&device.as_raw_fd()),
            DEVICE,
            Interest::READABLE,
        )?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        registry.register(signals.source(), SIGNALS, Interest::READABLE)?;
        let events = Events::with_capacity(MAX_EVENTS);
        let buffer = vec![0; MAX_PACKET];
        let readable = true;
        Ok(Self {
            clock,
            device,
            poll,
            events,
            timer,
            signals,
            admin: Admin::default(),
            waker: None,
            buffer,
            busy_poll: Duration::ZERO,
            awake_until: Instant::ZERO,
            last_packet: None,
            looks: 0,
            readable,
        })
    }

    /// Sets the busy-poll time, at most [`MAX_BUSY_POLL`]: the loop does not sleep for this time after
    /// a packet that followed another within it. Waking a thread on another processor takes longer
    /// than a round trip between two hosts that are awake. Harmful if the peer shares the only
    /// processor.
    pub fn busy_poll(&mut self, time: Duration) {
        self.busy_poll = time.min(MAX_BUSY_POLL);
    }

    /// Also serves requests for metrics.
    ///
    /// # Errors
    /// If the listener cannot be registered.
    pub fn serve_metrics(&mut self, server: MetricsServer) -> io::Result<()> {
        self.admin.serve_metrics(self.poll.registry(), server)
    }

    /// Also executes commands of a control socket.
    ///
    /// # Errors
    /// If the socket cannot be registered.
    pub fn serve_control(&mut self, server: ControlServer) -> io::Result<()> {
        self.admin.serve_control(self.poll.registry(), server)
    }

    /// Also catches the signal of a notice.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn catch(&mut self, notice: Notice) -> io::Result<()> {
        self.signals.catch(notice)
    }

    /// Calls the hook's `turn` also when `source` becomes readable: an epoll instance of the hook, for
    /// sockets of its own.
    ///
    /// # Errors
    /// If the descriptor cannot be registered.
    pub fn watch(&mut self, source: &impl AsRawFd) -> io::Result<()> {
        let mut source = SourceFd(&source.as_raw_fd());
        let registry = self.poll.registry();
        registry.register(&mut source, WATCHED, Interest::READABLE)
    }

    /// Returns a handle that wakes the loop from another thread.
    ///
    /// # Errors
    /// If the operating system has no descriptors left.
    pub fn waker(&mut self) -> io::Result<LoopWaker> {
        if let Some(waker) = &self.waker {
            return Ok(waker.clone());
        }
        let waker = LoopWaker(Arc::new(Waker::new(self.poll.registry(), WAKER)?));
        self.waker = Some(waker.clone());
        Ok(waker)
    }

    /// The device.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// Drives `machine` until the hook or a signal ends it.
    ///
    /// # Errors
    /// Those of the device and of `poll`; the loop is unusable afterwards.
    pub fn run<M: Machine, H: Hooks<M>>(
        &mut self,
        machine: &mut M,
        hooks: &mut H,
    ) -> io::Result<Stopped> {
        loop {
            let now = self.clock.now();
            self.device.set_now(now);
            let (now, mut more) = self.receive(now, machine, hooks)?;
            if machine
                .poll_timeout(now)
                .is_some_and(|(at, _)| at <= now.instant)
            {
                machine.handle_timeout(now);
                more |= self.transmit(now, machine, hooks)?;
            }
            let flow = hooks.turn(now, machine);
            let unsent = self.transmit(now, machine, hooks)?;
            more |= unsent | self.report_unreachable(now, machine);
            if flow.is_break() && !unsent {
                self.device.idle();
                return Ok(Stopped::ByHook);
            }
            let wake = machine.poll_timeout(now).map(|(at, _)| at);
            let deadlines = [wake, hooks.deadline(), self.admin.deadline()];
            let wait = deadlines.into_iter().flatten().min();
            let awake = now.instant < self.awake_until;
            if awake && !more {
                // Lets other processes use this processor, perhaps the peer.
                std::thread::yield_now();
                self.looks = self.looks.wrapping_add(1);
                if !self.looks.is_multiple_of(MAX_LOOKS_PER_POLL) {
                    // A read is as cheap as a poll.
                    self.readable = true;
                    continue;
                }
            }
            let wait = if more || awake || self.admin.is_busy() {
                Some(now.instant)
            } else {
                wait
            };
            self.wait(now, wait, hooks.waits_for(machine))?;
            if let Some(signal) = self.signals.take()
                && hooks.signal(self.clock.now(), signal, machine).is_break()
            {
                self.device.idle();
                return Ok(Stopped::BySignal(signal));
            }
            while let Some(notice) = self.signals.take_notice() {
                hooks.notice(self.clock.now(), notice, machine);
            }
            let (clock, registry) = (self.clock, self.poll.registry());
            let command = |line: &str| hooks.command(clock.now(), line, machine);
            self.admin.execute(registry, command);
            let lost = self.device.capture_losses();
            self.admin.answer(clock, registry, || {
                let mut metrics = hooks.metrics(machine);
                metrics.extend(lost.map(capture::losses));
                metrics
            });
        }
    }

    /// Passes packets to the machine until the device is empty or the bound is reached. Returns the
    /// time of the last packet, and whether there may be more.
    fn receive<M: Machine>(
        &mut self,
        mut now: Now,
        machine: &mut M,
        hooks: &mut impl Hooks<M>,
    ) -> io::Result<(Now, bool)> {
        let mut more = false;
        for _ in 0..MAX_PACKETS_PER_TURN {
            if !self.readable {
                break;
            }
            match self.device.receive(&mut self.buffer)? {
                None => self.readable = false,
                Some(received) => {
                    // Read again for each packet: after a wait of this process for a processor, a packet
                    // that arrived meanwhile would seem older, with a round trip shorter than the
                    // path's.
                    now.instant = self.clock.instant();
                    self.device.set_now(now);
                    let last = self.last_packet.replace(now.instant);
                    if last.is_some_and(|last| now.instant <= last + self.busy_poll) {
                        self.awake_until = now.instant + self.busy_poll;
                    }
                    let packet = self.buffer.get(..received.len).unwrap_or_default();
                    match received.udp {
                        None => machine.handle_packet(now, packet, received.segment),
                        Some(udp) => {
                            machine.handle_datagrams(now, &udp.view(packet), received.segment);
                        }
                    }
                    more |= self.transmit(now, machine, hooks)?;
                }
            }
        }
        Ok((now, more || self.readable))
    }

    /// Reports unreachable addresses to the machine; returns whether there were any.
    fn report_unreachable<M: Machine>(&mut self, now: Now, machine: &mut M) -> bool {
        let mut any = false;
        while let Some(address) = self.device.poll_unreachable() {
            machine.handle_unreachable(now, address);
            any = true;
        }
        any
    }

    /// Sends the machine's packets; true if the bound was reached.
    fn transmit<M: Machine>(
        &mut self,
        now: Now,
        machine: &mut M,
        hooks: &mut impl Hooks<M>,
    ) -> io::Result<bool> {
        hooks.forward(machine)?;
        for _ in 0..MAX_TRANSMITS_PER_TURN {
            match machine.poll_transmit(now) {
                None => return Ok(false),
                Some(Transmit::Packet(packet)) => {
                    self.device.send_packet(&packet)?;
                    machine.recycle(packet);
                }
                Some(Transmit::Segments { packet, segment }) => {
                    self.device.send_segments(&packet, segment)?;
                    machine.recycle(packet);
                }
                Some(Transmit::Flight(flight)) => self.device.send_flight(&flight)?,
            }
        }
        Ok(true)
    }

    /// Sleeps until an event, until `until` or until `sink` is writable; records the events.
    fn wait(
        &mut self,
        now: Now,
        until: Option<Instant>,
        sink: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let pause = until.map(|at| at.saturating_since(now.instant));
        let timeout = match pause {
            Some(Duration::ZERO) => Some(Duration::ZERO),
            None => {
                self.device.idle();
                None
            }
            Some(_) => {
                self.device.idle();
                // `now` is older: the turn took time.
                let pause = until.map(|at| at.saturating_since(self.clock.now().instant));
                self.timer.arm(pause.unwrap_or_default())?
            }
        };
        // Registered for this sleep only: its owner may close it in any turn.
        let sink = sink.map(|sink| sink.as_raw_fd());
        if let Some(sink) = sink {
            let registry = self.poll.registry();
            registry.register(&mut SourceFd(&sink), SINK, Interest::WRITABLE)?;
        }
        let polled = self.poll.poll(&mut self.events, timeout);
        if let Some(sink) = sink {
            self.poll.registry().deregister(&mut SourceFd(&sink))?;
        }
        match polled {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for event in &self.events {
            match event.token() {
                DEVICE => self.readable = true,
                TIMER | SINK | WAKER | WATCHED => {}
                SIGNALS => self.signals.drain(),
                token => self.admin.note(token),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
