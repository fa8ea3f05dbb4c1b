//! Control sockets: binds one, and sends a command to that of a running program.
//!
//! In: a path, a command. Out: the socket; or the program's reply on standard output, or a failure
//! with the reason.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::exit::{Exit, Failed};
use crate::files::Place;
use crate::runtime::control::{ControlServer, ERROR, OK};

/// Time within which a program must reply to a command.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `headwater link-control` and `headwater redirect-control`.
#[derive(Debug, clap::Args)]
pub struct ControlArgs {
    /// Path of the socket, as given to `--control`
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub command: Vec<String>,
}

/// Binds the socket at `path`, if there is one.
pub(super) fn bind(path: Option<&Path>) -> Result<Option<ControlServer>, Failed> {
    let bind = |path: &Path| {
        ControlServer::bind(path).map_err(|error| {
            let name = path.display();
            let advice = format!(
                "cannot bind the control socket {name} ({error}): choose another --control path"
            );
            Failed::new(Exit::Control, advice)
        })
    };
    path.map(bind).transpose()
}

/// Sends a command to a running program and prints its reply. `what`: the kind of program.
///
/// # Errors
/// [`Exit::Control`] if no program replies, [`Exit::Refused`] with the program's reason.
pub fn run(args: &ControlArgs, what: &str) -> Result<Exit, Failed> {
    let unreachable = |error: io::Error| {
        let name = args.path.display();
        let message = format!("no {what} answers at {name} ({error}): is it running?");
        Failed::new(Exit::Control, message)
    };
    let answer = ask(&args.path, &args.command.join(" ")).map_err(unreachable)?;
    let (text, last) = match answer.trim_end().rsplit_once('\n') {
        Some((text, last)) => (text, last),
        None => ("", answer.trim_end()),
    };
    if let Some(reason) = last.strip_prefix(ERROR) {
        return Err(Failed::new(Exit::Refused, reason));
    }
    if last != OK {
        return Err(unreachable(io::ErrorKind::UnexpectedEof.into()));
    }
    if !text.is_empty() {
        writeln!(io::stdout(), "{text}").map_err(|_| Failed::new(Exit::WriteError, ""))?;
    }
    Ok(Exit::Success)
}

fn ask(path: &Path, command: &str) -> io::Result<String> {
    let place = Place::of(path)?;
    if let Some(seen) = place.look()? {
        place.trust(&seen)?;
    }
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A line break would split the command in two.
    let line = command.replace(['\n', '\r'], " ");
    stream.write_all(format!("{line}\n").as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
