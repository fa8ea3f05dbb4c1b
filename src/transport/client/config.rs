//! How a client connection is set up: a builder with defaults.
//!
//! In: the two ends of the path and what shall differ from the defaults. Out: a [`ClientConfig`] all of
//! whose values are in range, or a [`ClientConfigError`] that says what to change.

use std::net::SocketAddr;
use std::time::Duration;

use crate::transport::client::AddressToken;
use crate::wire::ip::{DEFAULT_MTU, MIN_MTU};

/// Bytes of the reassembly buffer by default.
pub const DEFAULT_BUFFER_BYTES: usize = 16 << 20;

/// How long a connection waits for any answer by default.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// The message for port zero.
pub const PORT_ZERO: &str = "port 0 cannot be used: choose one from 1 to 65535";

/// The message for a buffer of zero bytes.
pub const NO_BUFFER: &str = "a buffer of 0 bytes: use at least 65536";

/// The message for a time limit of zero.
pub const NO_TIME: &str = "a time limit of 0: use a positive one";

/// Why a connection cannot be set up so. The caller is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientConfigError {
    /// The own address and the service's are of different families.
    #[error("{local} cannot reach {remote}: use two addresses of one family")]
    Families {
        /// Own address and port.
        local: SocketAddr,
        /// The service.
        remote: SocketAddr,
    },
    /// Port zero at either end.
    #[error("{PORT_ZERO}")]
    PortZero,
    /// An MTU below [`MIN_MTU`].
    #[error("MTU {have} is too small for IPv4: use {MIN_MTU} or more")]
    MtuTooSmall {
        /// The MTU given, in bytes.
        have: u16,
    },
    /// A reassembly buffer of zero bytes, for which nothing could be asked.
    #[error("{NO_BUFFER}")]
    NoBuffer,
    /// A time limit of zero, which nothing can keep.
    #[error("{NO_TIME}")]
    NoTime,
}

/// The configuration of a client connection; see [`builder`](Self::builder).
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Own address and port.
    pub(crate) local: SocketAddr,
    /// The service.
    pub(crate) remote: SocketAddr,
    /// MTU of the own device in bytes (IP packet, 576 to 65,535); responses are requested at this
    /// size.
    pub(crate) mtu: u16,
    /// Reassembly buffer in bytes: no bytes beyond it are requested.
    pub(crate) buffer: usize,
    /// Give up after this long without any answer while one is awaited.
    pub(crate) idle_timeout: Duration,
    /// Proof of the own address from an earlier connection to the same service.
    pub(crate) token: Option<AddressToken>,
}

impl ClientConfig {
    /// Begins a configuration for a connection from the own address and port `local` to the service at
    /// `remote`.
    ///
    /// ```
    /// use headwater::{ClientConfig, ClientConfigError};
    ///
    /// let (local, remote) = ("192.0.2.7:50000".parse()?, "192.0.2.1:7600".parse()?);
    /// assert!(ClientConfig::builder(local, remote).mtu(1400).build().is_ok());
    /// let refused = ClientConfig::builder(local, remote).mtu(100).build();
    /// assert_eq!(refused.unwrap_err(), ClientConfigError::MtuTooSmall { have: 100 });
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub const fn builder(local: SocketAddr, remote: SocketAddr) -> ClientBuilder {
        ClientBuilder(Self {
            local,
            remote,
            mtu: DEFAULT_MTU,
            buffer: DEFAULT_BUFFER_BYTES,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            token: None,
        })
    }
}

/// Builds a [`ClientConfig`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct ClientBuilder(ClientConfig);

impl ClientBuilder {
    /// Sets the largest IP packet in bytes, 576 or more; the client requests responses of this size.
    /// Default: [`DEFAULT_MTU`].
    pub const fn mtu(mut self, mtu: u16) -> Self {
        self.0.mtu = mtu;
        self
    }

    /// Sets the size of the reassembly buffer in bytes, above 0: the client does not ask for bytes
    /// beyond it. Default: [`DEFAULT_BUFFER_BYTES`].
    pub const fn buffer(mut self, bytes: usize) -> Self {
        self.0.buffer = bytes;
        self
    }

    /// Sets how long the connection waits for any answer before it gives up, above 0. Default:
    /// [`DEFAULT_IDLE_TIMEOUT`].
    pub const fn idle_timeout(mut self, limit: Duration) -> Self {
        self.0.idle_timeout = limit;
        self
    }

    /// Sets the proof of the own address that an earlier connection to the same service left behind.
    /// Default: none.
    pub fn token(mut self, token: impl Into<Option<AddressToken>>) -> Self {
        self.0.token = token.into();
        self
    }

    /// Checks every value and returns the configuration.
    ///
    /// # Errors
    /// [`ClientConfigError`].
    pub fn build(self) -> Result<ClientConfig, ClientConfigError> {
        let Self(config) = self;
        let (local, remote) = (config.local, config.remote);
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(ClientConfigError::Families { local, remote });
        }
        if local.port() == 0 || remote.port() == 0 {
            return Err(ClientConfigError::PortZero);
        }
        if config.mtu < MIN_MTU {
            return Err(ClientConfigError::MtuTooSmall { have: config.mtu });
        }
        if config.buffer == 0 {
            return Err(ClientConfigError::NoBuffer);
        }
        if config.idle_timeout.is_zero() {
            return Err(ClientConfigError::NoTime);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_checked() {
        use ClientConfigError as E;
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (local, remote) = (at("192.0.2.7:1"), at("192.0.2.1:2"));
        let good = || ClientConfig::builder(local, remote);
        let (v6, none) = (at("[2001:db8::1]:2"), at("192.0.2.1:0"));
        let cases = [
            ("defaults", good(), None),
            (
                "families",
                ClientConfig::builder(local, v6),
                Some(E::Families { local, remote: v6 }),
            ),
            (
                "to 0",
                ClientConfig::builder(local, none),
                Some(E::PortZero),
            ),
            (
                "from 0",
                ClientConfig::builder(none, remote),
                Some(E::PortZero),
            ),
            ("smallest", good().mtu(576), None),
            ("small", good().mtu(575), Some(E::MtuTooSmall { have: 575 })),
            ("buffer", good().buffer(0), Some(E::NoBuffer)),
            ("idle", good().idle_timeout(Duration::ZERO), Some(E::NoTime)),
        ];
        for (name, builder, want) in cases {
            assert_eq!(builder.build().err(), want, "{name}");
        }
    }
}
