//! Name look-ups on threads, for the resolver of the operating system waits for its servers.
//!
//! In: the names that a client machine requests. Out: their addresses, by `getaddrinfo`, passed to the
//! machine in a turn of the loop, which an answer wakes. A look-up cannot be ended early: the machine
//! gives it up at its time limits, and its thread ends when the operating system has given up, too.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::connect::resolve::{Hosts, MAX_HOSTS_BYTES, ResolveError, ResolverConfig};
use crate::host::client::ClientHost;
use crate::host::names::LookupAnswer;
use crate::runtime::LoopWaker;
use crate::time::Now;

/// The file that maps host names to addresses.
const HOSTS: &str = "/etc/hosts";

/// Reads `/etc/hosts`; an unreadable file counts as empty.
#[must_use]
pub fn read_hosts() -> Hosts {
    let limit = u64::try_from(MAX_HOSTS_BYTES).unwrap_or(u64::MAX);
    let bytes = read_start(HOSTS, limit);
    Hosts::parse(&String::from_utf8_lossy(&bytes))
}

/// The file that names the DNS servers of the system.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Longest part of [`RESOLV_CONF`] that is read, in bytes; the rest is ignored.
const MAX_RESOLV_CONF_BYTES: u64 = 64 * 1024;

/// Reads [`RESOLV_CONF`]; an unreadable file counts as empty.
#[must_use]
pub fn read_resolver_config() -> ResolverConfig {
    let bytes = read_start(RESOLV_CONF, MAX_RESOLV_CONF_BYTES);
    ResolverConfig::parse(&String::from_utf8_lossy(&bytes), interface_index)
}

/// Returns the index of an interface of this network namespace, by its name or the index itself.
#[must_use]
pub fn interface_index(name: &str) -> Option<u32> {
    if let Ok(index) = name.parse() {
        return Some(index);
    }
    if name.contains('/') {
        return None;
    }
    let path = format!("/sys/class/net/{name}/ifindex");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Reads at most `limit` bytes of a file; none if it is unreadable.
fn read_start(path: &str, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // The bytes before an error count.
        let _ = file.take(limit).read_to_end(&mut bytes);
    }
    bytes
}

/// Most look-ups at once, each on a thread; a further name counts as unknown.
pub const MAX_LOOKUPS: usize = 8;

type Answer = (String, Result<Vec<IpAddr>, ResolveError>);

/// The look-ups under way.
#[derive(Debug)]
pub struct ThreadResolver {
    waker: LoopWaker,
    sender: SyncSender<Answer>,
    answers: Receiver<Answer>,
    running: usize,
}

impl ThreadResolver {
    /// Creates a resolver without look-ups, whose answers wake a loop.
    #[must_use]
    pub fn new(waker: LoopWaker) -> Self {
        // Never full: a look-up counts as running until its answer is taken.
        let (sender, answers) = sync_channel(MAX_LOOKUPS);
        Self {
            waker,
            sender,
            answers,
            running: 0,
        }
    }

    /// Starts the look-ups that `machine` requests and passes it the answers. To be called once per turn,
    /// and after a transfer was started.
    pub fn turn(&mut self, now: Now, machine: &mut ClientHost) {
        self.exchange(now, machine, look_up);
    }

    fn exchange(
        &mut self,
        now: Now,
        machine: &mut ClientHost,
        look_up: impl Fn(&str) -> Result<Vec<IpAddr>, ResolveError> + Copy + Send + 'static,
    ) {
        while let Some(host) = machine.poll_lookup() {
            if let Err(error) = self.start(host.clone(), look_up) {
                let error = ResolveError::System(error.to_string());
                machine.handle_lookup(now, &host, LookupAnswer::Failed(error));
            }
        }
        while let Ok((host, found)) = self.answers.try_recv() {
            self.running -= 1;
            let answer = found.map_or_else(LookupAnswer::Failed, LookupAnswer::Complete);
            machine.handle_lookup(now, &host, answer);
        }
    }

    fn start(
        &mut self,
        host: String,
        look_up: impl Fn(&str) -> Result<Vec<IpAddr>, ResolveError> + Send + 'static,
    ) -> io::Result<()> {
        if self.running >= MAX_LOOKUPS {
            return Err(io::Error::other("too many look-ups are under way"));
        }
        let (sender, waker) = (self.sender.clone(), self.waker.clone());
        thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || {
                let found = look_up(&host);
                // The loop may have ended.
                let _ = sender.send((host, found));
                waker.wake();
            })?;
        self.running += 1;
        Ok(())
    }
}

fn look_up(host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    let found = (host, 0).to_socket_addrs();
    let found = found.map_err(|error| ResolveError::System(error.to_string()))?;
    Ok(found.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use mio::{Poll, Token, Waker};

    use super::*;
    use crate::apps::fetch::sinks::MemoryOutput;
    use crate::apps::fetch::target::Target;
    use crate::apps::fetch::{Transfer, TransferEvent, TransferFailure};
    use crate::host::config::ClientHostConfig;
    use crate::host::names::Resolution;
    use crate::runtime::OsClock;
    use crate::time::Instant;

    fn start(machine: &mut ClientHost, now: Now, host: &str) {
        let target = Target::parse(&format!("http://{host}/")).unwrap();
        let output = Box::new(MemoryOutput::with_limit(9));
        machine.start(now, Transfer::new(Default::default(), target, output));
    }

    fn failure(machine: &mut ClientHost) -> Option<TransferFailure> {
        if let TransferEvent::Failed(failure) = machine.poll_event()? {
            return Some(failure);
        }
        panic!("something succeeded");
    }

    #[test]
    fn look_ups_are_bounded_and_wait_on_threads() {
        let clock = OsClock::new();
        let own: [IpAddr; 1] = ["192.0.2.1".parse().unwrap()];
        let config = ClientHostConfig::builder(own, 1).resolve(|_| Resolution::Pending);
        let mut machine = ClientHost::new(clock.now(), config.build().unwrap()).unwrap();
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let mut resolver = ThreadResolver::new(LoopWaker(Arc::new(waker)));
        // Until it is unlocked, each look-up hangs.
        static GATE: Mutex<()> = Mutex::new(());
        let closed = GATE.lock().unwrap();
        let look_up = |host: &str| {
            drop(GATE.lock());
            match host {
                "none" => Err(ResolveError::NoName),
                _ => Ok(vec!["2001:db8::1".parse().unwrap()]),
            }
        };
        for n in 0..MAX_LOOKUPS {
            start(&mut machine, clock.now(), &format!("h{n}"));
            resolver.exchange(clock.now(), &mut machine, look_up);
            assert!(failure(&mut machine).is_none());
        }
        start(&mut machine, clock.now(), "one-too-many");
        resolver.exchange(clock.now(), &mut machine, look_up);
        let refused = failure(&mut machine);
        assert!(matches!(
            refused,
            Some(TransferFailure::CannotResolve { .. })
        ));
        drop(closed);
        start(&mut machine, clock.now(), "none");
        while resolver.running > 0 {
            assert!(clock.instant() < Instant::from_micros(60_000_000));
            resolver.exchange(clock.now(), &mut machine, look_up);
        }
        let unknown = failure(&mut machine);
        assert!(matches!(
            unknown,
            Some(TransferFailure::CannotResolve { .. })
        ));
        start(&mut machine, clock.now(), "h0");
        resolver.exchange(clock.now(), &mut machine, look_up);
        let other_family = failure(&mut machine);
        assert!(matches!(other_family, Some(TransferFailure::Family { .. })));
    }
}
