//! `headwater race`: connects to a service that has several addresses, and shows the course of the race.
//!
//! In: arguments. Out: one line, a table with a bar for each attempt, or JSON on standard output; the
//! picture as SVG in a file on request; an exit code.

mod picture;
pub(super) mod table;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::connect::run::{Run, Until, run};
use crate::cli::connect::{ConnectArgs, ConnectConfig, Memory, parse_target};
use crate::cli::exit::{Exit, Failed};
use crate::cli::get::exit_of;
use crate::connect::Outcome;
use crate::files::Place;
use crate::host::report::AttemptReport;

/// Version of the JSON's schema.
const SCHEMA: u32 = 1;

/// Arguments of `headwater race`.
#[derive(Debug, clap::Args)]
pub struct RaceArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Print every answer to a look-up and every attempt, with its start, end and outcome
    #[arg(long, conflicts_with = "json")]
    explain: bool,
    /// Print the same as JSON
    #[arg(long)]
    json: bool,
    /// Draw the same into FILE as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Log the race on standard error
    #[arg(short, long)]
    pub verbose: bool,
    /// Host, with a port if it is not 80, or URL. The request of our transport is a HEAD of the URL
    #[arg(value_name = "HOST|URL")]
    host: String,
}

/// Runs a race.
///
/// # Errors
/// The codes of `get` if no address answers.
pub fn execute(args: RaceArgs) -> Result<Exit, Failed> {
    let target = parse_target(&args.host, "a host like files:8080")?;
    let config = ConnectConfig::resolve(args.connect)?;
    let memory = Memory {
        history: config.load_history(),
        ..Memory::default()
    };
    let raced = run(&config, &target, Until::Connected, memory)?;
    if let Some(path) = &args.svg {
        write_picture(path, &picture::draw(target.host(), &raced.race))?;
    }
    let failed = raced.failure.as_ref().map(|failure| {
        let message = format!("{}: {failure}", args.host);
        Failed::new(exit_of(failure), message)
    });
    let text = match (args.json, args.explain) {
        (true, _) => to_json(&args.host, &raced, failed.as_ref()),
        (_, true) => table::print(target.host(), &raced.race),
        _ => table::summary(&raced.race),
    };
    // A reader that has gone away needs no more lines.
    let _ = io::stdout().write_all(text.as_bytes());
    failed.map_or(Ok(Exit::Success), Err)
}

fn write_picture(path: &Path, picture: &str) -> Result<(), Failed> {
    let written = Place::of(path).and_then(|place| place.write_whole(picture.as_bytes(), false));
    written.map_err(|error| {
        let name = path.display();
        let advice = format!("cannot write {name} ({error}): choose another file for --svg");
        Failed::new(Exit::WriteError, advice)
    })
}

/// The word for the outcome of an attempt.
const fn label(attempt: &AttemptReport) -> &'static str {
    match (attempt.outcome, attempt.started) {
        (Some(Outcome::Answered(_)), _) => "answered",
        (Some(Outcome::Lost), _) => "lost",
        (Some(Outcome::TimedOut), _) => "timed out",
        (Some(Outcome::Refused), _) => "failed",
        (None, Some(_)) => "dropped",
        (None, None) => "not started",
    }
}

#[derive(Serialize)]
struct RaceJson<'a> {
    schema: u32,
    host: &'a str,
    exit: u8,
    error: Option<&'a str>,
    /// From the start of the program's race to its end, in milliseconds.
    took_ms: f64,
    lookups: Vec<LookupJson>,
    attempts: Vec<AttemptJson>,
    winner: Option<String>,
    spares: Vec<String>,
    packets_sent: u64,
}

#[derive(Serialize)]
struct LookupJson {
    at_ms: f64,
    addresses: usize,
    complete: bool,
}

#[derive(Serialize)]
struct AttemptJson {
    address: String,
    transport: &'static str,
    start_ms: Option<f64>,
    end_ms: Option<f64>,
    outcome: &'static str,
}

fn to_json(host: &str, raced: &Run, failed: Option<&Failed>) -> String {
    let race = &raced.race;
    let lookup = |lookup: &crate::host::report::LookupReport| LookupJson {
        at_ms: table::ms(lookup.at),
        addresses: lookup.addresses,
        complete: lookup.complete,
    };
    let attempt = |attempt: &AttemptReport| AttemptJson {
        address: attempt.remote.to_string(),
        transport: transport(attempt),
        start_ms: attempt.started.map(table::ms),
        end_ms: attempt.ended.map(table::ms),
        outcome: label(attempt),
    };
    let winner = race.winner.and_then(|winner| race.attempts.get(winner));
    let json = RaceJson {
        schema: SCHEMA,
        host,
        exit: failed.map_or(Exit::Success, |failed| failed.exit).code(),
        error: failed.map(|failed| failed.message.as_str()),
        took_ms: table::ms(raced.took),
        lookups: race.lookups.iter().map(lookup).collect(),
        attempts: race.attempts.iter().map(attempt).collect(),
        winner: winner.map(|winner| winner.remote.to_string()),
        spares: race.spares.iter().map(ToString::to_string).collect(),
        packets_sent: raced.report.transport.packets_out,
    };
    // Plain values always serialize.
    let mut text = serde_json::to_string_pretty(&json).unwrap_or_default();
    text.push('\n');
    text
}

/// The name of the transport of an attempt.
const fn transport(attempt: &AttemptReport) -> &'static str {
    if attempt.tcp { "tcp" } else { "trickles" }
}
