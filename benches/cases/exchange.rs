//! A short connection, whole: an OPEN, a request of 1 kB, its answer, the end.

use core::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use headwater::internals::apps::origin::Origin;
use headwater::internals::apps::origin::work::InlineWorkers;
use headwater::internals::host::Machine;
use headwater::internals::host::config::ServerHostConfig;
use headwater::internals::host::server::ServerHost;
use headwater::internals::instruments::load::LoadTarget;
use headwater::internals::instruments::load::requests::{Bearer, RequestConfig, RequestHost};
use headwater::internals::instruments::load::schedule::{Pace, Plan};
use headwater::internals::transport::keys::KeyRing;

use super::{Case, NOW, path};

/// Bytes of the object.
const OBJECT_BYTES: usize = 1000;

/// The machines of `headwater bench requests` and `headwater serve`, on one virtual wire.
pub(super) struct Exchange {
    client: RequestHost,
    server: ServerHost<Origin>,
}

impl Exchange {
    pub(super) fn new() -> Self {
        let config = ServerHostConfig::builder([path().dst.ip()], 1)
            .udp_port(path().dst.port())
            .build()
            .unwrap();
        // Of computed bytes: callgrind does not know the system call that opens files.
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let origin = Origin::new(root, Box::<InlineWorkers>::default()).unwrap();
        let keys = KeyRing::with_secret([3; 32]);
        let plan = Plan {
            pace: Pace::Closed(NonZeroU32::MIN),
            warm_up: Duration::ZERO,
            window: Duration::from_secs(1),
            most: u64::MAX,
        };
        let requests = RequestConfig {
            target: LoadTarget {
                addresses: vec![path().src.ip()],
                mtu: 1500,
                remote: path().dst,
                head: format!("GET /.dynamic/1/{OBJECT_BYTES} HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n")
                    .into(),
                seed: 1,
            },
            bearer: Bearer::Transport { tokens: false },
            buffer: 1 << 20,
            plan,
        };
        Self {
            client: RequestHost::new(NOW, requests).unwrap(),
            server: ServerHost::new(NOW, config, keys, origin).unwrap(),
        }
    }
}

/// Takes what `from` sends to `to`, until it has nothing to send; how many bytes that were.
fn pass(from: &mut dyn Machine, to: &mut dyn Machine) -> usize {
    let mut bytes = 0;
    while let Some(transmit) = from.poll_transmit(NOW) {
        for packet in transmit.into_packets().unwrap() {
            to.handle_packet(NOW, &packet, None);
            bytes += packet.len();
        }
    }
    bytes
}

impl Case for Exchange {
    fn call(&mut self) {
        pass(&mut self.client, &mut self.server);
        assert!(pass(&mut self.server, &mut self.client) > OBJECT_BYTES);
        assert_eq!(self.client.under_way(), 0, "it is over");
    }
}
