//! Command lines and the configurations they resolve to.

use clap::{Args as _, Command, FromArgMatches as _};

use super::*;
use crate::host::config::Protocol;

fn resolve(typed: &str) -> Result<GetConfig, Exit> {
    let words = "get --tun hw0 --address 10.0.0.2".split_whitespace();
    let words = words.chain(typed.split_whitespace());
    let command = GetArgs::augment_args(Command::new("get"));
    let matches = command
        .try_get_matches_from(words)
        .map_err(|_| Exit::Usage)?;
    let args = GetArgs::from_arg_matches(&matches).map_err(|_| Exit::Usage)?;
    GetConfig::resolve(args, &matches).map_err(|failed| failed.exit)
}

fn places(typed: &str) -> Result<Vec<Option<String>>, Exit> {
    let name = |job: &TransferJob<Destination>| match &job.destination {
        Destination::Stdout => None,
        Destination::File(path) => Some(path.display().to_string()),
    };
    resolve(typed).map(|config| config.jobs.waiting().map(name).collect())
}

/// Arguments, and the output file of each URL (none: standard output).
type Placed = (&'static str, Result<&'static [Option<&'static str>], Exit>);

#[test]
fn outputs_go_to_urls_in_order() {
    let cases: [Placed; 12] = [
        ("h/a", Ok(&[None])),
        ("-o x h/a", Ok(&[Some("x")])),
        ("h/a -o x", Ok(&[Some("x")])),
        ("-O h/a", Ok(&[Some("a")])),
        ("-O h/a -o x h/b h/c", Ok(&[Some("a"), Some("x"), None])),
        ("-o x h/a -O h/b", Ok(&[Some("x"), Some("b")])),
        ("-OO h/a h/b", Ok(&[Some("a"), Some("b")])),
        ("-o - h/a -O h/b", Ok(&[None, Some("b")])),
        ("-O -O h/a", Err(Exit::Usage)),
        ("-O h/a -O h/x/a", Err(Exit::Usage)),
        ("-O h/dir/", Err(Exit::WriteError)),
        ("-o x", Err(Exit::Usage)),
    ];
    for (typed, want) in cases {
        let want = want.map(|want| {
            want.iter()
                .map(|place| place.map(str::to_owned))
                .collect::<Vec<_>>()
        });
        assert_eq!(places(typed), want, "{typed}");
    }
}

#[test]
fn values_are_checked() {
    let good = [
        "h",
        "-C - -o x h",
        "-C 100 -o x h",
        "-r 0-99 h",
        "-r -5 h",
        "-r 5- h",
        "-I -L h",
        "-m 0.5 --connect-timeout 3 h",
        "--buffer 64k h",
        "--buffer 1G h",
        "-H X-A:b -H Host: h",
        "-sSfv --stats s --tokens t --pcap p h",
        "--transport tcp h",
        "--udp-port 1 --port-source 65535 h",
    ];
    for typed in good {
        assert!(
            resolve(typed).is_ok(),
            "{typed}: {:?}",
            resolve(typed).err()
        );
    }
    let bad = [
        ("", Exit::Usage),
        ("--unknown h", Exit::Usage),
        ("-C x h", Exit::Usage),
        ("-C -1 h", Exit::Usage),
        ("-C 1 -r 0-1 h", Exit::Usage),
        ("-I -r 0-1 h", Exit::Usage),
        ("-r 5 h", Exit::Usage),
        ("-r - h", Exit::Usage),
        ("-r 5-4 h", Exit::Usage),
        ("-r 0-1,3-4 h", Exit::Usage),
        ("-r 0-99999999999999999999 h", Exit::Usage),
        ("-m 0 h", Exit::Usage),
        ("-m -1 h", Exit::Usage),
        ("-m inf h", Exit::Usage),
        ("-m nan h", Exit::Usage),
        ("--buffer 65535 h", Exit::Usage),
        ("--buffer 2G h", Exit::Usage),
        ("--buffer 99999999999999999999G h", Exit::Usage),
        ("-H nocolon h", Exit::Usage),
        ("--transport udp h", Exit::Usage),
        ("--udp-port 0 h", Exit::Usage),
        ("--port-source 65536 h", Exit::Usage),
        ("--address fd00::1 --mtu 1279 h", Exit::Usage),
        ("-O=x h", Exit::Usage),
        ("https://h/", Exit::UnsupportedScheme),
        ("ftp://h/", Exit::UnsupportedScheme),
        ("http://", Exit::BadUrl),
        ("http://a:b@h/", Exit::BadUrl),
        ("h http://[::1", Exit::BadUrl),
    ];
    for (typed, want) in bad {
        assert_eq!(resolve(typed).err(), Some(want), "{typed}");
    }
}

#[test]
fn what_is_typed_is_what_is_asked_for() {
    let config = resolve("-sLfI -H X:y --udp-port 9 --port-source 7 --buffer 1M -m 2 h").unwrap();
    let (udp_port, local_port) = (9, Some(7));
    let auto = Protocol::Auto {
        udp_port,
        local_port,
    };
    assert_eq!(config.connect.protocol, auto);
    let ours = Protocol::Trickles {
        udp_port,
        local_port,
    };
    // The last one counts, as by curl.
    let typed = "--udp-port 9 --port-source 7 --transport tcp --transport trickles h";
    assert_eq!(resolve(typed).unwrap().connect.protocol, ours);
    assert_eq!(config.connect.buffer, 1 << 20);
    assert_eq!(config.max_time, Some(Duration::from_secs(2)));
    assert_eq!(config.transfer.method, Method::Head);
    assert!(config.transfer.follow && config.transfer.fail);
    assert_eq!(config.transfer.headers.len(), 1);
    assert!(!config.progress && !config.show_errors);
    assert!(resolve("-sS h").unwrap().show_errors);
    assert_eq!(resolve("-C 5 -o x h").unwrap().resume, Resume::At(5));
    assert_eq!(
        resolve("--transport tcp h").unwrap().connect.protocol,
        Protocol::Tcp
    );
    let limit = resolve("h").unwrap().transfer.request_limit;
    assert_eq!(limit, MAX_REQUEST_BYTES);
}
