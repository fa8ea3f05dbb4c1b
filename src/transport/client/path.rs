//! One path between a client and its service: the addresses, the size of datagrams, whether servers
//! have validated the own address, and all that was measured on it.
//!
//! In: answers, challenges and the time. Out: where a datagram goes and how large it may be, when it
//! may leave, how long to wait for its answer, and whether the delay rises. A path never reads a
//! continuation or a packet of its own: the connection does, and it may move to another path.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::time::{Instant, UnixMillis, micros};
use crate::transport::client::hedge::Hedge;
use crate::transport::client::hystart::{HyStart, Sample};
use crate::transport::client::pacer::Pacer;
use crate::transport::client::rtt::Rtt;
use crate::transport::client::servers::Servers;
use crate::transport::client::uplink::Uplink;
use crate::transport::client::window::Window;
use crate::transport::grant::RESTART_GATE;
use crate::wire::flight::UdpPath;
use crate::wire::ip::max_datagram;
use crate::wire::segment::Cookie;

/// Most spare addresses of a service.
const MAX_SPARES: usize = 15;

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// Own address and the service's, as a datagram to the service carries them.
    addresses: UdpPath,
    /// Other addresses of the service, the next to be tried first.
    spares: VecDeque<SocketAddr>,
    /// Largest datagram that the own device takes, in bytes of UDP payload.
    datagram_max: u16,
    /// Size of the datagrams to ask for, in bytes of UDP payload.
    datagram_size: u16,
    /// The last challenge; requests echo it until a continuation bound to this path comes.
    cookie: Option<Cookie>,
    rtt: Rtt,
    pacer: Pacer,
    hystart: HyStart,
    servers: Servers,
    uplink: Uplink,
    hedge: Hedge,
    /// Whether the first spare has left a copy unanswered so far.
    owes_answer: bool,
    /// Start of the retransmission timeout and of the probe timeout.
    waiting_since: Instant,
    /// Retransmission timeouts since the last answer.
    backoff: u32,
    /// When a datagram was last sent or received.
    active_at: Instant,
}

impl Path {
    /// A path on which nothing was sent; `mtu`: of the own device, in bytes.
    pub(super) fn new(local: SocketAddr, remote: SocketAddr, mtu: u16) -> Self {
        let datagram_max = max_datagram(mtu, remote.ip());
        Self {
            addresses: UdpPath {
                src: local,
                dst: remote,
            },
            spares: VecDeque::new(),
            datagram_max,
            datagram_size: datagram_max,
            cookie: None,
            rtt: Rtt::default(),
            pacer: Pacer::default(),
            hystart: HyStart::default(),
            servers: Servers::default(),
            uplink: Uplink::default(),
            hedge: Hedge::default(),
            owes_answer: false,
            waiting_since: Instant::ZERO,
            backoff: 0,
            active_at: Instant::ZERO,
        }
    }

    // --- Addresses, size and validation ---

    /// Own address and the service's, as a datagram to the service carries them.
    pub(super) const fn addresses(&self) -> UdpPath {
        self.addresses
    }

    /// Whether a datagram with these addresses came on this path, or from a spare address.
    pub(super) fn is_path_of(&self, incoming: UdpPath) -> bool {
        let own = incoming.dst == self.addresses.src;
        own && (incoming.src == self.addresses.dst || self.spares.contains(&incoming.src))
    }

    /// Sets other addresses of the service, the best first; those of another family and all beyond
    /// [`MAX_SPARES`] are left out.
    pub(super) fn set_spares(&mut self, spares: impl IntoIterator<Item = SocketAddr>) {
        let present = self.addresses.dst;
        let usable = |spare: &SocketAddr| spare.is_ipv4() == present.is_ipv4() && *spare != present;
        self.spares = spares.into_iter().filter(usable).take(MAX_SPARES).collect();
    }

    /// Adds other addresses of the service behind those that are known.
    pub(super) fn add_spares(&mut self, spares: impl IntoIterator<Item = SocketAddr>) {
        let mut all: Vec<SocketAddr> = self.spares.iter().copied().collect();
        for spare in spares {
            if !all.contains(&spare) {
                all.push(spare);
            }
        }
        self.set_spares(all);
    }

    /// The addresses to which a datagram goes in addition while timeouts are unanswered: one spare after each timeout.
    pub(super) fn beside(&self) -> Option<UdpPath> {
        if self.backoff == 0 {
            return None;
        }
        let spare = *self.spares.front()?;
        Some(UdpPath {
            src: self.addresses.src,
            dst: spare,
        })
    }

    // --- Copies of overdue requests ---

    /// The timeouts after which each spare had its turn; 1 without spares.
    pub(super) fn turns(&self) -> u32 {
        u32::try_from(self.spares.len()).map_or(1, |count| count.max(1))
    }

    /// Takes note of a request, of which a spare may get a copy.
    pub(super) fn requested(&mut self, now: Instant, datagram: &[u8]) {
        if !self.spares.is_empty() {
            self.hedge.requested(now, datagram);
        }
    }

    /// When a copy of the last request is due if no answer comes.
    pub(super) fn copy_at(&self) -> Option<Instant> {
        let has_spare = !self.spares.is_empty() && self.backoff == 0;
        has_spare.then(|| self.hedge.due(self.waiting_since))?
    }

    /// Takes the copy of the last request, and the addresses of the spare that gets it: the same one as long as it answers.
    pub(super) fn copy(&mut self, now: Instant) -> Option<(UdpPath, Vec<u8>)> {
        let datagram = self.hedge.copy(now)?;
        if core::mem::replace(&mut self.owes_answer, true) {
            self.spares.rotate_left(1);
        }
        let dst = *self.spares.front()?;
        let src = self.addresses.src;
        Some((UdpPath { src, dst }, datagram))
    }

    /// Takes note of where an answer came from.
    pub(super) fn answered_from(&mut self, from: SocketAddr) {
        match from == self.addresses.dst {
            true => self.hedge.answered(),
            false => self.owes_answer = false,
        }
    }

    /// Whether an answer may be that of a copy, whose round trip is not known.
    pub(super) const fn has_copy_under_way(&self) -> bool {
        self.hedge.is_under_way()
    }

    /// Whether the present address has not answered for long: a spare that does replaces it.
    pub(super) const fn is_silent(&self) -> bool {
        self.backoff > 0 || self.hedge.is_silent()
    }

    /// The round trip to a spare, if an answer that comes now is that of a copy; none after timeouts, whose requests
    /// go to several spares.
    pub(super) fn since_copy(&self, now: Instant) -> Option<Duration> {
        let since = self.hedge.since_copy(now);
        since.filter(|_| self.backoff == 0)
    }

    /// Goes on at the spare address that answers while the present one is silent, after `round_trip` if it is known;
    /// returns whether `from` is one.
    pub(super) fn switch(&mut self, from: SocketAddr, round_trip: Option<Duration>) -> bool {
        let Some(spare) = self.spares.iter_mut().find(|spare| **spare == from) else {
            return false;
        };
        core::mem::swap(spare, &mut self.addresses.dst);
        self.hedge.answered();
        self.forget();
        if let Some(round_trip) = round_trip {
            self.rtt.sample(round_trip);
        }
        true
    }

    /// Largest datagram that may be requested, in bytes of UDP payload.
    pub(super) const fn datagram_max(&self) -> u16 {
        self.datagram_max
    }

    /// Size of the datagrams to ask for, in bytes of UDP payload.
    pub(super) const fn datagram_size(&self) -> u16 {
        self.datagram_size
    }

    /// The answer to the last challenge, if one is due.
    pub(super) const fn cookie(&self) -> Option<Cookie> {
        self.cookie
    }

    /// Takes a challenge; returns whether it is a new one.
    pub(super) fn challenge(&mut self, cookie: Cookie) -> bool {
        self.cookie.replace(cookie) != Some(cookie)
    }

    /// Notes the arrival of a continuation bound to this path.
    pub(super) const fn validated(&mut self) {
        self.cookie = None;
    }

    // --- Measurements ---

    /// The round trips.
    pub(super) const fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// The round trip that an event declares for the next epoch, in microseconds.
    pub(super) fn rtt_us(&self) -> u64 {
        micros(self.rtt.of_next_epoch())
    }

    /// Takes the round trip of the OPEN that opened a connection.
    pub(super) fn sample_open(&mut self, round_trip: Duration) {
        self.rtt.sample(round_trip);
        self.hedge.sample(round_trip);
    }

    /// Takes a round trip to `server`; returns how long the answer waited in queues.
    pub(super) fn sample(&mut self, now: Instant, server: u16, round_trip: Duration) -> Duration {
        self.rtt.sample(round_trip);
        self.hedge.sample(round_trip);
        let waited = self.servers.sample(server, round_trip);
        if let Some(least) = self.servers.settle(now, self.rtt.expected()) {
            self.rtt.set_min(least);
        }
        waited
    }

    /// Takes the issue time of the continuation in an answer of `server`, whose request left at `sent` and
    /// which, together with the answer, waited so long in queues.
    pub(super) fn issued(
        &mut self,
        server: u16,
        sent: Instant,
        issued: UnixMillis,
        waited: Duration,
    ) {
        let least = self.servers.farthest();
        self.uplink.sample(server, sent, issued, waited, least);
    }

    /// Whether issue times should be requested, because packets wait: in front of the servers or behind them.
    pub(super) fn wants_issue_times(&self) -> bool {
        self.uplink.is_full() || Uplink::may_be_full(&self.rtt)
    }

    /// The size of a flight of `packets` packets, if requests may have to wait.
    pub(super) const fn enlarge(&self, packets: u32) -> u32 {
        self.uplink.enlarge(packets)
    }

    /// Takes note of an arrival, for the rate at which packets come.
    pub(super) fn arrived(&mut self, now: Instant) {
        self.hystart.arrived(now);
    }

    /// Takes the time that the answer with `number` waited in queues; returns whether slow start
    /// should end.
    pub(super) fn delays(
        &mut self,
        now: Instant,
        number: u64,
        waited: Duration,
        window: &Window,
    ) -> bool {
        let sample = Sample {
            number,
            highest: window.highest(),
            window: window.packets(),
            waited,
            least: self.servers.farthest(),
            spread: self.servers.spread(),
        };
        self.hystart.sample(now, &sample)
    }

    /// Takes note of the server that answered.
    pub(super) fn note_server(&mut self, now: Instant, server: u16) {
        self.servers.note(now, server);
    }

    /// If several servers answer by turns: how much farther away the farthest is than the nearest.
    pub(super) fn spread(&self, now: Instant) -> Option<Duration> {
        self.has_several_servers(now).then(|| self.servers.spread())
    }

    /// Whether several servers answer, by turns.
    pub(super) fn has_several_servers(&self, now: Instant) -> bool {
        self.servers.are_several(now, self.rtt.expected())
    }

    /// Whether several servers answer by turns whose distances differ by more than noise. Then lost
    /// packets leave gaps between those that came, and large flights keep the gaps few (the server
    /// takes [`MAX_PENDING_SPANS`](crate::transport::grant::MAX_PENDING_SPANS)).
    pub(super) fn servers_are_apart(&self, now: Instant) -> bool {
        let spread = self.spread(now).unwrap_or_default();
        spread > self.rtt.expected() / 8
    }

    /// Begins a connection of datagrams of at most `size` bytes, whose packet numbers start again.
    pub(super) fn begin_connection(&mut self, size: u16) {
        self.datagram_size = size.min(self.datagram_max);
        self.cookie = None;
        self.forget_delays();
    }

    /// Forgets round trips, distances and delays: the path leads elsewhere.
    pub(super) fn forget(&mut self) {
        self.rtt.reset();
        self.forget_delays();
    }

    /// Forgets the delays of rounds, and the distances that they are measured from.
    fn forget_delays(&mut self) {
        self.hystart = HyStart::default();
        self.uplink = Uplink::default();
        self.servers.forget_path();
    }

    // --- Pacing ---

    /// When the next request may leave.
    pub(super) const fn ready_at(&self) -> Instant {
        self.pacer.ready_at()
    }

    /// Takes note of a request for `count` packets at a window of `window` packets.
    pub(super) fn pace(&mut self, now: Instant, count: u32, window: u32, slow_start: bool) {
        let rtt = self.rtt.expected();
        self.pacer.sent(now, count, window, rtt, slow_start);
    }

    /// Lets the next request leave at once.
    pub(super) const fn reset_pace(&mut self, now: Instant) {
        self.pacer.reset(now);
    }

    // --- Liveness and timers ---

    /// Takes note of an answer: the path carries packets both ways.
    pub(super) const fn answered(&mut self, now: Instant) {
        self.waiting_since = now;
        self.active_at = now;
        self.backoff = 0;
    }

    /// Takes note of the answer to a probe: the path carries packets both ways. While a retransmission
    /// timeout is unanswered it still backs off: servers whose clocks differ may refuse the timeout that
    /// follows each probe too soon.
    pub(super) const fn probed(&mut self, now: Instant) {
        self.active_at = now;
        if self.backoff == 0 {
            self.waiting_since = now;
        }
    }

    /// Takes note of a datagram that was sent.
    pub(super) const fn sent(&mut self, now: Instant) {
        self.active_at = now;
    }

    /// Starts the timeouts again.
    pub(super) const fn wait_from(&mut self, now: Instant) {
        self.waiting_since = now;
    }

    /// Forgets that timeouts passed without an answer.
    pub(super) const fn reset_backoff(&mut self) {
        self.backoff = 0;
    }

    /// Backs off after a retransmission timeout.
    pub(super) fn timed_out(&mut self, now: Instant) {
        if self.backoff > 0 && !self.spares.is_empty() {
            self.spares.rotate_left(1);
        }
        self.backoff += 1;
        self.waiting_since = now;
    }

    /// Start of the running timeouts.
    pub(super) const fn waiting_since(&self) -> Instant {
        self.waiting_since
    }

    /// Retransmission timeouts since the last answer.
    pub(super) const fn backoff(&self) -> u32 {
        self.backoff
    }

    /// When a probe is due if no answer comes.
    pub(super) fn probe_at(&self) -> Instant {
        self.waiting_since + self.rtt.pto()
    }

    /// When the retransmission timeout passes.
    pub(super) fn timeout_at(&self) -> Instant {
        self.waiting_since + self.rtt.rto(self.backoff)
    }

    /// Whether so long has passed without traffic that the window says nothing of the path any more
    /// (RFC 5681 §4.1).
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let idle = now.saturating_since(self.active_at);
        idle >= RESTART_GATE.max(self.rtt.rto(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether slow start ends in a round of 10 ms each that follows one without a wait; `moved`: to
    /// another path in between.
    fn ends_slow_start(moved: bool) -> bool {
        let (local, remote) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let mut path = Path::new((local, 5000).into(), (remote, 7600).into(), 1500);
        let mut now = Instant::ZERO;
        let mut window = Window::new(10, b"sealed", now);
        let mut round = |path: &mut Path, numbers: std::ops::RangeInclusive<u64>, waited| {
            window.asked(*numbers.end());
            numbers.fold(false, |ends, number| {
                now += Duration::from_millis(1);
                path.delays(now, number, waited, &window) || ends
            })
        };
        assert!(!round(&mut path, 1..=20, Duration::ZERO));
        if moved {
            path.forget();
        }
        round(&mut path, 21..=60, Duration::from_millis(10))
    }

    #[test]
    fn delays_of_another_path_do_not_end_slow_start() {
        assert!(ends_slow_start(false));
        assert!(!ends_slow_start(true));
    }
}
