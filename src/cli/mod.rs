//! Command line: arguments to resolved configuration to a run to an exit code.

pub mod exit;
pub mod get;
pub mod hosts;
pub mod keygen;
/// Runs the program.
#[must_use]
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
