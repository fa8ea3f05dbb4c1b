//! Exit codes of the program.
//!
//! Codes below 100 mean the same as curl's (curl(1), EXIT CODES); the others are our own. `--help`
//! prints this table, so code and help cannot differ. 124 to 127 are left to the shell and to
//! timeout(1).

use core::fmt::Write as _;
use std::process::ExitCode;

use crate::runtime::Signal;

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Success,
    /// The scheme of a URL is not `http`.
    UnsupportedScheme,
    /// The command line is wrong.
    Usage,
    /// A URL is malformed.
    BadUrl,
    /// The host of a URL could not be resolved.
    CannotResolve,
    /// Failed to connect.
    CannotConnect,
    /// The response is not HTTP.
    WeirdReply,
    /// Fewer bytes arrived than the server announced.
    Partial,
    /// The response has status 400 or above, with `--fail`.
    HttpError,
    /// Output could not be written.
    WriteError,
    /// A time limit was reached.
    Timeout,
    /// The server ignored the range.
    RangeNotSupported,
    /// The file is shorter than the resume offset.
    BadResume,
    /// Too many redirects.
    TooManyRedirects,
    /// The connection closed before any response.
    EmptyReply,
    /// The connection failed while receiving.
    ReceiveFailure,
    /// The object kept changing during the transfer.
    Changed,
    /// The body does not match the digest of the server.
    DigestMismatch,
    /// A simulated world violated a law.
    LawBroken,
    /// Permission to open a TUN device is missing.
    TunPermission,
    /// `/dev/net/tun` is missing.
    TunMissing,
    /// Another process holds the TUN device.
    TunBusy,
    /// An address is in use or cannot be assigned.
    AddressInUse,
    /// The device failed, or `ip` failed to configure it.
    Device,
    /// The key file cannot be read or written, or already exists.
    KeyFile,
    /// Other users may read the key file.
    KeyFileMode,
    /// The key file is truncated or malformed.
    KeyFileContent,
    /// The root is missing, empty or not a directory.
    Root,
    /// The metrics address cannot be bound.
    Metrics,
    /// The control socket cannot be bound, or no program replies on it.
    Control,
    /// A running program rejected a command.
    Refused,
    /// The redirector's configuration or its table of sites is missing or invalid.
    Configuration,
    /// Ended by SIGINT.
    Interrupted,
    /// Ended by SIGTERM.
    Terminated,
}

impl Exit {
    /// Every exit, in ascending order of the codes.
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

    /// The exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.row().0
    }

    /// The description for `--help`.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        self.row().1
    }

    const fn row(self) -> (u8, &'static str) {
        match self {
            Self::Success => (0, "success"),
            Self::UnsupportedScheme => (1, "unsupported protocol: the URL's scheme is not http"),
            Self::Usage => (2, "bad command line"),
            Self::BadUrl => (3, "malformed URL"),
            Self::CannotResolve => (6, "could not resolve host"),
            Self::CannotConnect => (7, "failed to connect"),
            Self::WeirdReply => (8, "weird server reply: not HTTP/1.1"),
            Self::Partial => (18, "partial file: fewer bytes than announced"),
            Self::HttpError => (22, "HTTP status 400 or above, with --fail"),
            Self::WriteError => (23, "write error"),
            Self::Timeout => (28, "operation timed out"),
            Self::RangeNotSupported => (33, "range error: the server ignored the range"),
            Self::BadResume => (36, "bad resume: the file is shorter than the offset"),
            Self::TooManyRedirects => (47, "too many redirects"),
            Self::EmptyReply => (52, "empty reply: the connection closed before any response"),
            Self::ReceiveFailure => (56, "failure in receiving network data"),
            Self::Changed => (100, "the object kept changing during the transfer"),
            Self::DigestMismatch => (101, "the body does not match the server's digest"),
            Self::LawBroken => (102, "a simulated world violated a law"),
            Self::TunPermission => (110, "permission to open a TUN device is missing"),
            Self::TunMissing => (111, "/dev/net/tun is missing"),
            Self::TunBusy => (112, "the TUN device is in use"),
            Self::AddressInUse => (113, "an address is in use or cannot be assigned"),
            Self::Device => (114, "the device failed or could not be configured"),
            Self::KeyFile => (115, "the key file is missing, unreadable or already exists"),
            Self::KeyFileMode => (116, "the key file is open to other users"),
            Self::KeyFileContent => (117, "the key file is truncated or malformed"),
            Self::Root => (118, "the root is missing, empty or not a directory"),
            Self::Metrics => (119, "the metrics address cannot be bound"),
            Self::Control => (120, "the control socket cannot be bound or reached"),
            Self::Refused => (121, "a running program rejected the command"),
            Self::Configuration => (
                122,
                "the redirector's configuration or table is missing or invalid",
            ),
            Self::Interrupted => (130, "ended by SIGINT"),
            Self::Terminated => (143, "ended by SIGTERM"),
        }
    }

    /// Formats the table of the given exits for `--help`.
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

/// A failed run: the exit code, and one line with the cause and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    /// The exit code.
    pub exit: Exit,
    /// One line; empty if there is nothing to print (a broken pipe).
    pub message: String,
}

impl Failed {
    /// Creates a failure with a message; line breaks in it become spaces.
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
