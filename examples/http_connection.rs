//! Requests paths of a server, one after the other over one connection, and writes the bodies to standard output.
//!
//! ```sh
//! target/debug/examples/http_connection www.example.com 80 / /index.html
//! ```

use std::error::Error;
use std::io;

use headwater::{HttpConnection, Method};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, paths @ ..] = words.as_slice() else {
        return Err("usage: http_connection HOST PORT PATH...".into());
    };
    let mut connection = HttpConnection::new(host, port.parse()?);
    for path in paths {
        connection.request(Method::Get, path, &[("Accept", "*/*")], b"")?;
        let mut response = connection.response()?;
        if response.status() >= 400 {
            return Err(format!("{path}: status {}", response.status()).into());
        }
        io::copy(&mut response, &mut io::stdout())?;
    }
    Ok(())
}
