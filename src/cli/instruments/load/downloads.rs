//! `headwater load --download`: the object on all connections concurrently, for a given time.
//!
//! In: arguments. Out: results as JSON, and an exit code that fails if no bytes arrived.

use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::cli::exit::{Exit, Failed};
use crate::cli::instruments::UntilDone;
use crate::cli::instruments::load::{LoadArgs, conclude};
use crate::cli::local::device_failed;
use crate::device::Device;
use crate::instruments::load::LoadTarget;
use crate::instruments::load::downloads::{DownloadConfig, DownloadHost};
use crate::instruments::load::report::DownloadReport;
use crate::runtime::{OsClock, Stopped};

/// Creates the configuration of a test of `seconds`.
pub(super) fn config(args: &LoadArgs, target: LoadTarget, seconds: u64) -> DownloadConfig {
    DownloadConfig {
        target,
        connections: args.connections.get(),
        warm: Duration::from_secs(args.warm),
        window: Duration::from_secs(seconds),
    }
}

/// Runs the machine and writes its results.
pub(super) fn drive<D: Device + AsRawFd>(
    args: &LoadArgs,
    config: DownloadConfig,
    clock: OsClock,
    device: D,
) -> Result<Exit, Failed> {
    let seed = config.target.seed;
    let begun = clock.now();
    let machine = DownloadHost::new(begun, config);
    let mut machine = machine.map_err(|error| Failed::new(Exit::Usage, error))?;
    let mut runtime = args.local.runtime(clock, device)?;
    let stopped = runtime.run(&mut machine, &mut UntilDone(DownloadHost::is_done));
    let report = machine.report();
    let failed = match stopped.map_err(device_failed)? {
        Stopped::ByHook => verdict(&report),
        Stopped::BySignal(signal) => Some(Failed::new(signal.into(), "")),
    };
    let seconds = clock.now().instant.saturating_since(begun.instant);
    conclude(args, seed, seconds.as_secs_f64(), &report, failed)
}

/// Returns the test's failure, if any. The results show downloads that starve among others.
fn verdict(report: &DownloadReport) -> Option<Failed> {
    if report.began == 0 {
        let advice = "no download started: check the address, the routes and the server";
        return Some(Failed::new(Exit::CannotConnect, advice));
    }
    super::refused(&report.statuses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let cases = [
            ("none began", 0, 200, Exit::CannotConnect),
            ("some began", 3, 200, Exit::Success),
            ("missing", 3, 404, Exit::HttpError),
        ];
        for (name, began, status, want) in cases {
            let report = DownloadReport {
                connections: 4,
                began,
                statuses: [(status, 1)].into(),
                ..DownloadReport::default()
            };
            let got = verdict(&report).map_or(Exit::Success, |failed| failed.exit);
            assert_eq!(got, want, "{name}");
        }
    }
}
