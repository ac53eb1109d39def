//! Unpacks a layer: a tar stream from anywhere, onto the data disk.
//!
//! Called by the layer store with a decompressed stream and an empty directory.
//! [`archive`] reads the stream's entries, [`path`] makes their names harmless,
//! [`tree`] is the only code here that touches the file system, and reaches
//! nothing outside the directory it was given. This module joins them: what each
//! kind of entry becomes, and what OCI's whiteouts become for OverlayFS.
//!
//! The stream is hostile. It cannot write outside its directory, it cannot make
//! us hold more than a few megabytes, and it ends in an error when it is not what
//! it says. What it can do is fill the disk; that is an error, too, and the caller
//! removes what there is.
//!
//! Sources: OCI image-spec `layer.md` (change sets, whiteouts),
//! `Documentation/filesystems/overlayfs.rst` (whiteouts, opaque directories).

mod archive;
mod path;
mod pax;
mod sparse;
mod tree;

use std::{
    io::{self, Read},
    os::fd::OwnedFd,
};

use rustix::io::Errno;

use self::{
    archive::{Archive, Entry, Kind},
    path::RelativePath,
    sparse::Segment,
    tree::Tree,
};
use super::trash::Trash;

pub(crate) use self::archive::ArchiveError;

/// Prefix of the names that say what a layer removes.
const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// The name that says that nothing of the lower layers' directory shows.
const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";
/// Prefix of AUFS's own records, which mean nothing to anybody else.
const AUFS_METADATA_PREFIX: &[u8] = b".wh..wh.";

/// How much of a file is copied at a time.
const COPY_SIZE: usize = 128 * 1024;

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The stream is not a tar archive, is damaged, or ended early.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// An entry is where none may be.
    #[error("entry {path:?}: {reason}")]
    Refused {
        /// The entry, as its archive names it.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system did not do what was asked.
    #[error("cannot {action} {path:?}: {source}")]
    Disk {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The entry, as its archive names it.
        path: String,
        /// What the kernel said.
        source: Errno,
    },
}

/// Unpacks the tar archive `stream` into `directory`, which must be empty.
/// Returns how many bytes its files hold. What an entry replaces goes to `trash`,
/// which must be on the same file system.
///
/// # Errors
/// [`UnpackError`]; what was unpacked until then is left in place.
pub(crate) fn unpack<R: Read>(
    stream: R,
    directory: OwnedFd,
    trash: &Trash,
) -> Result<u64, UnpackError> {
    let mut unpacker = Unpacker {
        archive: Archive::new(stream),
        tree: Tree::new(directory, trash),
        buffer: vec![0; COPY_SIZE],
        written: 0,
    };
    while let Some(entry) = unpacker.archive.next_entry()? {
        unpacker.entry(&entry)?;
    }
    unpacker.tree.leave().map_err(|source| UnpackError::Disk {
        action: "finish",
        path: "/".into(),
        source,
    })?;
    Ok(unpacker.written)
}

struct Unpacker<'trash, R> {
    archive: Archive<R>,
    tree: Tree<'trash>,
    buffer: Vec<u8>,
    written: u64,
}

impl<R: Read> Unpacker<'_, R> {
    fn entry(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        let path =
            RelativePath::parse(&entry.path).map_err(|error| refused(&entry.path, &error))?;
        let Some((parent, name)) = path.split() else {
            return match entry.kind {
                Kind::Directory => self
                    .tree
                    .set_root_metadata(&entry.metadata)
                    .map_err(|source| disk("set up", entry, source)),
                _ => Err(refused(
                    &entry.path,
                    &"only a directory can be the root of a layer",
                )),
            };
        };
        self.tree
            .enter(parent)
            .map_err(|source| not_entered(entry, source))?;

        if name == OPAQUE_WHITEOUT {
            return self
                .tree
                .make_opaque()
                .map_err(|source| disk("make opaque the directory of", entry, source));
        }
        if name.starts_with(AUFS_METADATA_PREFIX) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(refused(&entry.path, &"it whites out no file name"));
            }
            return self
                .tree
                .whiteout(hidden)
                .map_err(|source| disk("white out", entry, source));
        }

        let metadata = &entry.metadata;
        match &entry.kind {
            Kind::Directory => self
                .tree
                .directory(name, metadata)
                .map_err(|source| disk("make the directory", entry, source)),
            Kind::Symlink { target } => self
                .tree
                .symlink(name, target, metadata)
                .map_err(|source| disk("make the symbolic link", entry, source)),
            Kind::Node { kind, device } => self
                .tree
                .node(name, *kind, *device, metadata)
                .map_err(|source| disk("make the special file", entry, source)),
            Kind::HardLink { target } => self.hard_link(entry, name, target),
            Kind::File { segments, size } => self.file(entry, name, segments.as_deref(), *size),
        }
    }

    fn hard_link(&mut self, entry: &Entry, name: &[u8], target: &[u8]) -> Result<(), UnpackError> {
        let target_path =
            RelativePath::parse(target).map_err(|error| refused(&entry.path, &error))?;
        let Some((directory, target_name)) = target_path.split() else {
            return Err(refused(&entry.path, &"a hard link to the layer's root"));
        };
        self.tree
            .hard_link(name, directory, target_name)
            .map_err(|source| match source {
                Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP | Errno::PERM => refused(
                    &entry.path,
                    &format!(
                        "a hard link to {:?}, which is no file of this layer",
                        lossy(target)
                    ),
                ),
                source => disk("make the hard link", entry, source),
            })
    }

    fn file(
        &mut self,
        entry: &Entry,
        name: &[u8],
        segments: Option<&[Segment]>,
        size: u64,
    ) -> Result<(), UnpackError> {
        let failed = |source| disk("write", entry, source);
        let file = self.tree.create_file(name).map_err(failed)?;
        let whole = [Segment {
            offset: 0,
            length: size,
        }];
        for segment in segments.unwrap_or(&whole) {
            let mut offset = segment.offset;
            let mut left = segment.length;
            while left > 0 {
                let want = self
                    .buffer
                    .len()
                    .min(usize::try_from(left).unwrap_or(usize::MAX));
                let chunk = &mut self.buffer[..want];
                let got = self.archive.read_content(chunk)?;
                tree::write_at(&file, &chunk[..got], offset).map_err(failed)?;
                offset += got as u64;
                left -= got as u64;
            }
            self.written = self.written.saturating_add(segment.length);
        }
        if segments.is_some() {
            rustix::fs::ftruncate(&file, size).map_err(failed)?;
        }
        tree::set_file_metadata(&file, &entry.metadata).map_err(failed)
    }
}

fn not_entered(entry: &Entry, source: Errno) -> UnpackError {
    match source {
        Errno::XDEV | Errno::LOOP | Errno::EXIST => refused(
            &entry.path,
            &"a symbolic link on its way leads out of the layer or nowhere",
        ),
        Errno::NOTDIR => refused(&entry.path, &"a file is where its directory should be"),
        source => disk("open the directory of", entry, source),
    }
}

fn lossy(bytes: &[u8]) -> String {
    // Names come from outside: keep messages short enough to read.
    const SHOWN: usize = 200;
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).into_owned();
    if bytes.len() > SHOWN {
        text.push('…');
    }
    text
}

fn refused(path: &[u8], reason: &dyn std::fmt::Display) -> UnpackError {
    UnpackError::Refused {
        path: lossy(path),
        reason: reason.to_string(),
    }
}

fn disk(action: &'static str, entry: &Entry, source: Errno) -> UnpackError {
    UnpackError::Disk {
        action,
        path: lossy(&entry.path),
        source,
    }
}

impl UnpackError {
    /// Whether the data disk is full.
    pub(crate) fn is_no_space(&self) -> bool {
        matches!(
            self,
            Self::Disk {
                source: Errno::NOSPC | Errno::DQUOT,
                ..
            }
        )
    }

    /// The stream's own error, when that is what ended it.
    pub(crate) fn stream_error(&self) -> Option<&io::Error> {
        match self {
            Self::Archive(ArchiveError::Stream(error)) => Some(error),
            _ => None,
        }
    }
}
