//! Command line: arguments to resolved configuration to a run to an exit code.
/// Runs the program.
#[must_use]
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
