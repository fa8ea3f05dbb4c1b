//! `headwater sim`: runs simulated worlds and checks the laws of the transport.
//!
//! In: a seed and a number of worlds. Out: one line per world, or one for all, on standard output; for
//! a violation one line with the seed, and captures of the last packets. Equal arguments produce equal
//! runs.

use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::cli::exit::{Exit, Failed};
use crate::files::Place;
use crate::sim::machines::TransportKit;
use crate::sim::races;
use crate::sim::{Options, SimFailure, run_seed};

/// Arguments of `headwater sim`.
#[derive(Debug, clap::Args)]
pub struct SimArgs {
    /// Seed of the first world; each further world takes the next number
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Number of worlds
    #[arg(long, value_name = "M", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub runs: u64,
    /// Directory for captures after a failure
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub pcap: PathBuf,
    /// Print one line per world
    #[arg(short, long)]
    pub verbose: bool,
}

/// Runs worlds until one violates a law.
///
/// # Errors
/// [`Exit::LawBroken`], [`Exit::WriteError`] if standard output is closed.
pub fn run(args: &SimArgs) -> Result<Exit, Failed> {
    let options = Options::default();
    let (mut bytes, mut packets) = (0u64, 0u64);
    // A closed standard output needs no message.
    let closed = |_: io::Error| Failed::new(Exit::WriteError, "");
    for seed in (args.seed..=u64::MAX).take(usize::try_from(args.runs).unwrap_or(usize::MAX)) {
        let report =
            run_seed(&TransportKit, seed, &options).map_err(|failure| explain(args, &failure))?;
        bytes = bytes.saturating_add(report.bytes);
        packets = packets.saturating_add(report.world.released);
        let raced = races::run_seed(seed).map_err(|failure| {
            let advice = format!("{failure}: reproduce with --seed {seed}");
            Failed::new(Exit::LawBroken, advice)
        })?;
        bytes = bytes.saturating_add(raced.bytes);
        packets = packets.saturating_add(raced.packets);
        if args.verbose {
            writeln!(io::stdout(), "{report}").map_err(closed)?;
        }
    }
    let SimArgs { seed, runs, .. } = args;
    writeln!(
        io::stdout(),
        "{runs} worlds from seed {seed}: no law violated, {packets} packets, {bytes} bytes",
    )
    .map_err(closed)?;
    Ok(Exit::Success)
}

/// Writes the captures and names their files in the message.
fn explain(args: &SimArgs, failure: &SimFailure) -> Failed {
    let seed = failure.seed;
    let sides = [
        ("clients", &failure.client_side),
        ("servers", &failure.server_side),
    ];
    let mut places = Vec::new();
    for (side, capture) in sides {
        let path = args.pcap.join(format!("headwater-{seed}-{side}.pcap"));
        places.push(
            match Place::of(&path).and_then(|place| place.write_whole(capture, false)) {
                Ok(()) => path.display().to_string(),
                Err(error) => format!("no capture of the {side} ({error})"),
            },
        );
    }
    let places = places.join(" and ");
    let advice = format!("{failure}: see {places}; reproduce with --seed {seed}");
    Failed::new(Exit::LawBroken, advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::check::Violation;
    use crate::time::Instant;

    #[test]
    fn a_failure_names_its_seed_and_its_captures() {
        let dir = tempfile::tempdir().unwrap();
        let args = SimArgs {
            seed: 1,
            runs: 1,
            pcap: dir.path().to_owned(),
            verbose: false,
        };
        let failure = SimFailure {
            seed: 42,
            at: Instant::from_micros(1),
            violation: Violation::WrongBytes {
                client: crate::sim::world::NodeId(3),
                offset: 7,
            },
            client_side: b"c".to_vec(),
            server_side: b"s".to_vec(),
        };
        let failed = explain(&args, &failure);
        assert_eq!(failed.exit, Exit::LawBroken);
        assert!(failed.message.contains("--seed 42"), "{}", failed.message);
        let capture = dir.path().join("headwater-42-servers.pcap");
        assert!(failed.message.contains(&capture.display().to_string()));
        assert_eq!(std::fs::read(capture).unwrap(), b"s");
    }
}
