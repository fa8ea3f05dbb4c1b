//! The redirector's configuration: a TOML file, the same for every redirector of a service but for
//! `id` and `address`.
//!
//! In: the text. Out: a valid [`RedirectConfig`], or a [`RedirectConfigError`], one line with file, line
//! and remedy. Reads no file: the caller opens `key-file` and the table of sites.
//!
//! ```toml
//! generation = 7                       # count up with every change
//! id = 1                               # of this redirector
//! address = ["10.77.3.1", "fd77:3::1"] # its own, one a family
//! services = ["10.77.2.100", "fd77:2::100"]
//! key-file = "redirect.keys"           # made by `headwater keygen`; not that of the servers
//! policy = "rendezvous"                # spread, spread-random, least-loaded, nearest
//!
//! [heartbeat]
//! interval-ms = 50
//! misses = 3
//! recovery = 5
//!
//! [[backend]]
//! name = "s1"
//! id = 1                               # its --server-id
//! address = "10.77.2.101"
//! ```

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::balancer::Policy;
use super::health::Beat;
use super::prefixes::{MAX_SITES, Site, site_of};
use super::{BackendId, Generation, RedirectorId};
use crate::wire::address::unusable;

/// Largest number of a configuration: further ones are left for its successors.
pub const MAX_GENERATION: u32 = 4_000_000_000;

/// Longest configuration file, in bytes.
pub const MAX_CONFIG_BYTES: usize = 1 << 20;

/// Most backends.
pub const MAX_BACKENDS: usize = 256;

/// Most service addresses.
pub const MAX_SERVICES: usize = 8;

/// Longest name of a backend or site, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// Largest weight.
pub const MAX_WEIGHT: u32 = 10_000;

/// Longest interval of heartbeats.
pub const MAX_INTERVAL_MS: u64 = 60_000;

/// Most intervals before a verdict.
pub const MAX_BEATS: u32 = 100;

/// Default UDP port of encapsulation and heartbeats.
pub const DEFAULT_PORT: u16 = 7601;

/// Longest name of a network device (IFNAMSIZ of Linux less the terminator).
const DEVICE_NAME_BYTES: usize = 15;

/// A mistake in a configuration. The operator is at fault; nothing was applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct RedirectConfigError {
    /// The file.
    pub file: String,
    /// Line number, from 1.
    pub line: usize,
    /// The mistake, and its remedy.
    pub problem: String,
}

/// The administrative state of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// It gets packets while healthy.
    #[default]
    Active,
    /// It gets packets only if no active backend is healthy.
    Draining,
    /// It gets no packets.
    Down,
}

impl BackendState {
    /// The state's name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendEntry {
    /// Name for people and metrics; unique.
    pub name: String,
    /// Server id; unique.
    pub id: BackendId,
    /// Address for encapsulated packets and heartbeats.
    pub address: Option<IpAddr>,
    /// Device for unencapsulated packets.
    pub device: Option<String>,
    /// Relative weight.
    pub weight: u32,
    /// Site.
    pub site: Option<Site>,
    /// Administrative state.
    pub state: BackendState,
}

/// The source of nearest sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// A file of lines `PREFIX SITE`, or, with the suffix `.mmdb`, a MaxMind database of countries.
    pub table: PathBuf,
    /// Sites by ISO code of country or continent; for a database.
    pub regions: BTreeMap<String, Site>,
}

/// A valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectConfig {
    /// Number of the configuration.
    pub generation: Generation,
    /// Number of this redirector.
    pub id: RedirectorId,
    /// Addresses of the redirector, at most one per family.
    pub addresses: Vec<IpAddr>,
    /// Service addresses, to which clients send.
    pub services: Vec<IpAddr>,
    /// Path of the shared keys.
    pub key_file: PathBuf,
    /// UDP port of encapsulation and heartbeats, at both ends.
    pub port: u16,
    /// Load balancing policy.
    pub policy: Policy,
    /// Seed of the flow hash; the same for all redirectors of a service.
    pub seed: u64,
    /// Settings of the heartbeats.
    pub beat: Beat,
    /// Names of the sites, in the order of their numbers.
    pub sites: Vec<String>,
    /// The source of sites for [`Policy::Nearest`].
    pub nearest: Option<Nearest>,
    /// The backends, at least one.
    pub backends: Vec<BackendEntry>,
}

impl RedirectConfig {
    /// Parses a configuration; `file` is its name, for messages.
    ///
    /// # Errors
    /// [`RedirectConfigError`] for the first mistake.
    pub fn parse(file: &str, text: &str) -> Result<Self, RedirectConfigError> {
        let reader = Reader { file, text };
        if text.len() > MAX_CONFIG_BYTES {
            let problem = format!("more than {MAX_CONFIG_BYTES} bytes: use a smaller file");
            return Err(reader.error(0, problem));
        }
        let raw: Raw = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let what: Vec<&str> = error.message().split_whitespace().collect();
            reader.error(at, format!("{}: correct this line", what.join(" ")))
        })?;
        reader.config(raw)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    generation: Spanned<Generation>,
    id: RedirectorId,
    address: Spanned<Vec<IpAddr>>,
    services: Spanned<Vec<IpAddr>>,
    key_file: PathBuf,
    #[serde(default = "default_port")]
    port: Spanned<u16>,
    #[serde(default)]
    policy: Option<Spanned<Policy>>,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    heartbeat: RawBeat,
    #[serde(default)]
    nearest: Option<Spanned<RawNearest>>,
    #[serde(default)]
    backend: Vec<Spanned<RawBackend>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawBeat {
    interval_ms: Option<Spanned<u64>>,
    misses: Option<Spanned<u32>>,
    recovery: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNearest {
    table: PathBuf,
    #[serde(default)]
    regions: BTreeMap<String, Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBackend {
    name: String,
    id: BackendId,
    address: Option<IpAddr>,
    device: Option<String>,
    #[serde(default = "default_weight")]
    weight: u32,
    site: Option<String>,
    #[serde(default)]
    state: BackendState,
}

fn default_port() -> Spanned<u16> {
    Spanned::new(0..0, DEFAULT_PORT)
}

const fn default_weight() -> u32 {
    100
}

/// Validates the output of the TOML parser.
struct Reader<'a> {
    file: &'a str,
    text: &'a str,
}

impl Reader<'_> {
    fn error(&self, at: usize, problem: impl Into<String>) -> RedirectConfigError {
        let before = self.text.as_bytes().iter().take(at);
        RedirectConfigError {
            file: self.file.to_owned(),
            line: 1 + before.filter(|byte| **byte == b'\n').count(),
            problem: problem.into(),
        }
    }

    /// Creates an error at the position of `value`.
    fn at<T>(&self, value: &Spanned<T>, problem: impl Into<String>) -> RedirectConfigError {
        self.error(value.span().start, problem)
    }

    fn config(&self, raw: Raw) -> Result<RedirectConfig, RedirectConfigError> {
        self.check_generation(&raw.generation)?;
        self.check_addresses(&raw.address, &raw.services)?;
        if *raw.port.get_ref() == 0 {
            return Err(self.at(&raw.port, "port 0: use 1 to 65535"));
        }
        let beat = self.beat(&raw.heartbeat)?;
        let sites = self.sites(&raw.backend)?;
        let backends = self.backends(&raw, &sites)?;
        let nearest = raw.nearest.as_ref();
        let nearest = nearest
            .map(|nearest| self.nearest(nearest.get_ref(), &sites))
            .transpose()?;
        let policy = raw.policy.as_ref().map(|policy| *policy.get_ref());
        if let (Some(spanned), Some(Policy::Nearest), None) = (&raw.policy, policy, &nearest) {
            let problem = "policy `nearest` without a table: add `[nearest]` with `table = FILE`";
            return Err(self.at(spanned, problem));
        }
        Ok(RedirectConfig {
            generation: raw.generation.into_inner(),
            id: raw.id,
            addresses: raw.address.into_inner(),
            services: raw.services.into_inner(),
            key_file: raw.key_file,
            port: raw.port.into_inner(),
            policy: policy.unwrap_or_default(),
            seed: raw.seed,
            beat,
            sites,
            nearest,
            backends,
        })
    }

    fn check_generation(
        &self,
        generation: &Spanned<Generation>,
    ) -> Result<(), RedirectConfigError> {
        let Generation(number) = *generation.get_ref();
        if number > MAX_GENERATION {
            let problem = format!(
                "generation {number}: use 0 to {MAX_GENERATION}, and count up by one. To begin again at 1, \
                 restart the servers, then every redirector with the new file"
            );
            return Err(self.at(generation, problem));
        }
        Ok(())
    }

    fn check_addresses(
        &self,
        own: &Spanned<Vec<IpAddr>>,
        services: &Spanned<Vec<IpAddr>>,
    ) -> Result<(), RedirectConfigError> {
        let count = |v6: bool| own.get_ref().iter().filter(|a| a.is_ipv6() == v6).count();
        if own.get_ref().is_empty() || count(true) > 1 || count(false) > 1 {
            return Err(self.at(
                own,
                "address: use one IPv4 address, one IPv6 address, or both",
            ));
        }
        let served = services.get_ref().len();
        if served == 0 || served > MAX_SERVICES {
            let problem = format!("{served} services: use 1 to {MAX_SERVICES} addresses");
            return Err(self.at(services, problem));
        }
        let mut seen = BTreeSet::new();
        for (list, name) in [(own, "address"), (services, "services")] {
            for address in list.get_ref() {
                if let Some(why) = unusable(*address) {
                    let problem = format!("{name}: {address} is {why}");
                    return Err(self.at(list, problem));
                }
                if !seen.insert(*address) {
                    let problem = format!("{name}: {address} is listed twice: remove one");
                    return Err(self.at(list, problem));
                }
            }
        }
        Ok(())
    }

    fn beat(&self, raw: &RawBeat) -> Result<Beat, RedirectConfigError> {
        let interval = raw.interval_ms.as_ref();
        if let Some(interval) = interval
            && !(1..=MAX_INTERVAL_MS).contains(interval.get_ref())
        {
            let problem = format!("interval-ms: use a number from 1 to {MAX_INTERVAL_MS}");
            return Err(self.at(interval, problem));
        }
        for (name, count) in [("misses", &raw.misses), ("recovery", &raw.recovery)] {
            if let Some(count) = count
                && !(1..=MAX_BEATS).contains(count.get_ref())
            {
                let problem = format!("{name}: use a number from 1 to {MAX_BEATS}");
                return Err(self.at(count, problem));
            }
        }
        let count = |given: &Option<Spanned<u32>>, default| {
            given.as_ref().map_or(default, |count| *count.get_ref())
        };
        Ok(Beat {
            interval: Duration::from_millis(interval.map_or(50, |millis| *millis.get_ref())),
            misses: count(&raw.misses, 3),
            recovery: count(&raw.recovery, 5),
        })
    }

    /// Returns the names of all sites, sorted, so that a site's number does not depend on the order
    /// of the backends.
    fn sites(&self, backends: &[Spanned<RawBackend>]) -> Result<Vec<String>, RedirectConfigError> {
        let mut sites = BTreeSet::new();
        for backend in backends {
            if let Some(site) = &backend.get_ref().site {
                self.check_name(backend, "site", site)?;
                sites.insert(site.clone());
            }
            if sites.len() > MAX_SITES {
                let problem = format!("more than {MAX_SITES} sites: merge some");
                return Err(self.at(backend, problem));
            }
        }
        Ok(sites.into_iter().collect())
    }

    fn check_name<T>(
        &self,
        at: &Spanned<T>,
        what: &str,
        name: &str,
    ) -> Result<(), RedirectConfigError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(plain) {
            let problem = format!(
                "{what} of a backend: use 1 to {MAX_NAME_BYTES} of a-z, A-Z, 0-9, `-`, `_` and `.`"
            );
            return Err(self.at(at, problem));
        }
        Ok(())
    }

    fn backends(
        &self,
        raw: &Raw,
        sites: &[String],
    ) -> Result<Vec<BackendEntry>, RedirectConfigError> {
        if raw.backend.is_empty() {
            return Err(self.error(self.text.len(), "no backend: add one as `[[backend]]`"));
        }
        let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
        let own = raw.address.get_ref();
        let mut taken: BTreeSet<IpAddr> =
            own.iter().chain(raw.services.get_ref()).copied().collect();
        let mut backends = Vec::with_capacity(raw.backend.len());
        for spanned in &raw.backend {
            let backend = spanned.get_ref();
            let name = &backend.name;
            self.check_name(spanned, "name", name)?;
            let fail = |problem: String| Err(self.at(spanned, problem));
            if backends.len() >= MAX_BACKENDS {
                return fail(format!("more than {MAX_BACKENDS} backends: remove some"));
            }
            if !names.insert(name.clone()) {
                return fail(format!("two backends are named {name}: rename one"));
            }
            if !ids.insert(backend.id) {
                let id = backend.id;
                return fail(format!("{name}: id {id} is already in use: choose another"));
            }
            self.check_backend(spanned, own, &mut taken)?;
            backends.push(BackendEntry {
                name: name.clone(),
                id: backend.id,
                address: backend.address,
                device: backend.device.clone(),
                weight: backend.weight,
                site: backend
                    .site
                    .as_deref()
                    .and_then(|site| site_of(sites, site)),
                state: backend.state,
            });
        }
        Ok(backends)
    }

    fn check_backend(
        &self,
        spanned: &Spanned<RawBackend>,
        own: &[IpAddr],
        taken: &mut BTreeSet<IpAddr>,
    ) -> Result<(), RedirectConfigError> {
        let backend = spanned.get_ref();
        let name = &backend.name;
        let fail = |problem: String| Err(self.at(spanned, problem));
        if !(1..=MAX_WEIGHT).contains(&backend.weight) {
            return fail(format!(
                "{name}: use a weight from 1 to {MAX_WEIGHT}, or `state = \"draining\"` for none"
            ));
        }
        let plain = |device: &String| {
            let graphic = device
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'/');
            !device.is_empty() && device.len() <= DEVICE_NAME_BYTES && graphic
        };
        if !backend.device.iter().all(plain) {
            return fail(format!(
                "{name}: not a device name: use 1 to {DEVICE_NAME_BYTES} characters"
            ));
        }
        let Some(address) = backend.address else {
            return match backend.device {
                Some(_) => Ok(()),
                None => fail(format!("{name}: add an address or a device")),
            };
        };
        if let Some(why) = unusable(address) {
            return fail(format!("{name}: {address} is {why}"));
        }
        if !taken.insert(address) {
            return fail(format!(
                "{name}: {address} is already in use as a service, a redirector or a backend: choose another"
            ));
        }
        if !own.iter().any(|own| own.is_ipv4() == address.is_ipv4()) {
            return fail(format!(
                "{name}: add an `address` of the family of {address} to the redirector"
            ));
        }
        Ok(())
    }

    fn nearest(&self, raw: &RawNearest, sites: &[String]) -> Result<Nearest, RedirectConfigError> {
        let mut regions = BTreeMap::new();
        for (code, name) in &raw.regions {
            let Some(site) = site_of(sites, name.get_ref()) else {
                let name_of = name.get_ref();
                let problem = format!("no backend has the site `{name_of}`: correct one of them");
                return Err(self.at(name, problem));
            };
            regions.insert(code.clone(), site);
        }
        Ok(Nearest {
            table: raw.table.clone(),
            regions,
        })
    }
}

#[cfg(test)]
mod tests;
