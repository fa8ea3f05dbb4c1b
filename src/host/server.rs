//! The machine of a server: a stack, the transport's server and one application, which responds over
//! the transport and, for clients that do not speak it, over TCP.
//!
//! In: IP packets, or datagrams of sockets, and time. Out: IP packets and flights. Keeps no per-client state except TCP
//! connections, whose number the stack bounds.

use std::collections::VecDeque;
use std::net::IpAddr;

use etherparse::IpNumber;

use crate::apps::origin::Origin;
use crate::host::config::ServerHostConfig;
use crate::host::metrics::Metric;
use crate::host::streams::TcpStreams;
use crate::host::web::Web;
use crate::host::{Machine, Transmit};
use crate::redirect::backend::{Backend, BackendConfig, Taken};
use crate::stack::{Demuxed, Stack, StackConfig, StackCounters, StackError};
use crate::time::{Instant, Now};
use crate::transport::application::{Application, Ticket};
use crate::transport::keys::KeyRing;
use crate::transport::server::{Server, ServerConfig};
use crate::wire::flight::{Ecn, Flight};
use crate::wire::ip::{Checksum, IpView, UdpView};

/// The configuration of a server's side towards redirectors.
#[derive(Clone, Debug)]
pub struct Redirected {
    /// Own addresses, by which redirectors reach this server and at which encapsulated packets
    /// arrive; none of the service.
    pub addresses: Vec<IpAddr>,
    /// UDP port of encapsulation and heartbeats.
    pub port: u16,
    /// The redirectors it accepts packets from.
    pub backend: BackendConfig,
}

/// Most flights that wait to be sent. The loop drains them after each packet, so only a device that
/// coalesces very many datagrams reaches the bound.
pub const MAX_FLIGHTS: usize = 1024;

/// The machine of a server.
pub struct ServerHost<A> {
    stack: Stack,
    server: Server,
    web: Web,
    /// HTTP over TCP connections of the kernel, once there are any.
    kernel_web: Option<Web>,
    /// Finished work that connections of the kernel wait for.
    finished: Vec<Ticket>,
    app: A,
    flights: VecDeque<Flight>,
    /// Requests dropped because too many flights waited.
    overflow: u64,
    redirected: Option<RedirectedSide>,
}

/// The side towards redirectors.
struct RedirectedSide {
    addresses: Vec<IpAddr>,
    port: u16,
    backend: Backend,
    reply: Vec<u8>,
}

impl RedirectedSide {
    /// Returns the datagrams in a packet for this side.
    fn view<'a>(&self, packet: &'a [u8], segment: Option<usize>) -> Option<UdpView<'a>> {
        // Most packets end here, after one comparison.
        if udp_port(packet)? != self.port {
            return None;
        }
        let view = IpView::parse(packet).ok()?;
        let view = view.udp(Checksum::of(segment)).ok()?;
        let own = self.addresses.contains(&view.path.dst.ip());
        own.then_some(view)
    }
}

/// Returns the destination port of a UDP packet without IP options.
fn udp_port(packet: &[u8]) -> Option<u16> {
    let at = match *packet.first()? {
        0x45 if packet.get(9) == Some(&IpNumber::UDP.0) => 22,
        first if first >> 4 == 6 && packet.get(6) == Some(&IpNumber::UDP.0) => 42,
        _ => return None,
    };
    Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?))
}

impl<A: Application> ServerHost<A> {
    /// Creates a server that responds from the first packet on.
    ///
    /// # Errors
    /// [`StackError`] if the addresses or the port are unusable.
    pub fn new(
        now: Now,
        config: ServerHostConfig,
        keys: KeyRing,
        app: A,
    ) -> Result<Self, StackError> {
        let ServerHostConfig {
            addresses,
            mtu,
            tcp_port,
            udp_port,
            server_id,
            site_id,
            seed,
            sockets,
        } = config;
        let transport_ports = udp_port..=udp_port;
        let settings = StackConfig {
            addresses,
            mtu,
            transport_ports,
            seed,
        };
        let mut stack = Stack::new(now.instant, settings)?;
        if !sockets {
            stack.listen(tcp_port)?;
        }
        Ok(Self {
            stack,
            server: Server::new(
                ServerConfig {
                    server_id,
                    site_id,
                    mtu,
                },
                keys,
            ),
            web: Web::default(),
            kernel_web: None,
            finished: Vec::new(),
            app,
            flights: VecDeque::new(),
            overflow: 0,
            redirected: None,
        })
    }

    /// Also accepts encapsulated packets and heartbeats of redirectors from now on.
    pub fn listen_to_redirectors(&mut self, config: Redirected) {
        self.redirected = Some(RedirectedSide {
            addresses: config.addresses,
            port: config.port,
            backend: Backend::new(config.backend),
            reply: Vec::new(),
        });
    }

    /// Asks redirectors to drain this server, or to activate it again.
    pub const fn set_draining(&mut self, draining: bool) {
        if let Some(side) = &mut self.redirected {
            side.backend.set_draining(draining);
        }
    }

    /// Ends TCP connections: idle ones at once, others after their response or with a reset after
    /// [`SHUTDOWN_TIMEOUT`](crate::host::web::SHUTDOWN_TIMEOUT). The transport continues, since its
    /// connections continue at any other server.
    pub fn shut_down(&mut self, now: Now) {
        self.web.shut_down(now, &mut self.stack);
    }

    /// Whether [`shut_down`](Self::shut_down) was called and all TCP connections have ended.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        let kernel = self.kernel_web.as_ref();
        self.web.is_shut_down() && kernel.is_none_or(Web::is_shut_down)
    }

    /// Serves TCP connections of the kernel like those of the stack: their events, deadlines, and those
    /// that waited for the application. To be called once per turn.
    pub fn serve_streams(&mut self, now: Now, streams: &mut impl TcpStreams) {
        let web = self.kernel_web.get_or_insert_default();
        web.handle_timeout(now, streams, &mut self.app);
        self.wake(now);
        if let Some(web) = &mut self.kernel_web {
            for ticket in self.finished.drain(..) {
                web.wake(now, ticket, streams, &mut self.app);
            }
            web.handle_events(now, streams, &mut self.app);
        }
    }

    /// The latest time of the next `serve_streams`.
    #[must_use]
    pub fn streams_timeout(&self) -> Option<Instant> {
        self.kernel_web.as_ref()?.poll_timeout()
    }

    /// Ends TCP connections of the kernel as [`shut_down`](Self::shut_down) ends those of the stack.
    pub fn shut_down_streams(&mut self, now: Now, streams: &mut impl TcpStreams) {
        let web = self.kernel_web.get_or_insert_default();
        web.shut_down(now, streams);
    }

    /// The transport's server.
    #[must_use]
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// The counters of plain HTTP over TCP.
    #[cfg(test)]
    pub(super) const fn web_counters(&self) -> &crate::host::web::WebCounters {
        self.web.counters()
    }

    /// The stack's counters.
    #[must_use]
    pub const fn stack_counters(&self) -> &StackCounters {
        self.stack.counters()
    }

    /// Replaces the key ring; continuations sealed under a generation in the new ring stay valid.
    pub fn set_keys(&mut self, keys: KeyRing) {
        self.server.set_keys(keys);
    }

    /// The application.
    pub const fn application_mut(&mut self) -> &mut A {
        &mut self.app
    }

    /// Collects the metrics.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let mut metrics = self.transport_metrics().to_vec();
        metrics.extend(self.web_metrics());
        metrics.extend(stack_metrics(&self.stack));
        if let Some(side) = &self.redirected {
            metrics.extend(redirected_metrics(&side.backend));
        }
        metrics
    }

    fn transport_metrics(&self) -> [Metric; 9] {
        let counters = self.server.counters();
        let drops = counters.drops().iter();
        [
            Metric::counter(
                "headwater_opens_total",
                "Connections opened.",
                counters.opens,
            ),
            Metric::counter(
                "headwater_requests_total",
                "Requests answered.",
                counters.requests,
            ),
            Metric::counter(
                "headwater_response_packets_total",
                "Response packets sent.",
                counters.packets,
            ),
            Metric::counter(
                "headwater_stream_bytes_total",
                "Stream bytes sent.",
                counters.bytes,
            ),
            Metric::by_label(
                "headwater_request_drops_total",
                "Requests dropped, by reason.",
                "reason",
                drops.map(|&(reason, count)| (reason.to_owned(), count)),
            ),
            Metric::counter(
                "headwater_flight_overflow_total",
                "Requests dropped because too many flights waited.",
                self.overflow,
            ),
            Metric::counter(
                "headwater_waits_total",
                "Requests whose clients were asked to wait for the application.",
                counters.waits,
            ),
            Metric::gauge(
                "headwater_parked_requests",
                "Requests that wait for the application.",
                u64::try_from(self.server.parked()).unwrap_or(u64::MAX),
            ),
            Metric::gauge(
                "headwater_soft_state_bytes",
                "Memory of the replay filter and the token buckets; constant.",
                u64::try_from(self.server.soft_state_bytes()).unwrap_or(u64::MAX),
            ),
        ]
    }

    fn web_metrics(&self) -> [Metric; 7] {
        let kernel = self.kernel_web.as_ref();
        let counters = self.web.counters();
        let counters = kernel.map_or_else(|| counters.clone(), |web| counters.plus(web.counters()));
        let open = self.web.connections() + kernel.map_or(0, Web::connections);
        [
            Metric::counter(
                "headwater_tcp_accepted_total",
                "TCP connections accepted.",
                counters.accepted,
            ),
            Metric::counter(
                "headwater_tcp_requests_total",
                "Requests answered over TCP.",
                counters.requests,
            ),
            Metric::counter(
                "headwater_tcp_bytes_total",
                "Response bytes written to TCP.",
                counters.bytes,
            ),
            Metric::counter(
                "headwater_tcp_timeouts_total",
                "TCP connections aborted by a timeout.",
                counters.timeouts,
            ),
            Metric::counter(
                "headwater_tcp_evictions_total",
                "TCP connections reset to make room for others.",
                counters.evictions,
            ),
            Metric::counter(
                "headwater_tcp_changed_total",
                "Responses over TCP aborted because their object changed.",
                counters.changed,
            ),
            Metric::gauge(
                "headwater_tcp_connections",
                "Open TCP connections.",
                u64::try_from(open).unwrap_or(u64::MAX),
            ),
        ]
    }
}

impl ServerHost<Origin> {
    /// Collects the metrics of the memory cache.
    #[must_use]
    pub fn hot_metrics(&self) -> [Metric; 5] {
        let hot = self.app.hot();
        let counters = hot.counters();
        [
            Metric::gauge(
                "headwater_hot_files",
                "Files in the memory cache.",
                u64::try_from(hot.files()).unwrap_or(u64::MAX),
            ),
            Metric::gauge(
                "headwater_hot_bytes",
                "Bytes of files in the memory cache or being loaded into it.",
                hot.bytes(),
            ),
            Metric::counter(
                "headwater_hot_sent_bytes_total",
                "Stream bytes sent from the memory cache.",
                counters.staged_bytes,
            ),
            Metric::counter(
                "headwater_hot_loads_total",
                "Files loaded into the memory cache.",
                counters.loads,
            ),
            Metric::counter(
                "headwater_hot_evictions_total",
                "Files evicted from the memory cache.",
                counters.evictions,
            ),
        ]
    }
}

/// Collects the metrics of the side towards redirectors.
fn redirected_metrics(backend: &Backend) -> [Metric; 6] {
    let counters = backend.counters();
    [
        Metric::counter(
            "headwater_redirected_packets_total",
            "Packets received from redirectors.",
            counters.packets,
        ),
        Metric::counter(
            "headwater_redirected_bytes_total",
            "Bytes of packets received from redirectors, without encapsulation.",
            counters.bytes,
        ),
        Metric::counter(
            "headwater_redirected_heartbeats_total",
            "Heartbeats of redirectors answered.",
            counters.queries,
        ),
        Metric::counter(
            "headwater_redirected_stale_total",
            "Packets and heartbeats of redirectors with an outdated configuration.",
            counters.stale,
        ),
        Metric::gauge(
            "headwater_redirected_generation",
            "Newest configuration generation of any redirector.",
            u64::from(backend.newest().0),
        ),
        Metric::by_label(
            "headwater_redirected_refused_total",
            "Encapsulated packets and heartbeats ignored, by reason.",
            "reason",
            counters
                .refused
                .iter()
                .map(|(reason, count)| (reason.to_owned(), count)),
        ),
    ]
}

/// Collects the metrics of a stack, for any machine.
pub(super) fn stack_metrics(stack: &Stack) -> [Metric; 5] {
    let counters = stack.counters();
    [
        Metric::counter(
            "headwater_ip_packets_received_total",
            "IP packets received.",
            counters.packets_in,
        ),
        Metric::counter(
            "headwater_ip_bytes_received_total",
            "Bytes of IP packets received.",
            counters.bytes_in,
        ),
        Metric::counter(
            "headwater_ip_packets_sent_total",
            "IP packets sent for TCP and ICMP.",
            counters.packets_out,
        ),
        Metric::counter(
            "headwater_ip_bytes_sent_total",
            "Bytes of IP packets sent for TCP and ICMP.",
            counters.bytes_out,
        ),
        Metric::by_label(
            "headwater_ip_drops_total",
            "IP packets dropped, by reason.",
            "reason",
            counters
                .drops
                .iter()
                .map(|(reason, count)| (reason.label().to_owned(), count)),
        ),
    ]
}

impl<A: Application> ServerHost<A> {
    /// Serves a packet for a service address, encapsulated or not.
    fn serve(&mut self, now: Now, packet: &[u8], segment: Option<usize>) {
        match self.stack.handle_packet(now.instant, packet, segment) {
            Demuxed::Transport(view) => self.respond(now, &view, segment),
            Demuxed::Taken => self.web.handle_events(now, &mut self.stack, &mut self.app),
            Demuxed::Dropped(reason) => log::trace!("packet dropped reason={}", reason.label()),
        }
    }

    /// Answers datagrams for the transport.
    fn respond(&mut self, now: Now, view: &UdpView<'_>, segment: Option<usize>) {
        for datagram in view.datagrams(segment) {
            if self.flights.len() >= MAX_FLIGHTS {
                self.overflow += 1;
                continue;
            }
            let waits = self.server.counters().waits;
            let answer = self.server.respond(now, view.path, datagram, &mut self.app);
            let answered = answer.is_some() && self.server.counters().waits == waits;
            self.flights.extend(answer);
            if let Some(side) = &mut self.redirected {
                side.backend.count_packet(answered);
            }
        }
    }

    /// Passes on which work the application has done since.
    fn wake(&mut self, now: Now) {
        while let Some(ticket) = self.app.poll_ready() {
            self.server.wake(ticket);
            if let Some(web) = &self.kernel_web
                && web.waits_for(ticket)
            {
                self.finished.push(ticket);
            }
            self.web.wake(now, ticket, &mut self.stack, &mut self.app);
        }
    }

    /// Serves packets of redirectors; does not decapsulate twice.
    fn unwrap(&mut self, now: Now, view: UdpView<'_>, segment: Option<usize>) {
        for datagram in view.datagrams(segment) {
            let Some(side) = &mut self.redirected else {
                return;
            };
            match side.backend.handle(now.instant, datagram, &mut side.reply) {
                Some(Taken::Packet(packet)) => {
                    side.backend.meter(now.instant);
                    self.serve(now, packet, None);
                }
                Some(Taken::Reply) if self.flights.len() < MAX_FLIGHTS => {
                    let (path, reply) = (view.path.reversed(), side.reply.clone());
                    self.flights
                        .push_back(Flight::single(path, Ecn::NotEct, reply));
                }
                Some(Taken::Reply) => self.overflow += 1,
                None => {}
            }
        }
    }
}

impl<A: Application> Machine for ServerHost<A> {
    fn handle_packet(&mut self, now: Now, packet: &[u8], segment: Option<usize>) {
        if let Some(side) = &mut self.redirected {
            if let Some(view) = side.view(packet, segment) {
                return self.unwrap(now, view, segment);
            }
            side.backend.meter(now.instant);
        }
        self.serve(now, packet, segment);
    }

    fn handle_datagrams(&mut self, now: Now, view: &UdpView<'_>, segment: Option<usize>) {
        match self.stack.admit(view) {
            Ok(()) => self.respond(now, view, segment),
            Err(reason) => log::trace!("datagram dropped reason={}", reason.label()),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.stack.handle_timeout(now.instant);
        self.web.handle_timeout(now, &mut self.stack, &mut self.app);
    }

    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        if let Some(flight) = self.flights.pop_front() {
            return Some(Transmit::Flight(flight));
        }
        self.wake(now);
        if let Some(flight) = self.server.poll_parked(now, &mut self.app) {
            if let Some(side) = &mut self.redirected {
                side.backend.count_answer();
            }
            return Some(Transmit::Flight(flight));
        }
        let packet = self.stack.poll_transmit(now.instant);
        // A transmission may close a connection that has timed out.
        self.web.handle_events(now, &mut self.stack, &mut self.app);
        packet
            .or_else(|| self.stack.poll_transmit(now.instant))
            .map(Transmit::from)
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        self.stack.recycle(buffer);
    }

    fn poll_timeout(&mut self, now: Now) -> Option<(Instant, &'static str)> {
        let web = self.web.poll_timeout().map(|at| (at, "HTTP over TCP"));
        let stack = self.stack.poll_timeout(now.instant);
        [web, stack].into_iter().flatten().min()
    }
}
