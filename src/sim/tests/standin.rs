//! A minimal protocol, to test the simulator without the transport: the client requests chunks of
//! an object by number, eight at a time, each with its own timer; the server answers each number
//! once. Every [`Defect`] violates one law.
//!
//! Request: connection, number, proven-up-to, object seed, object length, offset (8 bytes each).
//! Answer: connection, number, x, offset (8 bytes each), bytes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::host::{Machine, Transmit};
use crate::sim::Kit;
use crate::sim::check::{Claim, Excess, Grant, Judge};
use crate::sim::object::Object;
use crate::sim::scenario::{ClientPlan, Scenario, ServerPlan};
use crate::sim::world::{Boot, ClientProgress, Node};
use crate::time::{Instant, Now};
use crate::wire::flight::{Ecn, Flight, UdpPath};
use crate::wire::ip::parse_udp;
use crate::wire::segment::Span;

const CHUNK: u64 = 1000;
const WINDOW: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    None,
    WrongByte,
    SendsTwice,
    BeyondBound,
    OtherConnection,
    OtherProof,
    Excessive,
    Refuses,
    Leaks,
    LiesAboutReceipt,
    NeverRetries,
    RetriesLate,
    Reopens,
    GivesUp,
    Spins,
    Floods,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct StandIn(pub(super) Defect);

impl Kit for StandIn {
    type Judge = StandInJudge;

    fn judge(&self, _scenario: &Scenario) -> StandInJudge {
        StandInJudge(self.0)
    }

    fn server(&self, _scenario: &Scenario, _plan: ServerPlan, _boot: Boot) -> Box<dyn Node> {
        Box::new(Server {
            defect: self.0,
            sent: BTreeSet::new(),
            out: VecDeque::new(),
            count: 0,
        })
    }

    fn client(&self, _scenario: &Scenario, plan: &ClientPlan, _boot: Boot) -> Box<dyn Node> {
        let chunks = |(index, object): (usize, &Object)| {
            (0..object.length.div_ceil(CHUNK)).map(move |chunk| (index, chunk * CHUNK))
        };
        Box::new(Client {
            defect: self.0,
            path: UdpPath {
                src: plan.local,
                dst: plan.remote,
            },
            connection: plan.seed,
            objects: plan.objects.clone(),
            todo: plan.objects.iter().enumerate().flat_map(chunks).collect(),
            asked: BTreeMap::new(),
            next: 1,
            arrived: BTreeSet::new(),
            received: 0,
            wrong: None,
            timeouts: 0,
            quiet_since: None,
        })
    }

    fn longest_backoff(&self) -> Duration {
        TIMEOUT
    }
}

fn fields<const N: usize>(payload: &[u8]) -> Option<([u64; N], &[u8])> {
    let (head, rest) = payload.split_at_checked(8 * N)?;
    let mut words = head
        .chunks(8)
        .map(|word| u64::from_be_bytes(word.try_into().unwrap()));
    Some((std::array::from_fn(|_| words.next().unwrap()), rest))
}

fn bytes(fields: &[u64]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|field| field.to_be_bytes())
        .collect()
}

pub(super) struct StandInJudge(Defect);

impl Judge for StandInJudge {
    fn claim(&self, _now: Instant, _path: UdpPath, payload: &[u8]) -> Option<Claim> {
        let ([connection, number, proven, ..], _) = fields::<6>(payload)?;
        Some(Claim {
            connection: Some(connection),
            proven: vec![Span {
                start: 1,
                end: proven + 1,
            }],
            allowed: Span {
                start: number,
                end: number + 1,
            },
            once: true,
            excess: (self.0 == Defect::Excessive).then_some(Excess::Pending),
        })
    }

    fn grant(&self, payload: &[u8]) -> Option<Grant> {
        let ([connection, number, x, _], _) = fields::<4>(payload)?;
        let numbers = Span {
            start: number,
            end: number + 1,
        };
        Some(Grant {
            connection,
            numbers,
            x,
        })
    }
}

struct Server {
    defect: Defect,
    sent: BTreeSet<(u64, u64)>,
    out: VecDeque<Transmit>,
    count: u64,
}

impl Machine for Server {
    fn handle_packet(&mut self, _now: Now, packet: &[u8], _segment: Option<usize>) {
        let Ok(Some(datagram)) = parse_udp(packet) else {
            return;
        };
        let Some((fields, _)) = fields::<6>(datagram.payload) else {
            return;
        };
        let [mut connection, mut number, _, seed, length, offset] = fields;
        self.count += 1;
        // A defect affects one request in sixteen.
        let defect = if self.count % 16 == 7 {
            self.defect
        } else {
            Defect::None
        };
        if !self.sent.insert((connection, number)) && self.defect != Defect::SendsTwice {
            return;
        }
        let mut content = vec![0; usize::try_from(CHUNK.min(length - offset)).unwrap()];
        Object { seed, length }.fill(offset, &mut content);
        number += u64::from(defect == Defect::BeyondBound);
        connection += u64::from(defect == Defect::OtherConnection);
        *content.last_mut().unwrap() ^= u8::from(defect == Defect::WrongByte);
        let x = connection ^ number ^ u64::from(defect == Defect::OtherProof);
        let payload = [bytes(&[connection, number, x, offset]), content].concat();
        let flight = Flight::single(datagram.path.reversed(), Ecn::Ect0, payload);
        self.out.push_back(Transmit::Flight(flight));
    }

    fn handle_timeout(&mut self, _now: Now) {}

    fn poll_transmit(&mut self, _now: Now) -> Option<Transmit> {
        self.out.pop_front()
    }

    fn poll_timeout(&mut self, _now: Now) -> Option<(Instant, &'static str)> {
        None
    }
}

impl Node for Server {
    fn soft_state_bytes(&self) -> Option<usize> {
        let leak = if self.defect == Defect::Leaks {
            self.sent.len()
        } else {
            0
        };
        Some(64 + leak)
    }

    fn refused(&self) -> Option<&'static str> {
        (self.defect == Defect::Refuses && self.count > 3).then_some("whim")
    }
}

struct Client {
    defect: Defect,
    path: UdpPath,
    connection: u64,
    objects: Vec<Object>,
    todo: VecDeque<(usize, u64)>,
    asked: BTreeMap<u64, (usize, u64, Instant)>,
    next: u64,
    arrived: BTreeSet<u64>,
    received: u64,
    wrong: Option<u64>,
    timeouts: u64,
    quiet_since: Option<Instant>,
}

impl Client {
    fn timeout(&self) -> Duration {
        let never = 1_000_000 * u32::from(self.defect == Defect::NeverRetries);
        let late = 200 * u32::from(self.defect == Defect::RetriesLate);
        TIMEOUT * (1 + never + late)
    }

    fn proven(&self) -> u64 {
        let gap = (1..).find(|number| !self.arrived.contains(number)).unwrap() - 1;
        gap + u64::from(self.defect == Defect::LiesAboutReceipt)
    }
}

impl Machine for Client {
    fn handle_packet(&mut self, now: Now, packet: &[u8], _segment: Option<usize>) {
        let Ok(Some(datagram)) = parse_udp(packet) else {
            return;
        };
        let Some(([_, number, _, offset], content)) = fields::<4>(datagram.payload) else {
            return;
        };
        self.arrived.insert(number);
        if let Some((index, asked, _)) = self.asked.remove(&number) {
            assert_eq!(asked, offset);
            self.wrong = self
                .wrong
                .or(self.objects[index].first_difference(offset, content));
            self.received += u64::try_from(content.len()).unwrap();
            self.quiet_since = Some(now.instant);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        let late = |at: Instant| at + self.timeout() <= now.instant;
        let lost: Vec<u64> = self
            .asked
            .iter()
            .filter(|(_, (.., at))| late(*at))
            .map(|(number, _)| *number)
            .collect();
        for number in lost {
            let (index, offset, _) = self.asked.remove(&number).unwrap();
            self.todo.push_back((index, offset));
            self.timeouts += 1;
        }
    }

    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        let full = self.asked.len() >= WINDOW;
        if full && self.defect == Defect::Floods {
            let again = bytes(&[self.connection, 0, 0, 0, 0, 0]);
            return Some(Transmit::Flight(Flight::single(
                self.path,
                Ecn::NotEct,
                again,
            )));
        }
        let (index, offset) = if full { None } else { self.todo.pop_front() }?;
        let Object { seed, length } = self.objects[index];
        let payload = bytes(&[
            self.connection,
            self.next,
            self.proven(),
            seed,
            length,
            offset,
        ]);
        self.asked.insert(self.next, (index, offset, now.instant));
        self.next += 1;
        Some(Transmit::Flight(Flight::single(
            self.path,
            Ecn::NotEct,
            payload,
        )))
    }

    fn poll_timeout(&mut self, _now: Now) -> Option<(Instant, &'static str)> {
        if self.defect == Defect::Spins && self.received > 0 {
            return Some((Instant::ZERO, "spin"));
        }
        let first = self.asked.values().map(|(.., at)| *at).min()?;
        Some((first + self.timeout(), "retry"))
    }
}

impl Node for Client {
    fn progress(&self) -> Option<ClientProgress> {
        let done = self.todo.is_empty() && self.asked.is_empty();
        Some(ClientProgress {
            received: self.received,
            wanted: self.objects.iter().map(|object| object.length).sum(),
            done,
            gave_up: self.defect == Defect::GivesUp && self.timeouts > 3,
            waiting: !done,
            wrong: self.wrong,
            handshakes: 1 + u64::from(self.defect == Defect::Reopens && self.received > 3000),
        })
    }
}
