//! Connects to services over the kernel's TCP: a race of attempts to all addresses of each.
//!
//! ```sh
//! target/debug/examples/connector www.example.com:80 localhost:22
//! ```

use std::error::Error;
use std::io::{self, Write as _};
use std::time::Duration;

use headwater::Connector;

fn main() -> Result<(), Box<dyn Error>> {
    let services: Vec<String> = std::env::args().skip(1).collect();
    if services.is_empty() {
        return Err("usage: connector HOST:PORT...".into());
    }
    // Threads may share it: it keeps the addresses of names for a minute.
    let connector = Connector::builder().timeout(Duration::from_secs(5)).build();
    for service in services {
        let stream = connector.connect(&service)?;
        writeln!(io::stdout(), "{service}: {}", stream.peer_addr()?)?;
    }
    Ok(())
}
