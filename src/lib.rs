//! Headwater: a userspace IP stack on Linux TUN devices whose servers keep no state per connection.
pub mod apps;
pub mod cli;
pub mod device;
pub mod host;
pub mod http;
pub mod link;
pub mod runtime;
pub mod sim;
pub mod stack;
pub mod time;
pub mod transport;
pub mod wire;
