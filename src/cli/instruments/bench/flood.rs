//! `headwater bench flood`: packets like requests, as fast as they can be sent.
//!
//! In: arguments. Out: packets sent, the time and the processor time taken, which includes the
//! kernel's work on the packets in the same calls. Does not count arrivals.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::cli::exit::{Exit, Failed};
use crate::cli::instruments::UntilDone;
use crate::cli::instruments::bench::cpu::used_ns;
use crate::cli::instruments::bench::table::figure;
use crate::cli::instruments::bench::{Figures, SCHEMA, conclude};
use crate::cli::local::{LocalArgs, Opened, device_failed};
use crate::device::Device;
use crate::instruments::flood::{Flood, MAX_CONNECTIONS, MIN_PACKET_BYTES};
use crate::runtime::{OsClock, Stopped};
use crate::wire::flight::UdpPath;

/// Local port.
const PORT: u16 = 7601;

/// Longest flood, in seconds.
const MAX_FLOOD_SECONDS: u64 = 3600;

/// Arguments of `headwater bench flood`.
#[derive(Debug, clap::Args)]
pub(super) struct FloodArgs {
    #[command(flatten)]
    local: LocalArgs,
    /// Destination
    #[arg(long, value_name = "ADDR:PORT")]
    to: SocketAddr,
    /// Size of an IP packet in bytes, at most the MTU
    #[arg(long, value_name = "BYTES", default_value_t = 200,
          value_parser = clap::value_parser!(u16).range(i64::from(MIN_PACKET_BYTES)..))]
    bytes: u16,
    /// Number of connections, used in turns
    #[arg(long, value_name = "N", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONNECTIONS)))]
    connections: u32,
    /// Duration in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3,
          value_parser = clap::value_parser!(u64).range(1..=MAX_FLOOD_SECONDS))]
    seconds: u64,
    /// Write all results to FILE as JSON
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
}

/// The settings, for the results.
#[derive(Serialize)]
struct FloodSettings {
    packet_bytes: u16,
    connections: u32,
}

/// The results.
#[derive(Serialize)]
struct Sent {
    packets: u64,
    seconds: f64,
    own_ns: u64,
    /// Packets that the device rejected.
    refused: u64,
}

/// Sends the flood.
pub(super) fn run(args: &FloodArgs) -> Result<Exit, Failed> {
    args.local.check()?;
    if args.bytes > args.local.mtu {
        let advice = format!(
            "--bytes {} is above the MTU: choose a smaller size",
            args.bytes
        );
        return Err(Failed::new(Exit::Usage, advice));
    }
    let own = own(args)?;
    match args.local.open()? {
        Opened::Plain(device) => on_device(args, own, device),
        Opened::Tapped(device) => on_device(args, own, device),
    }
}

/// Returns the own address for the destination.
fn own(args: &FloodArgs) -> Result<IpAddr, Failed> {
    let own = args.local.own_for(args.to.ip());
    let advice = "no --address is of the family of --to: add one";
    own.ok_or_else(|| Failed::new(Exit::Usage, advice))
}

fn on_device<D: Device + AsRawFd>(
    args: &FloodArgs,
    own: IpAddr,
    device: D,
) -> Result<Exit, Failed> {
    let clock = OsClock::new();
    let mut runtime = args.local.runtime(clock, device)?;
    let path = UdpPath {
        src: SocketAddr::new(own, PORT),
        dst: args.to,
    };
    let before = used_ns("self").unwrap_or(0);
    let time = Duration::from_secs(args.seconds);
    let flood = Flood::new(clock.now(), path, args.bytes, args.connections, time);
    let mut flood = flood.map_err(|error| Failed::new(Exit::Usage, error))?;
    match runtime.run(&mut flood, &mut UntilDone(Flood::is_done)) {
        Ok(Stopped::ByHook) => {}
        Ok(Stopped::BySignal(signal)) => return Err(Failed::new(signal.into(), "")),
        Err(error) => return Err(device_failed(error)),
    }
    let (packets, took) = flood.sent();
    let sent = Sent {
        packets,
        seconds: took.as_secs_f64(),
        own_ns: used_ns("self").unwrap_or(0).saturating_sub(before),
        refused: runtime.device().send_drops(),
    };
    let rows = rows(&sent);
    let figures = Figures {
        schema: SCHEMA,
        bench: "flood",
        seed: 0,
        settings: FloodSettings {
            packet_bytes: args.bytes,
            connections: args.connections,
        },
        peers: &[sent],
    };
    conclude(&figures, args.stats.as_deref(), &rows)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn rows(sent: &Sent) -> Vec<Vec<String>> {
    let rate = sent.packets as f64 / sent.seconds.max(1e-6);
    let each = sent.own_ns as f64 / sent.packets.max(1) as f64;
    let heads = ["packets", "a second", "CPU ns each", "refused"];
    let cells = [
        sent.packets.to_string(),
        figure(rate),
        figure(each),
        sent.refused.to_string(),
    ];
    vec![heads.map(str::to_owned).to_vec(), cells.to_vec()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::instruments::bench::assert_options;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        args: FloodArgs,
    }

    #[test]
    fn options() {
        let cases = [
            ("--to 10.0.0.2:7600", true),
            ("--to 10.0.0.2:7600 --bytes 99", false),
            ("--to 10.0.0.2:7600 --connections 4096 --seconds 3600", true),
            ("--to 10.0.0.2:7600 --connections 4097", false),
            ("--to 10.0.0.2:7600 --seconds 0", false),
            ("", false),
        ];
        assert_options::<Typed>("x --tun hw0 --address 10.0.0.1", &cases);
        let words = "x --tun hw0 --address 10.0.0.1 --to 10.0.0.2:1 --bytes 1501";
        let args = Typed::try_parse_from(words.split_whitespace())
            .unwrap()
            .args;
        assert_eq!(run(&args).unwrap_err().exit, Exit::Usage);
        assert!(own(&args).is_ok());
        let words = "x --tun hw0 --address 10.0.0.1 --to [fd00::1]:1".split_whitespace();
        assert!(own(&Typed::try_parse_from(words).unwrap().args).is_err());
    }

    #[test]
    fn a_row_has_rate_and_cost() {
        let sent = Sent {
            packets: 1000,
            seconds: 2.0,
            own_ns: 1_500_000,
            refused: 3,
        };
        assert_eq!(rows(&sent)[1], ["1000", "500", "1500", "3"]);
    }
}
