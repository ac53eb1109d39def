//! An archive's members on the disk, for as long as it is being loaded.
//!
//! Each file gets a number as its name, so nothing that an archive says reaches the
//! file system. Links are followed in the text.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead, Read, Write},
    path::{Path, PathBuf},
};

use guest_protocol::{AgentError, ErrorKind};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::images::{
    compression::decompressed,
    space::Spending,
    unpack::{
        ArchiveError,
        archive::{Archive, Entry, Kind},
        path::RelativePath,
    },
};

/// The most members that an archive may have.
const MAX_MEMBERS: usize = 100_000;
/// The most bytes that all their names may have.
const MAX_NAMES: usize = 16 * 1024 * 1024;
/// How many links are followed.
const MAX_LINKS: usize = 8;
/// How much is copied at a time.
const COPY_SIZE: usize = 128 * 1024;
/// Where blobs are that are named by their digest.
const BLOBS: &[u8] = b"blobs/sha256/";

/// The members. Dropped, they go away.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    members: HashMap<Vec<u8>, Member>,
    /// Number of the next file.
    next: usize,
}

#[derive(Debug)]
enum Member {
    /// A file, by number, with its length in bytes.
    File { number: usize, size: u64 },
    /// Another name of the member with this path.
    Link(Vec<u8>),
}

/// A file of an archive.
#[derive(Debug)]
pub(super) struct Found {
    /// Where it is now.
    pub(super) path: PathBuf,
    /// Its length in bytes.
    pub(super) size: u64,
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::warn!(%error, "cannot delete a loaded archive; it goes with the next start");
        }
    }
}

impl Spool {
    /// Takes the archive that `stream` carries, compressed or not, to a new
    /// directory in `parent`.
    pub(super) fn fill(
        parent: &Path,
        stream: impl BufRead + Send + 'static,
    ) -> Result<Self, AgentError> {
        let directory = fs::create_dir_all(parent)
            .and_then(|()| {
                let random = random_name()?;
                let directory = parent.join(random);
                fs::create_dir(&directory)?;
                Ok(directory)
            })
            .map_err(|error| disk(&error))?;
        let mut spool = Self {
            directory,
            members: HashMap::new(),
            next: 0,
        };
        let mut archive = Archive::new(decompressed(stream).map_err(|error| stream_error(&error))?);
        let mut names = 0;
        let mut spending = Spending::default();
        while let Some(entry) = archive.next_entry().map_err(archive_error)? {
            names += entry.path.len();
            if spool.next >= MAX_MEMBERS || spool.members.len() >= MAX_MEMBERS || names > MAX_NAMES
            {
                return Err(corrupt("it has too many members"));
            }
            spool.member(&mut archive, entry, &mut spending)?;
        }
        // Also what follows the archive, so that the sender gets rid of all of it.
        io::copy(&mut archive.into_stream(), &mut io::sink())
            .map_err(|error| stream_error(&error))?;
        Ok(spool)
    }

    fn member<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        entry: Entry,
        spending: &mut Spending,
    ) -> Result<(), AgentError> {
        let path = normal(&entry.path)?;
        let member = match entry.kind {
            Kind::Directory => return Ok(()),
            Kind::File {
                size,
                segments: None,
            } => self.file(archive, &path, size, spending)?,
            Kind::Symlink { target } => {
                let beside = match path.iter().rposition(|byte| *byte == b'/') {
                    Some(slash) if !target.starts_with(b"/") => &path[..=slash],
                    _ => b"",
                };
                Member::Link(normal(&[beside, &target].concat())?)
            }
            Kind::HardLink { target } => Member::Link(normal(&target)?),
            Kind::File { .. } | Kind::Node { .. } => {
                return Err(corrupt(&format!(
                    "{:?} is neither a plain file nor a link",
                    String::from_utf8_lossy(&path)
                )));
            }
        };
        self.members.insert(path, member);
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        path: &[u8],
        size: u64,
        spending: &mut Spending,
    ) -> Result<Member, AgentError> {
        let number = self.next;
        self.next += 1;
        let mut file =
            File::create(self.directory.join(number.to_string())).map_err(|error| disk(&error))?;
        let mut hasher = path.starts_with(BLOBS).then(Sha256::new);
        let mut buffer = vec![0; COPY_SIZE];
        let mut left = size;
        while left > 0 {
            let want = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let got = archive
                .read_content(&mut buffer[..want])
                .map_err(archive_error)?;
            spending
                .spend(&file, got as u64)
                .map_err(|error| disk(&error.into()))?;
            file.write_all(&buffer[..got])
                .map_err(|error| disk(&error))?;
            if let Some(hasher) = &mut hasher {
                hasher.update(&buffer[..got]);
            }
            left -= got as u64;
        }
        if let Some(hasher) = hasher
            && hex::encode(hasher.finalize()).as_bytes() != &path[BLOBS.len()..]
        {
            return Err(corrupt(&format!(
                "{} does not have the digest that it is named by",
                String::from_utf8_lossy(path)
            )));
        }
        Ok(Member::File { number, size })
    }

    /// The file at `path`, if there is one.
    pub(super) fn find(&self, path: &str) -> Option<Found> {
        let mut path = normal(path.as_bytes()).ok()?;
        for _ in 0..MAX_LINKS {
            match self.members.get(&path)? {
                Member::File { number, size } => {
                    return Some(Found {
                        path: self.directory.join(number.to_string()),
                        size: *size,
                    });
                }
                Member::Link(target) => path.clone_from(target),
            }
        }
        None
    }

    /// The text of a file of at most `limit` bytes.
    pub(super) fn text(&self, path: &str, limit: u64) -> Result<Option<String>, AgentError> {
        let Some(found) = self.find(path) else {
            return Ok(None);
        };
        if found.size > limit {
            return Err(corrupt(&format!("{path} is larger than {limit} bytes")));
        }
        let bytes = fs::read(&found.path).map_err(|error| disk(&error))?;
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| corrupt(&format!("{path} is not UTF-8")))
    }
}

/// A name that nothing else in a directory has.
fn random_name() -> io::Result<String> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(hex::encode(bytes))
}

fn normal(path: &[u8]) -> Result<Vec<u8>, AgentError> {
    RelativePath::parse(path)
        .map(|path| path.as_bytes().to_vec())
        .map_err(|error| {
            corrupt(&format!(
                "{:?}: {error}",
                String::from_utf8_lossy(path.get(..200).unwrap_or(path))
            ))
        })
}

/// An archive that is not what it should be.
pub(super) fn corrupt(reason: &str) -> AgentError {
    AgentError::new(
        ErrorKind::Corrupt,
        format!("invalid image archive: {reason}"),
    )
}

fn archive_error(error: ArchiveError) -> AgentError {
    match error {
        ArchiveError::Stream(error) => stream_error(&error),
        ArchiveError::Truncated => corrupt("it is truncated"),
        ArchiveError::Malformed(reason) => corrupt(reason),
        ArchiveError::UnknownType(kind) => {
            corrupt(&format!("it has a member of unknown type {kind:#04x}"))
        }
    }
}

fn stream_error(error: &io::Error) -> AgentError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            corrupt(&format!("it is truncated or damaged: {error}"))
        }
        _ => corrupt(&error.to_string()),
    }
}

/// The disk did not take a member.
pub(super) fn disk(error: &io::Error) -> AgentError {
    let full = error.kind() == io::ErrorKind::StorageFull
        || Errno::from_io_error(error) == Some(Errno::DQUOT);
    if full {
        AgentError::new(
            ErrorKind::NoSpace,
            "cannot load the images: the machine's disk is full",
        )
    } else {
        AgentError::system(format!("cannot load the images: {error}"))
    }
}
