//! The fuzz targets of headwater: each takes any bytes and panics if a law is broken.
//!
//! Called by the entries in `fuzz_targets/` under cargo-fuzz, and by `tests/fuzz_corpus.rs`, which
//! replays the corpora on stable Rust. A target is deterministic and keeps nothing between calls.

mod capsule;
mod client;
mod dns;
mod host;
mod http;
pub mod input;
mod keys;
pub mod packets;
mod server;
pub mod session;
mod wire;

pub use capsule::capsule;
pub use client::client;
pub use dns::{dns_response, resolv_conf, resolver};
pub use host::host;
pub use http::{http_request, http_response};
pub use keys::{continuation, keyring};
pub use server::server;
pub use wire::{ip, to_client, to_server};

/// A target.
pub type Target = fn(&[u8]);

/// Every target with its name, which is that of its corpus.
pub const TARGETS: [(&str, Target); 14] = [
    ("capsule", capsule),
    ("client", client),
    ("continuation", continuation),
    ("dns_response", dns_response),
    ("host", host),
    ("http_request", http_request),
    ("http_response", http_response),
    ("ip", ip),
    ("keyring", keyring),
    ("resolv_conf", resolv_conf),
    ("resolver", resolver),
    ("server", server),
    ("to_client", to_client),
    ("to_server", to_server),
];
