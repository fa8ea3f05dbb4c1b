//! `headwater bench respond`: the simplest server over the kernel's TCP, to measure against.
//!
//! In: arguments. Out: the line `ready` when connections are accepted; answers until a signal.

use std::io::{self, Write as _};
use std::net::SocketAddr;

use crate::cli::exit::{Exit, Failed};
use crate::instruments::responder::Responder;

/// Arguments of `headwater bench respond`.
#[derive(Debug, clap::Args)]
pub(super) struct RespondArgs {
    /// Listen there
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Bytes of the body of every answer
    #[arg(long, value_name = "BYTES", default_value_t = 1000)]
    bytes: u64,
}

/// Answers until a signal ends the process.
pub(super) fn run(args: &RespondArgs) -> Result<Exit, Failed> {
    let failed = |error: io::Error| {
        let listen = args.listen;
        let advice = format!("cannot answer on {listen} ({error}): name another --listen");
        Failed::new(Exit::CannotConnect, advice)
    };
    let responder = Responder::new(args.listen, args.bytes).map_err(failed)?;
    let mut out = io::stdout();
    let written = writeln!(out, "ready").and_then(|()| out.flush());
    written.map_err(|_| Failed::new(Exit::WriteError, ""))?;
    responder.run().map_err(failed)?;
    Ok(Exit::Success)
}
