//! The command line: parses arguments, runs a command, returns an exit code.
//!
//! In: the arguments of the process. Out: the exit code, and on failure one line on standard error
//! with the cause and the remedy. The only part of the crate that prints.

pub mod announce;
mod asked;
pub mod connect;
pub mod control;
pub mod exit;
pub mod get;
pub mod instruments;
pub mod keygen;
pub mod link;
pub mod local;
pub mod race;
mod records;
pub mod redirect;
pub mod serve;
mod size;
mod stderr;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::cli::exit::{Exit, Failed};
use crate::cli::stderr::LogWriter;

/// Environment variable with the log filter, in the syntax of `env_logger`.
const LOG_VARIABLE: &str = "HEADWATER_LOG";

/// A userspace IP stack on TUN devices whose servers keep no per-connection state.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a key ring file for the servers of a service
    Keygen(keygen::KeygenArgs),
    /// Serve the files of a directory
    Serve(Box<serve::ServeArgs>),
    /// Fetch URLs into files or to standard output
    #[command(after_long_help = get_help(), after_help = "See --help for files and exit codes.")]
    Get(Box<get::args::GetArgs>),
    /// Connect to the addresses of a host, and show the course of the race
    Race(Box<race::RaceArgs>),
    /// Run simulated worlds and check the laws of the transport
    Sim(instruments::sim::SimArgs),
    /// Simulate downloads over the transport and over TCP that share a bottleneck
    SimPath(Box<instruments::sim_path::SimPathArgs>),
    /// Play attacks on the protocol in process, and print their gains
    Attack(instruments::attack::AttackArgs),
    /// Test a server with many connections and with mutated packets
    Load(instruments::load::LoadArgs),
    /// Measure a server and compare it with others
    Bench(instruments::bench::BenchArgs),
    /// Connect two TUN devices by an emulated link
    #[command(after_long_help = link::after_help(), after_help = "See --help for units and control.")]
    Link(Box<link::LinkArgs>),
    /// Configure or show a running link
    #[command(after_help = link::control_help())]
    LinkControl(control::ControlArgs),
    /// Redirect each packet for a service address to one of its servers
    #[command(after_help = redirect::after_help())]
    Redirect(redirect::RedirectArgs),
    /// Show a running redirector, drain or activate its backends
    #[command(after_help = redirect::control_help())]
    RedirectControl(control::ControlArgs),
}

impl Command {
    /// The log level, unless the environment variable sets it.
    const fn log_level(&self) -> &'static str {
        match self {
            Self::Serve(_) | Self::Redirect(_) => "info",
            Self::Get(args) if args.verbose => "debug",
            Self::Race(args) if args.verbose => "debug",
            Self::Get(args) if args.silent => "off",
            Self::Get(_)
            | Self::Race(_)
            | Self::Keygen(_)
            | Self::Sim(_)
            | Self::SimPath(_)
            | Self::Attack(_)
            | Self::Load(_)
            | Self::Bench(_)
            | Self::Link(_)
            | Self::LinkControl(_)
            | Self::RedirectControl(_) => "warn",
        }
    }
}

fn get_help() -> String {
    format!("{}\n\n{}", get::AFTER_HELP, Exit::table(&Exit::ALL))
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn run() -> ExitCode {
    match dispatch(std::env::args_os()) {
        Ok(exit) => exit.into(),
        Err(failed) => {
            if !failed.message.is_empty() {
                // A closed standard error leaves no place to report to.
                let _ = writeln!(io::stderr(), "headwater: {}", failed.message);
            }
            failed.exit.into()
        }
    }
}

fn dispatch(words: impl Iterator<Item = OsString>) -> Result<Exit, Failed> {
    let parsed = Cli::command().try_get_matches_from(words);
    let parsed = parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return explain(&error),
    };
    start_logging(cli.command.log_level());
    match cli.command {
        Command::Keygen(args) => keygen::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Race(args) => race::execute(*args),
        Command::Sim(args) => instruments::sim::run(&args),
        Command::SimPath(args) => instruments::sim_path::run(&args),
        Command::Attack(args) => instruments::attack::run(&args),
        Command::Load(args) => instruments::load::run(&args),
        Command::Bench(args) => instruments::bench::run(args),
        Command::Link(args) => link::run(&args),
        Command::LinkControl(args) => control::run(&args, "link"),
        Command::Redirect(args) => redirect::run(&args),
        Command::RedirectControl(args) => control::run(&args, "redirector"),
        Command::Get(args) => {
            let none = ArgMatches::default();
            get::run(
                *args,
                matches.subcommand().map_or(&none, |(_, matches)| matches),
            )
        }
    }
}

/// Starts logging to standard error; the environment variable overrides `default`.
fn start_logging(default: &str) {
    let settings = env_logger::Env::new().filter_or(LOG_VARIABLE, default);
    env_logger::Builder::from_env(settings)
        .format_timestamp_millis()
        .target(env_logger::Target::Pipe(Box::new(LogWriter::stderr())))
        .init();
}

/// Prints help and version on standard output with success; turns any other error into one line.
fn explain(error: &clap::Error) -> Result<Exit, Failed> {
    let text = error.render().to_string();
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => Ok(Exit::Success),
            Err(_) => Err(Failed::new(Exit::WriteError, "")),
        };
    }
    let what: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let what = what.join(" ");
    let what = what.strip_prefix("error: ").unwrap_or(&what);
    let what = if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        "no command given"
    } else {
        what
    };
    Err(Failed::new(
        Exit::Usage,
        format!("{what}: see `headwater --help`"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
