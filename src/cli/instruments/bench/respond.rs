//! `headwater bench respond`: a minimal server over the kernel's TCP, as a baseline.
//!
//! In: arguments. Out: the line `ready`, then responses until a signal.

use std::io::{self, Write as _};
use std::net::SocketAddr;

use crate::cli::exit::{Exit, Failed};
use crate::instruments::responder::Responder;

/// Arguments of `headwater bench respond`.
#[derive(Debug, clap::Args)]
pub(super) struct RespondArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Body size of every response, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1000)]
    bytes: u64,
}

/// Serves until a signal ends it.
pub(super) fn run(args: &RespondArgs) -> Result<Exit, Failed> {
    let failed = |error: io::Error| {
        let listen = args.listen;
        let advice =
            format!("cannot listen on {listen} ({error}): choose another --listen address");
        Failed::new(Exit::CannotConnect, advice)
    };
    let responder = Responder::new(args.listen, args.bytes).map_err(failed)?;
    let mut out = io::stdout();
    let written = writeln!(out, "ready").and_then(|()| out.flush());
    written.map_err(|_| Failed::new(Exit::WriteError, ""))?;
    responder.run().map_err(failed)?;
    Ok(Exit::Success)
}
