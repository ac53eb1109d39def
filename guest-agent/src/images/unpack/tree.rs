//! The directory that is unpacked into, reached only through its descriptor.
//!
//! Paths of more than one component are resolved by the kernel, within the root
//! (`openat2`). In a layer symbolic links that stay in it are followed, as image
//! builders expect (`lib -> usr/lib`), and others are errors; in a container they
//! lead where they lead inside.
//! Everything else names one component in an open directory and follows nothing.
//!
//! Entries of one directory mostly come together, so the directory of the last
//! one stays open; when it is left, its modification time is put back.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
        XattrFlags,
    },
    io::Errno,
};

use super::{archive::Metadata, kept::Kept, rules::Rules};
use crate::images::overlay::OPAQUE;

/// The device number by which OverlayFS knows a whiteout.
const WHITEOUT_DEVICE: rustix::fs::Dev = 0;
/// Where OverlayFS keeps what it means for itself.
const OVERLAY_XATTRS: &[u8] = b"trusted.overlay.";
/// How OverlayFS spells such an attribute that belongs to the user (since 6.7).
const ESCAPED_OVERLAY_XATTRS: &[u8] = b"trusted.overlay.overlay.";

/// OverlayFS's note on what was copied up, here from nowhere known. In a directory
/// that no lower layer has it is what makes OverlayFS look for whiteouts at all;
/// without it they would be listed.
const ORIGIN: &str = "trusted.overlay.origin";

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A tree being unpacked.
pub(super) struct Tree<'a> {
    root: OwnedFd,
    rules: &'a Rules,
    /// Where what entries replace goes; it is deleted on the spot without.
    kept: Option<Kept<'a>>,
    current: Option<Current>,
}

/// The directory that entries go to.
struct Current {
    /// As it was asked for.
    path: Vec<u8>,
    directory: OwnedFd,
    /// What it has to have when it is left.
    modified: Timespec,
    inode: (u64, u64),
    /// Whether symbolic links are on the way to it.
    behind_link: bool,
}

impl<'a> Tree<'a> {
    /// The tree below `root`; what entries replace goes to `kept`.
    pub(super) fn new(root: OwnedFd, rules: &'a Rules, kept: Option<Kept<'a>>) -> Self {
        Self {
            root,
            rules,
            kept,
            current: None,
        }
    }

    /// Makes `path` the directory that the other methods work in. Directories on
    /// the way that no entry has made yet are made.
    pub(super) fn enter(&mut self, path: &[u8]) -> Result<(), Errno> {
        if self.current.as_ref().is_some_and(|at| at.path == path) {
            return Ok(());
        }
        self.leave()?;
        let (directory, behind_link) = match self.open_without_links(path) {
            Ok(directory) => (directory, false),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                let directory = match self.open_directory(path) {
                    Err(Errno::NOENT | Errno::NOTDIR) => self.make_directories(path)?,
                    result => result?,
                };
                (directory, self.open_without_links(path).is_err())
            }
            Err(error) => return Err(error),
        };
        let stat = rustix::fs::fstat(&directory)?;
        self.current = Some(Current {
            path: path.to_vec(),
            directory,
            modified: modified(&stat),
            inode: (stat.st_dev, stat.st_ino),
            behind_link,
        });
        Ok(())
    }

    /// Whether symbolic links led to the current directory.
    pub(super) fn is_behind_link(&self) -> bool {
        self.current.as_ref().is_none_or(|at| at.behind_link)
    }

    /// The root of the layer.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Ends the work in the current directory. To be called after the last entry,
    /// too.
    pub(super) fn leave(&mut self) -> Result<(), Errno> {
        match self.current.take() {
            // One that was there has changed.
            Some(at) if at.path.is_empty() && self.rules.keeps_root => Ok(()),
            Some(at) => set_times(&at.directory, at.modified),
            None => Ok(()),
        }
    }

    /// Gives the root of the layer what its entry says.
    pub(super) fn set_root_metadata(&mut self, metadata: &Metadata) -> Result<(), Errno> {
        self.leave()?;
        let root = self.open_directory(b"")?;
        self.set_file_metadata(&root, metadata)
    }

    /// Makes the directory `name`, or gives one that is there `metadata`.
    pub(super) fn directory(&mut self, name: &[u8], metadata: &Metadata) -> Result<(), Errno> {
        let directory = self.ensure_directory(name)?;
        self.set_file_metadata(&directory, metadata)?;
        let stat = rustix::fs::fstat(&directory)?;
        if let Some(at) = &mut self.current
            && at.inode == (stat.st_dev, stat.st_ino)
        {
            at.modified = modified(&stat);
        }
        Ok(())
    }

    /// Makes an empty file for writing. Its metadata is set when it is written:
    /// [`set_file_metadata`](Self::set_file_metadata).
    pub(super) fn create_file(&mut self, name: &[u8]) -> Result<OwnedFd, Errno> {
        self.create(name, |at| {
            rustix::fs::openat(
                at,
                name,
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::from_raw_mode(0o600),
            )
        })
    }

    /// Makes a symbolic link.
    pub(super) fn symlink(
        &mut self,
        name: &[u8],
        target: &[u8],
        metadata: &Metadata,
    ) -> Result<(), Errno> {
        self.create(name, |at| rustix::fs::symlinkat(target, at, name))?;
        self.set_metadata(name, metadata, false)
    }

    /// Makes a device or FIFO.
    pub(super) fn node(
        &mut self,
        name: &[u8],
        kind: FileType,
        device: rustix::fs::Dev,
        metadata: &Metadata,
    ) -> Result<(), Errno> {
        self.create(name, |at| {
            rustix::fs::mknodat(at, name, kind, Mode::from_raw_mode(0o600), device)
        })?;
        self.set_metadata(name, metadata, true)
    }

    /// Gives the file `target` in `directory` the further name `name`.
    pub(super) fn hard_link(
        &mut self,
        name: &[u8],
        directory: &[u8],
        target: &[u8],
    ) -> Result<(), Errno> {
        let source = self.open_directory(directory)?;
        let stat = rustix::fs::statat(&source, target, AtFlags::SYMLINK_NOFOLLOW)?;
        if let Ok(there) = self.stat(name)
            && (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino)
        {
            return Ok(());
        }
        self.create(name, |at| {
            rustix::fs::linkat(&source, target, at, name, AtFlags::empty())
        })
    }

    /// Hides what lower layers have under `name`.
    pub(super) fn whiteout(&mut self, name: &[u8]) -> Result<(), Errno> {
        rustix::fs::fsetxattr(self.at()?, ORIGIN, b"", XattrFlags::empty())?;
        let made = rustix::fs::mknodat(
            self.at()?,
            name,
            FileType::CharacterDevice,
            Mode::empty(),
            WHITEOUT_DEVICE,
        );
        match made {
            // This layer has something of its own there. A file hides what is
            // below by itself; a directory would show it.
            Err(Errno::EXIST) => match self.open_child(name) {
                Ok(directory) => set_opaque(&directory),
                Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(error) => Err(error),
            },
            result => result,
        }
    }

    /// Hides everything lower layers have in the current directory.
    pub(super) fn make_opaque(&self) -> Result<(), Errno> {
        set_opaque(self.at()?)
    }

    /// What is in the way of an entry at `name` by its kind, if the rules have kinds
    /// kept.
    pub(super) fn check_kind(&self, name: &[u8], directory: bool) -> Result<(), &'static str> {
        if !self.rules.keeps_kinds {
            return Ok(());
        }
        match self.stat(name) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if !directory => Err("directory"),
                FileType::Directory => Ok(()),
                _ if directory => Err("non-directory"),
                _ => Ok(()),
            },
            // Whatever else there is to say, making the entry says it.
            Err(_) => Ok(()),
        }
    }

    /// The directory `path`, as the rules resolve it.
    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.open(path, ResolveFlags::NO_MAGICLINKS)
    }

    /// The same, but not through symbolic links.
    fn open_without_links(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.open(path, ResolveFlags::NO_SYMLINKS)
    }

    fn open(&self, path: &[u8], flags: ResolveFlags) -> Result<OwnedFd, Errno> {
        let joined = match (self.rules.base.as_slice(), path) {
            (b"", b"") => b".".to_vec(),
            (b"", path) => path.to_vec(),
            (base, b"") => base.to_vec(),
            (base, path) => [base, b"/", path].concat(),
        };
        rustix::fs::openat2(
            &self.root,
            joined,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            self.rules.resolve | flags,
        )
    }

    /// The directory `path`, with every directory on its way made that is missing.
    fn make_directories(&mut self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let ends = path
            .iter()
            .enumerate()
            .filter_map(|(index, byte)| (*byte == b'/').then_some(index))
            .chain([path.len()]);
        let mut start = 0;
        for end in ends {
            let (name, here) = (&path[start..end], &path[..end]);
            match self.open_directory(here) {
                Ok(_) => {}
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    self.enter(&path[..start.saturating_sub(1)])?;
                    match self.stat(name) {
                        Err(Errno::NOENT) => {}
                        // A file in the way stays: no entry has replaced it.
                        Ok(found) if self.rules.layer && is_whiteout(&found) => {}
                        Ok(found)
                            if FileType::from_raw_mode(found.st_mode) == FileType::Symlink =>
                        {
                            return Err(Errno::LOOP);
                        }
                        Ok(_) => return Err(Errno::NOTDIR),
                        Err(error) => return Err(error),
                    }
                    let made = self.ensure_directory(name)?;
                    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                    self.leave()?;
                }
                Err(error) => return Err(error),
            }
            start = end + 1;
        }
        self.open_directory(path)
    }

    /// Opens the directory `name`; makes it, in place of what is there, when there
    /// is none. In a layer, in place of something else it becomes opaque: what a
    /// whiteout or a file hid must not show in it.
    fn ensure_directory(&mut self, name: &[u8]) -> Result<OwnedFd, Errno> {
        let make = |at: BorrowedFd<'_>| rustix::fs::mkdirat(at, name, Mode::RWXU);
        match make(self.at()?) {
            Ok(()) => return self.open_child(name),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let stat = self.stat(name)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return self.open_child(name);
        }
        self.displace(name)?;
        make(self.at()?)?;
        let directory = self.open_child(name)?;
        if self.rules.layer {
            set_opaque(&directory)?;
        }
        Ok(directory)
    }

    /// Makes something that is no directory, in place of what is there.
    fn create<T>(
        &mut self,
        name: &[u8],
        make: impl Fn(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match make(self.at()?) {
            Err(Errno::EXIST) => {
                self.displace(name)?;
                make(self.at()?)
            }
            result => result,
        }
    }

    /// Takes `name` away.
    fn displace(&mut self, name: &[u8]) -> Result<(), Errno> {
        match (&self.current, &mut self.kept) {
            (Some(at), Some(kept)) => kept.take(at.directory.as_fd(), name),
            (Some(at), None) => delete(at.directory.as_fd(), name),
            (None, _) => Err(Errno::BADF),
        }
    }

    /// Sets the metadata of something that cannot be opened.
    fn set_metadata(&self, name: &[u8], metadata: &Metadata, mode: bool) -> Result<(), Errno> {
        let at = self.at()?;
        rustix::fs::chownat(
            at,
            name,
            Some(Uid::from_raw(metadata.uid)),
            Some(Gid::from_raw(metadata.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        if mode {
            let mode = Mode::from_raw_mode(metadata.mode);
            rustix::fs::chmodat(at, name, mode, AtFlags::empty())?;
        }
        // There is no call that takes a directory and a name before Linux 6.13.
        let mut path = format!("/proc/self/fd/{}/", at.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        self.set_xattrs(metadata, |attribute, value| {
            rustix::fs::lsetxattr(path.as_slice(), attribute, value, XattrFlags::empty())
        })?;
        rustix::fs::utimensat(
            at,
            name,
            &times(metadata.modified.into()),
            AtFlags::SYMLINK_NOFOLLOW,
        )
    }

    /// Sets the metadata of an open file or directory. The order matters: a change of
    /// owner clears set-user-id and capabilities, everything changes the time.
    pub(super) fn set_file_metadata(
        &self,
        file: &OwnedFd,
        metadata: &Metadata,
    ) -> Result<(), Errno> {
        rustix::fs::fchown(
            file,
            Some(Uid::from_raw(metadata.uid)),
            Some(Gid::from_raw(metadata.gid)),
        )?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(metadata.mode))?;
        self.set_xattrs(metadata, |attribute, value| {
            rustix::fs::fsetxattr(file, attribute, value, XattrFlags::empty())
        })?;
        set_times(file, metadata.modified.into())
    }

    /// Sets extended attributes. In a layer `OverlayFS`'s own are kept for the
    /// container, but mean nothing to the `OverlayFS` that it is mounted with.
    fn set_xattrs(
        &self,
        metadata: &Metadata,
        set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        for (name, value) in &metadata.xattrs {
            let result = match name.strip_prefix(OVERLAY_XATTRS) {
                Some(rest) if self.rules.layer => {
                    set(&[ESCAPED_OVERLAY_XATTRS, rest].concat(), value)
                }
                _ => set(name, value),
            };
            match result {
                // A namespace that the guest does not have, or user attributes on
                // what cannot have them: as other engines do, go without.
                Err(Errno::OPNOTSUPP) => {}
                Err(Errno::PERM) if name.starts_with(b"user.") || !self.rules.layer => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn stat(&self, name: &[u8]) -> Result<Stat, Errno> {
        rustix::fs::statat(self.at()?, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn open_child(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(self.at()?, name, DIRECTORY, Mode::empty())
    }

    fn at(&self) -> Result<BorrowedFd<'_>, Errno> {
        match &self.current {
            Some(at) => Ok(at.directory.as_fd()),
            None => Err(Errno::BADF),
        }
    }
}

/// Deletes `name` in `directory`, and all that is in it, following no link.
fn delete(directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    // By open directories, one for each level: a stranger's tree can be deeper than
    // there is stack.
    let mut levels: Vec<(OwnedFd, Vec<u8>)> = Vec::new();
    let mut next = Some(name.to_vec());
    loop {
        let at = levels.last().map_or(directory, |(level, _)| level.as_fd());
        if let Some(name) = next.take() {
            match rustix::fs::unlinkat(at, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                // What Linux and POSIX say of a directory.
                Err(Errno::ISDIR | Errno::PERM) => {
                    let level = rustix::fs::openat(at, &name, DIRECTORY, Mode::empty())?;
                    levels.push((level, name));
                }
                Err(error) => return Err(error),
            }
        }
        let Some((level, _)) = levels.last() else {
            return Ok(());
        };
        next = first_name(level)?;
        if next.is_none()
            && let Some((_, name)) = levels.pop()
        {
            let at = levels.last().map_or(directory, |(level, _)| level.as_fd());
            rustix::fs::unlinkat(at, &name, AtFlags::REMOVEDIR)?;
            if levels.is_empty() {
                return Ok(());
            }
        }
    }
}

/// Some name in a directory, unless it is empty.
fn first_name(directory: &OwnedFd) -> Result<Option<Vec<u8>>, Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            return Ok(Some(name.to_vec()));
        }
    }
    Ok(None)
}

/// Writes `bytes` at `offset`.
pub(super) fn write_at(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn set_opaque(directory: impl AsFd) -> Result<(), Errno> {
    rustix::fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty())
}

fn set_times(file: &OwnedFd, modified: Timespec) -> Result<(), Errno> {
    rustix::fs::futimens(file, &times(modified))
}

fn times(modified: Timespec) -> Timestamps {
    Timestamps {
        last_access: modified,
        last_modification: modified,
    }
}

#[allow(
    clippy::unnecessary_cast,
    reason = "the fields' types differ by architecture"
)]
fn modified(stat: &Stat) -> Timespec {
    Timespec {
        tv_sec: stat.st_mtime as i64,
        tv_nsec: stat.st_mtime_nsec as i64,
    }
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == WHITEOUT_DEVICE
}
