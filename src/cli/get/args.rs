//! The arguments of `get`: as typed, and resolved into what a run needs.
//!
//! In: the command line. Out: a [`GetConfig`] all of whose parts have been checked, or a failure.
//! Opens nothing, connects to nothing.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;

use crate::apps::fetch::config::{Field, TransferConfig};
use crate::apps::fetch::target::{Target, TargetError};
use crate::cli::exit::{Exit, Failed};
use crate::cli::get::hasher;
use crate::cli::get::output::{Destination, Resume};
use crate::cli::local::LocalArgs;
use crate::cli::size;
use crate::host::client::Protocol;
use crate::http::request::Method;
use crate::transport::application::MAX_REQUEST_BYTES;

/// Smallest reassembly buffer, in bytes: some flights of full packets.
pub const MIN_BUFFER_BYTES: u64 = 64 * 1024;

/// Largest reassembly buffer, in bytes.
pub const MAX_BUFFER_BYTES: u64 = 1 << 30;

/// Longest time limit, in seconds.
pub const MAX_SECONDS: f64 = 1e9;

/// How bytes are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TransportArg {
    /// The stateless-server transport.
    Trickles,
    /// TCP of the own stack.
    Tcp,
}

/// Arguments of `headwater get`, as typed.
#[derive(Debug, clap::Args)]
pub struct GetArgs {
    /// What to fetch; `http://` may be left out. Hosts are IP addresses or names in /etc/hosts
    #[arg(required = true, value_name = "URL")]
    pub urls: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the flattened group has its own")]
    pub local: LocalArgs,
    /// What carries the bytes
    #[arg(long, value_enum, default_value_t = TransportArg::Trickles)]
    pub transport: TransportArg,
    /// UDP port of the service (the port in a URL is that of TCP)
    #[arg(long, value_name = "PORT", default_value_t = 7600,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub udp_port: u16,
    /// Own UDP port; drawn at random if not given
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port_source: Option<u16>,
    /// Reassembly buffer in bytes; k, M and G are understood
    #[arg(long, value_name = "BYTES", default_value = "16M", value_parser = parse_bytes)]
    pub buffer: u64,
    /// Write to FILE instead of standard output; repeat it for several URLs. `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,
    /// Write to a file named like the last part of the URL; repeat it for several URLs
    #[arg(short = 'O', long, num_args = 0..=1, require_equals = true, value_name = "",
          default_missing_value = "", hide_possible_values = true, value_parser = [""])]
    pub remote_name: Vec<String>,
    /// Continue an earlier download at OFFSET; `-` finds out where
    #[arg(short = 'C', long, value_name = "OFFSET", value_parser = parse_resume,
          allow_hyphen_values = true, conflicts_with_all = ["range", "head"])]
    pub continue_at: Option<Resume>,
    /// Follow redirects, at most 10
    #[arg(short = 'L', long)]
    pub location: bool,
    /// Ask for the head only, and show it
    #[arg(short = 'I', long, conflicts_with = "range")]
    pub head: bool,
    /// Ask for a part only: FIRST-LAST, FIRST- or -LENGTH, in bytes from 0
    #[arg(short, long, value_name = "RANGE", allow_hyphen_values = true,
          value_parser = parse_range)]
    pub range: Option<String>,
    /// Send this header field; `Name:` takes one of ours away
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = Field::parse)]
    pub headers: Vec<Field>,
    /// Fail on status 400 and above, and write nothing
    #[arg(short, long)]
    pub fail: bool,
    /// Do not compare the body with the digest that the server offers
    #[arg(long)]
    pub no_digest: bool,
    /// No progress bar and no error messages
    #[arg(short, long)]
    pub silent: bool,
    /// With --silent: error messages all the same
    #[arg(short = 'S', long)]
    pub show_error: bool,
    /// Tell what happens, on standard error
    #[arg(short, long)]
    pub verbose: bool,
    /// Write statistics to FILE as JSON, also when the run fails
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,
    /// Remember proofs of the own address in FILE: a later run gets more with the first answer
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Give up if there is no connection after so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    pub connect_timeout: Duration,
    /// Give up if there is no answer at all for so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = parse_seconds)]
    pub idle_timeout: Duration,
    /// Give each transfer up after so many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub max_time: Option<Duration>,
}

/// One URL and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// What to fetch.
    pub target: Target,
    /// Where to put it.
    pub destination: Destination,
}

/// What a run needs.
#[derive(Debug)]
pub struct GetConfig {
    /// The own device.
    pub local: LocalArgs,
    /// What carries the bytes.
    pub protocol: Protocol,
    /// Reassembly buffer in bytes.
    pub buffer: usize,
    /// What to fetch, in order; at least one.
    pub jobs: Vec<Job>,
    /// What to do with earlier attempts.
    pub resume: Resume,
    /// What to ask for.
    pub transfer: TransferConfig,
    /// Whether a progress bar may be shown.
    pub progress: bool,
    /// Whether errors are shown.
    pub show_errors: bool,
    /// Where statistics go.
    pub stats: Option<PathBuf>,
    /// Where address tokens are kept.
    pub tokens: Option<PathBuf>,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long a connection may be without any answer.
    pub idle_timeout: Duration,
    /// How long a transfer may take.
    pub max_time: Option<Duration>,
}

impl GetConfig {
    /// Resolves what was typed. `matches` tells in which order `-o` and `-O` stood.
    ///
    /// # Errors
    /// [`Exit::Usage`], [`Exit::BadUrl`], [`Exit::UnsupportedScheme`].
    pub fn resolve(args: GetArgs, matches: &ArgMatches) -> Result<Self, Failed> {
        args.local.check()?;
        let jobs = jobs(&args, matches)?;
        let protocol = match args.transport {
            TransportArg::Tcp => Protocol::Tcp,
            TransportArg::Trickles => Protocol::Trickles {
                udp_port: args.udp_port,
                local_port: args.port_source,
            },
        };
        let transfer = TransferConfig {
            method: if args.head { Method::Head } else { Method::Get },
            range: args.range,
            follow: args.location,
            fail: args.fail,
            headers: args.headers,
            request_limit: match args.transport {
                TransportArg::Tcp => crate::http::MAX_HEAD_BYTES,
                TransportArg::Trickles => MAX_REQUEST_BYTES,
            },
            verify: !args.no_digest,
            hasher: hasher::go_on,
        };
        Ok(Self {
            local: args.local,
            protocol,
            buffer: usize::try_from(args.buffer).unwrap_or(usize::MAX),
            jobs,
            resume: args.continue_at.unwrap_or_default(),
            transfer,
            progress: !args.silent,
            show_errors: !args.silent || args.show_error,
            stats: args.stats,
            tokens: args.tokens,
            connect_timeout: args.connect_timeout,
            idle_timeout: args.idle_timeout,
            max_time: args.max_time,
        })
    }
}

/// The first URL goes to the first `-o` or `-O`, and so on; what is left over to standard output.
fn jobs(args: &GetArgs, matches: &ArgMatches) -> Result<Vec<Job>, Failed> {
    let mut places: Vec<(usize, Option<&PathBuf>)> = Vec::new();
    let files = matches.indices_of("output").into_iter().flatten();
    places.extend(files.zip(args.output.iter().map(Some)));
    let names = matches.indices_of("remote_name").into_iter().flatten();
    places.extend(names.map(|index| (index, None)));
    places.sort_by_key(|(index, _)| *index);
    if places.len() > args.urls.len() {
        let (have, urls) = (places.len(), args.urls.len());
        let advice = format!("{have} outputs but {urls} URLs: leave some -o or -O out");
        return Err(Failed::new(Exit::Usage, advice));
    }
    let mut jobs: Vec<Job> = Vec::new();
    for (index, url) in args.urls.iter().enumerate() {
        let target = Target::parse(url).map_err(|error| {
            let exit = if error == TargetError::Scheme {
                Exit::UnsupportedScheme
            } else {
                Exit::BadUrl
            };
            Failed::new(
                exit,
                format!("{url}: {error}; URLs look like http://10.0.0.1/file"),
            )
        })?;
        let destination = match places.get(index) {
            None => Destination::Stdout,
            Some((_, Some(path))) if path.as_os_str() == "-" => Destination::Stdout,
            Some((_, Some(path))) => Destination::File((*path).clone()),
            Some((_, None)) => match target.file_name() {
                Some(name) => Destination::File(PathBuf::from(name)),
                None => {
                    let advice = format!("{url} has no file name for -O: name a file with -o");
                    return Err(Failed::new(Exit::WriteError, advice));
                }
            },
        };
        let taken = |job: &Job| job.destination == destination;
        if destination != Destination::Stdout && jobs.iter().any(taken) {
            let advice = format!("two URLs go to one file ({url} is the second): name another");
            return Err(Failed::new(Exit::Usage, advice));
        }
        jobs.push(Job {
            target,
            destination,
        });
    }
    Ok(jobs)
}

/// What is wrong with a value on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum ValueError {
    #[error("not FIRST-LAST, FIRST- or -LENGTH")]
    Range,
    #[error("neither a number of bytes nor -")]
    Offset,
    #[error("not a number of seconds above 0")]
    Seconds,
    #[error("not a size from 64k to 1G")]
    Size,
}

fn parse_range(text: &str) -> Result<String, ValueError> {
    let (first, last) = text.split_once('-').ok_or(ValueError::Range)?;
    let number = |text: &str| -> Result<Option<u64>, ValueError> {
        if text.is_empty() {
            return Ok(None);
        }
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .then(|| text.parse().ok())
            .flatten()
            .map(Some)
            .ok_or(ValueError::Range)
    };
    match (number(first)?, number(last)?) {
        (None, None) => Err(ValueError::Range),
        (Some(first), Some(last)) if last < first => Err(ValueError::Range),
        (Some(_), _) | (None, Some(_)) => Ok(text.to_owned()),
    }
}

fn parse_resume(text: &str) -> Result<Resume, ValueError> {
    if text == "-" {
        return Ok(Resume::Auto);
    }
    text.parse().map(Resume::At).map_err(|_| ValueError::Offset)
}

fn parse_seconds(text: &str) -> Result<Duration, ValueError> {
    let seconds: f64 = text.parse().map_err(|_| ValueError::Seconds)?;
    if seconds > 0.0 && seconds <= MAX_SECONDS {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(ValueError::Seconds)
    }
}

fn parse_bytes(text: &str) -> Result<u64, ValueError> {
    let bytes = size::parse(text).ok_or(ValueError::Size)?;
    let allowed = MIN_BUFFER_BYTES..=MAX_BUFFER_BYTES;
    if allowed.contains(&bytes) {
        Ok(bytes)
    } else {
        Err(ValueError::Size)
    }
}

#[cfg(test)]
mod tests;
