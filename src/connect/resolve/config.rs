//! The settings of a resolver, as in `/etc/resolv.conf`.
//!
//! In: the text of the file. Out: settings, every value in range. Lines and options that are unknown or malformed
//! are ignored, as by the resolver of the C library. Reads no file. Source: resolv.conf(5).

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use super::message::DnsName;

/// UDP and TCP port of DNS servers.
pub const DNS_PORT: u16 = 53;

/// Most servers that are asked; further ones are ignored.
pub const MAX_SERVERS: usize = 8;

/// Most domains to search; further ones are ignored.
pub const MAX_SEARCH_DOMAINS: usize = 16;

/// Most dots that `ndots` can require.
pub const MAX_NDOTS: u32 = 15;

/// Longest time for which one server is waited for.
pub const MAX_SERVER_TIMEOUT: Duration = Duration::from_secs(30);

/// Most rounds through the servers.
pub const MAX_ROUNDS: u32 = 5;

/// The settings of a resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverConfig {
    /// The servers, the first to be asked first; at most [`MAX_SERVERS`].
    pub servers: Vec<SocketAddr>,
    /// The domains that are appended to names with fewer than `ndots` dots; at most [`MAX_SEARCH_DOMAINS`].
    pub search: Vec<DnsName>,
    /// Dots from which on a name is queried as it is before the search domains are appended; at most [`MAX_NDOTS`].
    pub ndots: u32,
    /// The time after which the next server is asked; at most [`MAX_SERVER_TIMEOUT`].
    pub timeout: Duration,
    /// Rounds through the servers, 1 to [`MAX_ROUNDS`].
    pub attempts: u32,
    /// Whether each look-up begins with the next server.
    pub rotate: bool,
    /// Whether all queries go over TCP.
    pub tcp_only: bool,
}

impl Default for ResolverConfig {
    /// No server; else as in an empty file.
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            tcp_only: false,
        }
    }
}

impl ResolverConfig {
    /// Parses a file. `interface` returns the index of an interface, for servers like `fe80::1%eth0`.
    #[must_use]
    pub fn parse(text: &str, interface: impl Fn(&str) -> Option<u32>) -> Self {
        let mut config = Self::default();
        for line in text.lines() {
            // Comments begin in the first column.
            if line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| address(word, &interface));
                    if let Some(server) = server
                        && config.servers.len() < MAX_SERVERS
                    {
                        config.servers.push(server);
                    }
                }
                // The last of these lines counts.
                Some("domain") => {
                    config.search = words.take(1).filter_map(DnsName::parse).collect()
                }
                Some("search") => {
                    let domains = words.filter_map(DnsName::parse);
                    config.search = domains.take(MAX_SEARCH_DOMAINS).collect();
                }
                Some("options") => words.for_each(|option| config.set(option)),
                Some(_) | None => {}
            }
        }
        config
    }

    fn set(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        let number = value.parse::<u32>().ok();
        match (name, number) {
            ("ndots", Some(number)) => self.ndots = number.min(MAX_NDOTS),
            ("timeout", Some(number)) => {
                let timeout = Duration::from_secs(number.max(1).into());
                self.timeout = timeout.min(MAX_SERVER_TIMEOUT);
            }
            ("attempts", Some(number)) => self.attempts = number.clamp(1, MAX_ROUNDS),
            ("rotate", None) => self.rotate = true,
            ("use-vc", None) => self.tcp_only = true,
            _ => {}
        }
    }
}

/// Parses the address of a server on [`DNS_PORT`], perhaps with a zone.
fn address(text: &str, interface: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    match text.split_once('%') {
        Some((address, zone)) => {
            let address: Ipv6Addr = address.parse().ok()?;
            let zone = zone.parse().ok().or_else(|| interface(zone))?;
            Some(SocketAddrV6::new(address, DNS_PORT, 0, zone).into())
        }
        None => Some(SocketAddr::new(text.parse().ok()?, DNS_PORT)),
    }
}

/// Why text is not a list of servers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServersError {
    /// A part is not the address of a server.
    #[error(
        "'{0}' is not the address of a DNS server: use ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT"
    )]
    Address(String),
    /// More than [`MAX_SERVERS`].
    #[error("more than {MAX_SERVERS} DNS servers: remove some")]
    TooMany,
}

/// Parses `ADDRESS[:PORT][,ADDRESS[:PORT]]...`, as curl's `--dns-servers`; an IPv6 address with a port is in
/// brackets.
///
/// # Errors
/// [`ServersError`].
pub fn parse_servers(text: &str) -> Result<Vec<SocketAddr>, ServersError> {
    let server = |part: &str| {
        let bare = part
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let address = bare.unwrap_or(part).parse::<IpAddr>();
        let alone = address.map(|address| SocketAddr::new(address, DNS_PORT));
        let server = alone.ok().or_else(|| part.parse().ok());
        let usable = server.filter(|server| server.port() != 0 && !server.ip().is_unspecified());
        usable.ok_or_else(|| ServersError::Address(part.to_owned()))
    };
    let servers: Vec<SocketAddr> = text.split(',').map(server).collect::<Result<_, _>>()?;
    match servers.len() > MAX_SERVERS {
        true => Err(ServersError::TooMany),
        false => Ok(servers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> ResolverConfig {
        ResolverConfig::parse(text, |name| (name == "eth0").then_some(7))
    }

    fn name(text: &str) -> DnsName {
        DnsName::parse(text).unwrap()
    }

    #[test]
    fn a_file_is_read_as_the_c_library_reads_it() {
        let config = parse(
            "# comment\n; another\ndomain old.test\nnameserver 192.0.2.53 # the rest is ignored\n\
             nameserver 2001:db8::53\nnameserver fe80::1%eth0\nnameserver fe80::1%3\n\
             nameserver fe80::1%nowhere\nnameserver dns.test\nnameserver\nsearch a.test B.Test. -\n\
             options ndots:2 timeout:1 attempts:3 rotate use-vc edns0 no-such\nsortlist 10.0.0.0",
        );
        let servers: Vec<String> = config.servers.iter().map(ToString::to_string).collect();
        let want = [
            "192.0.2.53:53",
            "[2001:db8::53]:53",
            "[fe80::1%7]:53",
            "[fe80::1%3]:53",
        ];
        assert_eq!(servers, want);
        assert_eq!(config.search, [name("a.test"), name("b.test"), name("-")]);
        assert_eq!((config.ndots, config.attempts), (2, 3));
        assert_eq!(config.timeout, Duration::from_secs(1));
        assert!(config.rotate && config.tcp_only);
        assert_eq!(
            parse("search a.test\ndomain b.test").search,
            [name("b.test")]
        );
        assert_eq!(parse(""), ResolverConfig::default());
    }

    #[test]
    fn values_out_of_range_are_the_nearest_in_range() {
        let high = parse("options ndots:99 timeout:99 attempts:99");
        assert_eq!((high.ndots, high.attempts), (MAX_NDOTS, MAX_ROUNDS));
        assert_eq!(high.timeout, MAX_SERVER_TIMEOUT);
        let low =
            parse("options ndots:0 timeout:0 attempts:0 ndots:-1 timeout: attempts:x rotate:1");
        assert_eq!((low.ndots, low.attempts, low.rotate), (0, 1, false));
        assert_eq!(low.timeout, Duration::from_secs(1));
        let servers: String = (0..=MAX_SERVERS)
            .map(|n| format!("nameserver 192.0.2.{n}\n"))
            .collect();
        assert_eq!(parse(&servers).servers.len(), MAX_SERVERS);
        let domains: String = (0..=MAX_SEARCH_DOMAINS)
            .map(|n| format!(" d{n}.test"))
            .collect();
        assert_eq!(
            parse(&format!("search{domains}")).search.len(),
            MAX_SEARCH_DOMAINS
        );
    }

    #[test]
    fn servers_are_given_as_to_curl() {
        let servers = |text: &str| -> Result<Vec<String>, ServersError> {
            Ok(parse_servers(text)?
                .iter()
                .map(ToString::to_string)
                .collect())
        };
        let want = [
            "192.0.2.1:53",
            "192.0.2.2:5353",
            "[2001:db8::1]:53",
            "[2001:db8::2]:54",
            "[::1]:53",
        ];
        let text = "192.0.2.1,192.0.2.2:5353,2001:db8::1,[2001:db8::2]:54,[::1]";
        assert_eq!(servers(text), Ok(want.map(str::to_owned).to_vec()));
        for text in [
            "",
            "dns.test",
            "192.0.2.1:0",
            "0.0.0.0",
            "192.0.2.1,",
            "192.0.2.1:x",
        ] {
            assert!(
                matches!(servers(text), Err(ServersError::Address(_))),
                "{text}"
            );
        }
        let many = ["192.0.2.1"; MAX_SERVERS + 1];
        assert_eq!(servers(&many[1..].join(",")).unwrap().len(), MAX_SERVERS);
        assert_eq!(servers(&many.join(",")), Err(ServersError::TooMany));
    }

    proptest! {
        #[test]
        fn any_text_gives_values_in_range(text in "((nameserver|search|domain|options|#) [ -~]{0,60}\n|\\PC{0,80}\n){0,20}") {
            let config = parse(&text);
            prop_assert!(config.servers.len() <= MAX_SERVERS && config.search.len() <= MAX_SEARCH_DOMAINS);
            prop_assert!(config.ndots <= MAX_NDOTS && (1..=MAX_ROUNDS).contains(&config.attempts));
            prop_assert!(config.timeout >= Duration::from_secs(1) && config.timeout <= MAX_SERVER_TIMEOUT);
            let _ = parse_servers(&text);
        }
    }
}
