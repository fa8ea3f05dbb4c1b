//! The machine of many concurrent downloads: each is a complete client of the transport with a UDP
//! port of its own, and fetches the same object repeatedly until the time is over.
//!
//! In: IP packets and time. Out: IP packets, flights and a [`DownloadReport`]; counts and discards the
//! bytes. Only visits clients with an event, so that the cost of a packet does not depend on their
//! number. Never reads a clock. The seed determines every random choice.

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use crate::host::{Machine, Transmit};
use crate::instruments::load::config::LoadTarget;
use crate::instruments::load::report::DownloadReport;
use crate::instruments::load::rota::Rota;
use crate::instruments::load::{FIRST_PORT, LoadError};
use crate::stack::{Demuxed, Stack, StackConfig};
use crate::time::{Instant, Now};
use crate::transport::client::{Client, ClientConfig, ClientEvent};
use crate::wire::ip::UdpView;

/// Most concurrent downloads; further ones are rejected.
pub const MAX_DOWNLOADS: u32 = 4096;

/// Receive buffer of each, in bytes: 300 Mbit/s over 100 ms.
const BUFFER_BYTES: usize = 4 << 20;

/// Interval between two samples of the bytes received.
const TICK: Duration = Duration::from_millis(100);

/// Bytes read from a client at a time.
const STAGE_BYTES: usize = 64 * 1024;

/// Time without an answer after which a client gives up and starts over.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The configuration of many downloads.
#[derive(Clone, Debug)]
pub struct DownloadConfig {
    /// The server, from the first own address of its family.
    pub target: LoadTarget,
    /// Concurrent downloads, at most [`MAX_DOWNLOADS`].
    pub connections: u32,
    /// Warm-up, which does not count.
    pub warm: Duration,
    /// The measured interval after the warm-up.
    pub window: Duration,
}

/// A download.
struct Download {
    client: Client,
    bytes: u64,
    window_bytes: u64,
    /// Whether no byte of the present response has been read.
    fresh: bool,
}

/// The machine of many downloads.
pub struct DownloadHost {
    head: Vec<u8>,
    remote: SocketAddr,
    stack: Stack,
    /// Downloads by local port, from [`FIRST_PORT`] on.
    downloads: Vec<Download>,
    rota: Rota,
    stage: Vec<u8>,
    window_from: Instant,
    until: Instant,
    next_tick: Instant,
    done: bool,
    report: DownloadReport,
}

impl DownloadHost {
    /// Creates downloads that start with the first `poll_transmit`; time counts from `now`.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn new(now: Now, config: DownloadConfig) -> Result<Self, LoadError> {
        let target = &config.target;
        target.check()?;
        let have = config.connections;
        if have > MAX_DOWNLOADS {
            return Err(LoadError::TooManyDownloads { have });
        }
        let Some(own) = target.sources().next() else {
            return Err(LoadError::TooManyConnections {
                have,
                addresses: 0,
                most: 0,
            });
        };
        let mut random = ChaCha8Rng::seed_from_u64(target.seed);
        let ports = (FIRST_PORT..).zip(0..have).map(|(port, _)| port);
        let last_port = ports.clone().last().unwrap_or(FIRST_PORT);
        let settings = StackConfig {
            addresses: target.addresses.clone(),
            mtu: target.mtu,
            transport_ports: FIRST_PORT..=last_port,
            seed: random.random(),
        };
        let stack = Stack::new(now.instant, settings)?;
        let downloads = ports.map(|port| {
            let local = SocketAddr::new(own, port);
            Download::begin(now, target, local, random.random())
        });
        let downloads: Vec<Download> = downloads.collect();
        let mut rota = Rota::default();
        (0..downloads.len()).for_each(|number| rota.note(number));
        Ok(Self {
            downloads,
            rota,
            stage: vec![0; STAGE_BYTES],
            window_from: now.instant + config.warm,
            until: now.instant + config.warm + config.window,
            next_tick: now.instant + TICK,
            done: false,
            report: DownloadReport {
                connections: have,
                tick_seconds: TICK.as_secs_f64(),
                window_seconds: config.window.as_secs_f64(),
                ..DownloadReport::default()
            },
            head: config.target.head,
            remote: config.target.remote,
            stack,
        })
    }

    // --- Getters ---

    /// Whether the time is over.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.done
    }

    /// The results since the start.
    #[must_use]
    pub fn report(&self) -> DownloadReport {
        let mut report = self.report.clone();
        for download in &self.downloads {
            report.add(
                download.bytes,
                download.window_bytes,
                &download.client.stats(),
            );
        }
        report
    }

    // --- Shared by getters and the machine ---

    /// Takes due samples and records the end of the time.
    fn tick(&mut self, now: Instant) {
        while self.next_tick <= now.min(self.until) {
            self.report.samples.push(self.report.bytes);
            self.next_tick += TICK;
        }
        self.done |= now >= self.until;
    }

    fn handle_datagrams(&mut self, now: Now, view: UdpView<'_>, segment: Option<usize>) {
        let number = view.path.dst.port().checked_sub(FIRST_PORT);
        let number = usize::from(number.unwrap_or(u16::MAX));
        let download = self.downloads.get_mut(number);
        let Some(download) = download.filter(|_| view.path.src == self.remote) else {
            self.report.strays += 1;
            return;
        };
        let client = &mut download.client;
        client.handle_datagrams(now, view.path, view.ecn, view.datagrams(segment));
        self.advance(now, number);
    }

    /// Reads a download's bytes, and restarts it if it has ended.
    fn advance(&mut self, now: Now, number: usize) {
        let Some(download) = self.downloads.get_mut(number) else {
            return;
        };
        loop {
            let count = download.client.read(now, &mut self.stage);
            if count == 0 {
                break;
            }
            let bytes = self.stage.get(..count).unwrap_or_default();
            if core::mem::take(&mut download.fresh)
                && let Some(status) = status_of(bytes)
            {
                *self.report.statuses.entry(status).or_default() += 1;
            }
            let count = bytes.len() as u64;
            self.report.bytes += count;
            download.bytes += count;
            if now.instant >= self.window_from {
                download.window_bytes += count;
            }
        }
        let mut again = false;
        while let Some(event) = download.client.poll_event() {
            match event {
                ClientEvent::Finished => self.report.finished += 1,
                ClientEvent::Changed => self.report.changed += 1,
                ClientEvent::TimedOut => self.report.timed_out += 1,
                ClientEvent::Connected | ClientEvent::Began { .. } | ClientEvent::Readable => {
                    continue;
                }
            }
            again = true;
        }
        if again {
            download.client.request(now, &self.head);
            download.fresh = true;
        }
        self.rota.note(number);
    }
}

impl Download {
    fn begin(now: Now, target: &LoadTarget, local: SocketAddr, seed: u64) -> Self {
        let settings = ClientConfig {
            local,
            remote: target.remote,
            mtu: target.mtu,
            buffer: BUFFER_BYTES,
            idle_timeout: IDLE_TIMEOUT,
            token: None,
        };
        let mut client = Client::new(settings, seed);
        client.request(now, &target.head);
        Self {
            client,
            bytes: 0,
            window_bytes: 0,
            fresh: true,
        }
    }
}

/// Parses the status code at the start of an HTTP response.
fn status_of(bytes: &[u8]) -> Option<u16> {
    let rest = bytes.strip_prefix(b"HTTP/1.1 ")?;
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}

impl Machine for DownloadHost {
    fn handle_packet(&mut self, now: Now, packet: &[u8], segment: Option<usize>) {
        self.tick(now.instant);
        if self.done {
            return;
        }
        match self.stack.handle_packet(now.instant, packet, segment) {
            Demuxed::Transport(view) => self.handle_datagrams(now, view, segment),
            Demuxed::Taken => {}
            Demuxed::Dropped(reason) => log::trace!("packet dropped reason={}", reason.label()),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.tick(now.instant);
        self.stack.handle_timeout(now.instant);
        while let Some(number) = self.rota.due(now.instant) {
            if let Some(download) = self.downloads.get_mut(number) {
                download.client.handle_timeout(now);
            }
            self.advance(now, number);
        }
    }

    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        while let Some(number) = self.rota.first()
            && !self.done
        {
            let mut download = self.downloads.get_mut(number);
            let client = download.as_mut().map(|download| &mut download.client);
            let deadline = match client {
                Some(client) => match client.poll_transmit(now) {
                    Some(flight) => return Some(Transmit::Flight(flight)),
                    None => client.poll_timeout(),
                },
                None => None,
            };
            self.rota.settle(deadline);
        }
        self.stack.poll_transmit(now.instant).map(Transmit::from)
    }

    fn poll_timeout(&mut self, now: Now) -> Option<(Instant, &'static str)> {
        if self.done {
            return None;
        }
        let own = [
            self.rota.next_at(),
            Some((self.next_tick.min(self.until), "sample")),
            self.stack.poll_timeout(now.instant),
        ];
        own.into_iter().flatten().min()
    }
}
