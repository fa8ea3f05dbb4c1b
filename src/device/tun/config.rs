//! How a TUN device is set up: a builder with defaults.
//!
//! In: a name and what shall differ from the defaults. Out: a [`TunConfig`] that can be opened, or a
//! [`TunError`] that says what to change. Looks at nothing outside the process.

use std::net::IpAddr;

use crate::device::tun::{TunError, set_up};
use crate::wire::ip::DEFAULT_MTU;

/// The kind of a TUN device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunKind {
    /// Offloading if the kernel supports it, else plain.
    #[default]
    Auto,
    /// One packet per system call, never coalesced: for links and experiments that act on packets.
    Plain,
    /// Offloading, or an error.
    Offload,
}

/// The configuration of a TUN device; see [`builder`](Self::builder).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunConfig {
    /// Interface name, 1 to `MAX_NAME_BYTES` bytes.
    pub(crate) name: String,
    /// Largest IP packet in bytes, from `MIN_MTU` or `MIN_MTU_V6` on.
    pub(crate) mtu: u16,
    /// The stack's own addresses, at most `MAX_ADDRESSES`; a host route leads to each.
    pub(crate) addresses: Vec<IpAddr>,
    /// Which kind.
    pub(crate) kind: TunKind,
    /// As one queue of several: other processes attach to the same device, and the kernel spreads
    /// flows over them. Only an offloading device can.
    pub(crate) multi_queue: bool,
}

impl TunConfig {
    /// Begins a configuration for the device `name`, 1 to 15 letters, digits, `.`, `_` or `-`.
    pub fn builder(name: impl Into<String>) -> TunBuilder {
        TunBuilder(Self {
            name: name.into(),
            mtu: DEFAULT_MTU,
            addresses: Vec::new(),
            kind: TunKind::default(),
            multi_queue: false,
        })
    }
}

/// Builds a [`TunConfig`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct TunBuilder(TunConfig);

impl TunBuilder {
    /// Sets the largest IP packet in bytes: 576 or more, 1280 or more with an IPv6 address. Default:
    /// [`DEFAULT_MTU`].
    pub const fn mtu(mut self, mtu: u16) -> Self {
        self.0.mtu = mtu;
        self
    }

    /// Sets the addresses of the stack behind the device, at most 8; the kernel gets a host route to
    /// each. Default: none.
    pub fn addresses(mut self, addresses: impl Into<Vec<IpAddr>>) -> Self {
        self.0.addresses = addresses.into();
        self
    }

    /// Sets the kind of the device. Default: [`TunKind::Auto`].
    pub const fn kind(mut self, kind: TunKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Sets whether this is one queue of several: other processes attach to the same device, and the
    /// kernel spreads flows over them. Only an offloading device has several. Default: `false`.
    pub const fn multi_queue(mut self, multi_queue: bool) -> Self {
        self.0.multi_queue = multi_queue;
        self
    }

    /// Checks every value and returns the configuration.
    ///
    /// # Errors
    /// [`TunError::InvalidName`], [`TunError::MtuTooSmall`] or [`TunError::TooManyAddresses`].
    pub fn build(self) -> Result<TunConfig, TunError> {
        let Self(config) = self;
        set_up::check(&config)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_checked() {
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        let cases = [
            ("defaults", TunConfig::builder("hw0"), true),
            ("longest", TunConfig::builder("123456789012345"), true),
            ("too long", TunConfig::builder("1234567890123456"), false),
            ("no name", TunConfig::builder(""), false),
            ("an option", TunConfig::builder("-4"), false),
            ("smallest", TunConfig::builder("hw0").mtu(576), true),
            ("too small", TunConfig::builder("hw0").mtu(575), false),
            (
                "v6",
                TunConfig::builder("hw0").addresses([v6]).mtu(1280),
                true,
            ),
            (
                "too small for v6",
                TunConfig::builder("hw0").addresses([v6]).mtu(1279),
                false,
            ),
            (
                "too many",
                TunConfig::builder("hw0").addresses(vec![v6; 9]),
                false,
            ),
        ];
        for (name, builder, good) in cases {
            let built = builder.build();
            assert_eq!(built.is_ok(), good, "{name}: {built:?}");
        }
    }
}
