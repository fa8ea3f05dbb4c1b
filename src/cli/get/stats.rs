//! The statistics file of `get`: one JSON object, written completely or not at all.
//!
//! In: the report and counters of a run. Out: a file for scripts; `schema` increases when a field
//! changes meaning or is removed, not when one is added.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::connect::Transport;
use crate::files::Place;
use crate::host::config::Protocol;
use crate::host::report::ClientReport;
use crate::runtime::OsClock;
use crate::runtime::fifo::{open_patiently, write_patiently};
use crate::runtime::release_signals;
use crate::time::{Instant, micros};

/// Version of the schema.
pub const SCHEMA: u32 = 1;

/// Statistics of a URL.
#[derive(Clone, Debug, Serialize)]
pub struct UrlStats {
    /// The URL as typed.
    pub url: String,
    /// The output file; none for standard output.
    pub output: Option<String>,
    /// The transport of its last connection: `trickles` or `tcp`; none if there was no connection.
    pub transport: Option<&'static str>,
    /// Status code of the response, if one was accepted.
    pub status: Option<u16>,
    /// Body bytes received.
    pub bytes: u64,
    /// Seconds from start to end.
    pub seconds: f64,
    /// `verified`, `absent`, `unchecked` or `mismatch`; none before the end.
    pub digest: Option<&'static str>,
    /// Exit code of this URL alone.
    pub exit: u8,
    /// The error message, if it failed.
    pub error: Option<String>,
}

/// Statistics of a run.
#[derive(Clone, Debug, Serialize)]
pub struct GetStats {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `trickles` or `tcp`: the transport of the last URL that had a connection, else the one that was to be used first.
    pub transport: &'static str,
    /// Exit code of the run.
    pub exit: u8,
    /// Every URL that was started.
    pub urls: Vec<UrlStats>,
    /// Body bytes received.
    pub bytes: u64,
    /// Seconds from the start of the first transfer to the end of the last.
    pub seconds: f64,
    /// Seconds to the first byte of the first transfer.
    pub ttfb_seconds: Option<f64>,
    /// Body bits per second.
    pub goodput_bps: f64,
    /// IP packets received; those of the kernel's TCP are not known.
    pub packets_in: u64,
    /// IP packets sent, counted like `packets_in`.
    pub packets_out: u64,
    /// Bytes received: UDP payloads, for TCP whole IP packets; those of the kernel's TCP are not known.
    pub bytes_in: u64,
    /// Bytes sent, counted like `bytes_in`.
    pub bytes_out: u64,
    /// Connections started.
    pub connections: u64,
    /// The same by transport.
    pub attempts: BTreeMap<&'static str, u64>,
    /// Requests sent over our transport.
    pub requests: u64,
    /// OPEN datagrams sent.
    pub opens: u64,
    /// Connection identities used.
    pub handshakes: u64,
    /// Packets declared lost.
    pub lost: u64,
    /// Requests retransmitted because their whole flight was lost.
    pub repeated: u64,
    /// Probes sent.
    pub probes: u64,
    /// Requests of servers to wait for bytes that are not there yet.
    pub waits: u64,
    /// Requests sent again after such a wait.
    pub asked_again: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Copies of overdue requests to another address of their host.
    pub copies: u64,
    /// Times that a connection went on at another address of its host.
    pub switches: u64,
    /// State transitions claimed, by kind.
    pub transitions: BTreeMap<&'static str, u64>,
    /// Smallest RTT in microseconds, to the server that responded last, or to the nearest if several
    /// respond in turns.
    pub rtt_min_us: Option<u64>,
    /// Smoothed RTT in microseconds.
    pub rtt_smoothed_us: Option<u64>,
    /// Packets received, by server.
    pub by_server: BTreeMap<String, u64>,
    /// Smallest RTT in microseconds, by server.
    pub rtt_min_us_by_server: BTreeMap<String, u64>,
    /// Packets dropped, by reason; reasons with 0 are omitted.
    pub drops: BTreeMap<&'static str, u64>,
    /// The worst of the URLs' digests: `mismatch`, `unchecked`, `absent`, `verified`.
    pub digest: &'static str,
    /// Longest interval without a byte after the first one, in milliseconds; time in which the reader
    /// of the output took none is excluded.
    pub longest_stall_ms: f64,
}

/// The inputs of [`GetStats::new`].
pub struct Counted<'a> {
    /// The transport protocol.
    pub protocol: Protocol,
    /// Exit code of the run.
    pub exit: u8,
    /// Every URL that was started.
    pub urls: Vec<UrlStats>,
    /// From the start of the first transfer to the end of the last.
    pub elapsed: Duration,
    /// The machine's report.
    pub report: &'a ClientReport,
}

impl GetStats {
    /// Computes the statistics of a run.
    #[must_use]
    pub fn new(counted: Counted<'_>) -> Self {
        let Counted {
            protocol,
            exit,
            urls,
            elapsed,
            report,
        } = counted;
        let transport = &report.transport;
        let bytes: u64 = urls.iter().map(|url| url.bytes).sum();
        let seconds = elapsed.as_secs_f64();
        let tcp = report.tcp_connections;
        let stack = &report.stack;
        // The stack counts every packet that arrives, and those that it sends.
        let arrived = |transport: u64, stack: u64| if tcp > 0 { stack } else { transport };
        let left = |transport: u64, stack: u64| transport + if tcp > 0 { stack } else { 0 };
        let (first, _) = protocol.transports();
        let last = urls.iter().rev().find_map(|url| url.transport);
        let mut drops = transport.drops.clone();
        for (reason, count) in stack.drops.iter().filter(|(_, count)| *count > 0) {
            *drops.entry(reason.label()).or_default() += count;
        }
        Self {
            schema: SCHEMA,
            transport: last.unwrap_or(first.label()),
            exit,
            digest: worst_digest(&urls),
            urls,
            bytes,
            seconds,
            ttfb_seconds: report.first_byte.map(|time| time.as_secs_f64()),
            goodput_bps: if seconds > 0.0 {
                to_f64(bytes) * 8.0 / seconds
            } else {
                0.0
            },
            packets_in: arrived(transport.packets_in, stack.packets_in),
            packets_out: left(transport.packets_out, stack.packets_out),
            bytes_in: arrived(transport.bytes_in, stack.bytes_in),
            bytes_out: left(transport.bytes_out, stack.bytes_out),
            connections: report.connections,
            attempts: [
                (Transport::Trickles, report.connections.saturating_sub(tcp)),
                (Transport::Tcp, tcp),
            ]
            .map(|(transport, count)| (transport.label(), count))
            .into(),
            requests: transport.requests,
            opens: transport.opens,
            handshakes: transport.handshakes,
            lost: transport.lost,
            repeated: transport.repeated,
            waits: transport.waits,
            asked_again: transport.asked_again,
            probes: transport.probes,
            timeouts: transport.timeouts,
            copies: transport.copies,
            switches: transport.switches,
            transitions: transport.transitions.clone(),
            rtt_min_us: transport.rtt_min.map(micros),
            rtt_smoothed_us: transport.rtt_smoothed.map(micros),
            by_server: by_name(&transport.by_server, |count| count),
            rtt_min_us_by_server: by_name(&transport.rtt_min_by_server, micros),
            drops,
            longest_stall_ms: to_f64(micros(report.longest_stall)) / 1000.0,
        }
    }

    /// Writes the statistics to a temporary file and renames it. `limit`: see [`write_json`].
    ///
    /// # Errors
    /// The operating system's error; an existing file is then unchanged.
    pub fn write(&self, path: &Path, limit: Option<Duration>) -> io::Result<()> {
        write_json(self, path, limit)
    }
}

/// Writes figures as JSON to a temporary file and renames it. Writes directly to a device or a pipe,
/// and waits for a slow reader of a pipe, for `limit` at most: SIGINT and SIGTERM have their default
/// action from then on. Replaces the target of a symlink, not the symlink, as `files`
/// allows it.
///
/// # Errors
/// The operating system's error, or [`ErrorKind::TimedOut`]; an existing file is then unchanged.
pub fn write_json(
    figures: &impl Serialize,
    path: &Path,
    limit: Option<Duration>,
) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(figures).map_err(io::Error::other)?;
    text.push(b'\n');
    let place = Place::of(path)?;
    if place.look()?.is_some_and(|seen| !seen.is_file()) {
        return write_now(path, &text, limit);
    }
    place.write_whole(&text, false)
}

/// Writes to a file that cannot be replaced.
fn write_now(path: &Path, text: &[u8], limit: Option<Duration>) -> io::Result<()> {
    let clock = OsClock::new();
    let mut released = false;
    let mut goes_on = || {
        released = released || release_signals().is_ok();
        limit.is_none_or(|limit| clock.instant() < Instant::ZERO + limit)
    };
    let file = open_patiently(path, &mut goes_on)?;
    match file.map(|file| write_patiently(&file, text, &mut goes_on)) {
        Some(Ok(true)) => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(false)) | None => Err(ErrorKind::TimedOut.into()),
    }
}

/// Converts keys from server ids to names.
fn by_name<T: Copy>(
    by_server: &BTreeMap<u16, T>,
    number: impl Fn(T) -> u64,
) -> BTreeMap<String, u64> {
    let named = |(server, value): (&u16, &T)| (server.to_string(), number(*value));
    by_server.iter().map(named).collect()
}

fn worst_digest(urls: &[UrlStats]) -> &'static str {
    ["mismatch", "unchecked", "absent", "verified"]
        .into_iter()
        .find(|label| urls.iter().any(|url| url.digest == Some(label)))
        .unwrap_or("absent")
}

/// Exact up to 2⁵³, which is enough for a rate, and for microseconds of centuries.
#[expect(
    clippy::cast_precision_loss,
    reason = "no figure needs more than 53 bits"
)]
const fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::symlink;

    use std::path::PathBuf;

    use super::*;
    use crate::runtime::fifo::tests::{fifo, reader};

    fn url(digest: Option<&'static str>) -> UrlStats {
        UrlStats {
            url: "http://10.0.0.1/".into(),
            output: None,
            transport: None,
            status: Some(200),
            bytes: 1000,
            seconds: 1.0,
            digest,
            exit: 0,
            error: None,
        }
    }

    fn stats(urls: Vec<UrlStats>) -> GetStats {
        GetStats::new(Counted {
            protocol: Protocol::Tcp,
            exit: 0,
            urls,
            elapsed: Duration::from_secs(2),
            report: &ClientReport::default(),
        })
    }

    #[test]
    fn the_file_is_json_with_a_schema_and_replaces_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats.json");
        fs::write(&path, "before").unwrap();
        stats(vec![url(Some("verified")), url(Some("verified"))])
            .write(&path, None)
            .unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(json["schema"], SCHEMA);
        assert_eq!(json["bytes"], 2000);
        assert_eq!(json["goodput_bps"], 8000.0);
        assert_eq!(json["digest"], "verified");
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left behind"
        );
        let nowhere = dir.path().join("none/stats.json");
        assert!(stats(vec![]).write(&nowhere, None).is_err());
    }

    #[test]
    fn a_stall_has_no_more_digits_than_it_was_measured_with() {
        let mut report = ClientReport::default();
        report.longest_stall = Duration::from_micros(1_033_003);
        let stats = GetStats::new(Counted {
            protocol: Protocol::Tcp,
            exit: 0,
            urls: Vec::new(),
            elapsed: Duration::from_secs(2),
            report: &report,
        });
        assert_eq!(stats.longest_stall_ms.to_string(), "1033.003");
    }

    #[test]
    fn only_files_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats.json");
        let link = dir.path().join("link");
        fs::write(&path, "before").unwrap();
        symlink(&path, &link).unwrap();
        stats(vec![]).write(&link, None).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&path).unwrap().contains("\"schema\""));
        let (mut reader, writer) = io::pipe().unwrap();
        let pipe = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
        stats(vec![]).write(&pipe, None).unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.contains("\"schema\""), "{text}");
    }

    #[test]
    fn a_fifo_without_a_reader_is_awaited_for_so_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(&dir);
        let limit = Some(Duration::from_millis(1));
        let error = stats(vec![]).write(&path, limit).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let mut reader = reader(&path);
        stats(vec![]).write(&path, limit).unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.contains("\"schema\""), "{text}");
    }

    #[test]
    fn the_worst_digest_counts() {
        let cases = [
            (vec![], "absent"),
            (vec![Some("verified"), None], "verified"),
            (vec![Some("verified"), Some("absent")], "absent"),
            (vec![Some("unchecked"), Some("absent")], "unchecked"),
            (vec![Some("mismatch"), Some("unchecked")], "mismatch"),
        ];
        for (digests, want) in cases {
            let urls = digests.iter().map(|digest| url(*digest)).collect();
            assert_eq!(stats(urls).digest, want, "{digests:?}");
        }
    }
}
