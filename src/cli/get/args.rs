//! The arguments of `get`: as typed, and resolved for a run.
//!
//! In: the command line. Out: a validated [`GetConfig`], or a failure. Never opens a file or a
//! connection.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;

use crate::apps::fetch::config::{Field, TransferConfig, is_range};
use crate::apps::fetch::queue::{AfterFailure, TransferJob, TransferQueue};
use crate::cli::connect::{ConnectArgs, ConnectConfig, TransportArg, parse_seconds, parse_target};
use crate::cli::exit::{Exit, Failed};
use crate::cli::get::hasher;
use crate::cli::get::output::{Destination, Resume};
use crate::http::request::Method;
use crate::transport::application::MAX_REQUEST_BYTES;

/// Arguments of `headwater get`, as typed.
#[derive(Debug, clap::Args)]
pub struct GetArgs {
    /// URL to fetch; `http://` may be omitted. The host is an IP address, or a name in /etc/hosts or the DNS
    #[arg(required = true, value_name = "URL")]
    pub urls: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the flattened group has its own")]
    pub connect: ConnectArgs,
    /// Write to FILE instead of standard output; repeat it for several URLs. `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,
    /// Write to a file named like the remote file; repeat it for several URLs
    #[arg(short = 'O', long, num_args = 0..=1, require_equals = true, value_name = "",
          default_missing_value = "", hide_possible_values = true, value_parser = [""])]
    pub remote_name: Vec<String>,
    /// Resume a transfer at OFFSET; `-` takes the offset from the file
    #[arg(short = 'C', long, value_name = "OFFSET", value_parser = parse_resume,
          allow_hyphen_values = true, conflicts_with_all = ["range", "head"])]
    pub continue_at: Option<Resume>,
    /// Follow redirects, at most 10
    #[arg(short = 'L', long)]
    pub location: bool,
    /// Fetch the headers only, and print them
    #[arg(short = 'I', long, conflicts_with = "range")]
    pub head: bool,
    /// Fetch a byte range only: FIRST-LAST, FIRST- or -LENGTH, counted from 0
    #[arg(short, long, value_name = "RANGE", allow_hyphen_values = true,
          value_parser = parse_range)]
    pub range: Option<String>,
    /// Send this header field; `Name:` removes a default one
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = Field::parse)]
    pub headers: Vec<Field>,
    /// Fail on HTTP status 400 and above, without output
    #[arg(short, long)]
    pub fail: bool,
    /// Do not check the body against the server's digest
    #[arg(long)]
    pub no_digest: bool,
    /// No progress bar and no error messages
    #[arg(short, long)]
    pub silent: bool,
    /// With --silent: print error messages
    #[arg(short = 'S', long)]
    pub show_error: bool,
    /// Log the transfer on standard error
    #[arg(short, long)]
    pub verbose: bool,
    /// Write statistics to FILE as JSON, even if the run fails
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,
    /// Save address tokens in FILE: servers send later runs more in the first response
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Fail a transfer after this many seconds [default: no limit]
    #[arg(short, long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub max_time: Option<Duration>,
}

/// The transfers of a run.
pub type Jobs = TransferQueue<Destination, Failed>;

/// The validated configuration of a run.
#[derive(Debug)]
pub struct GetConfig {
    /// How to connect.
    pub connect: ConnectConfig,
    /// URLs in order; at least one.
    pub jobs: Jobs,
    /// How to resume earlier transfers.
    pub resume: Resume,
    /// Settings of each request.
    pub transfer: TransferConfig,
    /// Whether to show a progress bar.
    pub progress: bool,
    /// Whether to print errors.
    pub show_errors: bool,
    /// The file for statistics.
    pub stats: Option<PathBuf>,
    /// The file for address tokens.
    pub tokens: Option<PathBuf>,
    /// Longest time for a transfer.
    pub max_time: Option<Duration>,
}

impl GetConfig {
    /// Validates the arguments. `matches` holds the order of `-o` and `-O`.
    ///
    /// # Errors
    /// [`Exit::Usage`], [`Exit::BadUrl`], [`Exit::UnsupportedScheme`].
    pub fn resolve(args: GetArgs, matches: &ArgMatches) -> Result<Self, Failed> {
        let jobs = jobs(&args, matches)?;
        let is_tcp = args.connect.transport == TransportArg::Tcp;
        let transfer = TransferConfig::builder()
            .method(if args.head { Method::Head } else { Method::Get })
            .range(args.range)
            .follow(args.location)
            .fail(args.fail)
            .headers(args.headers)
            .request_limit(match is_tcp {
                true => crate::http::MAX_HEAD_BYTES,
                false => MAX_REQUEST_BYTES,
            })
            .verify(!args.no_digest)
            .hasher(hasher::go_on)
            .build()
            .map_err(|error| Failed::new(Exit::Usage, error))?;
        Ok(Self {
            connect: ConnectConfig::resolve(args.connect)?,
            jobs,
            resume: args.continue_at.unwrap_or_default(),
            transfer,
            progress: !args.silent,
            show_errors: !args.silent || args.show_error,
            stats: args.stats,
            tokens: args.tokens,
            max_time: args.max_time,
        })
    }
}

/// Assigns the outputs `-o` and `-O` to URLs in order; further URLs go to standard output.
fn jobs(args: &GetArgs, matches: &ArgMatches) -> Result<Jobs, Failed> {
    let mut places: Vec<(usize, Option<&PathBuf>)> = Vec::new();
    let files = matches.indices_of("output").into_iter().flatten();
    places.extend(files.zip(args.output.iter().map(Some)));
    let names = matches.indices_of("remote_name").into_iter().flatten();
    places.extend(names.map(|index| (index, None)));
    places.sort_by_key(|(index, _)| *index);
    if places.len() > args.urls.len() {
        let (have, urls) = (places.len(), args.urls.len());
        let advice = format!("{have} outputs (-o, -O) for {urls} URLs: remove some outputs");
        return Err(Failed::new(Exit::Usage, advice));
    }
    let mut jobs = Jobs::new(AfterFailure::Continue);
    for (index, url) in args.urls.iter().enumerate() {
        let target = parse_target(url, "a URL like http://10.0.0.1/file")?;
        let destination = match places.get(index) {
            None => Destination::Stdout,
            Some((_, Some(path))) if path.as_os_str() == "-" => Destination::Stdout,
            Some((_, Some(path))) => Destination::File((*path).clone()),
            Some((_, None)) => match target.file_name() {
                Some(name) => Destination::File(PathBuf::from(name)),
                None => {
                    let advice = format!("{url} has no file name for -O: set one with -o");
                    return Err(Failed::new(Exit::WriteError, advice));
                }
            },
        };
        let taken = |job: &TransferJob<Destination>| job.destination == destination;
        if destination != Destination::Stdout && jobs.waiting().any(taken) {
            let advice =
                format!("{url} and an earlier URL have the same output file: choose another");
            return Err(Failed::new(Exit::Usage, advice));
        }
        let job = TransferJob {
            target,
            destination,
        };
        jobs.push(job)
            .map_err(|error| Failed::new(Exit::Usage, error))?;
    }
    Ok(jobs)
}

/// Why a value on the command line is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum ValueError {
    #[error("not a range: use FIRST-LAST, FIRST- or -LENGTH")]
    Range,
    #[error("not an offset: use a number of bytes, or - to take it from the file")]
    Offset,
}

fn parse_range(text: &str) -> Result<String, ValueError> {
    match is_range(text) {
        true => Ok(text.to_owned()),
        false => Err(ValueError::Range),
    }
}

fn parse_resume(text: &str) -> Result<Resume, ValueError> {
    if text == "-" {
        return Ok(Resume::Auto);
    }
    text.parse().map(Resume::At).map_err(|_| ValueError::Offset)
}

#[cfg(test)]
mod tests;
