//! The house rules that no compiler checks, held against every file below `src/`: which folder may
//! import which, a head that describes the file, its size and that of its functions, names and
//! notes.
//!
//! Reads sources and that page as text: comments and literals are blanked first, and test code is exempt from the
//! arrows. Does not see paths made by macros.
//! Source: the table of folders in the manual's page on architecture, which is read here.

#![expect(
    clippy::indexing_slicing,
    reason = "it scans our own sources: an index that is off fails the test, as it should"
)]

use std::path::Path;
use std::{fs, io};

/// The page whose table says which folder may import which.
const PAGE: &str = include_str!("../src/manual/architecture.md");

/// How the head of that table begins and ends.
const TABLE_HEAD: (&str, &str) = ("| folder |", "| may import |");

/// A module below the crate and the paths that it may import besides its own.
type Row = (String, Vec<String>);

/// Most lines of code in a file, without blank lines, comments and tests.
const MAX_CODE_LINES: usize = 600;

/// Most lines of code in a function, from its name to its closing brace.
const MAX_FUNCTION_LINES: usize = 70;

/// Names that do not describe a module.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "common", "misc", "helper", "helpers", "stuff",
];

/// Words that stand for work not done.
const NOTES: &[&str] = &["TODO", "FIXME", "XXX", "todo!", "unimplemented!"];

struct Source {
    /// Below `src/`, with slashes.
    path: String,
    text: String,
}

impl Source {
    /// The folder or file name directly below `src/` that owns this file.
    fn folder(&self) -> &str {
        let top = self.path.split('/').next().unwrap_or_default();
        top.strip_suffix(".rs").unwrap_or(top)
    }

    /// A file that only test code declares.
    fn is_test_file(&self) -> bool {
        self.path
            .split('/')
            .any(|part| part == "tests" || part == "tests.rs")
    }

    /// Where the file's module lies below the crate: `a/mod.rs` and `a.rs` are `["a"]`.
    fn module(&self) -> Vec<&str> {
        let path = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let mut parts: Vec<&str> = path.split('/').collect();
        if matches!(parts.last(), Some(&"mod" | &"lib" | &"main")) {
            parts.pop();
        }
        parts
    }

    /// Code without comments, literals and tests.
    fn code(&self) -> String {
        without_tests(&code_only(&self.text))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    if let Err(error) = walk(&root, "", &mut found) {
        panic!("{}: {error}", root.display());
    }
    assert!(found.len() > 10, "the sources were not found");
    found
}

/// Adds the Rust files of a folder; `below` is its path below `src/`, empty or ending in a slash.
fn walk(folder: &Path, below: &str, found: &mut Vec<Source>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = format!("{below}{}", entry.file_name().display());
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &format!("{path}/"), found)?;
        } else if path.ends_with(".rs") {
            let text = fs::read_to_string(entry.path())?;
            found.push(Source { path, text });
        }
    }
    Ok(())
}

/// Spaces in place of everything but line breaks.
fn blank(text: &str) -> String {
    text.chars()
        .map(|c| if c == '\n' { '\n' } else { ' ' })
        .collect()
}

/// The text with comments and literals blanked.
fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at).min(chars.len());
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.push_str(&blank(&chars[at..end].iter().collect::<String>()));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that starts `at` ends; `at` itself if none does.
fn skip(chars: &[char], at: usize) -> usize {
    let next = |offset: usize| chars.get(at + offset).copied().unwrap_or('\0');
    let before = if at > 0 { chars[at - 1] } else { ' ' };
    let in_word = (before.is_alphanumeric() || before == '_') && before != 'b';
    match (chars[at], next(1)) {
        ('/', '/') => at + chars[at..].iter().take_while(|&&c| c != '\n').count(),
        ('/', '*') => end_of_block(chars, at),
        ('"', _) => end_of_string(chars, at + 1),
        ('r', '"' | '#') if !in_word => end_of_raw_string(chars, at),
        ('\'', '\\') => (at + 3..chars.len())
            .find(|&i| chars[i] == '\'')
            .map_or(at, |i| i + 1),
        ('\'', _) if next(2) == '\'' => at + 3,
        _ => at,
    }
}

fn end_of_block(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start + 2, 1);
    while at < chars.len() && depth > 0 {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (at, depth) = (at + 2, depth + 1),
            ('*', Some('/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    at
}

fn end_of_string(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

fn end_of_raw_string(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    let body = at + 2 + hashes;
    if chars.get(body - 1) != Some(&'"') {
        return at;
    }
    let close: Vec<char> = std::iter::once('"').chain(vec!['#'; hashes]).collect();
    (body..chars.len())
        .find(|&i| chars[i..].starts_with(&close))
        .map_or(chars.len(), |i| i + close.len())
}

/// Code with every item under `#[cfg(test)]` blanked.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_owned();
    while let Some(start) = out.find(MARK) {
        let end = end_of_item(&out, start + MARK.len());
        let blanked = blank(&out[start..end]);
        out.replace_range(start..end, &blanked);
    }
    out
}

/// The end of the item at `from`: its semicolon, or the brace that closes its first one.
fn end_of_item(code: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, c) in code[from..].char_indices() {
        match c {
            ';' if depth == 0 => return from + offset + 1,
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if c == '}' && depth == 0 {
                    return from + offset + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// Every path below the crate that the code of a module names, groups unfolded: `a::b`.
fn imports(code: &str, module: &[&str]) -> Vec<String> {
    let words: Vec<&str> = code.split_whitespace().collect();
    let code = words.join(" ").replace(" ::", "::").replace(":: ", "::");
    let mut found = Vec::new();
    for (start, root) in code.match_indices("crate::") {
        if !follows_word(&code, start) {
            unfold(&code[start + root.len()..], "", &mut found);
        }
    }
    for (start, _) in code.match_indices("super::") {
        if follows_word(&code, start) || code[..start].ends_with("super::") {
            continue;
        }
        let mut rest = &code[start..];
        let mut base = module.to_vec();
        while let Some(tail) = rest.strip_prefix("super::") {
            base.pop();
            rest = tail;
        }
        let prefix: String = base.iter().map(|part| format!("{part}::")).collect();
        unfold(rest, &prefix, &mut found);
    }
    found
}

fn follows_word(text: &str, at: usize) -> bool {
    text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Adds the paths that `rest` starts with: one path, or a group of them in braces.
fn unfold(rest: &str, prefix: &str, found: &mut Vec<String>) {
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    let (path, after) = rest.split_at(end.unwrap_or(rest.len()));
    let Some(group) = after
        .strip_prefix('{')
        .filter(|_| path.is_empty() || path.ends_with("::"))
    else {
        found.push(format!("{prefix}{}", path.trim_end_matches(':')));
        return;
    };
    let prefix = format!("{prefix}{path}");
    let (mut depth, mut start) = (0_usize, 0);
    for (offset, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                let member = group[start..offset].trim();
                if !member.is_empty() {
                    unfold(member, &prefix, found);
                }
                start = offset + 1;
                if c == '}' {
                    return;
                }
            }
            _ => {}
        }
    }
}

/// Whether `path` is `allowed` or lies below it.
fn is_below(path: &str, allowed: &str) -> bool {
    path.strip_prefix(allowed)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Reads the table of a page: a row a module, its imports in backticks and separated by commas, or a
/// dash.
fn table(page: &str) -> Result<Vec<Row>, String> {
    let is_head = |line: &&str| line.starts_with(TABLE_HEAD.0) && line.ends_with(TABLE_HEAD.1);
    let mut lines = page.lines().skip_while(|line| !is_head(line));
    lines.next().ok_or("no table of folders")?;
    let lines = lines.skip(1);
    let rows = lines.take_while(|line| line.starts_with('|')).map(row);
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    match rows.is_empty() {
        true => Err("the table of folders is empty".to_owned()),
        false => Ok(rows),
    }
}

fn row(line: &str) -> Result<Row, String> {
    let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
    let [module, _, imports] = cells[..] else {
        return Err(format!("not three cells: {line}"));
    };
    let path = |cell: &str| {
        let path = cell.trim().strip_prefix('`')?.strip_suffix('`')?;
        let sound = |c: char| c.is_ascii_lowercase() || c == '_' || c == ':';
        path.chars().all(sound).then(|| path.to_owned())
    };
    let bad = |cell: &str| format!("'{cell}' is not a path in backticks: {line}");
    let module = path(module).ok_or_else(|| bad(module))?;
    let imports = match imports {
        "–" => Vec::new(),
        list => list
            .split(',')
            .map(|cell| path(cell).ok_or_else(|| bad(cell)))
            .collect::<Result<_, _>>()?,
    };
    Ok((module, imports))
}

fn page_table() -> Vec<Row> {
    match table(PAGE) {
        Ok(table) => table,
        Err(error) => panic!("src/manual/architecture.md: {error}"),
    }
}

/// The row of the innermost module that has one and holds `module`.
fn row_of<'a>(table: &'a [Row], module: &str) -> Option<&'a Row> {
    let holders = table.iter().filter(|(name, _)| is_below(module, name));
    holders.max_by_key(|(name, _)| name.len())
}

/// Returns the forbidden imports of a file.
fn forbidden(table: &[Row], source: &Source) -> Vec<String> {
    let folder = source.folder();
    if matches!(folder, "lib" | "main") || source.is_test_file() {
        return Vec::new();
    }
    let module = source.module().join("::");
    let Some((own, allowed)) = row_of(table, &module) else {
        return vec![format!("(the table has no folder {folder})")];
    };
    let mut found = imports(&source.code(), &source.module());
    found.retain(|path| {
        if path.is_empty() || is_below(path, own) && !is_inner(table, path, own) {
            return false;
        }
        let inner = row_of(table, path).is_some_and(|(name, _)| name.contains("::"));
        match is_below(path, folder) {
            // A module with a row of its own is for the file that declares it.
            true => inner && !is_declared_by(table, path, &module),
            false => !allowed.iter().any(|allowed| is_below(path, allowed)),
        }
    });
    found
}

/// Whether `path` lies in a module with a row of its own below `own`.
fn is_inner(table: &[Row], path: &str, own: &str) -> bool {
    row_of(table, path).is_some_and(|(name, _)| name != own && is_below(name, own))
}

/// Whether `module` is the parent of the module with a row of its own that holds `path`.
fn is_declared_by(table: &[Row], path: &str, module: &str) -> bool {
    let row = row_of(table, path).and_then(|(name, _)| name.rsplit_once("::"));
    row.is_some_and(|(parent, _)| parent == module)
}

/// Functions in `code` with their lines of code, signatures included.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        if follows_word(code, start) {
            continue;
        }
        let rest = &code[start + "fn ".len()..];
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
        let name = &rest[..end.unwrap_or(rest.len())];
        let body = &code[start..end_of_item(code, start)];
        let lines = body.lines().filter(|line| !line.trim().is_empty()).count();
        if !name.is_empty() {
            found.push((name.to_owned(), lines));
        }
    }
    found
}

#[test]
fn folders_import_only_what_they_may() {
    let (table, mut wrong) = (page_table(), Vec::new());
    for source in sources() {
        for import in forbidden(&table, &source) {
            wrong.push(format!("{} -> {import}", source.path));
        }
    }
    assert!(wrong.is_empty(), "forbidden arrows:\n{}", wrong.join("\n"));
}

#[test]
fn every_row_of_the_table_is_a_module_and_leads_to_modules() {
    let sources = sources();
    let exists = |path: &str| {
        let below = |source: &Source| is_below(&source.module().join("::"), path);
        sources.iter().any(below)
    };
    for (module, imports) in page_table() {
        for path in std::iter::once(&module).chain(&imports) {
            assert!(exists(path), "the table names {path}, which is no module");
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//!"))
        .map(|source| source.path)
        .collect();
    assert!(silent.is_empty(), "no `//!` head: {silent:?}");
}

/// Asserts that nothing measured in a source has more than `most` lines of code.
fn assert_short(most: usize, measured: impl Fn(&Source) -> Vec<(String, usize)>) {
    let sources = sources();
    let measured = sources
        .iter()
        .filter(|source| !source.is_test_file())
        .flat_map(measured);
    let long: Vec<_> = measured.filter(|(_, lines)| *lines > most).collect();
    assert!(long.is_empty(), "more than {most} lines of code: {long:?}");
}

#[test]
fn no_file_is_too_long() {
    let measured = |source: &Source| {
        let code = source.code();
        let lines = code.lines().filter(|line| !line.trim().is_empty());
        vec![(source.path.clone(), lines.count())]
    };
    assert_short(MAX_CODE_LINES, measured);
}

#[test]
fn no_function_is_too_long() {
    let measured = |source: &Source| {
        let functions = functions(&source.code()).into_iter();
        let named = functions.map(|(name, lines)| (format!("{}: {name}", source.path), lines));
        named.collect()
    };
    assert_short(MAX_FUNCTION_LINES, measured);
}

#[test]
fn names_mean_something_and_no_work_is_left() {
    let mut wrong = Vec::new();
    for source in sources() {
        for part in source.path.split('/') {
            if EMPTY_NAMES.contains(&part.strip_suffix(".rs").unwrap_or(part)) {
                wrong.push(format!("{}: a name that says nothing", source.path));
            }
        }
        for (line, text) in (1..).zip(source.text.lines()) {
            if let Some(note) = NOTES.iter().find(|note| text.contains(**note)) {
                wrong.push(format!("{}:{line}: {note}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Name, path below `src/`, text, and the forbidden imports of the file.
const CASES: &[(&str, &str, &str, &[&str])] = &[
    (
        "plain",
        "wire/a.rs",
        "use crate::host::Machine;",
        &["host::Machine"],
    ),
    (
        "inline",
        "wire/a.rs",
        "fn f() { crate::sim::run(); }",
        &["sim::run"],
    ),
    (
        "group",
        "link/a.rs",
        "use crate::{time::Now, cli};",
        &["cli"],
    ),
    (
        "nested group",
        "wire/a.rs",
        "use crate::http::{a::{B, C}, D};",
        &["http::a::B", "http::a::C", "http::D"],
    ),
    (
        "over lines",
        "wire/a.rs",
        "use crate::\n    sim::{\n    x,\n};",
        &["sim::x"],
    ),
    (
        "part of a folder",
        "link/a.rs",
        "use crate::wire::{flight, ip};",
        &["wire::ip"],
    ),
    (
        "out by super",
        "wire/a.rs",
        "use super::super::cli::run;",
        &["cli::run"],
    ),
    (
        "out of a folder's head",
        "wire/mod.rs",
        "use super::cli;",
        &["cli"],
    ),
    (
        "same folder",
        "wire/a.rs",
        "use super::b::C; use crate::wire::d;",
        &[],
    ),
    (
        "visibility",
        "wire/a.rs",
        "pub(crate) fn f() {} pub(super) fn g() {}",
        &[],
    ),
    (
        "comments",
        "wire/a.rs",
        "// crate::cli\n/* crate::cli /* crate::sim */ */",
        &[],
    ),
    (
        "string",
        "wire/a.rs",
        r#"const A: &str = "crate::cli \" crate::sim";"#,
        &[],
    ),
    (
        "raw string",
        "wire/a.rs",
        r##"const A: &str = r#""crate::cli"#;"##,
        &[],
    ),
    (
        "character",
        "wire/a.rs",
        "const Q: char = '\"'; use crate::cli;",
        &["cli"],
    ),
    (
        "escaped",
        "wire/a.rs",
        r"const Q: char = '\''; use crate::cli;",
        &["cli"],
    ),
    (
        "lifetime",
        "wire/a.rs",
        "fn f<'a>(x: &'a str) { crate::cli::run(x) }",
        &["cli::run"],
    ),
    (
        "tests",
        "wire/a.rs",
        "#[cfg(test)]\nmod tests { use crate::cli; }",
        &[],
    ),
    (
        "after tests",
        "wire/a.rs",
        "#[cfg(test)]\nmod tests;\nuse crate::cli;",
        &["cli"],
    ),
    ("a file of tests", "wire/a/tests.rs", "use crate::cli;", &[]),
    (
        "an instrument in a product room",
        "host/a.rs",
        "use crate::instruments::load::Hold;",
        &["instruments::load::Hold"],
    ),
    (
        "an instrument in the rest of cli",
        "cli/get/a.rs",
        "use crate::{instruments::flood, cli::instruments::bench};",
        &["instruments::flood", "cli::instruments::bench"],
    ),
    (
        "an instrument in its own part of cli",
        "cli/instruments/a.rs",
        "use crate::{instruments::flood, cli::exit, cli::instruments::bench};",
        &[],
    ),
    (
        "dispatch",
        "cli/mod.rs",
        "use crate::{cli::instruments::bench, cli::get};",
        &[],
    ),
    (
        "unknown",
        "nowhere/a.rs",
        "",
        &["(the table has no folder nowhere)"],
    ),
];

/// The scanner itself: imports that it must find, and text that is not an import.
#[test]
fn the_scanner_finds_forbidden_arrows() {
    let table = page_table();
    for (name, path, text, want) in CASES {
        let source = Source {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        assert_eq!(forbidden(&table, &source), *want, "{name}");
    }
}

#[test]
fn the_table_holds_paths_and_no_words() {
    let page =
        |cells: &str| format!("| folder | what | may import |\n|---|---|---|\n{cells}\n\nText.\n");
    let good = table(&page("| `a` | what | – |\n| `b::c` | what | `a`, `a::d` |"));
    let rows = [("a", vec![]), ("b::c", vec!["a", "a::d"])];
    let owned = rows.map(|(module, imports)| {
        let imports = imports.into_iter().map(str::to_owned).collect();
        (module.to_owned(), imports)
    });
    assert_eq!(good, Ok(owned.to_vec()));
    for (name, cells) in [
        ("words", "| `a` | what | all above but `b` |"),
        ("no backticks", "| a | what | – |"),
        ("two cells", "| `a` | – |"),
        ("no rows", ""),
    ] {
        assert!(table(&page(cells)).is_err(), "{name}");
    }
    assert!(table("no table").is_err());
}

#[test]
fn files_are_written_through_one_module() {
    // Calls that create, change or remove names or content; `fs::File::open` only reads.
    const CALLS: &[&str] = &[
        "File::create",
        "File::options",
        "OpenOptions",
        "fs::write",
        "fs::rename",
        "fs::copy",
        "fs::hard_link",
        "fs::create_dir",
        "remove_file",
        "remove_dir",
        "set_permissions",
        "UnixListener::bind",
        "renameat",
        "unlinkat",
        "OFlags::CREATE",
        "OFlags::WRONLY",
        "OFlags::RDWR",
    ];
    for source in sources() {
        // Devices are no files that anybody plants.
        let own = ["files", "device"].contains(&source.folder());
        if own || source.is_test_file() {
            continue;
        }
        let code = source.code();
        let named = |call: &&&str| {
            let mut places = code.match_indices(**call);
            places.any(|(at, _)| !code[..at].ends_with(|before: char| before.is_alphanumeric()))
        };
        let found: Vec<_> = CALLS.iter().filter(named).collect();
        assert!(found.is_empty(), "{}: {found:?}: use `files`", source.path);
    }
}

#[test]
fn the_scanner_measures_functions() {
    let code = "fn a() {\n\n  b(|| {\n  });\n}\ntype F = fn(u8);\nfn c(\n x: u8,\n);\n";
    let want = [("a".to_owned(), 4), ("c".to_owned(), 3)];
    assert_eq!(functions(code), want);
}
