//! Unpacks a tar stream from anywhere: a layer onto the data disk, or files where
//! they are wanted.
//!
//! Called by the layer store with a decompressed stream and an empty directory, and
//! by [`archive`](crate::archive) for volumes and containers ([`Rules`] says what
//! differs).
//! [`archive`] reads the stream's entries ([`header`], [`pax`], [`sparse`]), [`path`] makes their names harmless,
//! [`tree`] and [`kept`] are the only code here that touches the layer's files, and
//! reach nothing outside the directory they were given. This module joins them: what
//! each kind of entry becomes, and what OCI's whiteouts become for OverlayFS. What
//! the files do not tell of the stream is recorded ([`recipe`]), so that the very
//! same stream can be given back ([`mod@rebuild`]).
//!
//! The stream is hostile. It cannot write outside its directory, it cannot make
//! us hold more than a few megabytes, and it ends in an error when it is not what
//! it says. It can take disk space up to a reserve that is left for what runs;
//! more is an error, too, and the caller removes what there is.
//!
//! Sources: OCI image-spec `layer.md` (change sets, whiteouts),
//! `Documentation/filesystems/overlayfs.rst` (whiteouts, opaque directories).

pub(super) mod archive;
mod header;
mod kept;
pub(super) mod path;
mod pax;
mod rebuild;
mod recipe;
mod rules;
mod sparse;
mod tree;

use std::{
    io::{self, Read},
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use self::{
    archive::{Archive, Entry, Kind, Metadata},
    kept::Kept,
    path::RelativePath,
    recipe::{Recorder, errno},
    sparse::Segment,
    tree::Tree,
};
use super::space::Spending;

pub(crate) use self::{
    archive::ArchiveError,
    rebuild::{RebuildError, archive_size, rebuild},
    rules::Rules,
};

/// Name of the directory in a layer's own that holds its files.
pub(crate) const FILES: &str = "fs";
/// Name of the directory in a layer's own that holds what its archive replaced.
const KEPT: &str = "kept";
/// Name of the recipe in a layer's directory.
const RECIPE: &str = "recipe";

/// What an entry takes of the disk beside its content, about.
const ENTRY_COST: u64 = 4096;

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
    /// A directory is where something else is to be, or the other way round, and
    /// neither may replace the other.
    #[error("cannot overwrite {there} {path:?} with {entry}")]
    Kind {
        /// The entry, as its archive names it.
        path: String,
        /// What is there.
        there: &'static str,
        /// What is to be there.
        entry: &'static str,
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

/// Unpacks the tar archive `stream` into the directory `layer`, which must be
/// empty: its files below [`FILES`], and beside them what [`mod@rebuild`] needs. Reads
/// `stream` to its end. Returns how many bytes the files hold.
///
/// # Errors
/// [`UnpackError`]; what was unpacked until then is left in place.
pub(crate) fn unpack<R: Read>(stream: R, layer: BorrowedFd<'_>) -> Result<u64, UnpackError> {
    let failed = |action: &'static str| {
        move |source: Errno| UnpackError::Disk {
            action,
            path: "/".into(),
            source,
        }
    };
    let root = make_root(layer).map_err(failed("make"))?;
    let recipe = rustix::fs::openat(
        layer,
        RECIPE,
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    )
    .map_err(failed("record"))?;
    let recorder =
        Recorder::new(stream, recipe).map_err(|error| failed("record")(errno(&error)))?;
    let rules = Rules::layer();
    let mut unpacker = Unpacker {
        archive: Archive::new(recorder),
        tree: Tree::new(root, &rules, Some(Kept::new(layer))),
        rules: &rules,
        buffer: vec![0; COPY_SIZE],
        written: 0,
        spending: Spending::default(),
    };
    if let Err(error) = unpacker.entries() {
        return Err(match unpacker.archive.stream_mut().failure() {
            Some(source) => failed("record")(source),
            None => error,
        });
    }
    unpacker.tree.leave().map_err(failed("finish"))?;
    let written = unpacker.written;
    unpacker.archive.into_stream().finish().map_err(|error| {
        // The kernel's errors have a number, those of a stream have none.
        match Errno::from_io_error(&error) {
            Some(source) => failed("record")(source),
            None => UnpackError::Archive(ArchiveError::Stream(error)),
        }
    })?;
    Ok(written)
}

/// Unpacks files into `directory`, which need not be empty, as `rules` say. Reads
/// `stream` to the end of the archive.
///
/// # Errors
/// [`UnpackError`]; what was unpacked until then is left in place.
pub(crate) fn unpack_files<R: Read>(
    stream: R,
    directory: OwnedFd,
    rules: &Rules,
) -> Result<(), UnpackError> {
    let mut unpacker = Unpacker {
        archive: Archive::new(Unrecorded(stream)),
        tree: Tree::new(directory, rules, None),
        rules,
        buffer: vec![0; COPY_SIZE],
        written: 0,
        spending: Spending::default(),
    };
    unpacker.entries()?;
    if rules.needs_end && !unpacker.archive.has_end() {
        return Err(ArchiveError::Truncated.into());
    }
    unpacker.tree.leave().map_err(|source| UnpackError::Disk {
        action: "finish",
        path: "/".into(),
        source,
    })
}

/// Makes the directory that the layer's root becomes.
fn make_root(layer: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::fs::mkdirat(layer, FILES, Mode::RWXU)?;
    let root = rustix::fs::openat(
        layer,
        FILES,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // What a layer gets that has no entry for its root.
    rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))?;
    Ok(root)
}

/// A stream that is told which file its bytes go to.
trait Recording: Read {
    /// What is read from now on is a file's content.
    fn begin_content(&mut self);
    /// It was, and this file's.
    fn end_content(&mut self, path: &[u8], inode: u64, segments: &[Segment]) -> io::Result<()>;
}

impl<R: Read> Recording for Recorder<R> {
    fn begin_content(&mut self) {
        Self::begin_content(self);
    }

    fn end_content(&mut self, path: &[u8], inode: u64, segments: &[Segment]) -> io::Result<()> {
        Self::end_content(self, path, inode, segments)
    }
}

/// A stream of which nobody wants to know that.
struct Unrecorded<R>(R);

impl<R: Read> Read for Unrecorded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Recording for Unrecorded<R> {
    fn begin_content(&mut self) {}

    fn end_content(&mut self, _: &[u8], _: u64, _: &[Segment]) -> io::Result<()> {
        Ok(())
    }
}

struct Unpacker<'a, R> {
    archive: Archive<R>,
    tree: Tree<'a>,
    rules: &'a Rules,
    buffer: Vec<u8>,
    written: u64,
    spending: Spending,
}

impl<R: Recording> Unpacker<'_, R> {
    fn entries(&mut self) -> Result<(), UnpackError> {
        while let Some(entry) = self.archive.next_entry()? {
            self.spend(ENTRY_COST)
                .map_err(|source| disk("make room for", &entry, source))?;
            self.entry(entry)?;
        }
        Ok(())
    }

    fn spend(&mut self, bytes: u64) -> Result<(), Errno> {
        self.spending.spend(self.tree.root(), bytes)
    }

    fn entry(&mut self, mut entry: Entry) -> Result<(), UnpackError> {
        let (uid, gid) = self
            .rules
            .owner
            .unwrap_or((entry.metadata.uid, entry.metadata.gid));
        entry.metadata = Metadata {
            uid: uid.saturating_add(self.rules.first_id),
            gid: gid.saturating_add(self.rules.first_id),
            ..entry.metadata
        };
        let entry = &entry;
        let path =
            RelativePath::parse(&entry.path).map_err(|error| refused(&entry.path, &error))?;
        let Some((parent, name)) = path.split() else {
            return match entry.kind {
                Kind::Directory if self.rules.keeps_root => Ok(()),
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
        if self.rules.layer
            && let Some(result) = self.whiteout(entry, name)
        {
            return result;
        }
        self.tree
            .check_kind(name, entry.kind == Kind::Directory)
            .map_err(|there| UnpackError::Kind {
                path: lossy(&entry.path),
                there,
                entry: if entry.kind == Kind::Directory {
                    "directory"
                } else {
                    "non-directory"
                },
            })?;

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
            Kind::File { segments, size } => {
                self.file(entry, &path, name, segments.as_deref(), *size)
            }
        }
    }

    /// What an entry's name says about lower layers, if it does.
    fn whiteout(&mut self, entry: &Entry, name: &[u8]) -> Option<Result<(), UnpackError>> {
        if name == OPAQUE_WHITEOUT {
            return Some(
                self.tree
                    .make_opaque()
                    .map_err(|source| disk("make opaque the directory of", entry, source)),
            );
        }
        if name.starts_with(AUFS_METADATA_PREFIX) {
            return Some(Ok(()));
        }
        let hidden = name.strip_prefix(WHITEOUT_PREFIX)?;
        if matches!(hidden, b"" | b"." | b"..") {
            return Some(Err(refused(&entry.path, &"it whites out no file name")));
        }
        Some(
            self.tree
                .whiteout(hidden)
                .map_err(|source| disk("white out", entry, source)),
        )
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
        path: &RelativePath,
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
        let segments_or_whole = segments.unwrap_or(&whole);
        // Through a symbolic link, a path may lead elsewhere by the end; and nothing is
        // to be found in a file without content, which is not kept when it is replaced.
        let recorded = !self.tree.is_behind_link()
            && segments_or_whole.iter().any(|segment| segment.length > 0);
        if recorded {
            self.archive.stream_mut().begin_content();
        }
        for segment in segments_or_whole {
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
                self.spend(got as u64).map_err(failed)?;
            }
            self.written = self.written.saturating_add(segment.length);
        }
        if recorded {
            let inode = rustix::fs::fstat(&file).map_err(failed)?.st_ino;
            self.archive
                .stream_mut()
                .end_content(path.as_bytes(), inode, segments_or_whole)
                .map_err(|error| failed(errno(&error)))?;
        }
        if segments.is_some() {
            rustix::fs::ftruncate(&file, size).map_err(failed)?;
        }
        self.tree
            .set_file_metadata(&file, &entry.metadata)
            .map_err(failed)
    }
}

fn not_entered(entry: &Entry, source: Errno) -> UnpackError {
    match source {
        Errno::XDEV | Errno::LOOP | Errno::EXIST => refused(
            &entry.path,
            &"a symbolic link on its way leads out of the archive or nowhere",
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
    /// Whether what was written to is read-only.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(
            self,
            Self::Disk {
                source: Errno::ROFS,
                ..
            }
        )
    }

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
