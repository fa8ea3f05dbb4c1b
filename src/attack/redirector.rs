//! Attacks on a redirector: backends that draw traffic and serve nothing, and ICMP errors from a sender
//! that does not see its packets.
//!
//! In: a seed and an effort. Out: the share of the packets that the attack draws or moves, of a
//! redirector with real backends on a perfect network, at 4000 requests per second.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use etherparse::{IpNumber, Ipv4Header};

use super::{Effort, Finding};
use crate::redirect::backend::{Backend, BackendConfig, Taken};
use crate::redirect::capsule::MacKeys;
use crate::redirect::config::RedirectConfig;
use crate::redirect::engine::{EngineSettings, Redirect};
use crate::redirect::prefixes::Table;
use crate::redirect::{BackendId, RedirectorId};
use crate::time::{Instant, Now, UnixMillis};
use crate::wire::flight::{Ecn, UdpPath};
use crate::wire::ip::{Checksum, IpView, emit_udp};
use crate::wire::segment::Request;

/// Backends of the fleet.
const BACKENDS: u16 = 8;

/// Requests per millisecond.
const REQUESTS: u64 = 4;

/// Milliseconds before the measurement.
const WARM_UP: u64 = 2000;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

/// Bytes of the outer IPv4 and UDP headers.
const OUTER: usize = 28;

/// The service of a backend, besides answers to heartbeats.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    Serves,
    /// It answers none.
    Idles,
    /// They are lost on the way.
    Loses,
}

/// A redirector and its backends.
struct Fleet {
    redirect: Redirect,
    backends: Vec<(Backend, Habit)>,
    millis: u64,
    requests: u64,
    /// Packets given to each backend.
    given: Vec<u64>,
}

impl Fleet {
    /// Creates a fleet; `habits` are those of the first backends.
    fn new(policy: &str, seed: u64, habits: &[Habit]) -> Option<Self> {
        let mut text = format!(
            "generation = 1\nid = 1\naddress = [\"{OWN}\"]\nservices = [\"{SERVICE}\"]\nkey-file = \"k\"\n\
             policy = \"{policy}\"\n"
        );
        for id in 1..=BACKENDS {
            text +=
                &format!("[[backend]]\nname = \"s{id}\"\nid = {id}\naddress = \"10.0.1.{id}\"\n");
        }
        let config = RedirectConfig::parse("fleet", &text).ok()?;
        let keys = MacKeys::new((1, [5; 16]), &[]);
        let settings = EngineSettings {
            mtu: 1500,
            keys: keys.clone(),
            table: Table::default(),
            seed,
        };
        let backend = |id| {
            Backend::new(BackendConfig {
                id: BackendId(id),
                redirectors: vec![RedirectorId(1)],
                keys: keys.clone(),
            })
        };
        let habits = habits.iter().copied();
        let habits = habits.chain(core::iter::repeat(Habit::Serves));
        Some(Self {
            redirect: Redirect::new(at(0), &config, settings),
            backends: (1..=BACKENDS).map(backend).zip(habits).collect(),
            millis: 0,
            requests: 0,
            given: vec![0; usize::from(BACKENDS)],
        })
    }

    /// Passes a millisecond with its requests.
    fn pass(&mut self) {
        self.millis += 1;
        let now = at(self.millis);
        if self
            .redirect
            .poll_timeout()
            .is_some_and(|due| due <= now.instant)
        {
            self.redirect.handle_timeout(now);
        }
        self.deliver();
        for _ in 0..REQUESTS {
            self.requests += 1;
            let packet = request(self.requests);
            self.redirect.handle_packet(now, &packet, None);
            self.deliver();
        }
    }

    /// Delivers the redirector's packets to the backends, and their replies back.
    fn deliver(&mut self) {
        let now = at(self.millis);
        while let Some(packet) = self.redirect.outbox().pop() {
            if let Some(reply) = self.receive(now.instant, &packet) {
                self.redirect.handle_packet(now, &reply, None);
            }
            self.redirect.outbox().recycle(packet);
        }
    }

    fn receive(&mut self, now: Instant, packet: &[u8]) -> Option<Vec<u8>> {
        let outer = IpView::parse(packet).ok()?;
        let view = outer.udp(Checksum::Verify).ok()?;
        let index = usize::from(last_octet(outer.dst).checked_sub(1)?);
        let is_packet = packet.get(OUTER) == Some(&PACKET);
        *self.given.get_mut(index)? += u64::from(is_packet);
        let (backend, habit) = self.backends.get_mut(index)?;
        if is_packet && *habit == Habit::Loses {
            return None;
        }
        let mut reply = Vec::new();
        match backend.handle(now, view.payload, &mut reply)? {
            Taken::Packet(_) => {
                backend.meter(now);
                backend.count_packet(*habit == Habit::Serves);
                None
            }
            Taken::Reply => {
                let mut back = vec![0; 200];
                let path = view.path.reversed();
                let length = emit_udp(path, Ecn::NotEct, &reply, 0, &mut back).ok()?;
                back.truncate(length);
                Some(back)
            }
        }
    }

    /// Measures the share of the packets that the first `count` backends get while `attack` acts each
    /// millisecond.
    fn share(&mut self, effort: &Effort, count: usize, mut attack: impl FnMut(&mut Self)) -> f64 {
        for _ in 0..WARM_UP {
            self.pass();
        }
        self.given.fill(0);
        for _ in 0..u64::from(effort.seconds) * 1000 {
            attack(self);
            self.pass();
        }
        let total: u64 = self.given.iter().sum();
        let part: u64 = self.given.iter().take(count).sum();
        as_f64(part) / as_f64(total.max(1))
    }
}

/// First byte of a capsule with a client's packet.
const PACKET: u8 = 0x11;

/// First byte of a query.
const QUERY: u8 = 0x12;

/// Plays backends that answer heartbeats and serve nothing, under `least-loaded`: the share of the
/// packets that they draw, over their fair share.
pub fn black_holes(effort: &Effort) -> Vec<Finding> {
    let cases = [
        ("1 of 8 answers nothing", 1, Habit::Idles),
        ("2 of 8 answer nothing", 2, Habit::Idles),
        ("1 of 8 gets nothing", 1, Habit::Loses),
        ("2 of 8 get nothing", 2, Habit::Loses),
    ];
    let play = |(case, count, habit): (&str, usize, Habit)| {
        let mut fleet = Fleet::new("least-loaded", effort.seed, &vec![habit; count])?;
        let share = fleet.share(effort, count, |_| ());
        Some(Finding {
            case: case.to_owned(),
            gain: share * f64::from(BACKENDS) / as_f64(u64::try_from(count).unwrap_or(1)),
            unit: "x its share of packets",
        })
    };
    cases.into_iter().filter_map(play).collect()
}

/// Plays a sender with knowledge of addresses, identifiers and the time of the start, which quotes a sequence
/// number in each of 3000 ICMP errors per second: the share of the packets that the backends attacked
/// lose.
pub fn blind_icmp(effort: &Effort) -> Vec<Finding> {
    let play = |kind: u8, case: &str| {
        let mut fleet = Fleet::new("spread", effort.seed, &[])?;
        let mut guess = 0_u64;
        let count = usize::from(BACKENDS - 1);
        let share = fleet.share(effort, count, |fleet| {
            for _ in 0..3 {
                guess += 1;
                let backend = u16::try_from(guess % u64::from(BACKENDS - 1)).unwrap_or(0) + 1;
                // The sequence counts up from the start; a quote may be up to 2^20 old.
                let sequence = START * 1000 + guess / u64::from(BACKENDS);
                if let Some(error) = forged_error(kind, backend, sequence) {
                    let now = at(fleet.millis);
                    fleet.redirect.handle_packet(now, &error, None);
                    fleet.deliver();
                }
            }
        });
        let honest = as_f64(u64::from(BACKENDS - 1)) / f64::from(BACKENDS);
        Some(Finding {
            case: case.to_owned(),
            gain: (1.0 - share / honest) * 100.0,
            unit: "% of packets moved",
        })
    };
    let cases = [
        play(PACKET, "quotes of packets to 7 of 8"),
        play(QUERY, "quotes of heartbeats to 7 of 8"),
    ];
    cases.into_iter().flatten().collect()
}

/// Wall-clock milliseconds at the start.
const START: u64 = 1_800_000_000_000;

fn at(millis: u64) -> Now {
    Now {
        instant: Instant::from_micros(millis * 1000),
        unix: UnixMillis::new(START + millis),
    }
}

fn last_octet(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(_) => 0,
    }
}

fn request(connection: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    Request {
        continuation: &[1; 60],
        upto: 1,
        reach: 1,
        proof: 2,
        ..Request::empty(connection, 1400, 1)
    }
    .emit(&mut payload);
    let path = UdpPath {
        src: SocketAddr::from(([192, 0, 2, 7], 4000)),
        dst: SocketAddr::from((SERVICE, 7600)),
    };
    let mut packet = vec![0; 1500];
    let length = emit_udp(path, Ecn::Ect0, &payload, 9, &mut packet).unwrap_or(0);
    packet.truncate(length);
    packet
}

/// Builds an ICMP "host unreachable" that quotes a capsule with that number and a guessed MAC.
fn forged_error(kind: u8, backend: u16, sequence: u64) -> Option<Vec<u8>> {
    let mut capsule = vec![kind, 1];
    capsule.extend(1_u16.to_be_bytes());
    capsule.extend(backend.to_be_bytes());
    capsule.extend(1_u32.to_be_bytes());
    capsule.extend(sequence.to_be_bytes());
    capsule.extend(u128::from(sequence).to_be_bytes());
    capsule.extend([0; 18]);
    let to = Ipv4Addr::new(10, 0, 1, u8::try_from(backend).ok()?);
    let path = UdpPath {
        src: SocketAddr::from((OWN, 7601)),
        dst: SocketAddr::from((to, 7601)),
    };
    let mut quoted = vec![0; 200];
    let length = emit_udp(path, Ecn::NotEct, &capsule, 0, &mut quoted).ok()?;
    let mut error = vec![3, 1, 0, 0, 0, 0, 0, 0];
    error.extend(quoted.get(..length)?);
    let sum: u32 = error
        .chunks(2)
        .map(|pair| {
            u32::from(*pair.first().unwrap_or(&0)) << 8 | u32::from(*pair.get(1).unwrap_or(&0))
        })
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let checksum = !u16::try_from(folded).ok()?;
    error
        .get_mut(2..4)?
        .copy_from_slice(&checksum.to_be_bytes());
    let bytes = u16::try_from(error.len()).ok()?;
    let mut header =
        Ipv4Header::new(bytes, 64, IpNumber::ICMP, [10, 0, 1, 254], OWN.octets()).ok()?;
    header.header_checksum = header.calc_header_checksum();
    Some([header.to_bytes().as_slice(), &error].concat())
}

/// Exact up to 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "counts of packets are small")]
const fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Effort = Effort {
        seed: 1,
        seconds: 2,
        runs: 1,
        rounds: 0,
    };

    #[test]
    fn black_holes_draw_less_than_their_share() {
        let findings = black_holes(&SHORT);
        assert_eq!(findings.len(), 4);
        for finding in findings {
            assert!(finding.gain < 0.1, "{finding:?}");
        }
    }

    #[test]
    fn blind_errors_move_nothing_and_genuine_ones_would() {
        let findings = blind_icmp(&SHORT);
        assert_eq!(findings.len(), 2);
        for finding in findings {
            assert!(finding.gain.abs() < 0.1, "{finding:?}");
        }
        // The errors are well-formed: one under a wrong MAC is dropped for that alone.
        let mut fleet = Fleet::new("spread", 1, &[]).unwrap();
        let error = forged_error(PACKET, 1, START * 1000).unwrap();
        fleet.redirect.handle_packet(at(1), &error, None);
        assert_eq!(fleet.redirect.counters().drops.of("heartbeat_forged"), 1);
    }
}
