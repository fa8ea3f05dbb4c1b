//! A complete file, every mistake in it, its bounds, and randomly damaged files.

use proptest::prelude::*;

use super::*;

const GOOD: &str = r#"generation = 7
id = 1
address = ["10.77.3.1", "fd77:3::1"]
services = ["10.77.2.100", "fd77:2::100"]
key-file = "redirect.keys"
policy = "nearest"
seed = 12

[heartbeat]
interval-ms = 20
misses = 4

[nearest]
table = "prefixes"
regions = { DE = "east", EU = "west" }

[[backend]]
name = "s1"
id = 1
address = "10.77.2.101"
weight = 50
site = "west"

[[backend]]
name = "s2"
id = 2
address = "fd77:2::102"
site = "east"
state = "draining"

[[backend]]
name = "s3"
id = 3
device = "hwb3"
"#;

fn parse(text: &str) -> Result<RedirectConfig, String> {
    RedirectConfig::parse("r.toml", text).map_err(|error| error.to_string())
}

#[test]
fn a_whole_file_is_read() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.generation, Generation(7));
    assert_eq!(config.policy, Policy::Nearest);
    assert_eq!(config.port, DEFAULT_PORT);
    assert_eq!(config.sites, ["east", "west"]);
    assert_eq!(config.beat.patience(), Duration::from_millis(80));
    assert_eq!(config.beat.recovery, 5);
    let nearest = config.nearest.unwrap();
    assert_eq!(nearest.regions["EU"], Site(1));
    let [one, two, three] = &config.backends[..] else {
        panic!("{:?}", config.backends);
    };
    assert_eq!((one.weight, one.site), (50, Some(Site(1))));
    assert_eq!((two.state, two.weight), (BackendState::Draining, 100));
    assert_eq!(
        (three.address, three.device.as_deref()),
        (None, Some("hwb3"))
    );
}

#[test]
fn every_mistake_is_reported_with_its_line_and_what_to_do() {
    let cases = [
        ("generation = 7", "", 1, "missing field `generation`"),
        ("generation = 7", "generation = -7", 1, "correct this line"),
        ("generation = 7", "generation == 7", 1, "correct this line"),
        ("seed = 12", "sed = 12", 7, "unknown field `sed`"),
        ("\"10.77.3.1\"", "\"10.77.3\"", 3, "invalid IP address"),
        (
            "\"10.77.3.1\", ",
            "\"10.77.3.1\", \"10.77.3.2\", ",
            3,
            "one IPv4 address",
        ),
        (
            "[\"10.77.2.100\", \"fd77:2::100\"]",
            "[]",
            4,
            "use 1 to 8 addresses",
        ),
        ("10.77.2.100", "224.0.0.1", 4, "not a unicast address"),
        ("10.77.2.100", "10.77.3.1", 4, "is listed twice"),
        (
            "policy = \"nearest\"",
            "policy = \"near\"",
            6,
            "expected one of",
        ),
        ("seed = 12", "port = 0", 7, "port 0"),
        ("interval-ms = 20", "interval-ms = 0", 10, "from 1 to 60000"),
        ("misses = 4", "misses = 101", 11, "from 1 to 100"),
        (
            "DE = \"east\"",
            "DE = \"north\"",
            15,
            "no backend has the site `north`",
        ),
        ("weight = 50", "weight = 0", 17, "from 1 to 10000"),
        ("\"s2\"", "\"s1\"", 24, "two backends are named s1"),
        ("\"s2\"", "\"s 2\"", 24, "name of a backend"),
        ("id = 2", "id = 1", 24, "id 1 is already in use"),
        ("fd77:2::102", "fd77:2::100", 24, "choose another"),
        ("site = \"west\"", "site = \"\"", 17, "site of a backend"),
        ("\"draining\"", "\"asleep\"", 29, "expected one of"),
        ("device = \"hwb3\"", "", 31, "an address or a device"),
        (
            "device = \"hwb3\"",
            "device = \"sixteen-letters-\"",
            31,
            "1 to 15 characters",
        ),
        (", \"fd77:3::1\"", "", 24, "of the family of fd77:2::102"),
    ];
    refuses(&cases);
}

#[test]
fn unusable_addresses_and_generations_are_refused() {
    refuses(&[
        (
            "generation = 7",
            "generation = 4294967295",
            1,
            "use 0 to 4000000000, and count up by one. To begin again at 1, restart the servers",
        ),
        ("10.77.2.100", "0.0.0.0", 4, "unspecified"),
        ("10.77.3.1", "169.254.1.1", 3, "link-local"),
        (
            "fd77:2::100",
            "::ffff:10.77.2.100",
            4,
            "an IPv4 address in IPv6 notation: write 10.77.2.100",
        ),
        ("fd77:3::1", "::1", 3, "a loopback address"),
        ("fd77:2::102", "10.77.2.100", 24, "in use as a service"),
        ("fd77:2::102", "10.77.2.101", 24, "choose another"),
        ("fd77:2::102", "10.77.3.1", 24, "choose another"),
        ("fd77:2::102", "::ffff:10.77.2.101", 24, "in IPv6 notation"),
        ("fd77:2::102", "ff02::1", 24, "multicast"),
        ("10.77.2.101", "127.0.0.1", 17, "loopback"),
        ("10.77.2.101", "240.0.0.1", 17, "reserved"),
        ("10.77.2.101", "255.255.255.255", 17, "broadcast"),
    ]);
}

/// Checks the errors of the good file with one change each: the text to replace, its replacement, the
/// line, and a part of the message.
fn refuses(cases: &[(&str, &str, usize, &str)]) {
    for &(good, bad, line, want) in cases {
        assert!(GOOD.contains(good), "{good}");
        let error = parse(&GOOD.replacen(good, bad, 1)).unwrap_err();
        let place = format!("r.toml:{line}: ");
        assert!(error.starts_with(&place), "{bad}: {error}");
        assert!(
            error.contains(want) && !error.contains('\n'),
            "{bad}: {error}"
        );
    }
}

#[test]
fn a_file_without_backends_or_table_is_refused() {
    let (none, _) = GOOD.split_once("[[backend]]").unwrap();
    let error = parse(&none.replace("regions", "# regions")).unwrap_err();
    assert!(error.contains("no backend: add one"), "{error}");
    let tableless = GOOD.replace("[nearest]", "[other]");
    assert!(parse(&tableless).is_err());
    let (head, tail) = GOOD.split_once("[nearest]").unwrap();
    let (_, tail) = tail.split_once("\n\n").unwrap();
    let error = parse(&[head, tail].concat()).unwrap_err();
    assert!(
        error.starts_with("r.toml:6: policy `nearest` without a table"),
        "{error}"
    );
}

fn with_backends(count: usize) -> String {
    let (head, _) = GOOD.split_once("[nearest]").unwrap();
    let backend = |n: usize| format!("[[backend]]\nname = \"b{n}\"\nid = {n}\ndevice = \"d{n}\"\n");
    let backends: String = (0..count).map(backend).collect();
    head.replace("nearest", "spread") + &backends
}

#[test]
fn bounds_hold() {
    let generation = |n: u32| GOOD.replace("generation = 7", &format!("generation = {n}"));
    assert!(parse(&generation(MAX_GENERATION)).is_ok());
    assert!(parse(&generation(MAX_GENERATION + 1)).is_err());
    assert!(parse(&with_backends(MAX_BACKENDS)).is_ok());
    let error = parse(&with_backends(MAX_BACKENDS + 1)).unwrap_err();
    assert!(error.contains("more than 256 backends"), "{error}");
    let name = |length| GOOD.replace("\"s1\"", &format!("\"{}\"", "x".repeat(length)));
    assert!(parse(&name(MAX_NAME_BYTES)).is_ok());
    assert!(parse(&name(MAX_NAME_BYTES + 1)).is_err());
    let weight = |weight| GOOD.replace("weight = 50", &format!("weight = {weight}"));
    assert!(parse(&weight(MAX_WEIGHT)).is_ok());
    assert!(parse(&weight(MAX_WEIGHT + 1)).is_err());
    let services = |count| {
        let all: Vec<_> = (0..count).map(|n| format!("\"10.9.0.{n}\"")).collect();
        let list = format!("[{}]", all.join(","));
        GOOD.replace("[\"10.77.2.100\", \"fd77:2::100\"]", &list)
    };
    assert!(parse(&services(MAX_SERVICES)).is_ok());
    assert!(parse(&services(MAX_SERVICES + 1)).is_err());
    let interval = |ms| GOOD.replace("interval-ms = 20", &format!("interval-ms = {ms}"));
    assert!(parse(&interval(MAX_INTERVAL_MS)).is_ok());
    assert!(parse(&interval(MAX_INTERVAL_MS + 1)).is_err());
    let misses = |count| GOOD.replace("misses = 4", &format!("misses = {count}"));
    assert!(parse(&misses(MAX_BEATS)).is_ok());
    let padded = |to: usize| format!("{GOOD}#{}", " ".repeat(to - GOOD.len() - 1));
    assert!(parse(&padded(MAX_CONFIG_BYTES)).is_ok());
    assert!(parse(&padded(MAX_CONFIG_BYTES + 1)).is_err());
}

#[test]
fn sites_are_bounded() {
    let (head, _) = GOOD.split_once("[nearest]").unwrap();
    let backend = |n: usize| {
        format!("[[backend]]\nname = \"b{n}\"\nid = {n}\ndevice = \"d{n}\"\nsite = \"s{n}\"\n")
    };
    let text =
        |count| head.replace("nearest", "spread") + &(0..count).map(backend).collect::<String>();
    assert_eq!(parse(&text(MAX_SITES)).unwrap().sites.len(), MAX_SITES);
    assert!(
        parse(&text(MAX_SITES + 1))
            .unwrap_err()
            .contains("sites: merge some")
    );
}

proptest! {
    #[test]
    fn anything_is_read_or_refused_in_one_line(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..6_u8, any::<char>()), 1..6),
    ) {
        let mut text: Vec<char> = GOOD.chars().collect();
        for (at, kind, letter) in edits {
            let at = at.index(text.len());
            match kind {
                0 => text[at] = letter,
                1 => text.insert(at, letter),
                2 => text.truncate(at.max(1)),
                3 => text[at] = '"',
                4 => text.insert(at, '\n'),
                _ if text.len() > 1 => { text.remove(at); }
                _ => {}
            }
        }
        let text: String = text.into_iter().collect();
        match RedirectConfig::parse("r.toml", &text) {
            Ok(config) => prop_assert!(!config.backends.is_empty()),
            Err(error) => {
                prop_assert!(!error.to_string().contains('\n'), "{}", error);
                prop_assert!(error.line <= text.lines().count() + 1);
            }
        }
    }
}
