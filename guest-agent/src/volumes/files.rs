//! A volume's files on the disk: filled from an image, replaced as a whole, measured.
//!
//! New content is made beside the old and takes its place in one step when it is
//! whole and on the disk.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags},
    io::Errno,
};

use crate::{
    archive,
    error::{Context, Result},
    images::trash::Trash,
};

/// A volume's files, and what is to become them.
const DATA: &str = "_data";
const NEW: &str = "_new";

/// The folder of one volume.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    /// Those in the volume's `folder`.
    pub(super) fn of(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where they are.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join(DATA)
    }

    /// Makes the folder when it is missing.
    pub(super) fn make(&self) -> io::Result<()> {
        fs::create_dir_all(self.data())
    }

    /// Opens it.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        open(&self.data())
    }

    /// Throws away what was never finished.
    pub(super) fn clear_unfinished(&self, trash: &Trash) -> io::Result<()> {
        let folder = open(&self.folder)?;
        match trash.put(folder.as_fd(), NEW.as_bytes()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Fills an empty volume with what `source` has, owners, modes and all, and makes
    /// its folder like `source`. Leaves one alone that holds anything. `mounted`:
    /// somebody has the folder open, so that it cannot be replaced.
    pub(super) fn fill(&self, source: &OwnedFd, mounted: bool, trash: &Trash) -> Result<()> {
        let path = self.data();
        let data = self
            .open()
            .context(format_args!("cannot open {}", path.display()))?;
        if !is_empty(&data).context(format_args!("cannot read {}", path.display()))? {
            return Ok(());
        }
        // It may have been opened as a place only.
        let source = &rustix::fs::openat(source, ".", DIRECTORY, Mode::empty())
            .context("cannot open the image's folder")?;
        let nothing = is_empty(source).context("cannot read the image's folder")?;
        // What somebody made of an empty volume stays: the folder may be no more than
        // what was made to mount on.
        if nothing && !is_untouched(&data).context("cannot look at a volume's folder")? {
            return Ok(());
        }
        if mounted || nothing {
            return archive::copy(source, data);
        }
        self.clear_unfinished(trash)
            .context("cannot clear a volume's folder")?;
        let new = self.make_new()?;
        archive::copy(source, new)?;
        self.put_in_place(RenameFlags::empty())
    }

    /// Has `write` fill a folder that then takes the place of the volume's. When it
    /// fails, all is as before.
    pub(super) fn replace(
        &self,
        trash: &Trash,
        write: impl FnOnce(OwnedFd) -> Result<()>,
    ) -> Result<()> {
        self.clear_unfinished(trash)
            .context("cannot clear a volume's folder")?;
        let result = self
            .make_new()
            .and_then(write)
            .and_then(|()| self.put_in_place(RenameFlags::EXCHANGE));
        // The old content, or what was written of the new.
        let cleared = self
            .clear_unfinished(trash)
            .context("cannot clear a volume's folder");
        result.and(cleared)
    }

    fn make_new(&self) -> Result<OwnedFd> {
        let path = self.folder.join(NEW);
        fs::create_dir(&path)
            .and_then(|()| open(&path))
            .context(format_args!("cannot make {}", path.display()))
    }

    fn put_in_place(&self, flags: RenameFlags) -> Result<()> {
        let rename = || -> io::Result<()> {
            let folder = open(&self.folder)?;
            // What is in it must be on the disk before it is found there.
            rustix::fs::syncfs(&folder)?;
            rustix::fs::renameat_with(&folder, NEW, &folder, DATA, flags)?;
            rustix::fs::fsync(&folder)?;
            Ok(())
        };
        rename().context(format_args!(
            "cannot put {} in place",
            self.data().display()
        ))
    }

    /// Bytes that they take on the disk; what has several names counts once.
    pub(super) fn usage(&self) -> io::Result<u64> {
        let mut seen = HashSet::new();
        let mut total = 0_u64;
        let mut folders = vec![(self.open()?, Vec::new())];
        // By open folders, one for each level: a stranger's tree can be deeper than
        // there is stack.
        while let Some((folder, names)) = folders.last_mut() {
            if names.is_empty() {
                *names = list(folder)?;
                // The mark of the end, taken last.
                names.insert(0, Vec::new());
            }
            let Some(name) = names.pop().filter(|name| !name.is_empty()) else {
                folders.pop();
                continue;
            };
            let stat = match rustix::fs::statat(&*folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            if stat.st_nlink == 1 || seen.insert(stat.st_ino) {
                total = total.saturating_add(stat.st_blocks.unsigned_abs().saturating_mul(512));
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                match rustix::fs::openat(&*folder, &name, DIRECTORY, Mode::empty()) {
                    Ok(below) => folders.push((below, Vec::new())),
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(total)
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?)
}

fn list(folder: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Whether a volume's folder still has the owner and mode that it was made with.
fn is_untouched(data: &OwnedFd) -> io::Result<bool> {
    let stat = rustix::fs::fstat(data)?;
    Ok((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (0o755, 0, 0))
}

fn is_empty(folder: &OwnedFd) -> io::Result<bool> {
    // What is only a place in the tree cannot be read.
    let folder = rustix::fs::openat(folder, ".", DIRECTORY, Mode::empty())?;
    for entry in Dir::read_from(&folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            return Ok(false);
        }
    }
    Ok(true)
}
