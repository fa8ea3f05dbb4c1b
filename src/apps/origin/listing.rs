//! The page for a directory without an index: the sorted names of its entries.
//!
//! In: an open directory. Out: HTML that depends only on the path and the names and types of the
//! entries, so that servers with the same tree generate the same bytes: no sizes or dates, which
//! differ between copies. Omits hidden entries, and all after the first [`MAX_LISTING_ENTRIES`].

use std::collections::BTreeMap;
use std::fs::File;

use rustix::fs::{AtFlags, Dir, FileType, statat};
use rustix::io::Errno;

use crate::apps::origin::target;
use crate::apps::origin::tree::Refusal;

/// Most entries on a page: the first by name. A last line counts the others.
pub const MAX_LISTING_ENTRIES: usize = 4096;

/// Most entries read: a larger directory has no page.
pub const MAX_READ_ENTRIES: usize = 1 << 20;

/// Generates the page of the open directory at `path` (relative to the root, decoded).
///
/// # Errors
/// [`Refusal::Forbidden`] if there are too many entries, [`Refusal::Failed`] if they cannot be read.
pub fn page(directory: &File, path: &[u8]) -> Result<Vec<u8>, Refusal> {
    let (names, more) = entries(directory, MAX_READ_ENTRIES)?;
    let title = escape(&String::from_utf8_lossy(path));
    let title = if title.is_empty() {
        "/".to_owned()
    } else {
        format!("/{title}/")
    };
    let mut out = format!(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>Index of {title}</title></head>\n\
         <body><h1>Index of {title}</h1>\n<ul>\n"
    );
    if !path.is_empty() {
        out.push_str("<li><a href=\"../\">../</a></li>\n");
    }
    for (name, is_directory) in names {
        let slash = if is_directory { "/" } else { "" };
        let text = escape(&String::from_utf8_lossy(&name));
        out.push_str(&format!(
            "<li><a href=\"{}{slash}\">{text}{slash}</a></li>\n",
            target::encode(&name)
        ));
    }
    if more > 0 {
        out.push_str(&format!("<li>… and {more} more</li>\n"));
    }
    out.push_str("</ul></body></html>\n");
    Ok(out.into_bytes())
}

/// Names, and whether each is a directory (not a symlink to one).
type Names = BTreeMap<Vec<u8>, bool>;

/// Returns the first visible entries, and the number of the others.
fn entries(directory: &File, most: usize) -> Result<(Names, usize), Refusal> {
    let mut names = Names::new();
    let (mut read, mut more) = (0, 0);
    for entry in Dir::read_from(directory).map_err(refused)? {
        let entry = entry.map_err(refused)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        read += 1;
        if read > most {
            return Err(Refusal::Forbidden);
        }
        if name.to_bytes().starts_with(b".") {
            continue;
        }
        let full = names.len() == MAX_LISTING_ENTRIES;
        more += usize::from(full);
        if full
            && names
                .last_key_value()
                .is_some_and(|(last, _)| last.as_slice() < name.to_bytes())
        {
            continue;
        }
        let mut kind = entry.file_type();
        if kind == FileType::Unknown {
            // Some file systems do not report the type with the name.
            let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
            kind = FileType::from_raw_mode(stat.map_err(|_| Refusal::Unsettled)?.st_mode);
        }
        names.insert(name.to_bytes().to_vec(), kind == FileType::Directory);
        if names.len() > MAX_LISTING_ENTRIES {
            names.pop_last();
        }
    }
    Ok((names, more))
}

fn refused(error: Errno) -> Refusal {
    match error {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => Refusal::NoDescriptors,
        _ => Refusal::Failed,
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_sorted_and_escaped() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "a&<b>.txt", ".hidden", "c:d \"e\""] {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        std::fs::create_dir(folder.path().join("dir")).unwrap();
        std::os::unix::fs::symlink("dir", folder.path().join("link")).unwrap();
        let text =
            String::from_utf8(page(&File::open(folder.path()).unwrap(), b"x<y").unwrap()).unwrap();
        let items: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("<li>"))
            .collect();
        assert_eq!(
            items,
            [
                "<li><a href=\"../\">../</a></li>",
                "<li><a href=\"a%26%3Cb%3E.txt\">a&amp;&lt;b&gt;.txt</a></li>",
                "<li><a href=\"b\">b</a></li>",
                "<li><a href=\"c%3Ad%20%22e%22\">c:d &quot;e&quot;</a></li>",
                "<li><a href=\"dir/\">dir/</a></li>",
                "<li><a href=\"link\">link</a></li>",
            ]
        );
        assert!(text.contains("<title>Index of /x&lt;y/</title>"));
    }

    #[test]
    fn the_number_of_entries_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        for index in 0..MAX_LISTING_ENTRIES {
            File::create(folder.path().join(format!("f{index:05}"))).unwrap();
        }
        let directory = File::open(folder.path()).unwrap();
        let text = || String::from_utf8(page(&directory, b"").unwrap()).unwrap();
        assert!(!text().contains("more</li>"));
        File::create(folder.path().join(".one more")).unwrap();
        assert!(!text().contains("more</li>"), "hidden");
        for name in ["a", "z"] {
            File::create(folder.path().join(name)).unwrap();
        }
        let text = text();
        assert_eq!(
            text.matches("<li><a").count(),
            MAX_LISTING_ENTRIES,
            "the first by name"
        );
        assert!(text.contains("\"a\"") && !text.contains("\"z\"") && !text.contains("f04095"));
        assert!(text.contains("<li>… and 2 more</li>"));
        let most = MAX_LISTING_ENTRIES + 3;
        assert!(entries(&directory, most).is_ok());
        assert_eq!(entries(&directory, most - 1), Err(Refusal::Forbidden));
    }
}
