//! The loop that drives a machine over a device in real time: mio, the operating system's clocks,
//! randomness and signals.
//!
//! In: packets of the device, deadlines of the machine, signals, requests for metrics, commands at a
//! control socket; out: the machine's packets. One sampling of the clocks a turn serves everything in the turn.
//! Never blocks but in `poll`, and never lets one source starve the others: packets and
//! transmissions of one turn are bounded.
//! Sources: epoll(7) on edge-triggered use, timerfd_create(2).
#![expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clocks"
)]
#![expect(
    clippy::disallowed_types,
    reason = "the one place that reads the clocks"
)]

pub mod control;
pub mod digester;
mod gather;
pub mod loader;
pub mod metrics;
pub mod relay;
pub(crate) mod signals;
pub(crate) mod timer;

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use ring::rand::{SecureRandom, SystemRandom};

use crate::device::Device;
use crate::host::metrics::Metric;
use crate::host::{Machine, Transmit};
use crate::time::{Instant, Now, UnixMillis};
use crate::wire::ip::MAX_PACKET;

pub use signals::{Notice, Signal};

use control::ControlServer;
use metrics::MetricsServer;
use signals::Signals;
use timer::Timer;

/// Packets read in one turn before timers, signals and metrics are looked after.
pub const MAX_PACKETS_PER_TURN: usize = 32;

/// Packets and flights sent at a stretch before the loop turns.
pub const MAX_TRANSMITS_PER_TURN: usize = 1024;

/// Longest time that a loop may look for packets before it sleeps: more would burn a processor for
/// whoever sends a packet each millisecond.
pub const MAX_BUSY_POLL: Duration = Duration::from_millis(1);

/// Looks for packets between two polls, which see signals and all else as well.
const MAX_LOOKS_PER_POLL: u32 = 16;

/// Events taken from one poll; what is left comes with the next.
pub(crate) const MAX_EVENTS: usize = 64;

/// The clocks of the operating system. The monotonic one starts at zero.
#[derive(Clone, Copy, Debug)]
pub struct OsClock {
    start: std::time::Instant,
}

impl OsClock {
    /// A clock whose monotonic time starts now.
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

    /// The monotonic clock.
    #[must_use]
    pub fn instant(&self) -> Instant {
        let micros = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        Instant::from_micros(micros)
    }

    /// Both clocks, read once.
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

/// A seed from the operating system's randomness.
///
/// # Errors
/// When the operating system has none.
pub fn os_seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the operating system gives no random bytes"))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// What a program does beside the machine, in the same loop.
pub trait Hooks<M> {
    /// Called once a turn, after packets and timers: take events, give commands. `Break` ends the
    /// loop when what waits has been sent.
    fn turn(&mut self, now: Now, machine: &mut M) -> ControlFlow<()>;

    /// When `turn` must be called at the latest; `None`: when something happens.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// A descriptor that the machine or the hook waits to write to: `turn` is called when it is
    /// writable. Asked for before each sleep.
    fn waits_for<'a>(&'a self, _machine: &'a M) -> Option<BorrowedFd<'a>> {
        None
    }

    /// A signal has come. `Continue` if the machine shall end in its own time; another signal is
    /// told again.
    fn signal(&mut self, _now: Now, _signal: Signal, _machine: &mut M) -> ControlFlow<()> {
        ControlFlow::Break(())
    }

    /// A signal has come that was asked for by [`Runtime::heed`].
    fn notice(&mut self, _now: Now, _notice: Notice, _machine: &mut M) {}

    /// Sends what the machine has for other devices; called after every drain of its transmissions.
    ///
    /// # Errors
    /// Those of such a device, which end the loop.
    fn forward(&mut self, _machine: &mut M) -> io::Result<()> {
        Ok(())
    }

    /// Carries out a command of the control socket: its answer, or why there is none.
    fn command(&mut self, _now: Now, _line: &str, _machine: &mut M) -> Result<String, String> {
        Err("no commands are known".to_owned())
    }

    /// The metrics to show; asked for once a request.
    fn metrics(&mut self, _machine: &M) -> Vec<Metric> {
        Vec::new()
    }
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The hook said so.
    ByHook,
    /// A signal came.
    BySignal(Signal),
}

/// A loop over one device.
pub struct Runtime<D> {
    clock: OsClock,
    device: D,
    poll: Poll,
    events: Events,
    timer: Timer,
    signals: Signals,
    metrics: Option<MetricsServer>,
    control: Option<ControlServer>,
    buffer: Vec<u8>,
    /// How long after a packet the loop does not sleep, and until when that is.
    busy_poll: Duration,
    awake_until: Instant,
    last_packet: Option<Instant>,
    /// Counts looks for packets while awake.
    looks: u32,
    /// The device has not said that it is empty since its last event: it will send no other.
    readable: bool,
}

const DEVICE: Token = Token(0);
const TIMER: Token = Token(1);
const SIGNALS: Token = Token(2);
const SINK: Token = Token(3);

impl<D: Device + AsRawFd> Runtime<D> {
    /// A loop over `device`, which is non-blocking. SIGINT and SIGTERM are caught from here on.
    ///
    /// # Errors
    /// When the operating system gives no descriptors.
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
            metrics: None,
            control: None,
            buffer,
            busy_poll: Duration::ZERO,
            awake_until: Instant::ZERO,
            last_packet: None,
            looks: 0,
            readable,
        })
    }

    /// Looks for packets for so long before it sleeps, at most [`MAX_BUSY_POLL`], after each that came
    /// as soon after another: to wake a thread that sleeps on another processor takes longer than a
    /// round trip between two hosts that are awake. Of harm where the peer has only the same
    /// processor.
    pub fn busy_poll(&mut self, time: Duration) {
        self.busy_poll = time.min(MAX_BUSY_POLL);
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

    /// Takes commands too.
    ///
    /// # Errors
    /// When the socket cannot be registered.
    pub fn serve_control(&mut self, mut server: ControlServer) -> io::Result<()> {
        server.register(self.poll.registry())?;
        self.control = Some(server);
        Ok(())
    }

    /// Catches the signal of a notice, too.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn heed(&mut self, notice: Notice) -> io::Result<()> {
        self.signals.heed(notice)
    }

    /// The device.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// Drives `machine` until the hook or a signal ends it.
    ///
    /// # Errors
    /// Those of the device and of `poll`; the loop is then of no more use.
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
            more |= unsent;
            if flow.is_break() && !unsent {
                self.device.idle();
                return Ok(Stopped::ByHook);
            }
            let wake = machine.poll_timeout(now).map(|(at, _)| at);
            let deadlines = [
                wake,
                hooks.deadline(),
                self.metrics.as_ref().and_then(MetricsServer::deadline),
            ];
            let wait = deadlines.into_iter().flatten().min();
            let awake = now.instant < self.awake_until;
            if awake && !more {
                // Somebody else may need this processor, maybe even the peer.
                std::thread::yield_now();
                self.looks = self.looks.wrapping_add(1);
                if !self.looks.is_multiple_of(MAX_LOOKS_PER_POLL) {
                    // Reading tells as much of the device as asking would.
                    self.readable = true;
                    continue;
                }
            }
            let busy = self.control.as_ref().is_some_and(ControlServer::is_busy);
            let wait = if more || awake || busy {
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
            if let Some(server) = &mut self.control {
                let now = self.clock.now();
                server.turn(self.poll.registry(), |line| {
                    hooks.command(now, line, machine)
                });
            }
            if let Some(server) = &mut self.metrics {
                let registry = self.poll.registry();
                server.turn(self.clock.now().instant, registry, || {
                    hooks.metrics(machine)
                });
            }
        }
    }

    /// Hands packets to the machine until the device is empty or the bound is reached; the time by
    /// then, and whether there may be more to do.
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
                    // Read anew for each packet: one that came while this process had to wait for a
                    // processor would seem to have come before that, and its round trip shorter than
                    // the path's.
                    now.instant = self.clock.instant();
                    self.device.set_now(now);
                    let last = self.last_packet.replace(now.instant);
                    if last.is_some_and(|last| now.instant <= last + self.busy_poll) {
                        self.awake_until = now.instant + self.busy_poll;
                    }
                    let packet = self.buffer.get(..received.len).unwrap_or_default();
                    machine.handle_packet(now, packet, received.segment);
                    more |= self.transmit(now, machine, hooks)?;
                }
            }
        }
        Ok((now, more || self.readable))
    }

    /// Sends what the machine has; true if the bound was reached.
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
                Some(Transmit::Flight(flight)) => self.device.send_flight(&flight)?,
            }
        }
        Ok(true)
    }

    /// Sleeps until something happens, `until` comes or `sink` is writable, and notes what happened.
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
                // The turn took time since `now`.
                let pause = until.map(|at| at.saturating_since(self.clock.now().instant));
                self.timer.arm(pause.unwrap_or_default())?
            }
        };
        // Only for this sleep: whose descriptor it is may close it in any turn.
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
                TIMER | SINK => {}
                SIGNALS => self.signals.drain(),
                token => {
                    if let Some(server) = &mut self.metrics {
                        server.note(token);
                    }
                    if let Some(server) = &mut self.control {
                        server.note(token);
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
