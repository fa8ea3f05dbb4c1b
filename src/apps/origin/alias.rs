//! Paths too long for a user continuation, by short names that only this server knows.
//!
//! In: resources. Out: resources with short paths, and back. A response with a short name goes on at this
//! server only, until the name has given way to others; elsewhere its object counts as changed. So a
//! download over TCP, which stays at its server, may have any path that the file system allows.

use std::collections::VecDeque;

use crate::apps::origin::continuation::Resource;
use crate::apps::origin::digest;

/// Longest path in a user continuation, in bytes, with the name of an index. The other fields take 39
/// bytes at most, and a mark.
pub const MAX_SEALED_PATH_BYTES: usize = 291;

/// Most long paths with short names; the least recently used gives way.
pub const MAX_ALIASES: usize = 64;

/// A short name: a byte that no path has, and a hash of the path.
const NAME_BYTES: usize = 17;

/// Long paths by their short names.
#[derive(Debug, Default)]
pub struct Aliases(VecDeque<(Vec<u8>, Vec<u8>)>);

impl Aliases {
    /// Replaces a long path by a short name.
    pub fn shorten(&mut self, resource: &mut Resource) {
        let Some(path) = path_of(resource).filter(|path| path.len() > MAX_SEALED_PATH_BYTES) else {
            return;
        };
        let hash = digest::hash(&[path]);
        let mut name = vec![0];
        name.extend(hash.iter().take(NAME_BYTES - 1));
        let long = core::mem::replace(path, name.clone());
        self.0.retain(|(own, _)| *own != name);
        self.0.push_back((name, long));
        if self.0.len() > MAX_ALIASES {
            self.0.pop_front();
        }
    }

    /// Replaces a short name by its path; returns whether it is known.
    pub fn expand(&mut self, resource: &mut Resource) -> bool {
        let Some(path) = path_of(resource).filter(|path| path.first() == Some(&0)) else {
            return true;
        };
        let Some(index) = self.0.iter().position(|(name, _)| name == path) else {
            return false;
        };
        let Some(entry) = self.0.remove(index) else {
            return false;
        };
        path.clone_from(&entry.1);
        self.0.push_back(entry);
        true
    }
}

/// Whether the path of a resource needs a short name.
pub fn is_long(resource: &mut Resource) -> bool {
    path_of(resource).is_some_and(|path| path.len() > MAX_SEALED_PATH_BYTES)
}

const fn path_of(resource: &mut Resource) -> Option<&mut Vec<u8>> {
    match resource {
        Resource::Redirect { path }
        | Resource::File { path, .. }
        | Resource::Listing { path, .. }
        | Resource::Watermark { path, .. } => Some(path),
        Resource::Fixed(_) | Resource::Dynamic(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(length: usize) -> Resource {
        Resource::Redirect {
            path: vec![b'x'; length],
        }
    }

    #[test]
    fn only_long_paths_have_short_names_and_few_of_them() {
        let mut aliases = Aliases::default();
        let mut short = redirect(MAX_SEALED_PATH_BYTES);
        assert!(!is_long(&mut short));
        aliases.shorten(&mut short);
        assert_eq!(short, redirect(MAX_SEALED_PATH_BYTES));
        let mut names = Vec::new();
        for more in 1..=MAX_ALIASES + 1 {
            let mut long = redirect(MAX_SEALED_PATH_BYTES + more);
            assert!(is_long(&mut long));
            aliases.shorten(&mut long);
            assert!(!is_long(&mut long));
            names.push(long);
        }
        assert_eq!(aliases.0.len(), MAX_ALIASES);
        assert!(!aliases.expand(&mut names[0].clone()), "gave way");
        let mut second = names[1].clone();
        assert!(aliases.expand(&mut second));
        assert_eq!(second, redirect(MAX_SEALED_PATH_BYTES + 2));
        assert!(aliases.expand(&mut Resource::Redirect { path: Vec::new() }));
        let mut unknown = Resource::Redirect { path: vec![0, 1] };
        assert!(!aliases.expand(&mut unknown));
    }
}
