//! Host names: IP literals, the lines of `/etc/hosts`, and `localhost`.
//!
//! In: the text of a hosts file and a name. Out: addresses, at once. Names that the file does not have are for a
//! resolver. Reads no file. Sources: hosts(5), RFC 6761 §6.3.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest part of a hosts file that is read, in bytes; the rest is ignored.
pub const MAX_HOSTS_BYTES: usize = 4 << 20;

/// Host names and their addresses, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    by_name: BTreeMap<String, Vec<IpAddr>>,
}

impl Hosts {
    /// Parses `ADDRESS NAME...` lines; ignores comments and malformed lines.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let end = text.floor_char_boundary(MAX_HOSTS_BYTES);
        let text = text.get(..end).unwrap_or_default();
        let mut by_name: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse) else {
                continue;
            };
            for name in words {
                by_name
                    .entry(name.to_ascii_lowercase())
                    .or_default()
                    .push(address);
            }
        }
        Self { by_name }
    }

    /// The addresses of a host as written in a URL: a name, `192.0.2.1` or `[2001:db8::1]`; empty if
    /// the name is unknown.
    #[must_use]
    pub fn lookup(&self, host: &str) -> Vec<IpAddr> {
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(address) = bare.parse() {
            return vec![address];
        }
        let host = host.to_ascii_lowercase();
        match self.by_name.get(&host) {
            Some(known) => known.clone(),
            None if host == "localhost" || host.ends_with(".localhost") => {
                vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]
            }
            None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups() {
        let hosts = Hosts::parse(
            "# comment\n127.0.0.1 localhost\n192.0.2.7\tfiles Files.example # both\n\
             2001:db8::7 files\nnonsense line\n\n10.0.0.1",
        );
        let cases: [(&str, &[&str]); 7] = [
            ("files", &["192.0.2.7", "2001:db8::7"]),
            ("FILES.EXAMPLE", &["192.0.2.7"]),
            ("localhost", &["127.0.0.1"]),
            ("10.1.2.3", &["10.1.2.3"]),
            ("[2001:db8::1]", &["2001:db8::1"]),
            ("line", &[]),
            ("both", &[]),
        ];
        for (host, want) in cases {
            let want: Vec<IpAddr> = want.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(hosts.lookup(host), want, "{host}");
        }
    }

    #[test]
    fn a_file_has_a_bound_and_localhost_needs_none() {
        let far = format!("{}\n192.0.2.1 late", "#".repeat(MAX_HOSTS_BYTES));
        let hosts = Hosts::parse(&far);
        assert_eq!(hosts, Hosts::default());
        let own: [IpAddr; 2] = [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
        assert_eq!(hosts.lookup("localhost"), own);
        assert_eq!(hosts.lookup("a.Localhost"), own);
        assert!(hosts.lookup("notlocalhost").is_empty());
    }
}
