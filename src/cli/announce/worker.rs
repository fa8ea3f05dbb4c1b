//! The thread that announces and withdraws: no command of the operator delays a packet.
//!
//! In: the direction wanted, which may change at any time; only the last one counts. Out: routes added
//! and deleted, runs of the operator's command. A command that fails, or that is killed after
//! [`MAX_COMMAND_TIME`], runs again until it succeeds or the opposite is wanted. A withdrawal does not
//! wait for an announcement that still runs, but kills it.

use core::net::IpAddr;
use core::time::Duration;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::device::tun::TunRoutes;
use crate::runtime::OsClock;
use crate::time::Instant;

/// Longest run of the operator's command; it is killed then.
pub(super) const MAX_COMMAND_TIME: Duration = Duration::from_secs(5);

/// Longest run of a withdrawal while the program ends.
const END_TIME: Duration = Duration::from_secs(2);

/// How much longer the end of the program waits for the thread to kill a command.
const KILL_TIME: Duration = Duration::from_millis(300);

/// Pause before a failed change is tried again; doubled with each further failure.
const RETRY: Duration = Duration::from_secs(1);

/// Longest such pause.
pub(super) const MAX_RETRY: Duration = Duration::from_secs(30);

/// The same while the program ends.
const END_RETRY: Duration = Duration::from_millis(200);

/// Interval of the checks whether a command has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A change of the announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Announce the addresses.
    Up,
    /// Withdraw them.
    Down,
}

impl Change {
    const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    const fn outcome(self) -> &'static str {
        match self {
            Self::Up => "announced",
            Self::Down => "withdrawn",
        }
    }
}

/// The effects of a change.
#[derive(Clone, Debug)]
pub(super) struct Means {
    /// Host routes to add and delete, if any.
    pub(super) routes: Option<TunRoutes>,
    /// Their addresses.
    pub(super) services: Vec<IpAddr>,
    /// A command of the shell, if any.
    pub(super) command: Option<String>,
}

#[derive(Debug)]
struct State {
    wanted: Change,
    /// The last change that succeeded, unless another was tried since.
    done: Option<Change>,
    /// The end of the last withdrawal, once the program ends.
    end_by: Option<Instant>,
    ended: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until the state changes, for `pause` at most.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, pause: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, pause);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Sleeps while `condition` holds, for `limit` at most.
    fn wait_while(&self, limit: Duration, mut condition: impl FnMut(&State) -> bool) {
        let condition = |state: &mut State| condition(state);
        // The caller looks at the state again.
        let _ = self
            .changed
            .wait_timeout_while(self.lock(), limit, condition);
    }
}

/// The thread.
#[derive(Debug)]
pub(super) struct Worker(Arc<Shared>, OsClock);

impl Worker {
    /// Starts the thread with the announcement.
    pub(super) fn start(means: Means) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                wanted: Change::Up,
                done: None,
                end_by: None,
                ended: false,
            }),
            changed: Condvar::new(),
        });
        let clock = OsClock::new();
        let run = Run {
            shared: Arc::clone(&shared),
            clock,
            means,
        };
        let named = thread::Builder::new().name("announcer".to_owned());
        named.spawn(move || run.run())?;
        Ok(Self(shared, clock))
    }

    /// Sets the direction.
    pub(super) fn want(&self, change: Change) {
        self.0.lock().wanted = change;
        self.0.changed.notify_all();
    }

    /// Withdraws, and waits until that has succeeded or its time is over.
    pub(super) fn end(self) {
        let mut state = self.0.lock();
        state.wanted = Change::Down;
        state.end_by = Some(self.1.instant() + END_TIME);
        drop(state);
        self.0.changed.notify_all();
        self.0
            .wait_while(END_TIME + KILL_TIME, |state| !state.ended);
        if !self.0.lock().ended {
            log::error!(
                "the announce command cannot be killed: the service may still be announced"
            );
        }
    }

    /// Waits until the change wanted is done.
    #[cfg(test)]
    pub(super) fn settle(&self) {
        let limit = Duration::from_secs(60);
        self.0
            .wait_while(limit, |state| state.done != Some(state.wanted));
    }
}

/// The thread's side.
struct Run {
    shared: Arc<Shared>,
    clock: OsClock,
    means: Means,
}

/// The end of a run of the operator's command.
enum RunEnd {
    Ended(ExitStatus),
    /// It announces, and a withdrawal is wanted.
    Superseded,
    TimedOut,
}

/// The reason why a change did not succeed.
enum Failure {
    /// The opposite is wanted now.
    Superseded,
    /// With the reason for the log.
    Failed(String),
}

impl Run {
    fn run(self) {
        let mut pause = RETRY;
        loop {
            let mut state = self.shared.lock();
            while state.done == Some(state.wanted) && state.end_by.is_none() {
                let changed = self.shared.changed.wait(state);
                state = changed.unwrap_or_else(PoisonError::into_inner);
            }
            let change = state.wanted;
            let idle = state.done == Some(change);
            drop(state);
            let tried = if idle { Ok(()) } else { self.apply(change) };
            let mut state = self.shared.lock();
            state.done = tried.is_ok().then_some(change);
            let withdrawn = tried.is_ok() && change == Change::Down;
            let is_over = |by| withdrawn || self.clock.instant() >= by;
            state.ended = state.end_by.is_some_and(is_over);
            self.shared.changed.notify_all();
            match tried {
                Ok(()) => pause = RETRY,
                Err(Failure::Superseded) => {}
                Err(Failure::Failed(why)) if state.ended => log::error!("{why}"),
                Err(Failure::Failed(why)) => {
                    let ending = state.end_by.is_some();
                    let pause_now = if ending { END_RETRY } else { pause };
                    log::error!("{why}: next try in {} ms", pause_now.as_millis());
                    let at = self.clock.instant() + pause_now;
                    while state.wanted == change
                        && state.end_by.is_some() == ending
                        && self.clock.instant() < at
                    {
                        let left = at.saturating_since(self.clock.instant());
                        state = self.shared.wait(state, left);
                    }
                    pause = (pause * 2).min(MAX_RETRY);
                }
            }
            if state.ended {
                return;
            }
        }
    }

    fn apply(&self, change: Change) -> Result<(), Failure> {
        if let Some(routes) = &self.means.routes {
            let changed = routes.set(&self.means.services, change == Change::Up);
            changed.map_err(|error| Failure::Failed(error.to_string()))?;
        }
        if let Some(command) = &self.means.command {
            self.run_command(command, change)?;
        }
        log::info!("service addresses {}", change.outcome());
        Ok(())
    }

    /// Runs the operator's command to its end.
    fn run_command(&self, command: &str, change: Change) -> Result<(), Failure> {
        let failed = |why: String| {
            let word = change.word();
            Failure::Failed(format!("the announce command with `{word}` {why}"))
        };
        let mut child = Command::new("sh")
            .args(["-c", command, "announce", change.word()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| failed(format!("cannot run ({error})")))?;
        match self.await_end(&mut child, change) {
            Ok(RunEnd::Ended(status)) if status.success() => Ok(()),
            Ok(RunEnd::Ended(status)) => Err(failed(format!("failed ({status})"))),
            Ok(RunEnd::Superseded) => {
                kill(&mut child);
                Err(Failure::Superseded)
            }
            Ok(RunEnd::TimedOut) => {
                kill(&mut child);
                Err(failed("took too long and was killed".to_owned()))
            }
            Err(error) => Err(failed(format!("cannot be awaited ({error})"))),
        }
    }

    /// Waits for the end of a command, or until it must be killed.
    fn await_end(&self, child: &mut Child, change: Change) -> io::Result<RunEnd> {
        let limit = self.clock.instant() + MAX_COMMAND_TIME;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(RunEnd::Ended(status));
            }
            let state = self.shared.lock();
            if change == Change::Up && state.wanted == Change::Down {
                return Ok(RunEnd::Superseded);
            }
            let limit = state.end_by.map_or(limit, |by| by.min(limit));
            if self.clock.instant() >= limit {
                return Ok(RunEnd::TimedOut);
            }
            drop(self.shared.wait(state, LOOK));
        }
    }
}

/// Kills a command and its children.
fn kill(child: &mut Child) {
    let group = Pid::from_child(child);
    if let Err(error) = kill_process_group(group, Signal::KILL) {
        log::warn!("cannot kill the announce command: {error}");
    }
    let _ = child.wait();
}
