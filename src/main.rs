//! The `headwater` program: parses arguments, runs, turns the outcome into an exit code.
fn main() -> std::process::ExitCode {
    headwater::internals::cli::run()
}
