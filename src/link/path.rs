//! Both directions of an emulated link, and the commands that change and show them.
//!
//! In: packets by direction, and command lines such as `set ab loss=1%`. Out: packets, and replies.
//! The ends are called a and b, the directions `ab` and `ba`. A command is applied whole or, with
//! an error, not at all.

use serde::Serialize;

use crate::link::settings::{LinkSettings, LinkSpec, SettingError, SpecError};
use crate::link::trace::RateTrace;
use crate::link::units::excerpt;
use crate::link::{Link, LinkConfig, LinkCounters, Occupancy, Summary};
use crate::time::{Instant, micros};

/// One direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From end a to end b.
    Ab,
    /// From end b to end a.
    Ba,
}

impl Direction {
    /// Both directions.
    pub const BOTH: [Self; 2] = [Self::Ab, Self::Ba];
}

/// A command for a path, from one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkCommand {
    /// `set ab|ba|both NAME=VALUE...`
    Set(Vec<Direction>, LinkSettings),
    /// `show`
    Show,
    /// `reset`
    Reset,
    /// `help`
    Help,
}

/// The reason for rejecting a command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such command.
    #[error("unknown command '{word}': use set, show, reset or help")]
    Unknown {
        /// As typed.
        word: String,
    },
    /// Arguments after a command that takes none.
    #[error("{command} takes no arguments")]
    Surplus {
        /// The command.
        command: &'static str,
    },
    /// `set` without a direction.
    #[error(
        "'{word}' is not a direction: use set ab, set ba or set both, then settings such as loss=1%"
    )]
    Direction {
        /// As typed.
        word: String,
    },
    /// The settings of `set` are invalid.
    #[error("{0}")]
    Setting(#[from] SettingError),
}

impl core::str::FromStr for LinkCommand {
    type Err = CommandError;

    fn from_str(line: &str) -> Result<Self, CommandError> {
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let alone = |command, then| match rest.trim() {
            "" => Ok(then),
            _ => Err(CommandError::Surplus { command }),
        };
        match word {
            "show" => alone("show", Self::Show),
            "reset" => alone("reset", Self::Reset),
            "help" => alone("help", Self::Help),
            "set" => {
                let rest = rest.trim_start();
                let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                let directions = match word {
                    "ab" => vec![Direction::Ab],
                    "ba" => vec![Direction::Ba],
                    "both" => Direction::BOTH.to_vec(),
                    word => {
                        let word = excerpt(word);
                        return Err(CommandError::Direction { word });
                    }
                };
                Ok(Self::Set(directions, rest.parse()?))
            }
            word => {
                let word = excerpt(word);
                Err(CommandError::Unknown { word })
            }
        }
    }
}

/// Both directions of a link.
#[derive(Debug)]
pub struct LinkPath {
    specs: [LinkSpec; 2],
    links: [Link; 2],
    seed: u64,
}

impl LinkPath {
    /// Creates an empty path; `seed` feeds the faults of both directions.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn new(ab: LinkSpec, ba: LinkSpec, seed: u64) -> Result<Self, SpecError> {
        // Different seeds share no direction, not even neighbouring ones.
        let seeds = [0, 1].map(|direction| seed.wrapping_mul(2).wrapping_add(direction));
        let [first, second] = seeds;
        let links = [
            Link::new(ab.resolve(&ba)?, first)?,
            Link::new(ba.resolve(&ab)?, second)?,
        ];
        let specs = [ab, ba];
        Ok(Self { specs, links, seed })
    }

    /// The link of one direction.
    #[must_use]
    pub const fn link(&self, direction: Direction) -> &Link {
        let [ab, ba] = &self.links;
        match direction {
            Direction::Ab => ab,
            Direction::Ba => ba,
        }
    }

    /// The link of one direction, to push and pop.
    pub const fn link_mut(&mut self, direction: Direction) -> &mut Link {
        let [ab, ba] = &mut self.links;
        match direction {
            Direction::Ab => ab,
            Direction::Ba => ba,
        }
    }

    /// The earliest arrival of a packet at either end.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.links.iter().filter_map(Link::poll_timeout).min()
    }

    /// Applies settings to directions; outages count from `now`.
    ///
    /// # Errors
    /// [`SpecError`]; the path is then unchanged.
    pub fn set(
        &mut self,
        now: Instant,
        directions: &[Direction],
        settings: &LinkSettings,
    ) -> Result<(), SpecError> {
        let mut specs = self.specs.clone();
        let [ab, ba] = &mut specs;
        for direction in directions {
            match direction {
                Direction::Ab => ab.apply(settings, now),
                Direction::Ba => ba.apply(settings, now),
            }
        }
        let configs = [ab.resolve(ba)?, ba.resolve(ab)?];
        for (link, config) in self.links.iter_mut().zip(configs) {
            // A queue limit in bdp follows the delay of the other direction, so both may change; an
            // unchanged link is left alone. A resolved configuration is a valid one.
            if *link.config() != config {
                link.reconfigure(config)?;
            }
        }
        self.specs = specs;
        Ok(())
    }

    /// Resets all counters.
    pub fn reset(&mut self) {
        for link in &mut self.links {
            link.reset();
        }
    }

    /// Reports state and counters. `unsent` packets arrived at the ends b and a but did not fit
    /// into the device.
    #[must_use]
    pub fn report(&self, now: Instant, unsent: [u64; 2]) -> LinkReport {
        let [ab, ba] = &self.links;
        let [at_b, at_a] = unsent;
        LinkReport {
            schema: SCHEMA,
            seed: self.seed,
            uptime_us: now.as_micros(),
            ab: DirectionReport::new(ab, at_b),
            ba: DirectionReport::new(ba, at_a),
        }
    }
}

/// Version of the report's shape; it grows when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 2;

/// The report of a path.
#[derive(Clone, Debug, Serialize)]
pub struct LinkReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Seed of the faults.
    pub seed: u64,
    /// Time since the start.
    pub uptime_us: u64,
    /// From a to b.
    pub ab: DirectionReport,
    /// From b to a.
    pub ba: DirectionReport,
}

/// The report of one direction.
#[derive(Clone, Debug, Serialize)]
pub struct DirectionReport {
    /// The running configuration.
    pub config: ConfigReport,
    /// The counters.
    pub counters: LinkCounters,
    /// Packets dropped on the link.
    pub dropped: u64,
    /// Packets that arrived while the device was full or down.
    pub unsent: u64,
    /// Packets on the link.
    pub now: Occupancy,
    /// Sojourn times in the queue.
    pub sojourn: Summary,
}

/// A configuration in numbers.
#[derive(Clone, Debug, Serialize)]
#[expect(
    missing_docs,
    reason = "the fields of LinkConfig, named with their units"
)]
pub struct ConfigReport {
    pub delay_us: u64,
    pub jitter_us: u64,
    pub jitter_reorders: bool,
    pub rate_bps: Option<u64>,
    /// Of the trace, if there is one: its mean rate and the time after which it repeats.
    pub trace_mean_bps: Option<u64>,
    pub trace_period_ms: Option<u32>,
    pub queue_bytes: Option<usize>,
    pub mark_bytes: Option<usize>,
    /// Target and interval.
    pub codel_us: Option<[u64; 2]>,
    pub aggregate_us: Option<u64>,
    pub aggregate_packets: Option<usize>,
    pub loss_ppm: u32,
    /// Probabilities to enter and to leave the bad state, and of loss in it.
    pub burst_ppm: Option<[u32; 3]>,
    pub duplicate_ppm: u32,
    pub corrupt_ppm: u32,
    pub reorder_ppm: u32,
    pub reorder_delay_us: u64,
    pub replay_ppm: u32,
    /// First instant of the outage and first one after it, on the clock of `uptime_us`.
    pub outages_us: Vec<[u64; 2]>,
}

impl DirectionReport {
    fn new(link: &Link, unsent: u64) -> Self {
        Self {
            config: ConfigReport::new(link.config()),
            counters: link.counters(),
            dropped: link.counters().dropped(),
            unsent,
            now: link.occupancy(),
            sojourn: link.sojourn().summary(),
        }
    }
}

impl ConfigReport {
    fn new(config: &LinkConfig) -> Self {
        let (burst, codel) = (config.burst, config.codel);
        let outages = config.outages.iter();
        let trace = config.trace.as_deref();
        Self {
            delay_us: micros(config.delay),
            jitter_us: micros(config.jitter),
            jitter_reorders: config.jitter_reorders,
            rate_bps: config.rate,
            trace_mean_bps: trace.map(RateTrace::mean_rate),
            trace_period_ms: trace.map(RateTrace::period_ms),
            queue_bytes: config.has_queue().then_some(config.queue_bytes),
            mark_bytes: config.mark_bytes,
            codel_us: codel.map(|codel| [codel.target, codel.interval].map(micros)),
            aggregate_us: config.aggregate.map(|aggregate| micros(aggregate.interval)),
            aggregate_packets: config.aggregate.map(|aggregate| aggregate.packets),
            loss_ppm: config.loss.ppm(),
            burst_ppm: burst.map(|burst| [burst.enter, burst.leave, burst.loss].map(|c| c.ppm())),
            duplicate_ppm: config.duplicate.ppm(),
            corrupt_ppm: config.corrupt.ppm(),
            reorder_ppm: config.reorder.ppm(),
            reorder_delay_us: micros(config.reorder_delay),
            replay_ppm: config.replay.ppm(),
            outages_us: outages
                .map(|outage| [outage.from, outage.until].map(Instant::as_micros))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn path(ab: &str, ba: &str) -> LinkPath {
        let spec = |text: &str| {
            let mut spec = LinkSpec::default();
            spec.apply(&text.parse().unwrap(), Instant::ZERO);
            spec
        };
        LinkPath::new(spec(ab), spec(ba), 3).unwrap()
    }

    fn set(path: &mut LinkPath, line: &str) -> Result<(), String> {
        match line.parse() {
            Ok(LinkCommand::Set(directions, settings)) => path
                .set(Instant::from_micros(7), &directions, &settings)
                .map_err(|error| error.to_string()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn lines_are_commands_or_say_why_not() {
        assert_eq!(" show\r".parse(), Ok(LinkCommand::Show));
        assert_eq!("reset".parse(), Ok(LinkCommand::Reset));
        assert_eq!("help ".parse(), Ok(LinkCommand::Help));
        for (line, want) in [
            ("", "unknown command ''"),
            ("shwo", "unknown command 'shwo'"),
            ("show ab", "show takes no arguments"),
            ("reset all", "reset takes no arguments"),
            ("set", "'' is not a direction"),
            ("set loss=1%", "'loss=1%' is not a direction"),
            ("set ab", "nothing to set"),
            ("set ab loss", "not a setting"),
            ("set both loss=1% x=2", "unknown setting"),
        ] {
            let error = line.parse::<LinkCommand>().unwrap_err().to_string();
            assert!(error.contains(want), "{line}: {error}");
        }
    }

    #[test]
    fn a_change_is_whole_or_none() {
        let mut path = path("rate=8mbit delay=10ms queue=1bdp", "delay=10ms");
        let queue = |path: &LinkPath| path.link(Direction::Ab).config().queue_bytes;
        assert_eq!(queue(&path), 20_000);
        set(&mut path, "set ba delay=30ms").unwrap();
        assert_eq!(
            queue(&path),
            40_000,
            "a queue in bdp follows the other delay"
        );

        let before = path.report(Instant::ZERO, [0, 0]);
        for line in [
            "set both delay=40ms loss=101%",
            "set both delay=40ms queue=1g",
            "set both delay=61s",
            "set both loss=1% mark=1ms",
            "set both delay=40ms delay=50ms",
        ] {
            assert!(set(&mut path, line).is_err(), "{line}");
            let after = path.report(Instant::ZERO, [0, 0]);
            let text = |report| serde_json::to_string(report).unwrap();
            assert_eq!(text(&before), text(&after), "{line}");
        }
        set(&mut path, "set both loss=1% outage=1ms+1ms").unwrap();
        for direction in Direction::BOTH {
            let config = path.link(direction).config();
            assert_eq!(config.loss.ppm(), 10_000);
            assert_eq!(config.outages[0].from, Instant::from_micros(1007));
        }
    }

    #[test]
    fn directions_are_apart() {
        let mut path = path("delay=1ms", "delay=2ms");
        for direction in Direction::BOTH {
            path.link_mut(direction).push(Instant::ZERO, vec![0x45; 20]);
        }
        assert_eq!(path.poll_timeout(), Some(Instant::from_micros(1000)));
        let now = Instant::from_micros(1000);
        assert!(path.link_mut(Direction::Ab).pop(now).is_some());
        assert!(path.link_mut(Direction::Ba).pop(now).is_none());
        assert_eq!(path.poll_timeout(), Some(Instant::from_micros(2000)));
    }

    #[test]
    fn the_report_tells_what_happened_since_the_reset() {
        let mut path = path("rate=8mbit queue=1500b", "loss=100%");
        for direction in Direction::BOTH {
            for _ in 0..2 {
                path.link_mut(direction)
                    .push(Instant::ZERO, vec![0x45; 1000]);
            }
        }
        let now = Instant::ZERO + Duration::from_millis(1);
        assert!(path.link_mut(Direction::Ab).pop(now).is_some());
        let show = |path: &LinkPath| serde_json::to_value(path.report(now, [4, 5])).unwrap();
        let report = show(&path);
        assert_eq!(report["ab"]["counters"]["queue"], 1);
        assert_eq!(report["ab"]["counters"]["popped_bytes"], 1000);
        assert_eq!(report["ab"]["sojourn"]["count"], 1);
        assert_eq!(
            (&report["ab"]["unsent"], &report["ba"]["unsent"]),
            (&4.into(), &5.into())
        );
        assert_eq!(report["ba"]["dropped"], 2);
        assert_eq!(report["ba"]["config"]["loss_ppm"], 1_000_000);
        path.reset();
        assert_eq!(show(&path)["ba"]["dropped"], 0);
        assert_eq!(show(&path)["ab"]["sojourn"]["count"], 0);
    }

    #[test]
    fn neighbouring_seeds_lose_different_packets() {
        let lost = |seed| {
            let mut spec = LinkSpec::default();
            spec.apply(&"loss=50%".parse().unwrap(), Instant::ZERO);
            let mut path = LinkPath::new(spec.clone(), spec, seed).unwrap();
            Direction::BOTH.map(|direction| {
                let link = path.link_mut(direction);
                let passes = |_| {
                    link.push(Instant::ZERO, vec![0; 20]);
                    link.pop(Instant::ZERO).is_some()
                };
                (0..64).map(passes).collect::<Vec<bool>>()
            })
        };
        assert_eq!(lost(1), lost(1));
        let [ab, ba] = lost(1);
        let [next_ab, next_ba] = lost(2);
        for (one, other) in [
            (&ab, &ba),
            (&ab, &next_ab),
            (&ba, &next_ab),
            (&ba, &next_ba),
        ] {
            assert_ne!(one, other);
        }
    }

    proptest! {
        #[test]
        fn any_line_is_carried_out_or_refused_in_one_line(
            line in "\\PC{0,60}|set (ab|ba|both|x) (loss|delay|queue|rate)=[0-9.]{1,4}[a-z%]{1,4}",
        ) {
            let mut path = path("delay=10ms", "delay=10ms");
            match line.parse() {
                Err(CommandError::Unknown { .. }) => prop_assert!(!line.starts_with("set ")),
                Err(error) => prop_assert_eq!(error.to_string().lines().count(), 1),
                Ok(LinkCommand::Set(directions, settings)) => {
                    if let Err(error) = path.set(Instant::ZERO, &directions, &settings) {
                        prop_assert_eq!(error.to_string().lines().count(), 1);
                    }
                }
                Ok(LinkCommand::Show | LinkCommand::Reset | LinkCommand::Help) => {}
            }
        }
    }
}
