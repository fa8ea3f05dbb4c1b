//! The site nearest to a client: the longest matching prefix of a table.
//!
//! In: lines `PREFIX SITE`, or a MaxMind database with a mapping of its countries and continents to
//! sites. Out: the site of an address. Nested prefixes are flattened into disjoint ranges when the
//! table is loaded, so that a packet costs one binary search.
//! IPv4 addresses are stored as IPv4-mapped ones (RFC 4291 §2.5.5.2).

use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeMap;

/// Most prefixes of a table.
pub const MAX_PREFIXES: usize = 2_000_000;

/// Most sites.
pub const MAX_SITES: usize = 256;

/// A site, by its index in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site(pub u16);

/// The reason for rejecting a table. The operator is at fault; nothing was loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A line that is not `PREFIX SITE`.
    #[error("{name}:{line}: not `PREFIX SITE`: for example `192.0.2.0/24 east`")]
    BadLine {
        /// The file.
        name: String,
        /// Line number, from 1.
        line: usize,
    },
    /// A prefix has host bits set.
    #[error("{name}:{line}: host bits are set: write the first address of the network")]
    HostBits {
        /// The file.
        name: String,
        /// Line number, from 1.
        line: usize,
    },
    /// No backend is at this site.
    #[error(
        "{name}:{line}: no backend has the site `{site}`: correct it, or assign it to a backend"
    )]
    UnknownSite {
        /// The file.
        name: String,
        /// Line number, from 1.
        line: usize,
        /// As written.
        site: String,
    },
    /// A prefix listed twice.
    #[error("{name}: {prefix} is listed twice: remove one")]
    Twice {
        /// The file.
        name: String,
        /// The prefix.
        prefix: String,
    },
    /// More than [`MAX_PREFIXES`].
    #[error("{name}: more than {MAX_PREFIXES} prefixes: omit the longest")]
    TooMany {
        /// The file.
        name: String,
    },
    /// Not a MaxMind database.
    #[error(
        "{name}: not a MaxMind database ({why}): use a country database, with the suffix .mmdb"
    )]
    BadDatabase {
        /// The file.
        name: String,
        /// The error of its reader.
        why: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    first: u128,
    /// Prefix length, of 128.
    bits: u8,
    site: Site,
}

impl Prefix {
    const fn last(&self) -> u128 {
        self.first | host_mask(self.bits)
    }
}

/// Sites by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The first address of each range, ascending; a range ends before the next.
    ranges: Vec<(u128, Option<Site>)>,
}

impl Table {
    /// Parses lines `PREFIX SITE`, skipping empty lines and comments after `#`. `sites` are the
    /// names in the order of their numbers, `name` is for messages.
    ///
    /// # Errors
    /// [`TableError`], with the line.
    pub fn parse(name: &str, text: &str, sites: &[String]) -> Result<Self, TableError> {
        let mut prefixes = Vec::new();
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.split('#').next().unwrap_or_default();
            let mut words = content.split_ascii_whitespace();
            let Some(first) = words.next() else { continue };
            let bad = || TableError::BadLine {
                name: name.to_owned(),
                line,
            };
            let (Some(site), None) = (words.next(), words.next()) else {
                return Err(bad());
            };
            let (first, bits) = parse_prefix(first).ok_or_else(bad)?;
            if first & host_mask(bits) != 0 {
                return Err(TableError::HostBits {
                    name: name.to_owned(),
                    line,
                });
            }
            let site = site_of(sites, site).ok_or_else(|| TableError::UnknownSite {
                name: name.to_owned(),
                line,
                site: site.to_owned(),
            })?;
            prefixes.push(Prefix { first, bits, site });
        }
        Self::build(name, prefixes)
    }

    /// Reads a MaxMind database of countries. `regions` maps ISO codes of countries to sites and,
    /// for other countries, codes of continents.
    ///
    /// # Errors
    /// [`TableError::BadDatabase`], [`TableError::TooMany`].
    pub fn from_database(
        name: &str,
        bytes: Vec<u8>,
        regions: &BTreeMap<String, Site>,
    ) -> Result<Self, TableError> {
        let bad = |error: maxminddb::MaxMindDbError| TableError::BadDatabase {
            name: name.to_owned(),
            why: error.to_string(),
        };
        let reader = maxminddb::Reader::from_source(bytes).map_err(bad)?;
        let mut prefixes = Vec::new();
        for found in reader
            .networks(maxminddb::WithinOptions::default())
            .map_err(bad)?
        {
            let found = found.map_err(bad)?;
            let record: Option<Region<'_>> = found.decode().map_err(bad)?;
            let Some(site) = record.and_then(|record| record.site(regions)) else {
                continue;
            };
            let network = found.network().map_err(bad)?;
            let address = network.ip();
            // A database of both families holds IPv4 in the lowest 96 bits.
            prefixes.push(Prefix {
                first: mapped(address),
                bits: network.prefix() + if address.is_ipv4() { 96 } else { 0 },
                site,
            });
            if prefixes.len() > MAX_PREFIXES {
                break;
            }
        }
        Self::build(name, prefixes)
    }

    fn build(name: &str, mut prefixes: Vec<Prefix>) -> Result<Self, TableError> {
        if prefixes.len() > MAX_PREFIXES {
            return Err(TableError::TooMany {
                name: name.to_owned(),
            });
        }
        // A prefix comes before those inside it.
        prefixes.sort_unstable();
        let same =
            |pair: &&[Prefix]| matches!(pair, [a, b] if (a.first, a.bits) == (b.first, b.bits));
        if let Some([one, _]) = prefixes.windows(2).find(same) {
            let prefix = format!("{}/{}", Ipv6Addr::from(one.first), one.bits);
            return Err(TableError::Twice {
                name: name.to_owned(),
                prefix,
            });
        }
        let mut table = Self::default();
        // The prefixes around the current address, the innermost last.
        let mut open: Vec<Prefix> = Vec::new();
        for prefix in prefixes {
            table.close(&mut open, Some(prefix.first));
            table.begin(prefix.first, Some(prefix.site));
            open.push(prefix);
        }
        table.close(&mut open, None);
        Ok(table)
    }

    /// Ends the open prefixes that do not reach to `upto`; after each, the enclosing one continues.
    fn close(&mut self, open: &mut Vec<Prefix>, upto: Option<u128>) {
        while let Some(inner) = open.last()
            && upto.is_none_or(|upto| inner.last() < upto)
        {
            let next = inner.last().checked_add(1);
            open.pop();
            if let Some(next) = next {
                self.begin(next, open.last().map(|outer| outer.site));
            }
        }
    }

    fn begin(&mut self, at: u128, site: Option<Site>) {
        match self.ranges.last_mut() {
            Some((last, known)) if *last == at => *known = site,
            _ => self.ranges.push((at, site)),
        }
    }

    /// The site of the longest prefix that contains `address`.
    #[must_use]
    pub fn site(&self, address: IpAddr) -> Option<Site> {
        let address = mapped(address);
        let after = self.ranges.partition_point(|(first, _)| *first <= address);
        self.ranges.get(after.checked_sub(1)?)?.1
    }
}

/// The relevant part of a database record.
#[derive(serde::Deserialize)]
struct Region<'a> {
    #[serde(borrow, default)]
    country: Option<Iso<'a>>,
    #[serde(borrow, default)]
    continent: Option<Code<'a>>,
}

#[derive(serde::Deserialize)]
struct Iso<'a> {
    iso_code: Option<&'a str>,
}

#[derive(serde::Deserialize)]
struct Code<'a> {
    code: Option<&'a str>,
}

impl Region<'_> {
    fn site(&self, regions: &BTreeMap<String, Site>) -> Option<Site> {
        let country = self.country.as_ref().and_then(|country| country.iso_code);
        let continent = self.continent.as_ref().and_then(|continent| continent.code);
        let codes = [country, continent].into_iter().flatten();
        codes.filter_map(|code| regions.get(code)).next().copied()
    }
}

/// Returns the number of a site by its name.
#[must_use]
pub fn site_of(sites: &[String], name: &str) -> Option<Site> {
    let place = sites.iter().position(|site| site == name)?;
    u16::try_from(place).ok().map(Site)
}

fn parse_prefix(text: &str) -> Option<(u128, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    let (most, before) = if address.is_ipv4() {
        (32, 96)
    } else {
        (128, 0)
    };
    (bits <= most).then(|| (mapped(address), bits + before))
}

const fn host_mask(bits: u8) -> u128 {
    match 128_u32.checked_sub(bits as u32) {
        None | Some(0) => 0,
        Some(host) => u128::MAX >> (128 - host),
    }
}

const fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sites() -> Vec<String> {
        ["east", "west", "south"].map(String::from).to_vec()
    }

    fn table(text: &str) -> Result<Table, String> {
        Table::parse("sites", text, &sites()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_longest_prefix_decides() {
        let table = table(
            "0.0.0.0/0 east\n10.0.0.0/8 west # a comment\n\n10.1.0.0/16 south\n\
             10.1.2.0/24 west\n10.1.2.3/32 east\n2001:db8::/32 south\n255.255.255.255/32 west\n",
        )
        .unwrap();
        let cases = [
            ("9.255.255.255", Some(0)),
            ("10.0.0.0", Some(1)),
            ("10.1.0.0", Some(2)),
            ("10.1.2.0", Some(1)),
            ("10.1.2.3", Some(0)),
            ("10.1.2.4", Some(1)),
            ("10.1.3.0", Some(2)),
            ("10.2.0.0", Some(1)),
            ("11.0.0.0", Some(0)),
            ("255.255.255.255", Some(1)),
            ("2001:db8::1", Some(2)),
            ("2001:db9::", None),
            ("::", None),
        ];
        for (address, want) in cases {
            assert_eq!(
                table.site(address.parse().unwrap()),
                want.map(Site),
                "{address}"
            );
        }
        assert_eq!(Table::default().site("::1".parse().unwrap()), None);
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        let cases = [
            ("10.0.0.0/8", "sites:1: not `PREFIX SITE`"),
            ("10.0.0.0/8 east now", "sites:1: not `PREFIX SITE`"),
            ("\n10.0.0.0/33 east", "sites:2: not `PREFIX SITE`"),
            ("10.0.0.0 east", "sites:1: not `PREFIX SITE`"),
            ("10.0.0.1/8 east", "sites:1: host bits are set"),
            ("::1/0 east", "sites:1: host bits are set"),
            ("::/0 north", "sites:1: no backend has the site `north`"),
            ("::/0 east\n::/0 west", "sites: ::/0 is listed twice"),
        ];
        for (text, want) in cases {
            let error = table(text).unwrap_err();
            assert!(error.starts_with(want) && error.contains(": "), "{error}");
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let prefix = |n: usize| Prefix {
            first: n as u128,
            bits: 128,
            site: Site(0),
        };
        let full: Vec<_> = (0..MAX_PREFIXES).map(prefix).collect();
        let over = full.iter().copied().chain([prefix(MAX_PREFIXES)]).collect();
        assert!(Table::build("t", full).is_ok());
        assert!(matches!(
            Table::build("t", over),
            Err(TableError::TooMany { .. })
        ));
    }

    /// Encodes a string in MaxMind's format.
    fn string(text: &str) -> Vec<u8> {
        [&[0x40 | text.len() as u8], text.as_bytes()].concat()
    }

    /// Encodes a map in that format, with encoded values.
    fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut out = vec![0xe0 | entries.len() as u8];
        for (key, value) in entries {
            out.extend(string(key));
            out.extend(value);
        }
        out
    }

    /// 0.0.0.0/1 is in DE, 128.0.0.0/2 somewhere in EU, the rest unknown.
    fn database() -> Vec<u8> {
        let germany = map(&[("country", map(&[("iso_code", string("DE"))]))]);
        let europe = map(&[("continent", map(&[("code", string("EU"))]))]);
        let (nodes, before_data) = (2, 16);
        let data = |offset: usize| (nodes + before_data + offset) as u8;
        let records = [data(0), 1, data(germany.len()), nodes as u8];
        let tree = records.iter().flat_map(|record| [0, 0, *record]);
        let short = |value: u8| vec![0xa1, value];
        let metadata = map(&[
            ("binary_format_major_version", short(2)),
            ("binary_format_minor_version", short(0)),
            ("build_epoch", vec![0x01, 0x02, 1]),
            ("database_type", string("Test")),
            ("description", map(&[])),
            ("ip_version", short(4)),
            ("languages", vec![0x00, 0x04]),
            ("node_count", vec![0xc1, nodes as u8]),
            ("record_size", short(24)),
        ]);
        let marker = b"\xab\xcd\xefMaxMind.com";
        tree.chain([0; 16])
            .chain(germany)
            .chain(europe)
            .chain(*marker)
            .chain(metadata)
            .collect()
    }

    #[test]
    fn a_database_of_countries_gives_sites() {
        let regions = [("DE", 0), ("EU", 1)].map(|(code, site)| (code.to_owned(), Site(site)));
        let regions = BTreeMap::from(regions);
        let table = Table::from_database("t", database(), &regions).unwrap();
        let site = |address: &str| table.site(address.parse().unwrap()).map(|site| site.0);
        assert_eq!(site("1.2.3.4"), Some(0));
        assert_eq!(site("127.255.255.255"), Some(0));
        assert_eq!(site("128.0.0.0"), Some(1));
        assert_eq!((site("192.0.0.0"), site("::1")), (None, None));
        for cut in [0, 10, 60, database().len() - 4] {
            let error = Table::from_database("t", database()[..cut].to_vec(), &regions);
            assert!(
                matches!(error, Err(TableError::BadDatabase { .. })),
                "{cut}"
            );
        }
    }

    proptest! {
        #[test]
        fn unfolding_is_as_good_as_looking_through_all(
            prefixes in prop::collection::btree_map((any::<u128>(), 0..=128_u8), 0..3_u16, 0..40),
            near in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 40),
            any in prop::collection::vec(any::<u128>(), 10),
        ) {
            let all: BTreeMap<(u128, u8), u16> = prefixes
                .into_iter()
                .map(|((first, bits), site)| ((first & !host_mask(bits), bits), site))
                .collect();
            let lines: Vec<String> = all
                .iter()
                .map(|((first, bits), site)| {
                    format!("{}/{bits} {}\n", Ipv6Addr::from(*first), sites()[usize::from(*site)])
                })
                .collect();
            let table = table(&lines.concat()).unwrap();
            let edges: Vec<u128> = all
                .keys()
                .flat_map(|&(first, bits)| {
                    let last = first | host_mask(bits);
                    [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                })
                .collect();
            let picked = near.iter().filter(|_| !edges.is_empty()).map(|(at, _)| *at.get(&edges));
            for address in any.into_iter().chain(picked) {
                let longest = all
                    .iter()
                    .filter(|((first, bits), _)| address & !host_mask(*bits) == *first)
                    .max_by_key(|((_, bits), _)| *bits)
                    .map(|(_, site)| Site(*site));
                prop_assert_eq!(table.site(Ipv6Addr::from(address).into()), longest);
            }
        }
    }
}
