//! `headwater bench bounce`: a minimal redirector, as a baseline.
//!
//! In: arguments. Out: the line `ready`, then redirected packets until a signal.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use crate::cli::exit::{Exit, Failed};
use crate::cli::instruments::bench::Forever;
use crate::cli::local::{LocalArgs, Opened, device_failed, say_ready};
use crate::device::Device;
use crate::instruments::flood::Bounce;
use crate::runtime::OsClock;

/// Arguments of `headwater bench bounce`.
#[derive(Debug, clap::Args)]
pub(super) struct BounceArgs {
    #[command(flatten)]
    local: LocalArgs,
    /// Redirect packets for the --address to this IPv4 address
    #[arg(long, value_name = "ADDR")]
    to: Ipv4Addr,
}

/// Redirects packets until a signal ends it.
pub(super) fn run(args: &BounceArgs) -> Result<Exit, Failed> {
    args.local.check()?;
    let [IpAddr::V4(own)] = args.local.addresses[..] else {
        let advice = "set exactly one --address, an IPv4 one";
        return Err(Failed::new(Exit::Usage, advice));
    };
    let bounce = Bounce::new(own, args.to);
    match args.local.open()? {
        Opened::Plain(device) => on_device(&args.local, bounce, device),
        Opened::Tapped(device) => on_device(&args.local, bounce, device),
    }
}

fn on_device<D: Device + AsRawFd>(
    local: &LocalArgs,
    mut bounce: Bounce,
    device: D,
) -> Result<Exit, Failed> {
    let mut runtime = local.runtime(OsClock::new(), device)?;
    say_ready();
    let ended = runtime.run(&mut bounce, &mut Forever);
    ended.map_err(device_failed)?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        args: BounceArgs,
    }

    #[test]
    fn one_address_of_ipv4_is_what_it_takes() {
        for addresses in ["fd00::1", "10.0.0.1,10.0.0.2"] {
            let words = [
                "x",
                "--tun",
                "hw0",
                "--to",
                "10.0.0.3",
                "--address",
                addresses,
            ];
            let args = Typed::try_parse_from(words).unwrap().args;
            assert_eq!(run(&args).unwrap_err().exit, Exit::Usage, "{addresses}");
        }
        let words = [
            "x",
            "--tun",
            "hw0",
            "--address",
            "10.0.0.1",
            "--to",
            "fd00::1",
        ];
        assert!(Typed::try_parse_from(words).is_err());
    }
}
