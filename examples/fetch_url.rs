//! Fetches a URL over the transport from behind a TUN device and writes the body to standard output.
//!
//! ```sh
//! sudo target/debug/examples/fetch_url hw1 10.78.0.2 http://10.77.0.2/1000000 | wc -c
//! ```

use std::error::Error;
use std::io;
use std::net::IpAddr;

use headwater::{
    ClientHost, ClientHostConfig, Endpoint, OsClock, Target, Transfer, TransferConfig, Tun,
    TunConfig, WriteOutput, os_seed,
};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [tun, address, url] = words.as_slice() else {
        return Err("usage: fetch_url TUN ADDRESS URL".into());
    };
    let address: [IpAddr; 1] = [address.parse()?];
    let target = Target::parse(url)?;
    let clock = OsClock::new();
    let config = ClientHostConfig::builder(address, os_seed()?).build()?;
    let machine = ClientHost::new(clock.now(), config)?;
    let device = Tun::open(&TunConfig::builder(tun).addresses(address).build()?)?;
    let mut endpoint = Endpoint::new(clock, device, machine)?;
    // `endpoint.fetch(url)` would return the body; this one may be longer than memory.
    let config = TransferConfig::builder().fail(true).follow(true).build()?;
    let output = Box::new(WriteOutput::new(io::stdout()));
    endpoint.transfer(Transfer::new(config, target, output))?;
    Ok(())
}
