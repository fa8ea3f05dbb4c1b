//! Configurations that are accepted, and those that are refused with the reason.

use super::*;
use crate::stack::{Stack, StackConfig};
use crate::time::Instant;

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_server_is_checked() {
    use HostConfigError as E;
    let v4: IpAddr = "192.0.2.1".parse().unwrap();
    let server = |texts: &[&str]| ServerHostConfig::builder(addresses(texts), 7);
    let nine: Vec<String> = (1..=9).map(|n| format!("192.0.2.{n}")).collect();
    let nine: Vec<&str> = nine.iter().map(String::as_str).collect();
    let small = |have, least| Some(E::MtuTooSmall { have, least });
    let cases = [
        ("defaults", server(&["192.0.2.1"]), None),
        ("eight", server(&nine[..8]), None),
        (
            "nine",
            server(&nine),
            Some(E::TooManyAddresses { count: 9 }),
        ),
        ("none", server(&[]), Some(E::NoAddress)),
        (
            "twice",
            server(&["192.0.2.1", "2001:db8::1", "192.0.2.1"]),
            Some(E::DuplicateAddress { address: v4 }),
        ),
        ("smallest", server(&["192.0.2.1"]).mtu(576), None),
        ("small", server(&["192.0.2.1"]).mtu(575), small(575, 576)),
        ("v6", server(&["2001:db8::1"]).mtu(1279), small(1279, 1280)),
        ("sockets", ServerHostConfig::over_sockets(7).mtu(576), None),
        (
            "small for sockets",
            ServerHostConfig::over_sockets(7).mtu(575),
            small(575, 576),
        ),
        ("udp", server(&["192.0.2.1"]).udp_port(0), Some(E::PortZero)),
        ("tcp", server(&["192.0.2.1"]).tcp_port(0), Some(E::PortZero)),
    ];
    for (name, builder, want) in cases {
        assert_eq!(builder.build().err(), want, "{name}");
    }
    for text in [
        "::",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "127.0.0.1",
        "169.254.0.1",
        "::ffff:192.0.2.1",
        "ff02::1",
    ] {
        let refused = server(&[text]).build().err();
        let address = text.parse().unwrap();
        assert_eq!(refused, Some(E::NotUnicast { address }), "{text}");
    }
}

#[test]
fn a_client_is_checked() {
    use HostConfigError as E;
    let client = || ClientHostConfig::builder(addresses(&["192.0.2.1"]), 7);
    let ours = |udp_port, local_port| Protocol::Trickles {
        udp_port,
        local_port,
    };
    let stack = || {
        let settings = StackConfig {
            addresses: addresses(&["192.0.2.1"]),
            mtu: 1500,
            transport_ports: 0..=0,
            seed: 7,
        };
        Stack::new(Instant::ZERO, settings).unwrap()
    };
    let zero = Duration::ZERO;
    let cases = [
        ("defaults", client(), None),
        ("tcp", client().protocol(Protocol::Tcp), None),
        ("sockets", ClientHostConfig::over_sockets(7), None),
        (
            "tcp of sockets",
            ClientHostConfig::over_sockets(7).protocol(Protocol::Tcp),
            Some(E::NoTcp),
        ),
        (
            "tcp of the kernel",
            ClientHostConfig::over_sockets(7)
                .protocol(Protocol::Tcp)
                .streams(stack()),
            None,
        ),
        ("to 0", client().protocol(ours(0, None)), Some(E::PortZero)),
        (
            "from 0",
            client().protocol(ours(1, Some(0))),
            Some(E::PortZero),
        ),
        ("buffer", client().buffer(0), Some(E::NoBuffer)),
        ("connect", client().connect_timeout(zero), Some(E::NoTime)),
        ("idle", client().idle_timeout(zero), Some(E::NoTime)),
        ("whole", client().max_time(zero), Some(E::NoTime)),
    ];
    for (name, builder, want) in cases {
        assert_eq!(builder.build().err(), want, "{name}");
    }
}

#[test]
fn only_literals_are_known_by_default() {
    let config = ClientHostConfig::builder(addresses(&["192.0.2.1"]), 7).build();
    let resolve = config.ok().unwrap().resolve;
    let known = |texts: &[&str]| Resolution::Known(addresses(texts));
    assert_eq!(resolve("192.0.2.7"), known(&["192.0.2.7"]));
    assert_eq!(resolve("[2001:db8::7]"), known(&["2001:db8::7"]));
    assert_eq!(resolve("files"), known(&[]));
}
