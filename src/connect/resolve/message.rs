//! DNS messages: one question, and the records that answer it.
//!
//! In: a question, or the bytes of a response. Out: the bytes of a query, or a [`Reply`]. Of a response only the
//! answer section counts, and of that only the records of the name in the question and of its aliases (RFC 1034
//! §3.6.2), so that a server cannot add addresses of other names. Nothing here panics or loops on any input.
//! Sources: RFC 1035 §4, RFC 2308 (negative answers), RFC 6891 (EDNS), RFC 9460 (HTTPS records),
//! draft-vixie-dnsext-dns0x20 (spelling).

use core::fmt;
use std::net::IpAddr;
use std::time::Duration;

use simple_dns::rdata::{RData, SVCB, SVCParam};
use simple_dns::{
    CLASS, Label, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question as WireQuestion, RCODE,
    ResourceRecord, TYPE, header_buffer,
};

/// Most aliases (CNAME records) between a name and its records.
pub const MAX_ALIASES: usize = 8;

/// Most records of one answer that are used.
pub const MAX_RECORDS: usize = 64;

/// Largest response over UDP, in bytes: one packet on nearly every path (DNS flag day 2020).
pub const MAX_UDP_RESPONSE: u16 = 1232;

/// Longest time for which an answer is kept, whatever its TTL.
pub const MAX_TTL: Duration = Duration::from_secs(86_400);

/// Longest time for which a negative answer is kept (RFC 2308 §5).
pub const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(3 * 3600);

/// Longest name, in bytes without the final dot (RFC 1035 §3.1).
const MAX_NAME_BYTES: usize = 253;

/// Longest label of a name, in bytes.
const MAX_LABEL_BYTES: usize = 63;

/// Fewest bytes of a record: a root name, type, class, TTL and length.
const RECORD_BYTES: usize = 11;

/// A fully qualified host name, in lower case without the final dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(String);

impl DnsName {
    /// Parses a name in ASCII, with or without a final dot; `None` if the DNS cannot have it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
            (1..=MAX_LABEL_BYTES).contains(&label.len()) && label.bytes().all(plain)
        };
        let valid = text.len() <= MAX_NAME_BYTES && text.split('.').all(is_label);
        valid.then(|| Self(text.to_ascii_lowercase()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name with each letter in upper or lower case, as `upper` decides.
    pub fn respelled(&self, mut upper: impl FnMut() -> bool) -> String {
        let spell = |letter: char| match letter.is_ascii_lowercase() && upper() {
            true => letter.to_ascii_uppercase(),
            false => letter,
        };
        self.0.chars().map(spell).collect()
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A type of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Endpoints of an HTTPS service (RFC 9460).
    Https,
}

impl RecordType {
    const fn wire(self) -> TYPE {
        match self {
            Self::A => TYPE::A,
            Self::Aaaa => TYPE::AAAA,
            Self::Https => TYPE::HTTPS,
        }
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Https => "HTTPS",
        })
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    /// The name.
    pub name: DnsName,
    /// The type of the records.
    pub kind: RecordType,
}

/// An endpoint of an HTTPS service (RFC 9460).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsRecord {
    /// Its rank, the lowest first; 0: an alias, whose target is to be queried.
    pub priority: u16,
    /// The name of the endpoint; `.` is the name in the question.
    pub target: String,
    /// Its port, unless that of the URL.
    pub port: Option<u16>,
    /// Its application protocols besides the default one.
    pub alpn: Vec<String>,
    /// Addresses of the target.
    pub hints: Vec<IpAddr>,
}

/// The records of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// Addresses, in the order of the server; at least one.
    Addresses(Vec<IpAddr>),
    /// Endpoints, the best first; at least one.
    Https(Vec<HttpsRecord>),
    /// The name does not exist (NXDOMAIN).
    NoName,
    /// The name has no records of this type.
    NoData,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The records.
    pub records: Records,
    /// The time for which the answer holds; zero: for this look-up only.
    pub ttl: Duration,
}

/// A query as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its identifier.
    pub id: u16,
    /// The name as it was spelled.
    pub spelling: String,
    /// The type of the records.
    pub kind: RecordType,
    /// Whether it announced EDNS.
    pub edns: bool,
}

/// The meaning of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is none: malformed, with another identifier, or to another question.
    Foreign,
    /// It is one, but for the case of the letters in its question: another host may have guessed it.
    Respelled,
    /// It does not fit a datagram.
    Truncated,
    /// The server does not know EDNS.
    NoEdns,
    /// The server does not answer the question: its code, or the fault of its answer.
    Failed(&'static str),
    /// The answer.
    Answer(Answer),
}

impl Sent {
    /// Returns the bytes of the query; `largest`: the largest response over UDP that is welcome, in bytes.
    #[must_use]
    pub fn to_bytes(&self, largest: u16) -> Vec<u8> {
        let mut packet = Packet::new_query(self.id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(WireQuestion::new(
            wire_name(&self.spelling),
            QTYPE::TYPE(self.kind.wire()),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        if self.edns {
            *packet.opt_mut() = Some(simple_dns::rdata::OPT {
                opt_codes: Vec::new(),
                udp_packet_size: largest,
                version: 0,
            });
        }
        packet.build_bytes_vec().unwrap_or_default()
    }

    /// Reads a response to the query. `is_stream`: it came over TCP, where no other host can have sent it.
    #[must_use]
    pub fn read(&self, bytes: &[u8], is_stream: bool) -> Reply {
        if !announces_plausibly(bytes) {
            return Reply::Foreign;
        }
        // Servers that truncate may do so in the middle of a record.
        if self.is_truncated(bytes) && !is_stream {
            return Reply::Truncated;
        }
        let Ok(packet) = Packet::parse(bytes) else {
            return Reply::Foreign;
        };
        if packet.id() != self.id
            || !packet.has_flags(PacketFlag::RESPONSE)
            || packet.opcode() != OPCODE::StandardQuery
        {
            return Reply::Foreign;
        }
        if let Some(failure) = self.failure(packet.rcode())
            && packet.questions.is_empty()
        {
            // Servers that do not understand a query may leave the question out (RFC 1035 §4.1.1).
            return failure;
        }
        let [question] = packet.questions.as_slice() else {
            return Reply::Foreign;
        };
        let asked = wire_name(&self.spelling);
        if question.qname != asked
            || question.qtype != QTYPE::TYPE(self.kind.wire())
            || question.qclass != QCLASS::CLASS(CLASS::IN)
        {
            return Reply::Foreign;
        }
        if !is_stream && !question.qname.as_bytes().eq(asked.as_bytes()) {
            return Reply::Respelled;
        }
        match self.failure(packet.rcode()) {
            Some(failure) => failure,
            None => self.answer(&packet, &asked),
        }
    }

    /// Whether a response has the identifier of this query and the bit of truncation.
    fn is_truncated(&self, bytes: &[u8]) -> bool {
        let flags = PacketFlag::RESPONSE | PacketFlag::TRUNCATION;
        header_buffer::id(bytes).is_ok_and(|id| id == self.id)
            && header_buffer::has_flags(bytes, flags).unwrap_or(false)
    }

    /// The meaning of a response code, unless it is that of an answer.
    fn failure(&self, code: RCODE) -> Option<Reply> {
        Some(match code {
            RCODE::NoError | RCODE::NameError => return None,
            RCODE::FormatError | RCODE::NotImplemented | RCODE::BADVERS if self.edns => {
                Reply::NoEdns
            }
            RCODE::FormatError => Reply::Failed("FORMERR"),
            RCODE::ServerFailure => Reply::Failed("SERVFAIL"),
            RCODE::NotImplemented => Reply::Failed("NOTIMP"),
            RCODE::Refused => Reply::Failed("REFUSED"),
            RCODE::YXDOMAIN
            | RCODE::YXRRSET
            | RCODE::NXRRSET
            | RCODE::NOTAUTH
            | RCODE::NOTZONE
            | RCODE::BADVERS
            | RCODE::Reserved => Reply::Failed("an unknown code"),
        })
    }

    /// Reads the answer section.
    fn answer(&self, packet: &Packet<'_>, asked: &Name<'_>) -> Reply {
        let mut owner = asked;
        let mut ttl = MAX_TTL;
        for _ in 0..=MAX_ALIASES {
            let of_owner = || packet.answers.iter().filter(|record| is_of(record, owner));
            let records = of_owner().filter(|record| record.rdata.type_code() == self.kind.wire());
            let least = records.clone().map(|record| seconds(record.ttl)).min();
            if let Some(records) = collected(records) {
                let ttl = ttl.min(least.unwrap_or_default());
                return Reply::Answer(Answer { records, ttl });
            }
            let alias = of_owner().find_map(|record| {
                let target = alias_target(record)?;
                Some((target, record.ttl))
            });
            let Some((target, alias_ttl)) = alias else {
                return negative(packet, owner, ttl);
            };
            ttl = ttl.min(seconds(alias_ttl));
            owner = target;
        }
        Reply::Failed("a loop of aliases, or too long a chain")
    }
}

/// Bytes of the header of a message.
const HEADER_BYTES: usize = 12;

/// Whether a message is long enough for the records that it announces: a parser may reserve memory for them.
fn announces_plausibly(bytes: &[u8]) -> bool {
    let counts = [
        header_buffer::questions(bytes),
        header_buffer::answers(bytes),
        header_buffer::name_servers(bytes),
        header_buffer::additional_records(bytes),
    ];
    let [Ok(questions), rest @ ..] = counts else {
        return false;
    };
    let records: Option<usize> = rest
        .into_iter()
        .map(|count| count.ok().map(usize::from))
        .sum();
    let most = bytes.len().saturating_sub(HEADER_BYTES) / RECORD_BYTES;
    questions <= 1 && records.is_some_and(|records| records <= most)
}

fn wire_name(text: &str) -> Name<'_> {
    let labels: Vec<Label<'_>> = text
        .split('.')
        .map(|label| Label::new_unchecked(label.as_bytes()))
        .collect();
    Name::new_with_labels(&labels)
}

fn is_of(record: &ResourceRecord<'_>, owner: &Name<'_>) -> bool {
    record.class == CLASS::IN && record.name == *owner
}

/// A TTL; one with the highest bit counts as zero (RFC 2181 §8).
fn seconds(ttl: u32) -> Duration {
    let ttl = i32::try_from(ttl).unwrap_or(0).unsigned_abs();
    Duration::from_secs(ttl.into())
}

fn alias_target<'p>(record: &'p ResourceRecord<'p>) -> Option<&'p Name<'p>> {
    let RData::CNAME(target) = &record.rdata else {
        return None;
    };
    Some(&target.0)
}

fn address_of(record: &ResourceRecord<'_>) -> Option<IpAddr> {
    if let RData::A(a) = &record.rdata {
        return Some(IpAddr::V4(a.address.into()));
    }
    let RData::AAAA(aaaa) = &record.rdata else {
        return None;
    };
    Some(IpAddr::V6(aaaa.address.into()))
}

/// Collects records of one type; `None` without any.
fn collected<'p>(records: impl Iterator<Item = &'p ResourceRecord<'p>>) -> Option<Records> {
    let (mut addresses, mut endpoints) = (Vec::new(), Vec::new());
    for record in records.take(MAX_RECORDS) {
        if let RData::HTTPS(endpoint) = &record.rdata {
            endpoints.push(https(&endpoint.0));
        } else if let Some(address) = address_of(record)
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    endpoints.sort_by_key(|endpoint| endpoint.priority);
    match (addresses.is_empty(), endpoints.is_empty()) {
        (false, _) => Some(Records::Addresses(addresses)),
        (true, false) => Some(Records::Https(endpoints)),
        (true, true) => None,
    }
}

fn https(record: &SVCB<'_>) -> HttpsRecord {
    let mut endpoint = HttpsRecord {
        priority: record.priority,
        target: format!("{}.", record.target),
        port: None,
        alpn: Vec::new(),
        hints: Vec::new(),
    };
    for param in record.iter_params() {
        match param {
            SVCParam::Port(port) => endpoint.port = Some(*port),
            SVCParam::Alpn(ids) => endpoint.alpn = ids.iter().map(ToString::to_string).collect(),
            SVCParam::Ipv4Hint(hints) => {
                let hints = hints.iter().map(|&hint| IpAddr::V4(hint.into()));
                endpoint.hints.extend(hints);
            }
            SVCParam::Ipv6Hint(hints) => {
                let hints = hints.iter().map(|&hint| IpAddr::V6(hint.into()));
                endpoint.hints.extend(hints);
            }
            SVCParam::Mandatory(_)
            | SVCParam::NoDefaultAlpn
            | SVCParam::Ech(_)
            | SVCParam::InvalidKey
            | SVCParam::Unknown(..) => {}
        }
    }
    endpoint.hints.truncate(MAX_RECORDS);
    endpoint
}

/// Reads an answer without records: for how long it holds is in the SOA record of the zone (RFC 2308 §5); without
/// one it holds for this look-up only.
fn negative(packet: &Packet<'_>, owner: &Name<'_>, ttl: Duration) -> Reply {
    let soa = packet.name_servers.iter().find_map(|record| {
        let of_zone = record.class == CLASS::IN
            && (record.name == *owner || owner.is_subdomain_of(&record.name));
        if let RData::SOA(soa) = &record.rdata
            && of_zone
        {
            return Some(seconds(record.ttl.min(soa.minimum)));
        }
        None
    });
    let known = packet.has_flags(PacketFlag::AUTHORITATIVE_ANSWER)
        || packet.has_flags(PacketFlag::RECURSION_AVAILABLE);
    let records = if packet.rcode() == RCODE::NameError {
        Records::NoName
    } else if soa.is_none() && !known {
        // A referral to other servers, which are not for a client to query.
        return Reply::Failed("no recursion");
    } else {
        Records::NoData
    };
    let ttl = ttl.min(soa.unwrap_or_default()).min(MAX_NEGATIVE_TTL);
    Reply::Answer(Answer { records, ttl })
}

#[cfg(test)]
pub(super) mod tests;
