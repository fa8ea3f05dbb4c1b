//! Exit codes: what a shell script learns when the program ends.
//!
//! Codes below 100 mean what they mean for curl(1); the others are our own. The table here is the
//! one that `--help` prints, so code and help cannot differ. 124 to 127 are left to the shell and
//! to timeout(1).

use core::fmt::Write as _;
use std::process::ExitCode;

use crate::runtime::Signal;

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All was done.
    Success,
    /// The scheme of a URL is not `http`.
    UnsupportedScheme,
    /// The command line is wrong.
    Usage,
    /// A URL is malformed.
    BadUrl,
    /// The host of a URL has no known address.
    CannotResolve,
    /// No connection came about.
    CannotConnect,
    /// The answer is not HTTP.
    WeirdReply,
    /// Fewer bytes came than were promised.
    Partial,
    /// The server answered 400 or above and `--fail` was given.
    HttpError,
    /// Output could not be written.
    WriteError,
    /// A time limit has passed.
    Timeout,
    /// The server did not honour a range.
    RangeNotSupported,
    /// The resume offset does not fit the file.
    BadResume,
    /// Too many redirects.
    TooManyRedirects,
    /// The server closed without an answer.
    EmptyReply,
    /// The connection broke while receiving.
    ReceiveFailure,
    /// The object changed again and again while it was fetched.
    Changed,
    /// The bytes do not have the digest the server offered.
    DigestMismatch,
    /// A simulated world broke a law.
    LawBroken,
    /// No right to open a TUN device.
    TunPermission,
    /// `/dev/net/tun` is missing.
    TunMissing,
    /// The TUN device is held by another process.
    TunBusy,
    /// An address is in use, or cannot be used.
    AddressInUse,
    /// The device, or the `ip` program that sets it up, failed.
    Device,
    /// The key file cannot be read or written, or exists already.
    KeyFile,
    /// Others may read the key file.
    KeyFileMode,
    /// The key file is truncated or malformed.
    KeyFileContent,
    /// The root is missing, empty or not a directory.
    Root,
    /// The metrics address cannot be listened on.
    Metrics,
    /// The control socket cannot be made, or nobody answers at it.
    Control,
    /// A running program refused a command.
    Refused,
    /// The redirector's configuration, or its table of sites, is missing or wrong.
    Configuration,
    /// Ended by SIGINT.
    Interrupted,
    /// Ended by SIGTERM.
    Terminated,
}

impl Exit {
    /// Every way to end, in the order of the codes.
    pub const ALL: [Self; 34] = [
        Self::Success,
        Self::UnsupportedScheme,
        Self::Usage,
        Self::BadUrl,
        Self::CannotResolve,
        Self::CannotConnect,
        Self::WeirdReply,
        Self::Partial,
        Self::HttpError,
        Self::WriteError,
        Self::Timeout,
        Self::RangeNotSupported,
        Self::BadResume,
        Self::TooManyRedirects,
        Self::EmptyReply,
        Self::ReceiveFailure,
        Self::Changed,
        Self::DigestMismatch,
        Self::LawBroken,
        Self::TunPermission,
        Self::TunMissing,
        Self::TunBusy,
        Self::AddressInUse,
        Self::Device,
        Self::KeyFile,
        Self::KeyFileMode,
        Self::KeyFileContent,
        Self::Root,
        Self::Metrics,
        Self::Control,
        Self::Refused,
        Self::Configuration,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// The number the shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.row().0
    }

    /// A few words for `--help`.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        self.row().1
    }

    const fn row(self) -> (u8, &'static str) {
        match self {
            Self::Success => (0, "success"),
            Self::UnsupportedScheme => (1, "the scheme of the URL is not http"),
            Self::Usage => (2, "bad command line"),
            Self::BadUrl => (3, "malformed URL"),
            Self::CannotResolve => (6, "the host has no address in /etc/hosts"),
            Self::CannotConnect => (7, "no connection"),
            Self::WeirdReply => (8, "the answer is not HTTP/1.1"),
            Self::Partial => (18, "fewer bytes came than were promised"),
            Self::HttpError => (22, "status 400 or above, with --fail"),
            Self::WriteError => (23, "output could not be written"),
            Self::Timeout => (28, "a time limit has passed"),
            Self::RangeNotSupported => (33, "the server did not honour the range"),
            Self::BadResume => (36, "the resume offset does not fit the file"),
            Self::TooManyRedirects => (47, "too many redirects"),
            Self::EmptyReply => (52, "no answer before the connection closed"),
            Self::ReceiveFailure => (56, "the connection broke while receiving"),
            Self::Changed => (100, "the object kept changing while it was fetched"),
            Self::DigestMismatch => (101, "the bytes do not match the digest offered"),
            Self::LawBroken => (102, "a simulated world broke a law"),
            Self::TunPermission => (110, "no right to open a TUN device"),
            Self::TunMissing => (111, "/dev/net/tun is missing"),
            Self::TunBusy => (112, "the TUN device is in use"),
            Self::AddressInUse => (113, "an address is in use"),
            Self::Device => (114, "the device could not be set up or failed"),
            Self::KeyFile => (115, "the key file is missing, unreadable or exists already"),
            Self::KeyFileMode => (116, "the key file is open to other users"),
            Self::KeyFileContent => (117, "the key file is truncated or malformed"),
            Self::Root => (118, "the root is missing, empty or not a directory"),
            Self::Metrics => (119, "the metrics address cannot be listened on"),
            Self::Control => (120, "the control socket cannot be made or reached"),
            Self::Refused => (121, "a running program refused the command"),
            Self::Configuration => (
                122,
                "the redirector's configuration or table is missing or wrong",
            ),
            Self::Interrupted => (130, "ended by SIGINT"),
            Self::Terminated => (143, "ended by SIGTERM"),
        }
    }

    /// The table for `--help`, of the given ways to end.
    #[must_use]
    pub fn table(ways: &[Self]) -> String {
        let mut text = String::from("Exit codes:\n");
        for way in ways {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {:>3}  {}", way.code(), way.meaning());
        }
        text
    }
}

impl From<Signal> for Exit {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Interrupt => Self::Interrupted,
            Signal::Terminate => Self::Terminated,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a run failed: the code, and one line that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    /// How the program ends.
    pub exit: Exit,
    /// One line; empty if there is nothing to say (a broken pipe).
    pub message: String,
}

impl Failed {
    /// A failure with a line for the user; line breaks inside become spaces.
    #[must_use]
    pub fn new(exit: Exit, message: impl core::fmt::Display) -> Self {
        let message = message.to_string().replace(['\n', '\r'], " ");
        Self { exit, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_leave_the_shells_alone() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
        assert!(!codes.iter().any(|code| (124..=127).contains(code)));
    }

    #[test]
    fn the_table_names_every_code() {
        let table = Exit::table(&Exit::ALL);
        assert_eq!(table.lines().count(), 1 + Exit::ALL.len());
        assert!(table.contains("  130  ended by SIGINT\n"));
    }

    #[test]
    fn a_failure_is_one_line() {
        assert_eq!(Failed::new(Exit::Usage, "a\nb").message, "a b");
    }
}
