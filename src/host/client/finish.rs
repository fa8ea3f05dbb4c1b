//! The finish line of a race: how far an attempt is.
//!
//! In: the connection of an attempt, and the event that decides. Out: whether it has finished, or failed.

use crate::host::config::Finish;
use crate::host::connection::ClientConnection;
use crate::http::HeadError;
use crate::http::response::ResponseHead;

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Waits,
    Finished,
    Failed,
}

/// Judges whether an attempt has reached the finish line.
pub(super) fn judge(connection: &mut ClientConnection, finish: Finish) -> Verdict {
    let waits = |connection: &mut ClientConnection| match connection.poll_end() {
        Some(_) => Verdict::Failed,
        None => Verdict::Waits,
    };
    if !connection.is_connected() {
        return waits(connection);
    }
    // A request over TCP leaves only when its connection has won.
    let Some(client) = connection.transport() else {
        return Verdict::Finished;
    };
    let bytes = client.ready();
    match finish {
        Finish::Answer => Verdict::Finished,
        Finish::FirstByte | Finish::Head if bytes.is_empty() => waits(connection),
        Finish::FirstByte => Verdict::Finished,
        Finish::Head => match ResponseHead::parse(bytes) {
            Ok((head, _)) if head.status.0 < 500 => Verdict::Finished,
            Err(HeadError::Incomplete) => waits(connection),
            Ok(_) | Err(_) => Verdict::Failed,
        },
    }
}
