//! The redirector's files: configuration, keys, table of sites.
//!
//! In: the path of the configuration; relative paths in it start at its directory. Out: the parsed
//! content, or a failure with the remedy; and whether any file has changed.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::cli::exit::{Exit, Failed};
use crate::cli::keygen;
use crate::host::redirector::mac_keys;
use crate::redirect::Generation;
use crate::redirect::capsule::MacKeys;
use crate::redirect::config::{Nearest, RedirectConfig};
use crate::redirect::prefixes::Table;

/// Suffix of a table in MaxMind's format.
const DATABASE_SUFFIX: &str = "mmdb";

/// Location of a redirector's configuration.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
}

/// The parsed content of all files.
#[derive(Debug)]
pub(super) struct Loaded {
    text: String,
    pub(super) config: RedirectConfig,
    pub(super) table: Table,
    pub(super) keys: MacKeys,
    /// Every file read, with its stamp from just before.
    files: Vec<(PathBuf, Option<Stamp>)>,
}

/// Identifies a version of a file: inode, bytes, modification time in seconds and nanoseconds.
type Stamp = (u64, u64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
}

impl Source {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Reads all files at the start, before there is a loop to delay.
    pub(super) fn load(&self) -> Result<Loaded, Failed> {
        self.load_if(|_| Ok(()))
    }

    /// Reads all files that `accepts` accepts.
    fn load_if(&self, accepts: impl Fn(&Path) -> Result<(), Failed>) -> Result<Loaded, Failed> {
        accepts(&self.path)?;
        let mut files = vec![(self.path.clone(), stamp(&self.path))];
        let name = self.path.display().to_string();
        let text = fs::read_to_string(&self.path).map_err(|error| {
            let advice = format!("cannot read {name} ({error}): choose another file for --config");
            Failed::new(Exit::Configuration, advice)
        })?;
        let wrong = |error: &dyn core::fmt::Display| Failed::new(Exit::Configuration, error);
        let config = RedirectConfig::parse(&name, &text).map_err(|error| wrong(&error))?;
        let key_file = self.beside(&config.key_file);
        accepts(&key_file)?;
        files.push((key_file.clone(), stamp(&key_file)));
        let keys = mac_keys(&keygen::load(&key_file)?);
        let table = match &config.nearest {
            None => Table::default(),
            Some(nearest) => {
                let path = self.beside(&nearest.table);
                accepts(&path)?;
                files.push((path.clone(), stamp(&path)));
                read_table(&path, nearest, &config.sites)?
            }
        };
        Ok(Loaded {
            text,
            config,
            table,
            keys,
            files,
        })
    }

    /// Resolves a path in the configuration; a relative one starts at the configuration's directory.
    fn beside(&self, named: &Path) -> PathBuf {
        self.path
            .parent()
            .map_or_else(|| named.to_owned(), |folder| folder.join(named))
    }

    /// Makes `loaded` the running configuration.
    pub(super) fn into_running(self, loaded: Loaded) -> Running {
        Running {
            source: self,
            seen: loaded.files.clone(),
            loaded,
        }
    }
}

/// Rejects a file whose reader might wait for its writer: the loop would wait, too.
fn is_regular(path: &Path) -> Result<(), Failed> {
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        let message = format!("{} is not a regular file: replace it", path.display());
        return Err(Failed::new(Exit::Configuration, message));
    }
    Ok(())
}

fn read_table(path: &Path, nearest: &Nearest, sites: &[String]) -> Result<Table, Failed> {
    let name = path.display().to_string();
    let unreadable = |error| {
        let advice = format!("cannot read {name} ({error}): choose another `table`");
        Failed::new(Exit::Configuration, advice)
    };
    let table = if path.extension().is_some_and(|it| it == DATABASE_SUFFIX) {
        let bytes = fs::read(path).map_err(unreadable)?;
        Table::from_database(&name, bytes, &nearest.regions)
    } else {
        let text = fs::read_to_string(path).map_err(unreadable)?;
        Table::parse(&name, &text, sites)
    };
    table.map_err(|error| Failed::new(Exit::Configuration, error))
}

impl Loaded {
    /// The addresses to route to the redirector's device.
    pub(super) fn own_addresses(&self) -> Vec<IpAddr> {
        [self.config.addresses.as_slice(), &self.config.services].concat()
    }
}

/// The running configuration, and the stamps of its files at the last check.
#[derive(Debug)]
pub(super) struct Running {
    source: Source,
    loaded: Loaded,
    seen: Vec<(PathBuf, Option<Stamp>)>,
}

impl Running {
    pub(super) const fn config(&self) -> &RedirectConfig {
        &self.loaded.config
    }

    pub(super) const fn generation(&self) -> u32 {
        let Generation(number) = self.loaded.config.generation;
        number
    }

    pub(super) fn own_addresses(&self) -> Vec<IpAddr> {
        self.loaded.own_addresses()
    }

    /// Whether any file has changed since the last check.
    pub(super) fn has_changed(&self) -> bool {
        self.seen.iter().any(|(path, was)| stamp(path) != *was)
    }

    /// Reads the files again and updates their stamps even on failure, so that an error is reported
    /// once.
    pub(super) fn reload(&mut self) -> Result<Loaded, Failed> {
        for (path, seen) in &mut self.seen {
            *seen = stamp(path);
        }
        self.source.load_if(is_regular)
    }

    /// Whether the configuration's text equals the running one.
    pub(super) fn is_same_text(&self, loaded: &Loaded) -> bool {
        self.loaded.text == loaded.text
    }

    /// Whether the table of sites equals the running one.
    pub(super) fn is_same_table(&self, loaded: &Loaded) -> bool {
        self.loaded.table == loaded.table
    }

    pub(super) fn put(&mut self, loaded: Loaded) {
        self.seen.clone_from(&loaded.files);
        self.loaded = loaded;
    }
}
