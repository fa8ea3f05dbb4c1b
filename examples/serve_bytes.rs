//! Serves computed bytes on a TUN device: `http://ADDRESS/N` has N bytes, and byte `i` is `i mod 251`.
//!
//! ```sh
//! headwater keygen --out service.keys
//! sudo target/debug/examples/serve_bytes hw0 10.77.0.2 service.keys &
//! ping -c 1 10.77.0.2; curl http://10.77.0.2/1000000 | wc -c
//! ```

use std::error::Error;
use std::io::Write;
use std::net::IpAddr;

use headwater::{
    Application, Begun, Endpoint, KeyRing, OsClock, RequestContext, RequestHead, ServerHost,
    ServerHostConfig, StreamPart, Tun, TunConfig, Unavailable, copy_at, os_seed,
};

/// An application whose streams are a head and N computed bytes. The user continuation is N.
struct Bytes;

fn head(bytes: u64) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n")
}

impl Application for Bytes {
    fn begin(&mut self, _context: RequestContext, request: &[u8]) -> Result<Begun, Unavailable> {
        let path = RequestHead::parse(request).map(|(head, _)| head.target);
        let path = path.unwrap_or_default();
        let bytes = path.trim_start_matches('/').parse::<u32>().unwrap_or(0);
        Ok(Begun {
            user: u64::from(bytes).to_be_bytes().to_vec(),
            length: Some(head(bytes.into()).len() as u64 + u64::from(bytes)),
        })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        let StreamPart { user, offset, .. } = part;
        // The seal of a user continuation has been checked: it is one that `begin` made.
        let bytes = u64::from_be_bytes(user.try_into().map_err(|_| Unavailable::Changed)?);
        let head = head(bytes);
        let from_head = copy_at(head.as_bytes(), offset, out);
        let start = (offset + from_head as u64).saturating_sub(head.len() as u64);
        let mut count = from_head;
        for (at, to) in (start..bytes).zip(out.iter_mut().skip(from_head)) {
            *to = (at % 251) as u8;
            count += 1;
        }
        Ok(count)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [tun, address, keys] = words.as_slice() else {
        return Err("usage: serve_bytes TUN ADDRESS KEYS".into());
    };
    let address: [IpAddr; 1] = [address.parse()?];
    let keys = KeyRing::parse(&std::fs::read_to_string(keys)?)?;
    let clock = OsClock::new();
    let config = ServerHostConfig::builder(address, os_seed()?).build()?;
    let machine = ServerHost::new(clock.now(), config, keys, Bytes)?;
    let device = Tun::open(&TunConfig::builder(tun).addresses(address).build()?)?;
    let mut endpoint = Endpoint::new(clock, device, machine)?;
    writeln!(std::io::stdout(), "ready")?;
    endpoint.run()?;
    Ok(())
}
