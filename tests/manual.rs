//! README and manual beside the program: options, exit codes and metrics on the page of reference,
//! options and links in the README. No privileges are needed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const README: &str = include_str!("../README.md");

const REFERENCE: &str = include_str!("../src/manual/reference.md");

/// Lines of the README; longer matter belongs to the manual.
const MAX_README_LINES: usize = 250;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn help(command: &str) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_headwater"));
    let output = program
        .args(command.split(' ').filter(|word| !word.is_empty()))
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success(), "headwater {command} --help");
    String::from_utf8(output.stdout).unwrap()
}

/// Names of subcommands in a help text.
fn subcommands(help: &str) -> Vec<String> {
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names
        .filter(|name| !name.is_empty() && *name != "help")
        .map(str::to_owned)
        .collect()
}

/// Long options that a help text describes; `--help` and `--version` aside.
fn options(help: &str) -> BTreeSet<String> {
    let head = |line: &str| -> Option<String> {
        let line = line.trim_start();
        let line = match line.strip_prefix('-')?.split_once(", --") {
            Some((short, long)) if short.len() == 1 => long,
            _ => line.strip_prefix("--")?,
        };
        let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        Some(line.get(..end.unwrap_or(line.len()))?.to_owned())
    };
    let (_, list) = help.split_once("Options:\n").unwrap();
    let found = list.lines().filter_map(head);
    found
        .filter(|name| name != "help" && name != "version")
        .collect()
}

/// The part of the page of reference below a heading.
fn section(title: &str) -> &'static str {
    let marker = format!("\n# {title}\n");
    let (_, after) = REFERENCE
        .split_once(&marker)
        .unwrap_or_else(|| panic!("reference.md has no section `{title}`"));
    after.split("\n# ").next().unwrap()
}

/// Long options that a text names in code style.
fn named_options(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for code in text.split('`').skip(1).step_by(2) {
        if let Some(name) = code.strip_prefix("--") {
            found.insert(name.split(' ').next().unwrap().to_owned());
        }
    }
    found
}

#[test]
fn the_reference_lists_every_option_and_no_other() {
    let mut shared = named_options(section("Options of the device"));
    shared.extend(named_options(section("Options of a connection")));
    for command in subcommands(&help("")) {
        let documented = match command.as_str() {
            "link-control" | "redirect-control" => continue,
            name => section(&format!("headwater {name}")),
        };
        let program = if command == "bench" {
            let parts = subcommands(&help("bench"));
            let of = |part: &String| options(&help(&format!("bench {part}")));
            parts.iter().flat_map(of).collect()
        } else {
            options(&help(&command))
        };
        assert!(!program.is_empty(), "{command}: no options were found");
        let documented = named_options(documented);
        let missing: Vec<_> = program
            .iter()
            .filter(|name| !documented.contains(*name) && !shared.contains(*name))
            .collect();
        assert!(
            missing.is_empty(),
            "reference.md, {command}: missing {missing:?}"
        );
        let extra: Vec<_> = documented.difference(&program).collect();
        assert!(
            extra.is_empty(),
            "reference.md, {command}: unknown {extra:?}"
        );
    }
}

#[test]
fn the_reference_lists_every_exit_code() {
    let help = help("get");
    let (_, codes) = help.split_once("Exit codes:\n").unwrap();
    let program: Vec<String> = codes
        .lines()
        .filter_map(|line| line.trim().split_once("  "))
        .map(|(code, meaning)| format!("| {code} | {meaning} |"))
        .collect();
    assert!(program.len() > 30, "{program:?}");
    let documented: Vec<&str> = section("Exit codes")
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| code"))
        .collect();
    assert_eq!(documented, program, "reference.md, exit codes");
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_reference_lists_every_metric_and_no_other() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut program = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        for rest in text.split("\"headwater_").skip(1) {
            let name = rest.split('"').next().unwrap();
            let whole = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if whole && !name.ends_with('_') {
                program.insert(format!("headwater_{name}"));
            }
        }
    }
    assert!(program.len() > 40, "{program:?}");
    let rows = section("Metrics")
        .lines()
        .filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<String> = rows
        .map(|row| row.split('`').next().unwrap().to_owned())
        .collect();
    assert_eq!(
        documented, program,
        "reference.md, metrics (left) and sources"
    );
}

#[test]
fn the_readme_is_short_and_its_links_lead_somewhere() {
    let lines = README.lines().count();
    assert!(lines <= MAX_README_LINES, "README.md has {lines} lines");
    let targets = README.split("](").skip(1);
    for target in targets.map(|rest| rest.split(')').next().unwrap()) {
        let found = target.starts_with("https://") || root().join(target).exists();
        assert!(found, "README.md links to {target}, which is missing");
    }
}

#[test]
fn the_readme_names_only_options_that_exist() {
    let joined = README.replace("\\\n", " ");
    let mut checked = 0;
    for line in joined.lines() {
        let Some((_, words)) = line.split_once("headwater ") else {
            continue;
        };
        let mut words = words.split_whitespace();
        let mut command = words.next().unwrap_or_default().to_owned();
        if !subcommands(&help("")).contains(&command) {
            continue;
        }
        if command == "bench" {
            command = format!("bench {}", words.next().unwrap());
        }
        let known = options(&help(&command));
        let given = words.take_while(|word| !["|", "#", "&&", "&"].contains(word));
        for option in given.filter_map(|word| word.strip_prefix("--")) {
            assert!(
                known.contains(option),
                "headwater {command} has no --{option}"
            );
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked} options were found");
}
