//! The project's words, held against sources, scripts and documents: phrases that must not come
//! back, and habits of wording whose number may only fall.
//!
//! Reads files as text. Phrases are sought everywhere, across line ends but not across sentences;
//! habits are counted in comments, and in the whole of Markdown files.
//! Source: the house rules on wording.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Where the rules hold.
const ROOTS: &[&str] = &[
    "src",
    "tests",
    "benches",
    "examples",
    "scripts",
    "README.md",
    "CHANGELOG.md",
];

/// File types that hold words of ours; a corpus or a picture does not.
const TYPES: &[&str] = &["rs", "md", "sh", "py"];

/// A phrase, `|` between alternatives for one word, and the better one.
const FORBIDDEN: &[(&str, &str)] = &[
    ("forlorn", "no healthy backend"),
    ("in hope", "fail open"),
    ("put away", "stored, cached"),
    ("carries on", "continues"),
    ("is|are no probability", "'x' is not a …"),
    ("obey|obeys|obeyed", "handle, follow"),
    ("put side by side", "coalesced"),
    ("fetched ahead", "prefetched"),
    ("begin|begins to count", "warm-up"),
    ("stands|stand twice", "is listed twice"),
    ("senseless", "invalid, malformed"),
    ("of late", "recently"),
    ("heard of", "known, received"),
    ("count it up", "increment it"),
    (
        "stands|stand alone",
        "takes no arguments; is self-contained",
    ),
    ("by halves", "partially"),
    ("what befalls|befell", "events, faults"),
    ("wish|wishes", "settings, request"),
    ("as things are", "current"),
    ("goes|go on behind", "continues after"),
    ("handed back", "returned"),
    ("lets|let go", "drops, releases"),
    ("cannot be had", "is not available"),
];

/// A habit of wording: its name, its patterns, and the most of it that is accepted.
const HABITS: &[(&str, &[&str], usize)] = &[
    (
        "a bare clause, `what` and a verb: name the thing",
        &[
            "what is|are|was|were|has|have|had|can|may|must|will|would|does|did",
            "what comes|came|goes|went|stands|lies|remains|follows|happens|becomes|counts|keeps|needs",
        ],
        0,
    ),
    (
        "a bare clause, `what` and its subject: name the thing",
        &["what the|a|an|it|they|this|that|its|one|each|every|some|he|we"],
        0,
    ),
    (
        "a bare clause, `who` and a verb: name the peer",
        &["who is|are|has|have|was|were|shows|may|can|sends|asks|reads|does|knows|wants|proves"],
        0,
    ),
    (
        "`tell`: log, print, report, return",
        &["tell|tells|told|telling"],
        0,
    ),
    ("`so many`: N, a number of", &["so many|much"], 0),
    (
        "`as it stands`: verbatim, as sent",
        &["as it|they stands|stand"],
        0,
    ),
    (
        "`is no number`: is not a number",
        &["is|are no number|address|name|path|port|prefix"],
        1,
    ),
    (
        "`in force`: the running configuration, current",
        &["in force"],
        4,
    ),
    ("`cut short`: truncated", &["cut short"], 2),
    (
        "`befall`: event, fault, happen to",
        &["befall|befalls|befell"],
        0,
    ),
    (
        "`a turn`, `a packet`: per turn, per packet",
        &["once|twice a turn|packet|connection"],
        1,
    ),
    (
        "persons for programs: name the host, client or process",
        &["nobody|somebody|whoever|everybody"],
        11,
    ),
    ("`has come`: arrived, received", &["has|have|had come"], 13),
    ("`asked for`: requested", &["asked|asks for"], 13),
    ("`stretch`: range, interval", &["stretch|stretches"], 13),
    (
        "`what became of`: the outcome",
        &["what becomes|became of"],
        0,
    ),
];

/// A word in lower case with its line, or the end of a sentence.
#[derive(Debug)]
struct Token {
    /// Empty at the end of a sentence or of a comment.
    word: String,
    /// Line in the file, from 1.
    line: usize,
}

/// The place and the text of one match.
#[derive(Debug)]
struct Match {
    /// Path and line.
    place: String,
    /// The words that matched.
    words: String,
}

#[test]
fn forbidden_phrases_do_not_come_back() {
    let mut found = Vec::new();
    for path in files() {
        let tokens = tokens(&read(&path), |_| true);
        for (phrase, better) in FORBIDDEN {
            for hit in find(&tokens, phrase, &path) {
                found.push(format!("{}: '{}': say {better}", hit.place, hit.words));
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
#[expect(
    clippy::disallowed_macros,
    reason = "it reports counts that have fallen below their ceilings"
)]
fn habits_only_fall() {
    let files: Vec<(PathBuf, Vec<Token>)> = files()
        .into_iter()
        .map(|path| {
            let tokens = tokens(&read(&path), |line| is_prose(&path, line));
            (path, tokens)
        })
        .collect();
    let mut above = Vec::new();
    for (habit, patterns, ceiling) in HABITS {
        let found: Vec<String> = files
            .iter()
            .flat_map(|(path, tokens)| {
                patterns
                    .iter()
                    .flat_map(move |pattern| find(tokens, pattern, path))
            })
            .map(|hit| format!("{}: '{}'", hit.place, hit.words))
            .collect();
        println!("{habit}: {} of {ceiling}", found.len());
        if found.len() > *ceiling {
            above.push(format!(
                "{}\n{habit}: {} of {ceiling}",
                found.join("\n"),
                found.len()
            ));
        }
    }
    assert!(above.is_empty(), "\n{}", above.join("\n\n"));
}

#[test]
fn a_phrase_is_found_across_lines_and_not_across_sentences() {
    let path = Path::new("a.rs");
    for (name, text, want) in [
        ("one line", "// Sent in hope.\n", 1),
        ("two lines", "/// Sent in\n/// hope, again.\n", 1),
        ("two sentences", "// It came in. Hope stays.\n", 0),
        ("two comments", "// Sent in\nlet x = 1;\n// hope\n", 0),
        ("capitals", "// IN HOPE\n", 1),
        ("part of a word", "// in hopefully\n", 0),
    ] {
        let tokens = tokens(text, |line| is_prose(path, line));
        assert_eq!(find(&tokens, "in|out hope", path).len(), want, "{name}");
    }
}

/// Whether a line of this file is prose rather than code.
fn is_prose(path: &Path, line: &str) -> bool {
    match path.extension().and_then(|it| it.to_str()) {
        Some("rs") => line.starts_with("//"),
        Some("md") => true,
        _ => line.starts_with('#') && !line.starts_with("#!"),
    }
}

/// Splits the accepted lines into words; comment marks are dropped.
fn tokens(text: &str, accept: impl Fn(&str) -> bool) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let mut push = |word: &str| {
            tokens.push(Token {
                word: word.to_lowercase(),
                line: index + 1,
            });
        };
        let content = line.trim_start_matches(['/', '!', '#', ' ']);
        if content.is_empty() || !accept(line) {
            push("");
            continue;
        }
        for piece in content.split_whitespace() {
            for word in piece.split(|it: char| !(it.is_alphanumeric() || "_'-".contains(it))) {
                if !word.is_empty() {
                    push(word);
                }
            }
            if piece
                .trim_end_matches([')', '"', '`'])
                .ends_with(['.', ':', ';', '?'])
            {
                push("");
            }
        }
    }
    tokens
}

/// Every match of a phrase.
fn find(tokens: &[Token], phrase: &str, path: &Path) -> Vec<Match> {
    let phrase: Vec<Vec<&str>> = phrase
        .split(' ')
        .map(|word| word.split('|').collect())
        .collect();
    tokens
        .windows(phrase.len())
        .filter(|window| {
            window
                .iter()
                .zip(&phrase)
                .all(|(token, words)| words.contains(&token.word.as_str()))
        })
        .map(|window| Match {
            place: format!(
                "{}:{}",
                path.display(),
                window.first().map_or(0, |it| it.line)
            ),
            words: window
                .iter()
                .map(|it| it.word.as_str())
                .collect::<Vec<_>>()
                .join(" "),
        })
        .collect()
}

/// Paths of the files under the rules, relative to the repository, in order; not this file, which
/// has to quote the phrases.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in ROOTS {
        collect(Path::new(root), &mut found).unwrap_or_else(|error| panic!("{root}: {error}"));
    }
    found.retain(|path| !path.ends_with("tests/words.rs"));
    found.sort();
    assert!(found.len() > 100, "only {} files found", found.len());
    found
}

/// Adds a file, or the files of a folder; a root that does not exist has none.
fn collect(path: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let is_ours = |it: &Path| {
        it.extension()
            .and_then(|it| it.to_str())
            .is_some_and(|it| TYPES.contains(&it))
    };
    if full.is_dir() && !path.ends_with("target") {
        for entry in fs::read_dir(full)? {
            collect(&path.join(entry?.file_name()), found)?;
        }
    } else if full.is_file() && is_ours(path) {
        found.push(path.to_path_buf());
    }
    Ok(())
}

/// The text of a file under the rules.
fn read(path: &Path) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
