//! The addresses that the network or the kernel reported as unreachable, until the loop takes them.
//!
//! Anyone may forge such reports, so few are kept and each address once.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;

use rustix::io::Errno;

use crate::wire::flight::Flight;

/// Most addresses kept between two turns of the loop; further ones are forgotten.
pub(super) const MAX_UNREACHABLE: usize = 16;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Unreachable {
    addresses: VecDeque<IpAddr>,
    /// A datagram was longer than the MTU of its route, which is logged once.
    too_long: bool,
}

impl Unreachable {
    pub(super) fn note(&mut self, address: IpAddr) {
        if self.addresses.len() < MAX_UNREACHABLE && !self.addresses.contains(&address) {
            self.addresses.push_back(address);
        }
    }

    /// Takes note that the kernel refused to send datagrams of a flight.
    pub(super) fn note_refusal(&mut self, flight: &Flight, error: &io::Error) {
        let to = flight.path.dst;
        match Errno::from_io_error(error) {
            Some(Errno::MSGSIZE) if !std::mem::replace(&mut self.too_long, true) => {
                let bytes = flight.segment.min(flight.payload.len());
                log::warn!(
                    "datagrams of {bytes} bytes do not fit the MTU of the route to {to}: use a smaller MTU"
                );
            }
            Some(Errno::MSGSIZE | Errno::NOBUFS | Errno::NOMEM) => {}
            _ => {
                log::debug!("cannot send to {to} ({error})");
                self.note(to.ip());
            }
        }
    }

    pub(super) fn pop(&mut self) -> Option<IpAddr> {
        self.addresses.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::flight::{Ecn, sample_path};

    #[test]
    fn few_addresses_are_kept_and_each_once() {
        let mut unreachable = Unreachable::default();
        let address = |n: usize| IpAddr::from([10, 0, 0, n as u8]);
        for n in (0..MAX_UNREACHABLE + 5).chain([3]) {
            unreachable.note(address(n));
        }
        let got: Vec<IpAddr> = std::iter::from_fn(|| unreachable.pop()).collect();
        assert_eq!(got, (0..MAX_UNREACHABLE).map(address).collect::<Vec<_>>());
    }

    #[test]
    fn refusals_are_told_apart() {
        let flight = Flight::single(sample_path(true), Ecn::Ect0, vec![0; 100]);
        let cases = [
            (Errno::NETUNREACH, true),
            (Errno::HOSTUNREACH, true),
            (Errno::PERM, true),
            (Errno::MSGSIZE, false),
            (Errno::NOBUFS, false),
        ];
        for (errno, noted) in cases {
            let mut unreachable = Unreachable::default();
            unreachable.note_refusal(&flight, &errno.into());
            let want = noted.then_some(flight.path.dst.ip());
            assert_eq!(unreachable.pop(), want, "{errno:?}");
        }
    }
}
