//! `headwater bench`: measures servers, ours and others.
//!
//! In: arguments. Out: a table on standard output, all results as JSON in a file, and an exit code
//! that fails if a peer does not respond.

mod bare;
mod bounce;
mod connections;
mod connects;
mod contest;
mod cpu;
mod crowd;
mod flood;
mod peers;
mod requests;
mod respond;
mod table;
mod throughput;

use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;

use crate::cli::connect::run::Until;
use crate::cli::exit::{Exit, Failed};
use crate::cli::get::stats::write_json;
use crate::host::Machine;
use crate::runtime::Hooks;
use crate::time::Now;

/// Version of the results' schema.
const SCHEMA: u32 = 1;

/// Arguments of `headwater bench`.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Objects, each on a connection of its own: requests per second, latency, processor time
    Requests(Box<requests::RequestsArgs>),
    /// Times to connect to hosts with several addresses: all at once, at random, in order, paced
    Connect(Box<connects::ConnectsArgs>),
    /// Races for connections that begin at the same moment, in one process
    Crowd(Box<crowd::CrowdArgs>),
    /// The same as `connect`, with a fetch of the URL
    Fetch(Box<connects::ConnectsArgs>),
    /// Requests on random ones of 10 to a million open connections
    Connections(Box<connections::ConnectionsArgs>),
    /// One large object at a time: goodput of single connections
    Throughput(Box<throughput::ThroughputArgs>),
    /// The packets of a bulk transfer without a protocol: upper bound of the devices
    Bare(Box<bare::BareArgs>),
    /// Packets like requests, as fast as possible, at a redirector: for testbeds only
    Flood(Box<flood::FloodArgs>),
    /// A minimal redirector as a baseline: rewrites the destination of each packet
    Bounce(Box<bounce::BounceArgs>),
    /// A minimal server over the kernel's TCP as a baseline: accept, read, write, close
    Respond(respond::RespondArgs),
}

/// Hooks of a loop that only a signal ends.
struct Forever;

impl<M: Machine> Hooks<M> for Forever {
    fn turn(&mut self, _now: Now, _machine: &mut M) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Runs a benchmark.
///
/// # Errors
/// The reason why it cannot run.
pub fn run(args: BenchArgs) -> Result<Exit, Failed> {
    match args.what {
        What::Requests(args) => requests::run(&args),
        What::Connect(args) => connects::execute(&args, Until::Connected),
        What::Crowd(args) => crowd::execute(*args),
        What::Fetch(args) => connects::execute(&args, Until::Fetched),
        What::Connections(args) => connections::run(&args),
        What::Throughput(args) => throughput::run(&args),
        What::Bare(args) => bare::run(&args),
        What::Flood(args) => flood::run(&args),
        What::Bounce(args) => bounce::run(&args),
        What::Respond(args) => respond::run(&args),
    }
}

/// The results as written.
#[derive(Serialize)]
struct Figures<'a, S, R> {
    schema: u32,
    bench: &'static str,
    seed: u64,
    settings: S,
    peers: &'a [R],
}

impl<'a, S, R> Figures<'a, S, R> {
    const fn new(bench: &'static str, seed: u64, settings: S, peers: &'a [R]) -> Self {
        Self {
            schema: SCHEMA,
            bench,
            seed,
            settings,
            peers,
        }
    }
}

/// Prints the table and writes the results.
fn conclude<S: Serialize, R: Serialize>(
    figures: &Figures<'_, S, R>,
    stats: Option<&Path>,
    rows: &[Vec<String>],
) -> Result<Exit, Failed> {
    if let Some(path) = stats {
        write_json(figures, path, None).map_err(|error| {
            let name = path.display();
            let advice = format!("cannot write {name} ({error}): choose another file for --stats");
            Failed::new(Exit::WriteError, advice)
        })?;
    }
    let written = io::stdout().write_all(table::lines(rows).as_bytes());
    written.map_err(|_| Failed::new(Exit::WriteError, ""))?;
    Ok(Exit::Success)
}

/// Asserts of each command line behind `prefix` whether it parses.
#[cfg(test)]
fn assert_options<T: clap::Parser + std::fmt::Debug>(prefix: &str, cases: &[(&str, bool)]) {
    for (typed, good) in cases {
        let words = prefix.split_whitespace().chain(typed.split_whitespace());
        let got = T::try_parse_from(words);
        assert_eq!(got.is_ok(), *good, "{typed}: {got:?}");
    }
}
