//! How a running redirector handles changed files, signals and commands.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::host::redirector::mac_keys;
use crate::redirect::prefixes::Table;
use crate::transport::keys::KeyRing;

fn config(generation: u32, rest: &str) -> String {
    format!(
        "generation = {generation}\nid = 1\naddress = [\"10.0.0.10\"]\n\
         services = [\"10.0.0.100\"]\nkey-file = \"keys\"\n\
         [[backend]]\nname = \"near\"\nid = 1\naddress = \"10.0.1.1\"\n\
         [[backend]]\nname = \"far\"\nid = 2\naddress = \"10.0.1.2\"\n{rest}"
    )
}

fn key_file(folder: &Path, secret: u8) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join("keys");
    fs::write(&path, KeyRing::with_secret([secret; 32]).to_text()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Creates a redirector whose files are in the folder.
fn redirecting() -> (TempDir, Redirecting, Redirector) {
    let folder = tempfile::tempdir().unwrap();
    key_file(folder.path(), 1);
    let path = folder.path().join("redirect.toml");
    fs::write(&path, config(4, "")).unwrap();
    let source = Source::new(&path);
    let loaded = source.load().unwrap();
    let settings = EngineSettings {
        mtu: 1500,
        keys: mac_keys(&KeyRing::with_secret([1; 32])),
        table: Table::default(),
        seed: 1,
    };
    let machine = Redirector::new(Now::default(), &loaded.config, settings);
    let quiet = AnnounceArgs {
        announce: false,
        announce_command: None,
    };
    let hooks = Redirecting {
        announcer: Announcer::new(&quiet, None, &[]).unwrap(),
        source: source.into_running(loaded),
        lanes: Lanes::default(),
        mtu: 1500,
        look: Instant::ZERO,
        refused: 0,
    };
    (folder, hooks, machine)
}

fn later(millis: u64) -> Now {
    Now {
        instant: Instant::from_micros(millis * 1000),
        ..Now::default()
    }
}

#[test]
fn a_changed_file_is_put_in_force_and_a_wrong_one_is_not() {
    let (folder, mut hooks, mut machine) = redirecting();
    let path = folder.path().join("redirect.toml");
    let far = |machine: &Redirector| machine.members().nth(1).unwrap().state();
    let mut millis = 0;
    let mut turn = |hooks: &mut Redirecting, machine: &mut Redirector| {
        millis += 500;
        assert!(hooks.turn(later(millis), machine).is_continue());
        (hooks.source.generation(), hooks.refused)
    };
    assert_eq!(turn(&mut hooks, &mut machine), (4, 0));
    fs::write(&path, config(5, "state = \"draining\"\n")).unwrap();
    assert_eq!(turn(&mut hooks, &mut machine), (5, 0));
    assert_eq!(far(&machine), BackendState::Draining);
    // An error, an old generation, other services: each is logged once.
    let moved = config(6, "").replace("10.0.0.100", "10.0.0.101");
    for (refused, text) in [(1, "generation = "), (2, &config(5, "")), (3, &moved)] {
        fs::write(&path, text).unwrap();
        assert_eq!(turn(&mut hooks, &mut machine), (5, refused), "{text}");
        assert_eq!(turn(&mut hooks, &mut machine), (5, refused), "{text}");
        assert_eq!(far(&machine), BackendState::Draining);
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(turn(&mut hooks, &mut machine), (5, 4));
    fs::write(&path, config(6, "")).unwrap();
    assert_eq!(turn(&mut hooks, &mut machine), (6, 4));
    assert_eq!(far(&machine), BackendState::Active);
}

#[test]
fn a_fifo_in_place_of_a_file_does_not_stop_the_loop() {
    for name in ["redirect.toml", "keys"] {
        let (folder, mut hooks, mut machine) = redirecting();
        let fifo = crate::runtime::fifo::tests::fifo(&folder);
        fs::rename(fifo, folder.path().join(name)).unwrap();
        assert!(hooks.turn(later(500), &mut machine).is_continue());
        assert_eq!((hooks.source.generation(), hooks.refused), (4, 1), "{name}");
    }
}

#[test]
fn other_keys_need_no_other_generation() {
    let (folder, mut hooks, mut machine) = redirecting();
    assert!(hooks.turn(later(0), &mut machine).is_continue());
    fs::remove_file(folder.path().join("keys")).unwrap();
    key_file(folder.path(), 2);
    assert!(hooks.source.has_changed());
    assert!(hooks.turn(later(500), &mut machine).is_continue());
    assert_eq!((hooks.refused, hooks.source.has_changed()), (0, false));
    // A signal reloads all files.
    fs::remove_file(folder.path().join("keys")).unwrap();
    hooks.notice(later(600), Notice::Hangup, &mut machine);
    assert_eq!(hooks.refused, 1);
}

#[test]
fn another_table_needs_no_other_generation() {
    let (folder, mut hooks, mut machine) = redirecting();
    let near = config(5, "site = \"west\"\n[nearest]\ntable = \"sites\"\n");
    let near = near.replacen("[[backend]]", "policy = \"nearest\"\n[[backend]]", 1);
    let table = folder.path().join("sites");
    fs::write(&table, "192.0.2.0/24 west\n").unwrap();
    fs::write(folder.path().join("redirect.toml"), near).unwrap();
    let tables = |machine: &Redirector| {
        let metrics = machine.metrics();
        let mut found = metrics
            .iter()
            .filter(|metric| metric.name.contains("_tables_"));
        found.next().unwrap().samples[0].value
    };
    assert!(hooks.turn(later(0), &mut machine).is_continue());
    assert_eq!((hooks.source.generation(), tables(&machine)), (5, 0));
    fs::write(&table, "198.51.100.0/24 west\n").unwrap();
    assert!(hooks.turn(later(500), &mut machine).is_continue());
    assert_eq!((hooks.refused, tables(&machine)), (0, 1));
    // After an error the running table stays.
    fs::write(&table, "198.51.100.0/24 nowhere\n").unwrap();
    assert!(hooks.turn(later(1000), &mut machine).is_continue());
    assert_eq!((hooks.refused, tables(&machine)), (1, 1));
    // The same content is not another table.
    fs::write(&table, "198.51.100.0/24 west # the same\n").unwrap();
    assert!(hooks.turn(later(1500), &mut machine).is_continue());
    assert_eq!((hooks.refused, tables(&machine)), (1, 1));
}

#[test]
fn commands_show_and_change() {
    let (_folder, mut hooks, mut machine) = redirecting();
    let mut ask = |line: &str| hooks.command(Now::default(), line, &mut machine);
    let mut states = |line: &str| {
        assert_eq!(ask(line), Ok(String::new()));
        let shown: Value = serde_json::from_str(&ask("show").unwrap()).unwrap();
        let backends = shown["backends"].as_array().unwrap().clone();
        let state = |backend: &Value| backend["state"].as_str().unwrap().to_owned();
        backends.iter().map(state).collect::<Vec<_>>()
    };
    assert_eq!(states("drain far"), ["active", "draining"]);
    assert_eq!(states("activate far"), ["active", "active"]);
    assert_eq!(states("reload"), ["active", "active"]);
    assert!(ask("drain nobody").is_err_and(|why| why.contains("nobody")));
    for line in ["", "drain", "drain a b", "drop far"] {
        assert!(ask(line).is_err_and(|why| why.contains("help")), "{line}");
    }
    assert_eq!(ask("help").unwrap(), HELP);
}

#[test]
fn a_table_of_sites_is_found_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    key_file(folder.path(), 1);
    let path = folder.path().join("redirect.toml");
    let load = |table: &str| {
        let near = config(1, "site = \"west\"\n");
        let near = near.replacen("[[backend]]", "policy = \"nearest\"\n[[backend]]", 1);
        fs::write(&path, format!("{near}[nearest]\ntable = \"{table}\"\n")).unwrap();
        Source::new(&path).load()
    };
    fs::write(folder.path().join("sites"), "192.0.2.0/24 west\n").unwrap();
    let loaded = load("sites").unwrap();
    assert!(loaded.table.site("192.0.2.1".parse().unwrap()).is_some());
    fs::write(folder.path().join("wrong"), "192.0.2.0/24 nowhere\n").unwrap();
    fs::write(folder.path().join("wrong.mmdb"), "192.0.2.0/24 west\n").unwrap();
    for (table, line) in [
        ("wrong", "wrong"),
        ("wrong.mmdb", "MaxMind"),
        ("none", "cannot read"),
    ] {
        let failed = load(table).unwrap_err();
        assert_eq!(failed.exit, Exit::Configuration, "{table}");
        assert!(failed.message.contains(line), "{}", failed.message);
    }
}
