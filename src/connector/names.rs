//! The addresses of names, looked up on threads and kept for a time.
//!
//! In: a host, and the time by which its addresses are needed. Out: its addresses. Callers that need the same name at the
//! same time share one look-up. The resolver of the operating system cannot be interrupted: a caller gives up at its time
//! limit, and the thread ends when the resolver does. A failure is not kept.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use crate::runtime::OsClock;
use crate::time::Instant;

/// Most names whose addresses a connector keeps; the oldest makes room.
pub(super) const MAX_CACHED_NAMES: usize = 256;

/// Most look-ups of a connector at once, each on a thread.
pub(super) const MAX_PENDING_NAMES: usize = 16;

/// Why there are no addresses.
#[derive(Debug)]
pub(super) enum NamesError {
    Unknown { host: String },
    TooMany { host: String },
    TimedOut,
    Os(io::Error),
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Names {
    ttl: Duration,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// A look-up has ended.
    answered: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first.
    known: VecDeque<Entry>,
    pending: BTreeMap<String, Pending>,
}

/// The addresses of a name that is being looked up, once they are known.
type Pending = Arc<OnceLock<Vec<IpAddr>>>;

#[derive(Debug)]
struct Entry {
    host: String,
    until: Instant,
    addresses: Vec<IpAddr>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics with the lock held, and every state is valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a look-up.
    fn answer(&self, host: &str, until: Instant, pending: &Pending, addresses: Vec<IpAddr>) {
        let mut state = self.lock();
        if !addresses.is_empty() {
            state.keep(host, until, &addresses);
        }
        // Set once, by this thread.
        let _ = pending.set(addresses);
        state.pending.remove(host);
        drop(state);
        self.answered.notify_all();
    }
}

impl State {
    fn keep(&mut self, host: &str, until: Instant, addresses: &[IpAddr]) {
        self.known.retain(|entry| entry.host != host);
        if self.known.len() >= MAX_CACHED_NAMES {
            self.known.pop_front();
        }
        self.known.push_back(Entry {
            host: host.to_owned(),
            until,
            addresses: addresses.to_vec(),
        });
    }

    fn get(&self, now: Instant, host: &str) -> Option<Vec<IpAddr>> {
        let mut known = self.known.iter();
        let entry = known.find(|entry| entry.host == host && entry.until > now)?;
        Some(entry.addresses.clone())
    }
}

impl Names {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            shared: Arc::default(),
        }
    }

    /// Returns the addresses of a host; waits for them until `by`.
    pub(super) fn resolve(
        &self,
        clock: OsClock,
        by: Instant,
        host: &str,
    ) -> Result<Vec<IpAddr>, NamesError> {
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(host).parse() {
            return Ok(vec![address]);
        }
        self.resolve_with(clock, by, host, |host| {
            let found = (host, 0).to_socket_addrs();
            found.map_or_else(|_| Vec::new(), |found| found.map(|one| one.ip()).collect())
        })
    }

    /// The same with another resolver.
    fn resolve_with(
        &self,
        clock: OsClock,
        by: Instant,
        host: &str,
        resolver: impl Fn(&str) -> Vec<IpAddr> + Send + 'static,
    ) -> Result<Vec<IpAddr>, NamesError> {
        let host = host.to_ascii_lowercase();
        let mut state = self.shared.lock();
        if let Some(addresses) = state.get(clock.instant(), &host) {
            return Ok(addresses);
        }
        let pending = match state.pending.get(&host) {
            Some(pending) => Arc::clone(pending),
            None => self.begin(&mut state, clock, &host, resolver)?,
        };
        loop {
            if let Some(addresses) = pending.get() {
                return match addresses.is_empty() {
                    true => Err(NamesError::Unknown { host }),
                    false => Ok(addresses.clone()),
                };
            }
            let left = by.saturating_since(clock.instant());
            if left.is_zero() {
                return Err(NamesError::TimedOut);
            }
            let waited = self.shared.answered.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Begins a look-up on a thread.
    fn begin(
        &self,
        state: &mut State,
        clock: OsClock,
        host: &str,
        resolver: impl Fn(&str) -> Vec<IpAddr> + Send + 'static,
    ) -> Result<Pending, NamesError> {
        if state.pending.len() >= MAX_PENDING_NAMES {
            return Err(NamesError::TooMany {
                host: host.to_owned(),
            });
        }
        let pending = Pending::default();
        let (shared, ttl) = (Arc::clone(&self.shared), self.ttl);
        let (name, answer) = (host.to_owned(), Arc::clone(&pending));
        let look_up = move || {
            let addresses = resolver(&name);
            shared.answer(&name, clock.instant() + ttl, &answer, addresses);
        };
        let thread = thread::Builder::new().name("look-up".to_owned());
        thread.spawn(look_up).map_err(NamesError::Os)?;
        state.pending.insert(host.to_owned(), Arc::clone(&pending));
        Ok(pending)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    fn addresses() -> Vec<IpAddr> {
        vec!["192.0.2.1".parse().unwrap()]
    }

    fn later(clock: OsClock) -> Instant {
        clock.instant() + Duration::from_secs(60)
    }

    #[test]
    fn an_answer_is_kept_for_its_time_and_a_failure_is_not() {
        let clock = OsClock::new();
        for (ttl, answer, want) in [
            (Duration::from_secs(60), addresses(), 1),
            (Duration::ZERO, addresses(), 3),
            (Duration::from_secs(60), Vec::new(), 3),
        ] {
            let names = Names::new(ttl);
            let asked = Arc::new(AtomicUsize::new(0));
            for host in ["Files", "files", "FILES"] {
                let (asked, answer) = (Arc::clone(&asked), answer.clone());
                let found = names.resolve_with(clock, later(clock), host, move |name| {
                    assert_eq!(name, "files");
                    asked.fetch_add(1, Ordering::Relaxed);
                    answer.clone()
                });
                assert_eq!(found.is_ok(), want == 1 || ttl.is_zero());
            }
            assert_eq!(asked.load(Ordering::Relaxed), want);
        }
    }

    #[test]
    fn literals_are_not_looked_up() {
        let (clock, names) = (OsClock::new(), Names::new(Duration::ZERO));
        for (host, want) in [("192.0.2.1", "192.0.2.1"), ("[::1]", "::1"), ("::1", "::1")] {
            let found = names.resolve(clock, clock.instant(), host).unwrap();
            assert_eq!(found, [want.parse::<IpAddr>().unwrap()]);
        }
    }

    #[test]
    fn callers_of_one_name_share_a_look_up_and_give_up_in_time() {
        let (clock, names) = (OsClock::new(), Names::new(Duration::ZERO));
        let (release, held) = channel::<()>();
        let held = Mutex::new(held);
        let slow = names.resolve_with(clock, clock.instant(), "slow", move |_| {
            let _ = held.lock().map(|held| held.recv());
            addresses()
        });
        assert!(matches!(slow, Err(NamesError::TimedOut)));
        thread::scope(|scope| {
            let callers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| names.resolve_with(clock, later(clock), "slow", |_| Vec::new()))
                })
                .collect();
            // The callers that arrive after the answer would begin look-ups of their own.
            while Arc::strong_count(names.shared.lock().pending.get("slow").unwrap()) < 2 + 8 {
                thread::yield_now();
            }
            release.send(()).unwrap();
            for caller in callers {
                assert_eq!(caller.join().unwrap().unwrap(), addresses());
            }
        });
        assert!(names.shared.lock().pending.is_empty());
    }

    #[test]
    fn names_are_bounded() {
        let (clock, names) = (OsClock::new(), Names::new(Duration::from_secs(60)));
        let (release, held) = channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for n in 0..=MAX_PENDING_NAMES {
            let held = Arc::clone(&held);
            let found = names.resolve_with(clock, clock.instant(), &n.to_string(), move |_| {
                let _ = held.lock().map(|held| held.recv());
                Vec::new()
            });
            let too_many = matches!(found, Err(NamesError::TooMany { .. }));
            assert_eq!(too_many, n == MAX_PENDING_NAMES);
        }
        drop(release);
        let mut state = State::default();
        for n in 0..=MAX_CACHED_NAMES {
            state.keep(&n.to_string(), later(clock), &addresses());
        }
        assert_eq!(state.known.len(), MAX_CACHED_NAMES);
        assert!(state.get(clock.instant(), "0").is_none());
        assert!(state.get(clock.instant(), "1").is_some());
    }
}
