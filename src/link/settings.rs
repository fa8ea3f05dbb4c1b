//! The settings of a link as `name=value` words, and the configuration that they amount to.
//!
//! In: words such as `delay=20ms`, from a command line or a control socket. Out: a [`LinkSpec`] per
//! direction, which keeps limits as given (a queue of one round trip, say), and from both specs
//! together the two [`LinkConfig`]s. Settings are applied whole or not at all: all words are
//! parsed, then all bounds are checked.

use std::sync::Arc;
use std::time::Duration;

use crate::link::trace::RateTrace;
use crate::link::trace_file::{self, TraceFileError};
use crate::link::units::{self, Amount, UnitError, excerpt};
use crate::link::{
    Aggregation, BurstLoss, Chance, Codel, LinkConfig, LinkConfigError, MAX_BURST_PACKETS,
    MAX_QUEUE_BYTES, Outage,
};
use crate::time::{Instant, micros};

/// Smallest automatic queue limit: the burst of a window passes a short path.
const LEAST_AUTOMATIC_QUEUE: usize = 64 << 10;

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `delay=20ms`
    Delay(Duration),
    /// `jitter=5ms`
    Jitter(Duration),
    /// `jitter-order=free`, or `keep`: whether jitter may reorder packets.
    JitterReorders(bool),
    /// `rate=100mbit`, or `none`
    Rate(Option<u64>),
    /// `rate-trace=FILE`, or `none`
    RateTrace(Option<Arc<RateTrace>>),
    /// `queue=1bdp`, or `auto`
    Queue(Option<Amount>),
    /// `mark=20ms`, or `none`
    Mark(Option<Amount>),
    /// `aqm=codel`, `aqm=codel/5ms/100ms`, or `droptail`
    Aqm(Option<Codel>),
    /// `aggregate=10ms/64`, `aggregate=10ms`, or `none`
    Aggregate(Option<Aggregation>),
    /// `loss=1%`
    Loss(Chance),
    /// `burst=0.1%/20%/100%`, or `none`
    Burst(Option<BurstLoss>),
    /// `duplicate=1%`
    Duplicate(Chance),
    /// `corrupt=1%`
    Corrupt(Chance),
    /// `reorder=1%/5ms`, or `none`
    Reorder(Chance, Duration),
    /// `replay=1%`
    Replay(Chance),
    /// `outage=10s+2s`, or `none`: start, counted from now, and length.
    Outage(Option<(Duration, Duration)>),
}

/// Names of the settings, in the order of [`Setting`], each with the syntax of its value.
pub const NAMES: [(&str, &str); 16] = [
    ("delay", "TIME"),
    ("jitter", "TIME"),
    ("jitter-order", "keep|free"),
    ("rate", "RATE|none"),
    ("rate-trace", "FILE|none"),
    ("queue", "SIZE|TIME|Nbdp|auto"),
    ("mark", "SIZE|TIME|Nbdp|none"),
    ("aqm", "droptail|codel[/TARGET/INTERVAL]"),
    ("aggregate", "INTERVAL[/PACKETS]|none"),
    ("loss", "PERCENT"),
    ("burst", "ENTER/LEAVE[/LOSS]|none"),
    ("duplicate", "PERCENT"),
    ("corrupt", "PERCENT"),
    ("reorder", "PERCENT/TIME|none"),
    ("replay", "PERCENT"),
    ("outage", "START+LENGTH|none"),
];

/// The reason for rejecting a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// `=` is missing.
    #[error("'{text}' is not a setting: for example loss=1%")]
    NoValue {
        /// As typed.
        text: String,
    },
    /// No such name.
    #[error("unknown setting '{name}': use {}", names())]
    UnknownName {
        /// As typed.
        name: String,
    },
    /// A setting given twice.
    #[error("'{name}' is set twice")]
    Twice {
        /// As typed.
        name: &'static str,
    },
    /// A part is not a quantity.
    #[error("{name}: {error}")]
    Quantity {
        /// Name of the setting.
        name: &'static str,
        /// The error.
        error: UnitError,
    },
    /// The value does not match the syntax.
    #[error("{name}: '{value}' does not match {form}")]
    Form {
        /// Name of the setting.
        name: &'static str,
        /// As typed.
        value: String,
        /// The syntax.
        form: &'static str,
    },
    /// Both a rate and a trace.
    #[error("rate and rate-trace exclude each other: set one of them")]
    TwoRates,
    /// The file of a trace.
    #[error("{name}: {error}")]
    Trace {
        /// Name of the setting.
        name: &'static str,
        /// The error.
        error: TraceFileError,
    },
    /// No setting given.
    #[error("nothing to set: for example loss=1%")]
    Empty,
}

fn names() -> String {
    NAMES.map(|(name, _)| name).join(", ")
}

impl Setting {
    /// Parses the value of the setting `name`.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn parse(name: &str, value: &str) -> Result<Self, SettingError> {
        let known = NAMES.iter().find(|(known, _)| *known == name);
        let Some(&(name, form)) = known else {
            let name = excerpt(name);
            return Err(SettingError::UnknownName { name });
        };
        let word = Word { name, form, value };
        match word.wire()? {
            Some(setting) => Ok(setting),
            None => word.fault(),
        }
    }
}

/// The value of a setting as typed.
struct Word<'a> {
    name: &'static str,
    form: &'static str,
    value: &'a str,
}

impl Word<'_> {
    /// Parses the settings of delay, rate, queue and aggregation; `None` for the others.
    fn wire(&self) -> Result<Option<Setting>, SettingError> {
        let value = self.value;
        let off = value == "none";
        Ok(Some(match self.name {
            "delay" => Setting::Delay(self.time(value)?),
            "jitter" => Setting::Jitter(self.time(value)?),
            "jitter-order" if value == "keep" => Setting::JitterReorders(false),
            "jitter-order" if value == "free" => Setting::JitterReorders(true),
            "rate" if off => Setting::Rate(None),
            "rate" => Setting::Rate(Some(self.quantity(units::rate(value))?)),
            "rate-trace" if off => Setting::RateTrace(None),
            "rate-trace" => Setting::RateTrace(Some(self.trace()?)),
            "queue" if value == "auto" => Setting::Queue(None),
            "queue" => Setting::Queue(Some(self.quantity(units::amount(value))?)),
            "mark" if off => Setting::Mark(None),
            "mark" => Setting::Mark(Some(self.quantity(units::amount(value))?)),
            "aqm" if value == "droptail" => Setting::Aqm(None),
            "aqm" if value == "codel" => Setting::Aqm(Some(Codel::default())),
            "aqm" => {
                let times = value
                    .strip_prefix("codel/")
                    .ok_or_else(|| self.ill_formed())?;
                let (target, interval) = self.split(times, '/')?;
                Setting::Aqm(Some(Codel {
                    target: self.time(target)?,
                    interval: self.time(interval)?,
                }))
            }
            "aggregate" if off => Setting::Aggregate(None),
            "aggregate" => {
                let (interval, packets) = match value.split_once('/') {
                    Some((interval, packets)) => {
                        (interval, packets.parse().map_err(|_| self.ill_formed())?)
                    }
                    None => (value, MAX_BURST_PACKETS),
                };
                let interval = self.time(interval)?;
                Setting::Aggregate(Some(Aggregation { interval, packets }))
            }
            _ => return Ok(None),
        }))
    }

    /// Parses the settings of faults.
    fn fault(&self) -> Result<Setting, SettingError> {
        let value = self.value;
        let off = value == "none";
        Ok(match self.name {
            "loss" => Setting::Loss(self.chance(value)?),
            "burst" if off => Setting::Burst(None),
            "burst" => {
                let (enter, rest) = self.split(value, '/')?;
                let (leave, loss) = rest.split_once('/').unwrap_or((rest, "100%"));
                Setting::Burst(Some(BurstLoss {
                    enter: self.chance(enter)?,
                    leave: self.chance(leave)?,
                    loss: self.chance(loss)?,
                }))
            }
            "duplicate" => Setting::Duplicate(self.chance(value)?),
            "corrupt" => Setting::Corrupt(self.chance(value)?),
            "reorder" if off => Setting::Reorder(Chance::NEVER, Duration::ZERO),
            "reorder" => {
                let (often, held) = self.split(value, '/')?;
                Setting::Reorder(self.chance(often)?, self.time(held)?)
            }
            "replay" => Setting::Replay(self.chance(value)?),
            "outage" if off => Setting::Outage(None),
            "outage" => {
                let (start, length) = self.split(value, '+')?;
                Setting::Outage(Some((self.time(start)?, self.time(length)?)))
            }
            _ => return Err(self.ill_formed()),
        })
    }

    fn time(&self, text: &str) -> Result<Duration, SettingError> {
        self.quantity(units::duration(text))
    }

    fn trace(&self) -> Result<Arc<RateTrace>, SettingError> {
        let name = self.name;
        trace_file::read(self.value).map_err(|error| SettingError::Trace { name, error })
    }

    fn chance(&self, text: &str) -> Result<Chance, SettingError> {
        self.quantity(units::chance(text))
    }

    fn quantity<T>(&self, parsed: Result<T, UnitError>) -> Result<T, SettingError> {
        let name = self.name;
        parsed.map_err(|error| SettingError::Quantity { name, error })
    }

    fn split<'a>(
        &self,
        text: &'a str,
        separator: char,
    ) -> Result<(&'a str, &'a str), SettingError> {
        text.split_once(separator).ok_or_else(|| self.ill_formed())
    }

    fn ill_formed(&self) -> SettingError {
        SettingError::Form {
            name: self.name,
            value: excerpt(self.value),
            form: self.form,
        }
    }
}

/// Settings from one line, each name but `outage` at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkSettings(Vec<Setting>);

impl core::str::FromStr for LinkSettings {
    type Err = SettingError;

    /// Parses words such as `loss=1%`, separated by commas or white space.
    fn from_str(text: &str) -> Result<Self, SettingError> {
        let words = text.split(|c: char| c == ',' || c.is_whitespace());
        let mut settings = Vec::new();
        let mut seen = [false; NAMES.len()];
        for word in words.filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').ok_or_else(|| SettingError::NoValue {
                text: excerpt(word),
            })?;
            settings.push(Setting::parse(name, value)?);
            for (seen, (known, _)) in seen.iter_mut().zip(NAMES) {
                let again = known == name && core::mem::replace(seen, true);
                if again && known != "outage" {
                    return Err(SettingError::Twice { name: known });
                }
            }
        }
        if settings.is_empty() {
            return Err(SettingError::Empty);
        }
        let rated = |setting: &Setting| matches!(setting, Setting::Rate(Some(_)));
        let traced = |setting: &Setting| matches!(setting, Setting::RateTrace(Some(_)));
        if settings.iter().any(rated) && settings.iter().any(traced) {
            return Err(SettingError::TwoRates);
        }
        Ok(Self(settings))
    }
}

impl FromIterator<Setting> for LinkSettings {
    fn from_iter<T: IntoIterator<Item = Setting>>(settings: T) -> Self {
        Self(settings.into_iter().collect())
    }
}

/// The settings of one direction, with the defaults for the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkSpec {
    /// All but the queue limits, which depend on the other direction.
    config: LinkConfig,
    queue: Option<Amount>,
    mark: Option<Amount>,
}

/// The reason for rejecting a combination of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A queue limit without a rate.
    #[error(
        "without a rate there is no queue: set a rate or rate-trace, or queue=auto, mark=none and aqm=droptail"
    )]
    NoQueue,
    /// A limit in round trips of zero.
    #[error("a queue in bdp needs a delay: set one, or give the queue as 64k or 50ms")]
    NoRoundTrip,
    /// A bound of the link.
    #[error("{0}")]
    Config(#[from] LinkConfigError),
}

impl LinkSpec {
    /// Combines settings; later ones take precedence.
    pub fn of<'a>(settings: impl IntoIterator<Item = &'a LinkSettings>) -> Self {
        let mut spec = Self::default();
        for settings in settings {
            spec.apply(settings, Instant::ZERO);
        }
        spec
    }

    /// Applies settings. Outages count from `now`; they replace the previous ones. A rate
    /// replaces a trace, and a trace a rate.
    pub fn apply(&mut self, settings: &LinkSettings, now: Instant) {
        let LinkSettings(settings) = settings;
        if settings
            .iter()
            .any(|setting| matches!(setting, Setting::Outage(_)))
        {
            self.config.outages.clear();
        }
        let config = &mut self.config;
        for setting in settings {
            match setting.clone() {
                Setting::Delay(delay) => config.delay = delay,
                Setting::Jitter(jitter) => config.jitter = jitter,
                Setting::JitterReorders(free) => config.jitter_reorders = free,
                Setting::Rate(None) => config.rate = None,
                Setting::Rate(rate) => (config.rate, config.trace) = (rate, None),
                Setting::RateTrace(None) => config.trace = None,
                Setting::RateTrace(trace) => (config.rate, config.trace) = (None, trace),
                Setting::Queue(amount) => self.queue = amount,
                Setting::Mark(amount) => self.mark = amount,
                Setting::Aqm(codel) => config.codel = codel,
                Setting::Aggregate(aggregation) => config.aggregate = aggregation,
                Setting::Loss(chance) => config.loss = chance,
                Setting::Burst(burst) => config.burst = burst,
                Setting::Duplicate(chance) => config.duplicate = chance,
                Setting::Corrupt(chance) => config.corrupt = chance,
                Setting::Reorder(chance, delay) => {
                    config.reorder = chance;
                    config.reorder_delay = delay;
                }
                Setting::Replay(chance) => config.replay = chance,
                Setting::Outage(None) => config.outages.clear(),
                Setting::Outage(Some((start, length))) => config.outages.push(Outage {
                    from: now + start,
                    until: now + start + length,
                }),
            }
        }
    }

    /// Resolves the configuration, given the `other` direction of the path.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn resolve(&self, other: &Self) -> Result<LinkConfig, SpecError> {
        let mut config = self.config.clone();
        let round_trip = micros(config.delay).saturating_add(micros(other.config.delay));
        let mean = config.trace.as_deref().map(RateTrace::mean_rate);
        match config.rate.or(mean) {
            None if self.queue.is_some() || self.mark.is_some() || config.codel.is_some() => {
                return Err(SpecError::NoQueue);
            }
            None => {}
            Some(rate) => {
                config.queue_bytes = match self.queue {
                    Some(amount) => bytes(amount, rate, round_trip)?,
                    None => carried(rate, round_trip).clamp(LEAST_AUTOMATIC_QUEUE, MAX_QUEUE_BYTES),
                };
                config.mark_bytes = match self.mark {
                    Some(amount) => Some(bytes(amount, rate, round_trip)?),
                    None => None,
                };
            }
        }
        config.validate()?;
        Ok(config)
    }
}

fn bytes(amount: Amount, rate: u64, round_trip: u64) -> Result<usize, SpecError> {
    Ok(match amount {
        Amount::Bytes(bytes) => bytes,
        Amount::Time(time) => carried(rate, micros(time)),
        Amount::Bdp(_) if round_trip == 0 => return Err(SpecError::NoRoundTrip),
        Amount::Bdp(millionths) => {
            let product = u128::try_from(carried(rate, round_trip)).unwrap_or(u128::MAX);
            let bytes = product.saturating_mul(millionths.into()) / u128::from(units::ONE_BDP);
            usize::try_from(bytes).unwrap_or(usize::MAX)
        }
    })
}

/// The bytes that a rate carries in `micros` microseconds.
fn carried(rate: u64, micros: u64) -> usize {
    let bytes = u128::from(rate).saturating_mul(micros.into()) / 8_000_000;
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::link::{MAX_DELAY, MAX_OUTAGES};

    fn spec(text: &str) -> LinkSpec {
        let mut spec = LinkSpec::default();
        spec.apply(&text.parse().unwrap(), Instant::from_micros(1_000_000));
        spec
    }

    fn percent(percent: u32) -> Chance {
        Chance::from_percent(percent)
    }

    #[test]
    fn every_setting_sets_its_field() {
        let text = "delay=20ms,jitter=5ms jitter-order=free, rate=8mbit\tqueue=64k mark=1ms aqm=codel/2ms/40ms aggregate=10ms/64 \
            loss=1% burst=2%/30% duplicate=4% corrupt=5% reorder=6%/7ms replay=8% \
            outage=1s+2s outage=10s+1s";
        let outage = |from: u64, until: u64| Outage {
            from: Instant::from_micros(from),
            until: Instant::from_micros(until),
        };
        let want = LinkConfig {
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(5),
            jitter_reorders: true,
            rate: Some(8_000_000),
            trace: None,
            queue_bytes: 65_536,
            mark_bytes: Some(1000),
            codel: Some(Codel {
                target: Duration::from_millis(2),
                interval: Duration::from_millis(40),
            }),
            aggregate: Some(Aggregation {
                interval: Duration::from_millis(10),
                packets: 64,
            }),
            loss: percent(1),
            burst: Some(BurstLoss {
                enter: percent(2),
                leave: percent(30),
                loss: percent(100),
            }),
            duplicate: percent(4),
            corrupt: percent(5),
            reorder: percent(6),
            reorder_delay: Duration::from_millis(7),
            replay: percent(8),
            outages: vec![outage(2_000_000, 4_000_000), outage(11_000_000, 12_000_000)],
        };
        let mut spec = spec(text);
        assert_eq!(spec.resolve(&LinkSpec::default()), Ok(want));
        for (name, _) in NAMES {
            let covered = text.contains(&format!("{name}="));
            assert!(covered || name == "rate-trace", "{name}");
        }
        let off = "delay=0ms jitter=0s jitter-order=keep rate=none rate-trace=none queue=auto mark=none aqm=droptail aggregate=none loss=0% \
            burst=none duplicate=0% corrupt=0% reorder=none replay=0% outage=none";
        spec.apply(&off.parse().unwrap(), Instant::ZERO);
        assert_eq!(
            spec.resolve(&LinkSpec::default()),
            Ok(LinkConfig::default())
        );
    }

    #[test]
    fn queues_follow_the_rate_and_both_delays() {
        for (text, other, want) in [
            ("rate=8mbit delay=20ms queue=1bdp", "delay=30ms", Ok(50_000)),
            ("rate=8mbit queue=0.5bdp", "delay=30ms", Ok(15_000)),
            ("rate=8mbit queue=50ms", "delay=30ms", Ok(50_000)),
            ("rate=8mbit queue=5k", "delay=30ms", Ok(5120)),
            ("rate=8mbit", "delay=30ms", Ok(64 << 10)),
            ("rate=80mbit", "delay=30ms", Ok(300_000)),
            ("rate=1tbit", "delay=60s", Ok(MAX_QUEUE_BYTES)),
            ("rate=8mbit queue=1bdp", "jitter=1ms", Err("needs a delay")),
            ("queue=64k", "rate=8mbit", Err("set a rate")),
            ("mark=64k", "rate=8mbit", Err("set a rate")),
            ("rate=8mbit mark=1bdp", "loss=1%", Err("needs a delay")),
            ("aqm=codel", "rate=8mbit", Err("set a rate")),
            ("rate=8mbit aqm=codel", "delay=1ms", Ok(64 << 10)),
            ("rate=8mbit aqm=codel/5ms/0ms", "loss=1%", Err("interval")),
            ("rate=8mbit aqm=codel/5ms/61s", "loss=1%", Err("60s")),
            ("rate=8mbit queue=1g", "loss=1%", Err("at most 500000000")),
            ("rate=0bit", "loss=1%", Err("must be 1 to")),
            ("delay=61s", "loss=1%", Err("60s")),
            ("aggregate=2s", "loss=1%", Err("1us to 1s")),
            ("aggregate=1ms/4097", "loss=1%", Err("1 to 4096")),
            ("burst=1%/0%", "loss=1%", Err("never ends")),
        ] {
            match (spec(text).resolve(&spec(other)), want) {
                (Ok(have), Ok(want)) => assert_eq!(have.queue_bytes, want, "{text}"),
                (Err(have), Err(want)) => assert!(have.to_string().contains(want), "{have}"),
                (have, want) => panic!("{text}: {have:?}, expected {want:?}"),
            }
        }
    }

    #[test]
    fn a_trace_and_a_rate_replace_each_other() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // Three opportunities in 6 ms: 6 Mb/s.
        std::fs::write(file.path(), "1\n1\n6\n").unwrap();
        let traced = format!("rate-trace={} delay=10ms", file.path().display());
        let mut spec = spec("rate=1mbit queue=1bdp mark=4ms");
        spec.apply(&traced.parse().unwrap(), Instant::ZERO);
        let config = spec.resolve(&spec).unwrap();
        assert_eq!(config.trace.unwrap().opportunities(), 3);
        let queue = (config.queue_bytes, config.mark_bytes);
        assert_eq!((config.rate, queue), (None, (15_000, Some(3000))));
        spec.apply(&"rate=8mbit".parse().unwrap(), Instant::ZERO);
        let config = spec.resolve(&spec).unwrap();
        assert_eq!((config.rate, config.trace), (Some(8_000_000), None));

        let both = format!("{traced} rate=1mbit").parse::<LinkSettings>();
        assert_eq!(both, Err(SettingError::TwoRates));
        assert!(
            format!("{traced} rate=none")
                .parse::<LinkSettings>()
                .is_ok()
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, want) in [
            ("", "nothing to set"),
            (" , ", "nothing to set"),
            ("loss", "not a setting"),
            ("los=1%", "use delay, jitter"),
            ("loss=1% loss=2%", "twice"),
            ("loss=1", "loss: '1' is not a probability"),
            ("loss=none", "not a probability"),
            ("delay=none", "not a time"),
            ("jitter-order=maybe", "keep|free"),
            ("burst=1%", "ENTER/LEAVE"),
            ("burst=1%/2%/3%/4%", "not a probability"),
            ("aqm=red", "droptail|codel"),
            ("aqm=codel/5ms", "droptail|codel"),
            ("aqm=codel/5/100ms", "aqm: '5' is not a time"),
            ("aggregate=10ms/many", "INTERVAL[/PACKETS]"),
            ("aggregate=10", "not a time"),
            ("rate-trace=/", "rate-trace: '/' is not a regular file"),
            ("rate-trace=./no", "cannot read './no'"),
            ("reorder=1%", "PERCENT/TIME"),
            ("outage=1s", "START+LENGTH"),
            ("outage=1s-2s", "START+LENGTH"),
            ("rate=auto", "not a rate"),
            ("queue=none", "not a queue limit"),
            ("=1%", "unknown setting"),
            ("LOSS=1%", "unknown setting"),
        ] {
            let error = text.parse::<LinkSettings>().unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn outages_are_replaced_together_and_bounded() {
        let mut spec = spec("outage=1s+1s");
        let now = Instant::from_micros(50);
        spec.apply(&"loss=1%".parse().unwrap(), now);
        assert_eq!(spec.config.outages.len(), 1);
        spec.apply(&"outage=0s+1s outage=2s+1s".parse().unwrap(), now);
        assert_eq!(spec.config.outages.len(), 2);
        assert_eq!(spec.config.outages[0].from, now);
        let many = |count| vec!["outage=0s+1s"; count].join(",").parse().unwrap();
        spec.apply(&many(MAX_OUTAGES), now);
        assert!(spec.resolve(&LinkSpec::default()).is_ok());
        spec.apply(&many(MAX_OUTAGES + 1), now);
        assert!(spec.resolve(&LinkSpec::default()).is_err());
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused_in_one_line(
            line in "\\PC{0,80}|((delay|rate|queue|burst|outage|x)=[0-9.]{0,30}[a-z%/+]{0,5}[, ]?){0,6}",
        ) {
            match line.parse::<LinkSettings>() {
                Err(error) => prop_assert_eq!(error.to_string().lines().count(), 1),
                Ok(settings) => {
                    let mut spec = LinkSpec::default();
                    spec.apply(&settings, Instant::from_micros(u64::MAX));
                    if let Ok(config) = spec.resolve(&spec.clone()) {
                        prop_assert!(config.delay <= MAX_DELAY);
                    }
                }
            }
        }
    }
}
