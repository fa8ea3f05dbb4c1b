//! What programs with a device have in common: a TUN device with addresses of our own, a tap, metrics.
//!
//! In: arguments as typed. Out: an open device, or a failure whose line says what to do.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::exit::{Exit, Failed};
use crate::device::Device;
use crate::device::pcap::Pcap;
use crate::device::tun::{MIN_MTU, MIN_MTU_V6, Tun, TunConfig, TunError, TunKind};
use crate::runtime::metrics::MetricsServer;
use crate::runtime::{OsClock, Runtime, os_seed};

/// How long to look for packets before sleeping, where nothing else is said: about as long as it
/// takes to wake a thread on another processor.
const BUSY_POLL: Duration = Duration::from_micros(50);

/// Which kind of TUN device carries packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceArg {
    /// Offloading where the kernel has it, else plain.
    Auto,
    /// One packet a system call.
    Plain,
    /// Many datagrams a system call, or an error.
    Offload,
}

impl DeviceArg {
    const fn kind(self) -> TunKind {
        match self {
            Self::Auto => TunKind::Auto,
            Self::Plain => TunKind::Plain,
            Self::Offload => TunKind::Offload,
        }
    }
}

/// Arguments of the own device.
#[derive(Debug, Clone, clap::Args)]
pub struct LocalArgs {
    /// TUN device to create or attach to
    #[arg(long, value_name = "NAME")]
    pub tun: String,
    /// Kind of TUN device
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    pub device: DeviceArg,
    /// Own address, IPv4 or IPv6; repeat it, or separate several by commas
    #[arg(
        long = "address",
        value_name = "ADDR",
        required = true,
        value_delimiter = ','
    )]
    pub addresses: Vec<IpAddr>,
    /// Largest IP packet in bytes; with an IPv6 address at least 1280
    #[arg(long, value_name = "BYTES", default_value_t = 1500,
          value_parser = clap::value_parser!(u16).range(i64::from(MIN_MTU)..))]
    pub mtu: u16,
    /// Look for packets for so many microseconds before sleeping, while they come as close together;
    /// 0 sleeps at once
    /// [default: 50 with two processors or more, else 0]
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u16).range(..=1000))]
    pub busy_poll: Option<u16>,
    /// Write every packet to this file, for tshark or tcpdump
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
}

/// An open device.
pub enum Opened {
    /// As it is.
    Plain(Tun),
    /// With a tap.
    Tapped(Pcap<Tun, File>),
}

impl LocalArgs {
    /// The own address from which `remote` can be reached: the first of its family.
    pub fn own_for(&self, remote: IpAddr) -> Option<IpAddr> {
        let mut own = self.addresses.iter().copied();
        own.find(|own| own.is_ipv4() == remote.is_ipv4())
    }

    /// Checks what can be checked without the system.
    ///
    /// # Errors
    /// [`Exit::Usage`].
    pub fn check(&self) -> Result<(), Failed> {
        let refused = |message: String| Err(Failed::new(Exit::Usage, message));
        if self.mtu < MIN_MTU_V6 && self.addresses.iter().any(IpAddr::is_ipv6) {
            let have = self.mtu;
            return refused(format!(
                "MTU {have} is too small for IPv6: use {MIN_MTU_V6} or more"
            ));
        }
        for (index, address) in self.addresses.iter().enumerate() {
            let special = address.is_unspecified() || address.is_multicast();
            let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
            if special || broadcast || address.is_loopback() {
                return refused(format!(
                    "{address} cannot be an own address: use a unicast one"
                ));
            }
            if self
                .addresses
                .iter()
                .take(index)
                .any(|before| before == address)
            {
                return refused(format!(
                    "--address {address} is given twice: once is enough"
                ));
            }
        }
        Ok(())
    }

    /// How long to look for packets before sleeping. Who has one processor shares it with the peer,
    /// for all we know.
    pub fn busy_poll(&self) -> Duration {
        let alone = || std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
        match self.busy_poll {
            Some(micros) => Duration::from_micros(micros.into()),
            None if alone() => BUSY_POLL,
            None => Duration::ZERO,
        }
    }

    /// A loop over what was opened, which looks for packets as long as was asked for.
    ///
    /// # Errors
    /// [`Exit::Device`].
    pub fn runtime<D: Device + AsRawFd>(
        &self,
        clock: OsClock,
        device: D,
    ) -> Result<Runtime<D>, Failed> {
        let mut runtime = Runtime::new(clock, device).map_err(device_failed)?;
        runtime.busy_poll(self.busy_poll());
        Ok(runtime)
    }

    /// Opens the device and the tap.
    ///
    /// # Errors
    /// One of the codes from [`Exit::TunPermission`] to [`Exit::Device`], or [`Exit::WriteError`]
    /// for the tap.
    pub fn open(&self) -> Result<Opened, Failed> {
        self.open_queue(false)
    }

    /// Opens the device, as one queue of several if `multi_queue` says so, and the tap.
    ///
    /// # Errors
    /// As for `open`.
    pub fn open_queue(&self, multi_queue: bool) -> Result<Opened, Failed> {
        // A device is a bigger change to the machine than a file: it comes second.
        let file = capture_file(self.pcap.as_deref())?;
        let config = TunConfig {
            name: self.tun.clone(),
            mtu: self.mtu,
            addresses: self.addresses.clone(),
            kind: self.device.kind(),
            multi_queue,
        };
        let tun = Tun::open(&config).map_err(|error| Failed::new(tun_exit(&error), error))?;
        match file {
            None => Ok(Opened::Plain(tun)),
            Some(file) => match Pcap::new(tun, file) {
                Ok(pcap) => Ok(Opened::Tapped(pcap)),
                Err(error) => Err(unwritable(&error)),
            },
        }
    }
}

/// Makes the file for a capture, if one is asked for.
pub(super) fn capture_file(path: Option<&Path>) -> Result<Option<File>, Failed> {
    let create = |path: &Path| {
        File::create(path).map_err(|error| {
            let name = path.display();
            let advice = format!("cannot write {name} ({error}): name another file for --pcap");
            Failed::new(Exit::WriteError, advice)
        })
    };
    path.map(create).transpose()
}

pub(super) fn unwritable(error: &io::Error) -> Failed {
    let advice = format!("cannot write the capture ({error}): free some space");
    Failed::new(Exit::WriteError, advice)
}

/// Listens where metrics are to be shown, if they are.
pub(super) fn listen_for_metrics(
    address: Option<SocketAddr>,
) -> Result<Option<MetricsServer>, Failed> {
    let bind = |address| {
        MetricsServer::bind(address).map_err(|error| {
            let advice = format!("cannot listen on {address} ({error}): choose another --metrics");
            Failed::new(Exit::Metrics, advice)
        })
    };
    address.map(bind).transpose()
}

pub(super) const fn tun_exit(error: &TunError) -> Exit {
    match error {
        TunError::InvalidName { .. }
        | TunError::MtuTooSmall { .. }
        | TunError::TooManyAddresses { .. } => Exit::Usage,
        TunError::NoPermission => Exit::TunPermission,
        TunError::NoDeviceNode | TunError::NoDriver => Exit::TunMissing,
        TunError::Busy { .. } | TunError::NotTun { .. } => Exit::TunBusy,
        TunError::LocalAddress { .. } | TunError::RoutedElsewhere { .. } => Exit::AddressInUse,
        TunError::NoIpProgram
        | TunError::Refused { .. }
        | TunError::NoOffload { .. }
        | TunError::Os { .. } => Exit::Device,
    }
}

/// The loop over a device has ended by its failure.
pub(super) fn device_failed(error: io::Error) -> Failed {
    let message = format!("the device failed ({error}): look at dmesg");
    Failed::new(Exit::Device, message)
}

/// The same where there are several devices.
pub(super) fn a_device_failed(error: io::Error) -> Failed {
    let message = format!("a device failed ({error}): look at dmesg");
    Failed::new(Exit::Device, message)
}

/// A seed that nobody needs to know.
pub(super) fn drawn_seed() -> Result<u64, Failed> {
    os_seed().map_err(|error| {
        let message = format!("no random numbers ({error}): try again later");
        Failed::new(Exit::Device, message)
    })
}

/// Tells whoever waits that packets are taken from now on. Whoever closed standard output does not
/// want to know.
pub(super) fn say_ready() {
    let _ = writeln!(io::stdout(), "ready").and_then(|()| io::stdout().flush());
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        local: LocalArgs,
    }

    #[test]
    fn addresses_and_mtus() {
        let cases: [(&str, &str, bool); 13] = [
            ("v4", "--address 10.0.0.1", true),
            ("both", "--address 10.0.0.1 --address fd00::1", true),
            ("commas", "--address 10.0.0.1,fd00::1", true),
            ("none", "", false),
            ("name", "--address host", false),
            ("twice", "--address 10.0.0.1,10.0.0.1", false),
            ("unspecified", "--address ::", false),
            ("multicast", "--address 224.0.0.1", false),
            ("loopback", "--address 127.0.0.1", false),
            ("smallest", "--address 10.0.0.1 --mtu 576", true),
            ("too small", "--address 10.0.0.1 --mtu 575", false),
            ("too small for v6", "--address fd00::1 --mtu 1279", false),
            ("too large", "--address fd00::1 --mtu 65536", false),
        ];
        for (name, typed, good) in cases {
            let words = ["x", "--tun", "hw0"]
                .into_iter()
                .chain(typed.split_whitespace());
            let got = Typed::try_parse_from(words).map(|typed| typed.local.check());
            assert_eq!(matches!(got, Ok(Ok(()))), good, "{name}: {got:?}");
        }
    }
}
