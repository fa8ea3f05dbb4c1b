//! The contract of a machine, for that of a client: packets and time limits.
//!
//! In: packets, datagrams, time. Out: packets and flights to send, the next deadline.

use std::net::IpAddr;
use std::os::fd::RawFd;

use super::ClientHost;
use super::lookups::{Dns, Exchanges, Lookup};
use super::racing::Racing;
use crate::apps::fetch::TransferFailure;
use crate::host::queries::StackExchanges;
use crate::host::streams::OutgoingStreams;
use crate::host::{Machine, Transmit};
use crate::stack::Demuxed;
use crate::time::{Instant, Now};
use crate::wire::ip::UdpView;

impl Machine for ClientHost {
    fn handle_packet(&mut self, now: Now, packet: &[u8], segment: Option<usize>) {
        match self.tcp.stack.handle_packet(now.instant, packet, segment) {
            Demuxed::Transport(view) => {
                let is_response = match self.stack_exchanges() {
                    Some(exchanges) => exchanges.handle_datagrams(&view, segment),
                    None => false,
                };
                if !is_response {
                    self.pass_datagrams(now, &view, segment);
                }
            }
            Demuxed::Taken => self.handle_tcp_events(),
            Demuxed::Dropped(reason) => log::trace!("packet dropped reason={}", reason.label()),
        }
        self.pump(now);
    }

    fn handle_datagrams(&mut self, now: Now, view: &UdpView<'_>, segment: Option<usize>) {
        match self.tcp.stack.admit(view) {
            Ok(()) => self.pass_datagrams(now, view, segment),
            Err(reason) => log::trace!("datagram dropped reason={}", reason.label()),
        }
        self.pump(now);
    }

    fn handle_unreachable(&mut self, now: Now, address: IpAddr) {
        // Any host that guesses the own port can forge such a report, so it ends nothing that a server has
        // answered: the connection waits for another server or for its time limits.
        self.refuse(now, address);
        self.pump(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.tcp.stack.handle_timeout(now.instant);
        for client in self.connections.transports_mut() {
            client.handle_timeout(now);
        }
        if let Some(dns) = &mut self.dns {
            dns.handle_timeout(now);
        }
        self.handle_limits(now);
        self.pump(now);
    }

    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        if let Some(flight) = self.poll_flight(now) {
            return Some(Transmit::Flight(flight));
        }
        if let Some(packet) = self.tcp.stack.poll_transmit(now.instant) {
            return Some(packet.into());
        }
        if let Some(query) = self
            .stack_exchanges()
            .and_then(StackExchanges::poll_transmit)
        {
            return Some(Transmit::Packet(query));
        }
        // TCP may have lost patience while it had nothing to send.
        self.handle_tcp_events();
        self.pump(now);
        self.tcp
            .stack
            .poll_transmit(now.instant)
            .map(Transmit::from)
    }

    fn poll_timeout(&mut self, now: Now) -> Option<(Instant, &'static str)> {
        let connections = self.connections.iter();
        let transport = connections
            .filter_map(|(_, connection)| connection.transport()?.poll_timeout())
            .min();
        let running = self.running.as_ref();
        let connect = running
            .and_then(|running| running.connect_by)
            .map(|at| (at, "connect"));
        let finish = running
            .and_then(|running| running.finish_by)
            .map(|at| (at, "max time"));
        let idle = running
            .and_then(|running| running.idle_by)
            .map(|at| (at, "idle"));
        let flush = running
            .and_then(|running| running.flush_at)
            .map(|at| (at, "flush"));
        let kernel = self.tcp.kernel().and_then(OutgoingStreams::deadline);
        let kernel = kernel.map(|at| (at, "TCP of the kernel"));
        let stack = self.tcp.stack.poll_timeout(now.instant);
        let race = running.and_then(|running| running.race.as_ref()?.poll_timeout());
        let race = race.map(|at| (at, "race"));
        let names = self.dns.as_ref().and_then(Dns::poll_timeout);
        let names = names.map(|at| (at, "names"));
        let others = [flush, race, stack, kernel, names];
        [transport, connect, finish, idle]
            .into_iter()
            .chain(others)
            .flatten()
            .min()
    }

    fn descriptors(&self) -> Vec<RawFd> {
        let streams = self.tcp.kernel().and_then(OutgoingStreams::descriptor);
        let queries = match self.dns.as_ref().map(|dns| &dns.exchanges) {
            Some(Exchanges::Kernel(sockets)) => Some(sockets.descriptor()),
            Some(Exchanges::Stack(_)) | None => None,
        };
        streams.into_iter().chain(queries).collect()
    }
}

impl ClientHost {
    fn stack_exchanges(&mut self) -> Option<&mut StackExchanges> {
        match &mut self.dns.as_mut()?.exchanges {
            Exchanges::Stack(exchanges) => Some(exchanges),
            Exchanges::Kernel(_) => None,
        }
    }

    /// Ends the transfer if one of its time limits has passed, and flushes its output if it is time to.
    fn handle_limits(&mut self, now: Now) {
        let Some(running) = &mut self.running else {
            return;
        };
        let passed = |limit: Option<Instant>| limit.is_some_and(|at| at <= now.instant);
        let is_idle = passed(running.idle_by);
        if is_idle {
            // While the output has no room, nothing is read: its reader is slow, not the server.
            let slow = running.transfer.is_reading() && !running.transfer.has_room();
            running.idle_by = slow.then(|| now.instant + self.config.idle_timeout);
        }
        let failure = if passed(running.connect_by) {
            let racing = running.race.as_ref();
            let attempts = racing.map(Racing::attempts).unwrap_or_default();
            let resolving = running.lookup.as_ref().and_then(Lookup::timed_out);
            Some(resolving.unwrap_or(TransferFailure::ConnectTimedOut { attempts }))
        } else {
            let silent = is_idle && running.idle_by.is_none() && running.transfer.is_reading();
            (passed(running.finish_by) || silent).then_some(TransferFailure::TimedOut)
        };
        if let Some(failure) = failure {
            self.fail(now, failure);
        } else if passed(running.flush_at) {
            self.flush(now);
        }
    }
}
