//! Headwater: a userspace IP stack on Linux TUN devices whose servers keep no state per connection.
pub mod time;
pub mod wire;
pub mod transport;
pub mod http;
pub mod link;
pub mod stack;
pub mod apps;
pub mod host;
pub mod device;
pub mod runtime;
pub mod sim;
pub mod cli;
