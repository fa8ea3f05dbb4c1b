//! Worlds in which a client races for a connection to a host of many addresses.
//!
//! In: a seed. Out: a [`RaceWorldReport`], or the law of a race that was violated. A world has one client machine and up
//! to sixteen addresses: servers near and far, of one service or two, behind loss; dead ones; ones that refuse; servers that die
//! or come back. Answers about the name come late, and in parts. The client fetches a few objects in a row, with the
//! history of the races before. Virtual time; equal seeds give equal worlds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::dice::Dice;
use crate::apps::fetch::config::TransferConfig;
use crate::apps::fetch::output::{Output, OutputError};
use crate::apps::fetch::target::Target;
use crate::apps::fetch::{Transfer, TransferEvent, TransferFailure};
use crate::connect::{MAX_ATTEMPTS, Outcome, Pace};
use crate::host::client::ClientHost;
use crate::host::client::racing::MAX_RACE_PACKETS;
use crate::host::config::{ClientHostConfig, Finish, ServerHostConfig};
use crate::host::names::{LookupAnswer, Resolution};
use crate::host::report::{AttemptReport, RaceReport};
use crate::host::server::ServerHost;
use crate::host::{Machine, Transmit};
use crate::time::{Instant, Now, UnixMillis};
use crate::transport::application::{Application, Begun, RequestContext, StreamPart, Unavailable};
use crate::transport::keys::{KeyRing, SECRET_BYTES};
use crate::wire::ip::parse_udp;

/// Most steps of a world; a world of this kind needs some thousands.
pub const MAX_STEPS: u64 = 2_000_000;

/// Longest connect timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest time without an answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for which everything lasts that was drawn; after that a live address answers without loss.
const HEALS: Duration = Duration::from_secs(30);

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// The report of a world without violations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaceWorldReport {
    /// Transfers that ended with all bytes.
    pub whole: u32,
    /// Transfers that failed, as they had to.
    pub failed: u32,
    /// Attempts that were started.
    pub attempts: usize,
    /// Packets of the client.
    pub packets: u64,
    /// Bytes that it received.
    pub bytes: u64,
    /// Connections that went on at another address.
    pub switches: u64,
}

/// A violated law of a race.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RaceViolation {
    /// A winner that was not answered.
    #[error("the winner was not answered")]
    Winner,
    /// Two attempts started closer together than the pace, and none had failed between them.
    #[error("attempt {index} started {gap:?} after the one before")]
    Gap {
        /// The later one.
        index: usize,
        /// The time between them.
        gap: Duration,
    },
    /// More packets than a race may send, before it was decided.
    #[error("{0} packets in a race")]
    Budget(u32),
    /// A packet to an address that has refused, after the race.
    #[error("a packet to {0}, which has refused")]
    Outlived(SocketAddr),
    /// An error that does not list every attempt.
    #[error("{listed} of {started} attempts are listed")]
    Unlisted {
        /// Attempts in the error.
        listed: usize,
        /// Attempts that were started.
        started: usize,
    },
    /// A transfer failed although an address of its service answered.
    #[error("failed beside a live address: {0}")]
    Failed(String),
    /// A wrong byte, or a body that is presented as whole and is not.
    #[error("wrong bytes after {0}")]
    Bytes(u64),
    /// A transfer that never ends.
    #[error("nothing more will happen")]
    Stuck,
}

/// A violated law; the seed reproduces it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("race of seed {seed}, at {at:?}: {violation}")]
pub struct RaceFailure {
    /// Seed of the world.
    pub seed: u64,
    /// Virtual time.
    pub at: Duration,
    /// The violated law.
    pub violation: RaceViolation,
}

/// Draws a world from `seed` and runs it until its transfers have ended.
///
/// # Errors
/// [`RaceFailure`] at the first violation.
pub fn run_seed(seed: u64) -> Result<RaceWorldReport, RaceFailure> {
    let mut world = RaceWorld::draw(seed);
    world.run().map_err(|violation| RaceFailure {
        seed,
        at: world.now.instant.saturating_since(START),
        violation,
    })
}

const START: Instant = Instant::from_micros(1_000_000);
const START_UNIX: u64 = 1_800_000_000_000;

/// The byte of an object at an offset.
fn byte(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Serves `/SIZE`.
struct Sizes;

fn head(size: u64) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nETag: \"{size}\"\r\n\r\n")
}

impl Application for Sizes {
    fn begin(&mut self, _: RequestContext, request: &[u8]) -> Result<Begun, Unavailable> {
        let text = String::from_utf8_lossy(request);
        let digits = text
            .split('/')
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        let size: u64 = digits.and_then(|digits| digits.parse().ok()).unwrap_or(0);
        Ok(Begun {
            user: size.to_be_bytes().to_vec(),
            length: Some(head(size).len() as u64 + size),
        })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        let size = part
            .user
            .first_chunk()
            .map_or(0, |size| u64::from_be_bytes(*size));
        let head = head(size).into_bytes();
        let length = head.len() as u64;
        let end = length + size;
        let mut count = 0;
        for (offset, to) in (part.offset..end).zip(out) {
            let at = usize::try_from(offset).unwrap_or(usize::MAX);
            *to = head
                .get(at)
                .copied()
                .unwrap_or_else(|| byte(offset - length));
            count += 1;
        }
        Ok(count)
    }
}

/// Checks each byte as it comes.
#[derive(Clone, Default)]
struct Checked(Rc<RefCell<(u64, bool)>>);

impl Output for Checked {
    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        let (count, wrong) = &mut *self.0.borrow_mut();
        for one in bytes {
            *wrong |= *one != byte(*count);
            *count += 1;
        }
        Ok(())
    }

    fn rewind(&mut self) -> Result<(), OutputError> {
        *self.0.borrow_mut() = (0, false);
        Ok(())
    }
}

/// An address of the host.
struct Place {
    address: SocketAddr,
    server: Option<ServerHost<Sizes>>,
    one_way: Duration,
    loss_percent: u32,
    /// The network reports that nothing is there.
    refuses: bool,
    /// Silent between these times.
    silent: (Instant, Instant),
}

impl Place {
    fn draw(dice: &mut Dice, index: u8, now: Now) -> Self {
        let address = SocketAddr::from(([10, 9, 0, index + 1], 7600));
        let kind = dice.between(0, 99);
        let foreign = dice.chance(15);
        let seed = dice.seed();
        let serves = kind < 55;
        let secret = [if foreign { 2 } else { 1 }; SECRET_BYTES];
        let config = ServerHostConfig::builder([address.ip()], seed).build().ok();
        let server = config.filter(|_| serves).and_then(|config| {
            ServerHost::new(now, config, KeyRing::with_secret(secret), Sizes).ok()
        });
        let moment = |dice: &mut Dice| START + dice.duration(Duration::from_millis(1), HEALS);
        let never = (Instant::ZERO, Instant::ZERO);
        Self {
            address,
            server,
            one_way: dice.duration(Duration::from_micros(200), Duration::from_millis(200)),
            loss_percent: if dice.chance(50) {
                0
            } else {
                u32::try_from(dice.between(1, 20)).unwrap_or(0)
            },
            refuses: kind >= 80,
            silent: match dice.between(0, 99) {
                0..20 => (moment(dice), Instant::from_micros(u64::MAX)),
                20..30 => {
                    let times = [moment(dice), moment(dice)];
                    (times[0].min(times[1]), times[0].max(times[1]))
                }
                _ => never,
            },
        }
    }

    fn answers(&self, now: Instant) -> bool {
        self.server.is_some() && !(self.silent.0..self.silent.1).contains(&now)
    }

    /// Whether it answers all the time from now on.
    fn stays(&self, now: Instant) -> bool {
        self.server.is_some() && (self.silent.1 <= now)
    }
}

/// The index of the place that a packet goes to (`None`: the client), that of the way that it takes, and the packet.
type OnTheWire = (Option<usize>, usize, Vec<u8>);

struct RaceWorld {
    now: Now,
    dice: Dice,
    client: ClientHost,
    pace: Pace,
    places: Vec<Place>,
    /// Packets by the time of arrival, and a number.
    wire: BTreeMap<(Instant, u64), OnTheWire>,
    sent: u64,
    /// Answers about the name: when, which part of the addresses, whether it is the last.
    answers: BTreeMap<Instant, (usize, bool)>,
    report: RaceWorldReport,
    packets_in_race: u32,
}

impl RaceWorld {
    fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let now = Now {
            instant: START,
            unix: UnixMillis::new(START_UNIX),
        };
        let count = u8::try_from(dice.between(1, MAX_ATTEMPTS as u64 + 2)).unwrap_or(1);
        let places = (0..count)
            .map(|index| Place::draw(&mut dice, index, now))
            .collect();
        let pace = match dice.between(0, 3) {
            0 => Pace::Sequential,
            1 => Pace::HappyEyeballs,
            2 => Pace::Paced,
            _ => Pace::All,
        };
        let finish = match dice.between(0, 2) {
            0 => Finish::Answer,
            1 => Finish::FirstByte,
            _ => Finish::Head,
        };
        let config = ClientHostConfig::builder([IpAddr::V4(OWN)], dice.seed())
            .pace(pace)
            .finish(finish)
            .connect_timeout(CONNECT_TIMEOUT)
            .idle_timeout(IDLE_TIMEOUT)
            .resolve(|_| Resolution::Pending)
            .build();
        let client = config
            .ok()
            .and_then(|config| ClientHost::new(now, config).ok());
        let Some(client) = client else {
            unreachable!("the configuration is valid");
        };
        Self {
            now,
            dice,
            client,
            pace,
            places,
            wire: BTreeMap::new(),
            sent: 0,
            answers: BTreeMap::new(),
            report: RaceWorldReport::default(),
            packets_in_race: 0,
        }
    }

    fn run(&mut self) -> Result<RaceWorldReport, RaceViolation> {
        for _ in 0..self.dice.between(1, 3) {
            self.transfer()?;
            let pause = self
                .dice
                .duration(Duration::from_millis(1), Duration::from_secs(5));
            self.pass(pause)?;
        }
        let report = self.client.report();
        self.report.switches = report.transport.switches;
        Ok(self.report.clone())
    }

    /// Runs one transfer to its end, and judges it.
    fn transfer(&mut self) -> Result<(), RaceViolation> {
        let size = self.dice.magnitude(1, 300_000);
        let output = Checked::default();
        let url = format!("http://many/{size}");
        let Ok(target) = Target::parse(&url) else {
            unreachable!("the URL is valid");
        };
        let begun = self.now.instant;
        self.packets_in_race = 0;
        let transfer = Transfer::new(TransferConfig::default(), target, Box::new(output.clone()));
        self.client.start(self.now, transfer);
        let failure = loop {
            match self.client.poll_event() {
                Some(TransferEvent::Done { .. }) => break None,
                Some(TransferEvent::Failed(failure)) => break Some(failure),
                Some(_) => {}
                None => {
                    if !self.step(None)? {
                        return Err(RaceViolation::Stuck);
                    }
                }
            }
        };
        let (count, wrong) = *output.0.borrow();
        if wrong || (failure.is_none() && count != size) {
            return Err(RaceViolation::Bytes(count));
        }
        let race = self.client.race().clone();
        self.judge(&race)?;
        self.report.bytes += count;
        match failure {
            None => self.report.whole += 1,
            Some(failure) => self.judge_failure(&race, &failure, begun)?,
        }
        Ok(())
    }

    fn judge(&mut self, race: &RaceReport) -> Result<(), RaceViolation> {
        let answered = |index: usize| {
            let attempt = race.attempts.get(index);
            attempt.is_some_and(|one| matches!(one.outcome, Some(Outcome::Answered(_))))
        };
        if race.winner.is_some_and(|winner| !answered(winner)) {
            return Err(RaceViolation::Winner);
        }
        let started: Vec<_> = race
            .attempts
            .iter()
            .filter(|one| one.started.is_some())
            .collect();
        self.report.attempts += started.len();
        for (index, pair) in (1..).zip(started.windows(2)) {
            let [before, after] = pair else { continue };
            let (Some(first), Some(second)) = (before.started, after.started) else {
                continue;
            };
            let failed_between = started.iter().any(|one| {
                let refused = one.outcome == Some(Outcome::Refused);
                refused && one.ended.is_some_and(|end| end >= first && end <= second)
            });
            let gap = second.saturating_sub(first);
            if gap < self.pace.delay() && !failed_between {
                return Err(RaceViolation::Gap { index, gap });
            }
        }
        Ok(())
    }

    fn judge_failure(
        &mut self,
        race: &RaceReport,
        failure: &TransferFailure,
        begun: Instant,
    ) -> Result<(), RaceViolation> {
        self.report.failed += 1;
        if let TransferFailure::CannotConnect { attempts }
        | TransferFailure::ConnectTimedOut { attempts } = failure
        {
            let started = race
                .attempts
                .iter()
                .filter(|one| one.started.is_some())
                .count();
            if attempts.0.len() != started {
                let listed = attempts.0.len();
                return Err(RaceViolation::Unlisted { listed, started });
            }
        }
        // The ranks beyond the last attempt are not tried.
        let tried = self.places.iter().take(MAX_ATTEMPTS);
        let live = tried.filter(|place| place.stays(begun)).count();
        let all_tried = self.places.len() <= MAX_ATTEMPTS;
        let spent = self.packets_in_race >= MAX_RACE_PACKETS;
        match live > 0 && all_tried && !spent {
            true => Err(RaceViolation::Failed(failure.to_string())),
            false => Ok(()),
        }
    }

    /// Lets time pass without a transfer.
    fn pass(&mut self, pause: Duration) -> Result<(), RaceViolation> {
        let end = self.now.instant + pause;
        while self.step(Some(end))? {}
        self.set_time(end);
        Ok(())
    }

    fn set_time(&mut self, at: Instant) {
        self.now.instant = self.now.instant.max(at);
        let passed = self.now.instant.saturating_since(START);
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        self.now.unix = UnixMillis::new(START_UNIX + passed);
    }

    /// Goes to the next event before `end`; returns whether there was one.
    fn step(&mut self, end: Option<Instant>) -> Result<bool, RaceViolation> {
        self.sent += 1;
        if self.sent > MAX_STEPS {
            return Err(RaceViolation::Stuck);
        }
        self.look_up();
        self.emit()?;
        let servers = self
            .places
            .iter_mut()
            .filter_map(|place| place.server.as_mut());
        let servers = servers
            .filter_map(|server| Some(server.poll_timeout(self.now)?.0))
            .min();
        let client = self.client.poll_timeout(self.now).map(|(at, _)| at);
        let packet = self.wire.first_key_value().map(|((at, _), _)| *at);
        let answer = self.answers.first_key_value().map(|(at, _)| *at);
        let next = [servers, client, packet, answer]
            .into_iter()
            .flatten()
            .min();
        let Some(next) = next.filter(|next| end.is_none_or(|end| *next < end)) else {
            return Ok(false);
        };
        self.set_time(next);
        self.deliver();
        if client.is_some_and(|at| at <= self.now.instant) {
            self.client.handle_timeout(self.now);
        }
        for place in &mut self.places {
            if let Some(server) = &mut place.server
                && server
                    .poll_timeout(self.now)
                    .is_some_and(|(at, _)| at <= self.now.instant)
            {
                server.handle_timeout(self.now);
            }
        }
        Ok(true)
    }

    /// Draws the times of the answers to a look-up, and gives those that are due.
    fn look_up(&mut self) {
        if self.client.poll_lookup().is_some() {
            self.answers.clear();
            let mut at = self.now.instant;
            let mut known = 0;
            while known < self.places.len() {
                at += self
                    .dice
                    .duration(Duration::from_micros(100), Duration::from_secs(2));
                known += 1 + self.dice.index(self.places.len());
                known = known.min(self.places.len());
                self.answers.insert(at, (known, known == self.places.len()));
            }
        }
        while let Some(due) = self.answers.first_entry()
            && *due.key() <= self.now.instant
        {
            let (known, complete) = due.remove();
            let known = self.places.iter().take(known);
            let known = known.map(|place| place.address.ip()).collect();
            let answer = match complete {
                true => LookupAnswer::Complete(known),
                false => LookupAnswer::Partial(known),
            };
            self.client.handle_lookup(self.now, "many", answer);
        }
    }

    /// Puts all packets onto the wire.
    fn emit(&mut self) -> Result<(), RaceViolation> {
        while let Some(transmit) = self.client.poll_transmit(self.now) {
            for packet in packets(transmit) {
                self.watch(&packet)?;
                let to = self.place_of(&packet);
                if let Some(to) = to {
                    self.put(Some(to), to, packet);
                }
            }
        }
        for index in 0..self.places.len() {
            loop {
                let now = self.now;
                let place = self.places.get_mut(index);
                let server = place.and_then(|place| place.server.as_mut());
                let Some(transmit) = server.and_then(|server| server.poll_transmit(now)) else {
                    break;
                };
                for packet in packets(transmit) {
                    self.put(None, index, packet);
                }
            }
        }
        Ok(())
    }

    /// Judges a packet of the client.
    fn watch(&mut self, packet: &[u8]) -> Result<(), RaceViolation> {
        self.report.packets += 1;
        if self.client.is_racing() {
            self.packets_in_race += 1;
            return match self.packets_in_race > MAX_RACE_PACKETS {
                true => Err(RaceViolation::Budget(self.packets_in_race)),
                false => Ok(()),
            };
        }
        let race = self.client.race();
        let Some(winner) = race.winner.and_then(|winner| race.attempts.get(winner)) else {
            return Ok(());
        };
        let to = self
            .place_of(packet)
            .and_then(|index| self.places.get(index));
        let Some(to) = to
            .map(|place| place.address)
            .filter(|to| *to != winner.remote)
        else {
            return Ok(());
        };
        let refused =
            |one: &&AttemptReport| one.remote == to && one.outcome == Some(Outcome::Refused);
        match race.attempts.iter().find(refused) {
            Some(_) => Err(RaceViolation::Outlived(to)),
            None => Ok(()),
        }
    }

    fn place_of(&self, packet: &[u8]) -> Option<usize> {
        let to = parse_udp(packet).ok()??.path.dst;
        self.places.iter().position(|place| place.address == to)
    }

    /// Sends a packet over the way to a place, to it or to the client.
    fn put(&mut self, to: Option<usize>, way: usize, packet: Vec<u8>) {
        let Some(place) = self.places.get(way) else {
            return;
        };
        let heals = self.now.instant.saturating_since(START) > HEALS;
        if place.loss_percent > 0 && !heals && self.dice.chance(place.loss_percent) {
            return;
        }
        self.sent += 1;
        let at = self.now.instant + place.one_way;
        self.wire.insert((at, self.sent), (to, way, packet));
    }

    /// Delivers the packets that are due.
    fn deliver(&mut self) {
        while let Some(due) = self.wire.first_entry()
            && due.key().0 <= self.now.instant
        {
            let (to, way, packet) = due.remove();
            let now = self.now;
            let Some(place) = self.places.get_mut(way) else {
                continue;
            };
            let answers = place.answers(now.instant);
            match (to, &mut place.server) {
                (None, _) if answers => self.client.handle_packet(now, &packet, None),
                (Some(_), Some(server)) if answers => server.handle_packet(now, &packet, None),
                (Some(_), None) if place.refuses => {
                    let address = place.address.ip();
                    self.client.handle_unreachable(now, address);
                }
                _ => {}
            }
        }
    }
}

/// The packets of a transmission.
fn packets(transmit: Transmit) -> Vec<Vec<u8>> {
    transmit.into_packets().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn races_keep_their_laws() {
        let mut all = RaceWorldReport::default();
        for seed in 0..200 {
            let report = run_seed(seed).unwrap_or_else(|failure| panic!("{failure}"));
            all.whole += report.whole;
            all.failed += report.failed;
            all.attempts += report.attempts;
            all.switches += report.switches;
        }
        assert!(all.whole > 200 && all.failed > 10, "{all:?}");
        assert!(all.attempts > 500 && all.switches > 5, "{all:?}");
    }

    #[test]
    fn equal_seeds_give_equal_worlds() {
        assert_eq!(run_seed(7), run_seed(7));
    }
}
