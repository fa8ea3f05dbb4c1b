//! Devices that lead to one backend each: the kernel receives a packet written to such a device as if
//! it had arrived there, so that a rule by `iif` can route it.
//!
//! In: a configuration, packets. Out: the packets, unchanged, on the backend's device.

use std::collections::BTreeMap;
use std::io;

use crate::cli::exit::Failed;
use crate::cli::local::tun_exit;
use crate::device::Device as _;
use crate::device::tun::{Tun, TunConfig, TunKind};
use crate::redirect::BackendId;
use crate::redirect::config::{BackendEntry, RedirectConfig};

/// The devices and their names, by backend.
#[derive(Debug, Default)]
pub(super) struct Lanes(BTreeMap<BackendId, (String, Tun)>);

impl Lanes {
    /// Opens the devices of a configuration.
    pub(super) fn open(config: &RedirectConfig, mtu: u16) -> Result<Self, Failed> {
        Self::default().reopen(config, mtu)
    }

    /// Opens the devices of a new configuration that are not open yet.
    pub(super) fn reopen(&self, config: &RedirectConfig, mtu: u16) -> Result<Self, Failed> {
        let mut opened = BTreeMap::new();
        for (backend, name) in named(config) {
            if self.name(backend) == Some(name) {
                continue;
            }
            let config = TunConfig::builder(name).mtu(mtu).kind(TunKind::Plain);
            let tun = config.build().and_then(|config| Tun::open(&config));
            let tun = tun.map_err(|error| Failed::new(tun_exit(&error), error))?;
            opened.insert(backend, (name.to_owned(), tun));
        }
        Ok(Self(opened))
    }

    /// Adds newly opened devices and closes those that the configuration no longer names.
    pub(super) fn replace(&mut self, opened: Self, config: &RedirectConfig) {
        self.0.extend(opened.0);
        self.0
            .retain(|backend, _| named(config).any(|(id, _)| id == *backend));
    }

    pub(super) fn send(&mut self, backend: BackendId, packet: &[u8]) -> io::Result<()> {
        match self.0.get_mut(&backend) {
            Some((_, tun)) => tun.send_packet(packet),
            // The configuration that named the device is gone.
            None => Ok(()),
        }
    }

    fn name(&self, backend: BackendId) -> Option<&str> {
        self.0.get(&backend).map(|(name, _)| name.as_str())
    }
}

/// The devices of a configuration.
fn named<'a>(config: &'a RedirectConfig) -> impl Iterator<Item = (BackendId, &'a str)> {
    let device = |entry: &'a BackendEntry| Some((entry.id, entry.device.as_deref()?));
    config.backends.iter().filter_map(device)
}
