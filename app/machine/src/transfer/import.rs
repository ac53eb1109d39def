//! Making a machine of a stream that may be damaged, cut off or made to do harm.
//!
//! Nothing is seen of the machine before the digest at the end was right; on any
//! error nothing is left.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
};

use super::{CHUNK, DIGEST, DISK, Digest, HEADER, Header, Progress, SETTINGS, VERSION};
use crate::{
    Error, Machine, Paths, Result, Settings,
    blocking::blocking,
    disk,
    new_machine::NewMachine,
    settings::{GIB, MAX_DISK_GIB},
};

/// The longest header and the longest settings, in bytes.
const MAX_TEXT: u64 = 64 * 1024;
/// What may follow the digest: the end of the archive.
const MAX_TRAILER: u64 = 64 * 1024;
/// The largest window that the stream may ask for, as a power of two.
const WINDOW_LOG_MAX: u32 = 27;
/// The settings' name in errors.
const ORIGIN: &str = "the imported machine.toml";

impl Machine {
    /// Makes a machine of what [`Machine::export`] wrote, called `name`, or what it
    /// was called there.
    ///
    /// # Errors
    /// [`Error::Transfer`] when the stream is not right, [`Error::Exists`],
    /// [`Error::InvalidName`], [`Error::Settings`], [`Error::Io`].
    pub async fn import(
        paths: &Paths,
        input: impl Read + Send + 'static,
        name: Option<String>,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Self> {
        let paths = paths.clone();
        blocking(move || import(&paths, input, name.as_deref(), progress)).await
    }
}

fn damaged(problem: impl std::fmt::Display) -> Error {
    Error::Transfer(format!("it is damaged, cut off, or no machine: {problem}"))
}

fn import(
    paths: &Paths,
    input: impl Read,
    name: Option<&str>,
    mut progress: impl FnMut(Progress),
) -> Result<Machine> {
    let mut decoder = zstd::stream::read::Decoder::new(input).map_err(damaged)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(damaged)?;
    let mut archive = tar::Archive::new(decoder);
    let mut members = Members {
        // Raw: long names would be read whole, however long they are.
        entries: archive.entries().map_err(damaged)?.raw(true),
        digest: Digest::default(),
    };
    let header = members.text(HEADER)?;
    let header: Header = serde_json::from_slice(&header).map_err(damaged)?;
    check(&header)?;
    let machine = Machine::open(paths, name.unwrap_or(&header.name))?;
    if machine.exists() {
        return Err(Error::Exists(machine.name().to_owned()));
    }
    let settings = String::from_utf8(members.text(SETTINGS)?).map_err(damaged)?;
    let settings = Settings::parse(&settings, ORIGIN.as_ref())?;

    paths.create()?;
    let new = NewMachine::begin(paths)?;
    new.write_settings(&settings)?;
    check_space(paths, &header)?;
    members.disk(&new, &header, &mut progress)?;
    // Whoever writes into a pipe shall not be cut off before the end.
    let mut trailer = archive.into_inner().take(MAX_TRAILER);
    io::copy(&mut trailer, &mut io::sink()).map_err(damaged)?;
    new.finish(machine.name(), machine.files())?;
    Ok(machine)
}

fn check(header: &Header) -> Result<()> {
    if header.version != VERSION {
        return Err(Error::Transfer(format!(
            "it has format {}, and this dctl reads format {VERSION}",
            header.version
        )));
    }
    let largest = u64::from(MAX_DISK_GIB) * GIB;
    if header.disk_bytes > largest || header.data_bytes > header.disk_bytes {
        return Err(damaged("its disk has an impossible size"));
    }
    Ok(())
}

fn check_space(paths: &Paths, header: &Header) -> Result<()> {
    let directory = paths.machines_directory();
    let free = disk::free_space(&directory)
        .map_err(|error| Error::io("look at the space in", &directory, error))?;
    if header.data_bytes > free {
        return Err(Error::Transfer(format!(
            "it takes {} MiB, and {} has {} MiB free",
            header.data_bytes >> 20,
            directory.display(),
            free >> 20
        )));
    }
    Ok(())
}

/// The archive's members, one after the other.
struct Members<'a, R: Read> {
    entries: tar::Entries<'a, R>,
    digest: Digest,
}

impl<R: Read> Members<'_, R> {
    /// The next member's name and contents, which are no longer than `most`.
    fn next(&mut self, most: u64) -> Result<(String, Vec<u8>)> {
        let mut entry = self
            .entries
            .next()
            .ok_or_else(|| damaged("its end is missing"))?
            .map_err(damaged)?;
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(damaged("it holds something that is not a file"));
        }
        let name = String::from_utf8(entry.path_bytes().into_owned()).map_err(damaged)?;
        let size = entry.size();
        if size > most {
            return Err(damaged(format!("{name:?} has {size} bytes")));
        }
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).map_err(damaged)?;
        if contents.len() as u64 != size {
            return Err(damaged(format!("{name:?} is incomplete")));
        }
        Ok((name, contents))
    }

    fn text(&mut self, expected: &str) -> Result<Vec<u8>> {
        let (name, contents) = self.next(MAX_TEXT)?;
        if name != expected {
            return Err(damaged(format!("{name:?} is where {expected} should be")));
        }
        self.digest.add(&name, &contents);
        Ok(contents)
    }

    /// Writes the disk, and checks the digest at its end.
    fn disk(
        mut self,
        new: &NewMachine,
        header: &Header,
        progress: &mut impl FnMut(Progress),
    ) -> Result<()> {
        let path = new.disk();
        let failed = |error| Error::io("write the disk", &path, error);
        let file = match header.disk_bytes {
            0 => None,
            size => Some(create(&path, size).map_err(failed)?),
        };
        // Where the next piece begins at the earliest.
        let mut free_from = 0;
        let mut done = 0;
        loop {
            let (name, contents) = self.next(CHUNK as u64)?;
            if name == DIGEST {
                if contents != self.digest.finish().as_bytes() {
                    return Err(damaged("its digest is not that of its contents"));
                }
                break;
            }
            self.digest.add(&name, &contents);
            let offset = name
                .strip_prefix(DISK)
                .filter(|digits| digits.len() == 16)
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .ok_or_else(|| damaged(format!("{name:?} does not belong in it")))?;
            let end = offset
                .checked_add(contents.len() as u64)
                .filter(|end| offset >= free_from && *end <= header.disk_bytes)
                .ok_or_else(|| damaged(format!("{name:?} is not a place on its disk")))?;
            done += contents.len() as u64;
            if done > header.data_bytes {
                return Err(damaged("its disk holds more than it says"));
            }
            if let Some(file) = &file {
                file.write_all_at(&contents, offset).map_err(failed)?;
            }
            free_from = end;
            progress(Progress {
                done,
                total: header.data_bytes,
            });
        }
        if done != header.data_bytes {
            return Err(damaged("parts of its disk are missing"));
        }
        file.map_or(Ok(()), |file| file.sync_all().map_err(failed))
    }
}

fn create(path: &std::path::Path, size: u64) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.set_len(size)?;
    Ok(file)
}
