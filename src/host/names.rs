//! The names of a client: answers at hand, and look-ups that the driver makes.
//!
//! In: hosts as written in URLs, answers. Out: addresses, or a look-up to make. A machine does no
//! I/O, so a name that its resolver does not know at once is the driver's to look up, on a thread or
//! in any other way; the transfer waits meanwhile. Answers are kept for a minute, as by curl.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use crate::apps::fetch::target::Target;
use crate::connect::resolve::ResolveError;
use crate::host::config::{Resolve, literal};
use crate::time::Instant;

/// Most names whose answers are kept; the oldest makes room.
pub const MAX_KNOWN_NAMES: usize = 16;

/// Time for which the answer of a look-up is kept.
const KEPT: Duration = Duration::from_secs(60);

/// The result of resolving a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The addresses of the host; none if it has none.
    Known(Vec<IpAddr>),
    /// The driver must look the name up: see [`ClientHost::poll_lookup`](crate::ClientHost::poll_lookup).
    Pending,
}

/// The outcome of a look-up, so far; see [`ClientHost::handle_lookup`](crate::ClientHost::handle_lookup).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupAnswer {
    /// All addresses so far, the best first; at least one. More may come: the race for a connection begins with
    /// these.
    Partial(Vec<IpAddr>),
    /// All addresses, the best first; none if the host has none.
    Complete(Vec<IpAddr>),
    /// None, for this reason; or no more than were known.
    Failed(ResolveError),
}

impl From<Vec<IpAddr>> for Resolution {
    fn from(addresses: Vec<IpAddr>) -> Self {
        Self::Known(addresses)
    }
}

impl FromIterator<IpAddr> for Resolution {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        Self::Known(addresses.into_iter().collect())
    }
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Whether an address is of this family.
    #[must_use]
    pub const fn has(self, address: IpAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// A host whose addresses are given, like curl's `--resolve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The host as in a URL, in lower case; any if `None`.
    host: Option<String>,
    /// The port of the URL.
    port: u16,
    /// The addresses, the best first; at least one.
    pub(super) addresses: Vec<IpAddr>,
}

/// Why text is not a [`Pinned`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinnedError {
    /// Parts are missing.
    #[error("use HOST:PORT:ADDRESS[,ADDRESS]..., with the host and the port of a URL")]
    Form,
    /// An address is malformed.
    #[error("'{0}' is not an IP address")]
    Address(String),
}

impl Pinned {
    /// Parses `HOST:PORT:ADDRESS[,ADDRESS]...`; the host may be `*`, IPv6 addresses are in brackets.
    ///
    /// # Errors
    /// [`PinnedError`].
    pub fn parse(text: &str) -> Result<Self, PinnedError> {
        let (host, rest) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inner, rest) = rest.split_once("]:").ok_or(PinnedError::Form)?;
                (format!("[{inner}]"), rest)
            }
            None => {
                let (host, rest) = text.split_once(':').ok_or(PinnedError::Form)?;
                (host.to_ascii_lowercase(), rest)
            }
        };
        let (port, addresses) = rest.split_once(':').ok_or(PinnedError::Form)?;
        let port = port.parse().map_err(|_| PinnedError::Form)?;
        let address = |text: &str| {
            let bare = text
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            let address = bare.unwrap_or(text).parse();
            address.map_err(|_| PinnedError::Address(text.to_owned()))
        };
        match host.is_empty() {
            true => Err(PinnedError::Form),
            false => Ok(Self {
                host: (host != "*").then_some(host),
                port,
                addresses: addresses
                    .split(',')
                    .map(address)
                    .collect::<Result<_, _>>()?,
            }),
        }
    }

    /// Creates one for a host, as in a URL.
    #[must_use]
    pub fn new(host: &str, port: u16, addresses: Vec<IpAddr>) -> Self {
        Self {
            host: Some(host.to_ascii_lowercase()),
            port,
            addresses,
        }
    }

    /// The addresses, the best first.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether it is for a host, as in a URL, and its port.
    #[must_use]
    pub fn is_for(&self, host: &str, port: u16) -> bool {
        self.port == port && self.host.as_deref().is_none_or(|own| own == host)
    }
}

/// A host and port to connect to in place of those of a URL, like curl's `--connect-to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectTo {
    /// The host of the URL, in lower case; any if `None`.
    host: Option<String>,
    /// The port of the URL; any if `None`.
    port: Option<u16>,
    /// The host to connect to; that of the URL if `None`.
    to_host: Option<String>,
    /// The port to connect to; if `None`, as without this.
    to_port: Option<u16>,
}

impl ConnectTo {
    /// Parses `HOST1:PORT1:HOST2:PORT2`, of which each part may be empty; IPv6 addresses are in brackets.
    ///
    /// # Errors
    /// [`ConnectToError`].
    pub fn parse(text: &str) -> Result<Self, ConnectToError> {
        let (host, rest) = host_and_rest(text)?;
        let (port, rest) = rest.split_once(':').ok_or(ConnectToError)?;
        let (to_host, to_port) = host_and_rest(rest)?;
        let named = |host: &str| (!host.is_empty()).then(|| host.to_ascii_lowercase());
        Ok(Self {
            host: named(host),
            port: port_or_none(port)?,
            to_host: named(to_host),
            to_port: port_or_none(to_port)?,
        })
    }

    /// Whether it is for a host, as in a URL, and its port.
    fn is_for(&self, host: &str, port: u16) -> bool {
        let host_fits = self.host.as_deref().is_none_or(|own| own == host);
        host_fits && self.port.is_none_or(|own| own == port)
    }
}

/// Why text is not a [`ConnectTo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "use HOST1:PORT1:HOST2:PORT2, with the host and the port of a URL first; each part may be empty"
)]
pub struct ConnectToError;

/// Splits a host, perhaps in brackets, and the text behind the colon after it.
fn host_and_rest(text: &str) -> Result<(&str, &str), ConnectToError> {
    let end = match text.starts_with('[') {
        true => text.find(']').ok_or(ConnectToError)? + 1,
        false => text.find(':').ok_or(ConnectToError)?,
    };
    let (host, rest) = text.split_at_checked(end).ok_or(ConnectToError)?;
    let rest = rest.strip_prefix(':').ok_or(ConnectToError)?;
    Ok((host, rest))
}

fn port_or_none(text: &str) -> Result<Option<u16>, ConnectToError> {
    match text.is_empty() {
        true => Ok(None),
        false => text.parse().map(Some).map_err(|_| ConnectToError),
    }
}

/// The host to look up for a URL, and the port to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Destination<'t> {
    /// The host, as in a URL.
    pub(super) host: &'t str,
    /// The port for which the host may be pinned.
    pub(super) url_port: u16,
    /// The port to connect to; `None`: that of the protocol.
    pub(super) port: Option<u16>,
}

impl<'t> Destination<'t> {
    /// The destination of a URL; the first of `rules` that is for it counts.
    pub(super) fn new(rules: &'t [ConnectTo], target: &'t Target) -> Self {
        let (host, port) = (target.host(), target.port());
        let rule = rules.iter().find(|rule| rule.is_for(host, port));
        let to_port = rule.and_then(|rule| rule.to_port);
        Self {
            host: rule
                .and_then(|rule| rule.to_host.as_deref())
                .unwrap_or(host),
            url_port: to_port.unwrap_or(port),
            port: to_port,
        }
    }
}

/// The answers of look-ups.
#[derive(Debug, Default)]
pub(super) struct Names(VecDeque<(Instant, String, Vec<IpAddr>)>);

impl Names {
    /// Resolves a host with `resolve`, or with an answer that is kept.
    pub(super) fn resolve(&self, now: Instant, resolve: &Resolve, host: &str) -> Resolution {
        match resolve(host) {
            Resolution::Pending => {
                if let Some(address) = literal(host) {
                    return Resolution::Known(vec![address]);
                }
                let fresh = |(since, _, _): &&(Instant, _, _)| now.saturating_since(*since) < KEPT;
                let mut kept = self.0.iter().filter(fresh);
                match kept.find(|(_, name, _)| name == host) {
                    Some((_, _, addresses)) => Resolution::Known(addresses.clone()),
                    None => Resolution::Pending,
                }
            }
            known @ Resolution::Known(_) => known,
        }
    }

    /// Keeps an answer, unless there are no addresses: the next transfer asks again.
    pub(super) fn keep(&mut self, now: Instant, host: &str, addresses: &[IpAddr]) {
        self.0.retain(|(_, name, _)| name != host);
        if addresses.is_empty() {
            return;
        }
        if self.0.len() >= MAX_KNOWN_NAMES {
            self.0.pop_front();
        }
        self.0.push_back((now, host.to_owned(), addresses.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Instant {
        Instant::from_micros(count * 1_000_000)
    }

    #[test]
    fn hosts_are_pinned_in_the_form_of_curl() {
        let addresses = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        for (text, want) in [
            (
                "Files:80:192.0.2.1",
                Ok(("files", 80, addresses(&["192.0.2.1"]))),
            ),
            (
                "*:8080:[2001:db8::1],192.0.2.2",
                Ok(("any", 8080, addresses(&["2001:db8::1", "192.0.2.2"]))),
            ),
            (
                "[::1]:80:2001:db8::1",
                Ok(("[::1]", 80, addresses(&["2001:db8::1"]))),
            ),
            ("files:80", Err(PinnedError::Form)),
            ("files", Err(PinnedError::Form)),
            (":80:192.0.2.1", Err(PinnedError::Form)),
            ("files:x:192.0.2.1", Err(PinnedError::Form)),
            ("files:80:", Err(PinnedError::Address(String::new()))),
            ("files:80:h", Err(PinnedError::Address("h".to_owned()))),
        ] {
            let got = Pinned::parse(text);
            match (got, want) {
                (Ok(got), Ok((host, port, addresses))) => {
                    assert_eq!(got.addresses, addresses, "{text}");
                    assert!(
                        got.is_for(host, port) && !got.is_for(host, port + 1),
                        "{text}"
                    );
                    assert_eq!(got.is_for("other", port), host == "any", "{text}");
                }
                (got, want) => assert_eq!(got.err(), want.err(), "{text}"),
            }
        }
    }

    #[test]
    fn destinations_are_changed_in_the_form_of_curl() {
        let target = Target::parse("http://Files:81/").unwrap();
        for (rules, want) in [
            ("", ("files", 81, None)),
            ("files:81:other:7601", ("other", 7601, Some(7601))),
            ("files:80:other:1", ("files", 81, None)),
            ("::other:", ("other", 81, None)),
            (":::7601", ("files", 7601, Some(7601))),
            ("files::[::1]:", ("[::1]", 81, None)),
            (
                "[::1]:81:h:1 FILES:81:Second:2 files:81:third:3",
                ("second", 2, Some(2)),
            ),
        ] {
            let rules = rules.split_whitespace().map(ConnectTo::parse);
            let rules: Vec<ConnectTo> = rules.collect::<Result<_, _>>().unwrap();
            let Destination {
                host,
                url_port,
                port,
            } = Destination::new(&rules, &target);
            assert_eq!((host, url_port, port), want);
        }
        for text in [
            "",
            "a",
            "a:1",
            "a:1:b",
            "a:x:b:1",
            "a:1:b:65536",
            "[::1:1:b:1",
            "[::1]1:b:1",
            "a:1:[::1",
        ] {
            assert_eq!(ConnectTo::parse(text), Err(ConnectToError), "{text}");
        }
    }

    #[test]
    fn answers_are_kept_for_a_minute_and_few() {
        let resolve: Resolve = Box::new(|host| match host {
            "here" => Resolution::Known(vec!["192.0.2.1".parse().unwrap()]),
            _ => Resolution::Pending,
        });
        let there: [IpAddr; 1] = ["192.0.2.2".parse().unwrap()];
        let known = Resolution::Known(there.to_vec());
        let mut names = Names::default();
        let at = |names: &Names, second, host| names.resolve(seconds(second), &resolve, host);
        assert_eq!(
            at(&names, 0, "here"),
            Resolution::Known(vec!["192.0.2.1".parse().unwrap()])
        );
        assert_eq!(
            at(&names, 0, "[2001:db8::1]"),
            Resolution::Known(vec!["2001:db8::1".parse().unwrap()])
        );
        assert_eq!(at(&names, 0, "there"), Resolution::Pending);
        names.keep(seconds(1), "there", &there);
        assert_eq!(at(&names, 60, "there"), known);
        assert_eq!(at(&names, 61, "there"), Resolution::Pending);
        names.keep(seconds(61), "there", &there);
        assert_eq!(at(&names, 62, "there"), known);
        names.keep(seconds(62), "nowhere", &[]);
        assert_eq!(at(&names, 62, "nowhere"), Resolution::Pending);
        for n in 0..MAX_KNOWN_NAMES {
            assert_eq!(at(&names, 63, "there"), known, "{n} others");
            names.keep(seconds(63), &n.to_string(), &there);
        }
        assert_eq!(at(&names, 63, "there"), Resolution::Pending);
        assert_eq!(names.0.len(), MAX_KNOWN_NAMES);
    }
}
