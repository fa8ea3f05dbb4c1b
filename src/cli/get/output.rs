//! Destinations of bodies: files that appear complete or not at all, and pipes.
//!
//! In: a destination and how to resume. Out: an [`Output`]. A file is written beside its place, with
//! `.part` appended to its name, and renamed when complete (a mount point is overwritten then); a resumed file without a `.part` file is
//! copied first, so that a failure leaves it unchanged. A device, a FIFO or standard output cannot
//! be renamed and is written as bytes arrive.
//! Never follows a symlink in place of a `.part` file; never lets two processes write one.

mod pipe;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, XattrFlags, fgetxattr, flock, fremovexattr, fsetxattr};

use crate::apps::fetch::output::{Held, Output, OutputError};
use crate::cli::exit::{Exit, Failed};
use crate::cli::get::output::pipe::Pipe;
use crate::files::{beside, put_in_place};

/// Suffix of an incomplete file.
pub const PART_SUFFIX: &str = ".part";

/// Longest entity tag saved with a `.part` file, in bytes.
pub const MAX_ETAG_BYTES: usize = 256;

/// Extended attribute with the entity tag, on file systems that support it.
const ETAG_ATTRIBUTE: &str = "user.headwater.etag";

/// Buffer size for reading and writing, in bytes: bodies arrive in packet-sized pieces.
const BUFFER_BYTES: usize = 256 * 1024;

/// The destination of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
}

/// How to resume an earlier transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// Start at offset 0.
    #[default]
    No,
    /// Resume at the end of the file.
    Auto,
    /// Resume at this offset, in bytes.
    At(u64),
}

/// Prepares an output; creates and changes nothing before the first response is accepted.
///
/// # Errors
/// [`Exit::BadResume`] if the file is shorter than the offset, [`Exit::WriteError`] if the
/// destination is a directory or cannot be examined.
pub fn prepare(destination: &Destination, resume: Resume) -> Result<Box<dyn Output>, Failed> {
    match destination {
        Destination::Stdout => match resume {
            Resume::Auto => Err(Failed::new(
                Exit::BadResume,
                "-C - requires an output file: set one with -o",
            )),
            Resume::No => stdout(0),
            Resume::At(offset) => stdout(offset),
        },
        Destination::File(path) => prepare_file(path, resume),
    }
}

fn stdout(offset: u64) -> Result<Box<dyn Output>, Failed> {
    let pipe = Pipe::stdout(offset).map_err(|error| {
        let advice = format!("cannot write to standard output ({error}): set a file with -o");
        Failed::new(Exit::WriteError, advice)
    })?;
    Ok(Box::new(pipe))
}

fn prepare_file(path: &Path, resume: Resume) -> Result<Box<dyn Output>, Failed> {
    let name = path.display();
    let refused =
        |error: io::Error| Failed::new(Exit::WriteError, format!("cannot write {name} ({error})"));
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let advice = format!("{name} is a directory: set a file in it with -o");
            Err(Failed::new(Exit::WriteError, advice))
        }
        Ok(metadata) if !metadata.is_file() => {
            let offset = match resume {
                Resume::No | Resume::Auto => 0,
                Resume::At(offset) => offset,
            };
            Ok(Box::new(Pipe::open(path, offset).map_err(refused)?))
        }
        // Replaces the target of a symlink, not the symlink.
        Ok(_) => {
            let path = fs::canonicalize(path).map_err(refused)?;
            Ok(Box::new(PartFile::new(path, resume)?))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(Box::new(PartFile::new(path.to_owned(), resume)?))
        }
        Err(error) => Err(refused(error)),
    }
}

/// A file written as `.part` beside its place.
struct PartFile {
    path: PathBuf,
    part: PathBuf,
    /// The file that holds the bytes to resume: the `.part` file or the complete one.
    source: Option<PathBuf>,
    held: Held,
    file: Option<BufWriter<File>>,
    /// Whether the `.part` file has bytes that a later run could resume.
    filled: bool,
}

impl PartFile {
    fn new(path: PathBuf, resume: Resume) -> Result<Self, Failed> {
        let part = beside(&path, PART_SUFFIX);
        let (source, held) = match resume {
            Resume::No | Resume::At(0) => (None, Held::default()),
            Resume::Auto => find_held(&part, &path, None),
            Resume::At(offset) => find_held(&part, &path, Some(offset)),
        };
        if let (Resume::At(offset), None) = (resume, &source)
            && offset > 0
        {
            let name = path.display();
            let advice =
                format!("{name} is shorter than {offset} bytes: use -C - to resume at its end");
            return Err(Failed::new(Exit::BadResume, advice));
        }
        Ok(Self {
            path,
            part,
            source,
            held,
            file: None,
            filled: false,
        })
    }

    /// Opens the `.part` file, and truncates or fills it to `offset` bytes.
    fn open(&mut self, offset: u64) -> Result<BufWriter<File>, OutputError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let mut file = options.custom_flags(no_follow).open(&self.part)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from)?;
        match &self.source {
            Some(source) if offset > 0 && *source != self.part => {
                file.set_len(0)?;
                io::copy(&mut File::open(source)?.take(offset), &mut file)?;
            }
            Some(_) | None => {}
        }
        file.set_len(offset)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(BufWriter::with_capacity(BUFFER_BYTES, file))
    }
}

impl Output for PartFile {
    fn held(&self) -> Held {
        self.held.clone()
    }

    fn replay(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<bool, OutputError> {
        let Some(source) = &self.source else {
            return Ok(true);
        };
        let mut file = File::open(source)?.take(self.held.bytes);
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut left = self.held.bytes;
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(left == 0),
                count => {
                    sink(buffer.get(..count).unwrap_or_default());
                    left = left.saturating_sub(u64::try_from(count).unwrap_or(left));
                }
            }
        }
    }

    fn begin(&mut self, offset: u64, etag: Option<&str>) -> Result<(), OutputError> {
        let file = match self.file.take() {
            Some(file) => file,
            None => self.open(offset)?,
        };
        self.filled = offset > 0;
        // Best effort: without the tag only the digest detects a changed object.
        let plain = file.get_ref();
        let _ = match etag.filter(|etag| etag.len() <= MAX_ETAG_BYTES) {
            Some(etag) => fsetxattr(plain, ETAG_ATTRIBUTE, etag.as_bytes(), XattrFlags::empty()),
            None => fremovexattr(plain, ETAG_ATTRIBUTE),
        };
        self.file = Some(file);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        let Some(file) = &mut self.file else {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        };
        self.filled |= !bytes.is_empty();
        Ok(file.write_all(bytes)?)
    }

    fn rewind(&mut self) -> Result<(), OutputError> {
        if let Some(file) = &mut self.file {
            // `rewind` flushes the buffer, so it must precede `set_len`.
            file.rewind()?;
            file.get_ref().set_len(0)?;
        } else if self.source.as_ref() == Some(&self.part) {
            fs::remove_file(&self.part)?;
        }
        self.source = None;
        self.held = Held::default();
        self.filled = false;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        match self.file.take() {
            Some(mut file) => {
                file.flush()?;
                let file = file.get_ref();
                if let Ok(before) = fs::metadata(&self.path) {
                    file.set_permissions(before.permissions())?;
                }
                let _ = fremovexattr(file, ETAG_ATTRIBUTE);
                put_in_place(&self.part, &self.path)?;
            }
            None if self.source.as_ref() == Some(&self.part) => {
                put_in_place(&self.part, &self.path)?;
            }
            None => {}
        }
        self.filled = true;
        Ok(())
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if self.file.is_some() && !self.filled {
            // A later run cannot resume an empty file.
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// Finds the file to resume, `part` before `path`. `least`: its minimum length in bytes.
fn find_held(part: &Path, path: &Path, least: Option<u64>) -> (Option<PathBuf>, Held) {
    for candidate in [part, path] {
        let Ok(metadata) = fs::symlink_metadata(candidate) else {
            continue;
        };
        if !metadata.is_file() || metadata.len() < least.unwrap_or(1) {
            continue;
        }
        let bytes = least.unwrap_or(metadata.len());
        let etag = read_etag(candidate);
        return (Some(candidate.to_owned()), Held { bytes, etag });
    }
    (None, Held::default())
}

fn read_etag(path: &Path) -> Option<String> {
    let mut buffer = [0; MAX_ETAG_BYTES];
    let file = File::open(path).ok()?;
    let length = fgetxattr(&file, ETAG_ATTRIBUTE, &mut buffer).ok()?;
    let text = core::str::from_utf8(buffer.get(..length)?).ok()?;
    // The tag becomes part of a request head: only characters of an entity tag (RFC 9110 §8.8.3).
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    (plain && text.starts_with('"')).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
