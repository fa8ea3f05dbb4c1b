//! Destinations of bodies: files that appear complete or not at all, and pipes.
//!
//! In: a destination, the URL and how to resume. Out: an [`Output`]. A file is written beside its place,
//! with `.part` appended to its name, and takes its place when complete, under the policy of
//! `files`. A `.part` file is its owner's alone until then, is never shared by two
//! processes, and names in an extended attribute the URL and the entity tag of its bytes: only a
//! transfer of the same URL resumes it, any other one replaces its content. A resumed file without a
//! `.part` file is copied first, so that a failure leaves it unchanged. A device, a FIFO or standard
//! output cannot be renamed and is written as bytes arrive.

mod pipe;

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation, XattrFlags, fgetxattr, flock, fremovexattr, fsetxattr};

use crate::apps::fetch::output::{Held, Output, OutputError};
use crate::cli::exit::{Exit, Failed};
use crate::cli::get::output::pipe::Pipe;
use crate::files::{Place, Seen};

/// Suffix of an incomplete file.
pub const PART_SUFFIX: &str = ".part";

/// Longest origin saved with a `.part` file, in bytes; one with a longer URL is not resumed.
pub const MAX_ORIGIN_BYTES: usize = 2048;

/// Extended attribute with the origin of a `.part` file, on file systems that support it: the URL, and
/// in a second line the entity tag.
const ORIGIN_ATTRIBUTE: &str = "user.headwater.origin";

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

/// Prepares an output for the object of `url`; creates and changes nothing before the first response is
/// accepted.
///
/// # Errors
/// [`Exit::BadResume`] if the file is shorter than the offset, [`Exit::WriteError`] if the
/// destination is a directory, may not be written, or cannot be examined.
pub fn prepare(
    destination: &Destination,
    url: &str,
    resume: Resume,
) -> Result<Box<dyn Output>, Failed> {
    match destination {
        Destination::Stdout => match resume {
            Resume::Auto => Err(Failed::new(
                Exit::BadResume,
                "-C - requires an output file: set one with -o",
            )),
            Resume::No => stdout(0),
            Resume::At(offset) => stdout(offset),
        },
        Destination::File(path) => prepare_file(path, url, resume),
    }
}

fn stdout(offset: u64) -> Result<Box<dyn Output>, Failed> {
    let pipe = Pipe::stdout(offset).map_err(|error| {
        let advice = format!("cannot write to standard output ({error}): set a file with -o");
        Failed::new(Exit::WriteError, advice)
    })?;
    Ok(Box::new(pipe))
}

fn prepare_file(path: &Path, url: &str, resume: Resume) -> Result<Box<dyn Output>, Failed> {
    let refused = |error: io::Error| unwritable(path, &error);
    let is_directory = || {
        let advice = format!(
            "{} is a directory: set a file in it with -o",
            path.display()
        );
        Failed::new(Exit::WriteError, advice)
    };
    let place = Place::of(path).map_err(|error| {
        if error.kind() == io::ErrorKind::IsADirectory {
            is_directory()
        } else {
            refused(error)
        }
    })?;
    match place.look().map_err(refused)? {
        Some(seen) if seen.kind == FileType::Directory => Err(is_directory()),
        Some(seen) if !seen.is_file() => {
            let offset = match resume {
                Resume::No | Resume::Auto => 0,
                Resume::At(offset) => offset,
            };
            Ok(Box::new(Pipe::open(path, offset).map_err(refused)?))
        }
        Some(seen) => {
            place.trust(&seen).map_err(|why| refused(why.into()))?;
            Ok(Box::new(PartFile::new(place, url, resume)?))
        }
        None => Ok(Box::new(PartFile::new(place, url, resume)?)),
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failed {
    let name = path.display();
    let advice = format!("cannot write {name} ({error}): choose another file, or remove it");
    Failed::new(Exit::WriteError, advice)
}

/// A file written as `.part` beside its place.
struct PartFile {
    place: Place,
    part: Place,
    url: String,
    /// The file that holds the bytes to resume.
    source: Option<Source>,
    held: Held,
    file: Option<BufWriter<File>>,
    /// Whether the `.part` file has bytes that a later run could resume.
    filled: bool,
}

/// The file that holds the bytes to resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The `.part` file.
    Part,
    /// The complete one.
    Whole,
}

impl PartFile {
    fn new(place: Place, url: &str, resume: Resume) -> Result<Self, Failed> {
        let failed = |error: io::Error| unwritable(place.path(), &error);
        let part = place.beside(PART_SUFFIX).map_err(failed)?;
        let mut output = Self {
            url: url.to_owned(),
            source: None,
            held: Held::default(),
            file: None,
            filled: false,
            place,
            part,
        };
        let least = match resume {
            Resume::No | Resume::At(0) => return Ok(output),
            Resume::Auto => None,
            Resume::At(offset) => Some(offset),
        };
        let found = output.find_held(least);
        let path = output.part.path();
        if let Some((source, held)) = found.map_err(|error| unwritable(path, &error))? {
            (output.source, output.held) = (Some(source), held);
        } else if let Some(offset) = least {
            let name = output.place.path().display();
            let advice =
                format!("{name} is shorter than {offset} bytes: use -C - to resume at its end");
            return Err(Failed::new(Exit::BadResume, advice));
        }
        Ok(output)
    }

    /// Finds the bytes to resume: in a `.part` file of this URL before the complete file. `least`:
    /// their minimum length.
    fn find_held(&self, least: Option<u64>) -> io::Result<Option<(Source, Held)>> {
        let enough = |seen: &Seen| seen.bytes >= least.unwrap_or(1);
        if self.part.look()?.is_some() {
            let part = self.part.open_private()?;
            let seen = Seen::of(&part)?;
            match read_origin(&part) {
                Some((url, etag)) if url == self.url && enough(&seen) => {
                    let bytes = least.unwrap_or(seen.bytes);
                    return Ok(Some((Source::Part, Held { bytes, etag })));
                }
                Some((url, _)) if url == self.url => {}
                _ => log::warn!(
                    "{}: not a part of {}, so it is not resumed",
                    self.part.path().display(),
                    self.url,
                ),
            }
        }
        let whole = self
            .place
            .look()?
            .filter(|seen| seen.is_file() && enough(seen));
        Ok(whole.map(|seen| {
            let bytes = least.unwrap_or(seen.bytes);
            (Source::Whole, Held { bytes, etag: None })
        }))
    }

    /// Opens the file that holds the bytes to resume, if there is one.
    fn open_source(&self) -> io::Result<Option<File>> {
        let place = match self.source {
            None => return Ok(None),
            Some(Source::Part) => &self.part,
            Some(Source::Whole) => &self.place,
        };
        place.open_to_read().map(Some)
    }

    /// Opens the `.part` file, and truncates or fills it to `offset` bytes.
    fn open(&mut self, offset: u64) -> Result<BufWriter<File>, OutputError> {
        let mut file = self.part.open_private()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from)?;
        if offset > 0 && self.source == Some(Source::Whole) {
            file.set_len(0)?;
            if let Some(whole) = self.open_source()? {
                io::copy(&mut whole.take(offset), &mut file)?;
            }
        }
        if Seen::of(&file)?.bytes < offset {
            // Another process has shortened it since: a hole would pass for bytes.
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
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
        let Some(source) = self.open_source()? else {
            return Ok(true);
        };
        let mut file = source.take(self.held.bytes);
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
        // Best effort: a part without its origin is not resumed.
        let plain = file.get_ref();
        let origin = format!("{}\n{}", self.url, etag.unwrap_or_default());
        let _ = match origin.len() <= MAX_ORIGIN_BYTES {
            true => fsetxattr(
                plain,
                ORIGIN_ATTRIBUTE,
                origin.as_bytes(),
                XattrFlags::empty(),
            ),
            false => fremovexattr(plain, ORIGIN_ATTRIBUTE),
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
        } else if self.source == Some(Source::Part) {
            self.part.remove()?;
        }
        self.source = None;
        self.held = Held::default();
        self.filled = false;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        let file = match self.file.take() {
            Some(mut file) => {
                file.flush()?;
                file.into_inner().map_err(io::IntoInnerError::into_error)?
            }
            None if self.source == Some(Source::Part) => self.part.open_private()?,
            None => {
                self.filled = true;
                return Ok(());
            }
        };
        let _ = fremovexattr(&file, ORIGIN_ATTRIBUTE);
        self.place.dress(&file)?;
        self.place.put(&self.part)?;
        self.filled = true;
        Ok(())
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if self.file.is_some() && !self.filled {
            // A later run cannot resume an empty file.
            let _ = self.part.remove();
        }
    }
}

/// Reads the URL of a `.part` file, and its entity tag if it has one.
fn read_origin(file: &File) -> Option<(String, Option<String>)> {
    let mut buffer = [0; MAX_ORIGIN_BYTES];
    let length = fgetxattr(file, ORIGIN_ATTRIBUTE, &mut buffer).ok()?;
    let text = core::str::from_utf8(buffer.get(..length)?).ok()?;
    let (url, etag) = text.split_once('\n')?;
    // The tag becomes part of a request head: only characters of an entity tag (RFC 9110 §8.8.3).
    let plain = etag.bytes().all(|byte| byte.is_ascii_graphic()) && etag.starts_with('"');
    Some((url.to_owned(), plain.then(|| etag.to_owned())))
}

#[cfg(test)]
mod tests;
