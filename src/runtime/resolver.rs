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

use crate::connect::resolve::{Hosts, MAX_HOSTS_BYTES};
use crate::host::client::ClientHost;
use crate::host::names::LookupAnswer;
use crate::runtime::LoopWaker;
use crate::time::Now;

/// The file that maps host names to addresses.
const HOSTS: &str = "/etc/hosts";

/// Reads `/etc/hosts`; an unreadable file counts as empty.
#[must_use]
pub fn read_hosts() -> Hosts {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_HOSTS_BYTES).unwrap_or(u64::MAX);
    if let Ok(file) = File::open(HOSTS) {
        // The bytes before an error count.
        let _ = file.take(limit).read_to_end(&mut bytes);
    }
    Hosts::parse(&String::from_utf8_lossy(&bytes))
}

/// Most look-ups at once, each on a thread; a further name counts as unknown.
pub const MAX_LOOKUPS: usize = 8;

type Answer = (String, Vec<IpAddr>);

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
        look_up: impl Fn(&str) -> Vec<IpAddr> + Copy + Send + 'static,
    ) {
        while let Some(host) = machine.poll_lookup() {
            if let Err(error) = self.start(host.clone(), look_up) {
                log::warn!("cannot look up {host} ({error})");
                machine.handle_lookup(now, &host, LookupAnswer::Complete(Vec::new()));
            }
        }
        while let Ok((host, addresses)) = self.answers.try_recv() {
            self.running -= 1;
            machine.handle_lookup(now, &host, LookupAnswer::Complete(addresses));
        }
    }

    fn start(
        &mut self,
        host: String,
        look_up: impl Fn(&str) -> Vec<IpAddr> + Send + 'static,
    ) -> io::Result<()> {
        if self.running >= MAX_LOOKUPS {
            return Err(io::Error::other("too many look-ups are under way"));
        }
        let (sender, waker) = (self.sender.clone(), self.waker.clone());
        thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || {
                let addresses = look_up(&host);
                // The loop may have ended.
                let _ = sender.send((host, addresses));
                waker.wake();
            })?;
        self.running += 1;
        Ok(())
    }
}

fn look_up(host: &str) -> Vec<IpAddr> {
    match (host, 0).to_socket_addrs() {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(error) => {
            log::info!("look-up of {host}: {error}");
            Vec::new()
        }
    }
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
                "none" => Vec::new(),
                _ => vec!["2001:db8::1".parse().unwrap()],
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
