//! Host names: IP literals, and the lines of `/etc/hosts` (hosts(5)).
//!
//! In: the text of a hosts file and a name. Out: addresses, at once. Names that the file does
//! not have are for the resolver of the operating system.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

/// The file that maps host names to addresses.
pub const HOSTS: &str = "/etc/hosts";

/// Longest part of a hosts file that is read, in bytes; the rest is ignored.
pub const MAX_HOSTS_BYTES: usize = 4 << 20;

/// Host names and their addresses, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    by_name: BTreeMap<String, Vec<IpAddr>>,
}

impl Hosts {
    /// Reads a hosts file; an unreadable one counts as empty.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read(path).unwrap_or_default();
        let text = text
            .get(..MAX_HOSTS_BYTES.min(text.len()))
            .unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(text))
    }

    /// Parses `ADDRESS NAME...` lines; ignores comments and malformed lines.
    #[must_use]
    pub fn parse(text: &str) -> Self {
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
        self.by_name
            .get(&host.to_ascii_lowercase())
            .cloned()
            .unwrap_or_default()
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
    fn a_missing_file_names_nobody() {
        assert_eq!(
            Hosts::read(Path::new("/nonexistent/hosts")),
            Hosts::default()
        );
    }
}
