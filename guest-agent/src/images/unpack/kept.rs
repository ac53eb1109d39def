//! What entries of a layer replaced that came before them in the same archive.
//!
//! It shows in no container, but the archive cannot be given back without it: the
//! replaced files' contents stay beside the layer's files, each under the number of
//! its inode, which no other file can have for as long as this one is there.
//! Directories are taken apart, everything else is deleted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};

use super::KEPT;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How many names of a directory are read at a time.
const NAMES: usize = 4096;

/// The directory for replaced files, made when there is one.
pub(super) struct Kept<'layer> {
    layer: BorrowedFd<'layer>,
    directory: Option<OwnedFd>,
    /// Number of the next directory that is taken apart.
    next: u64,
}

impl<'layer> Kept<'layer> {
    /// For a layer in the directory `layer`.
    pub(super) fn new(layer: BorrowedFd<'layer>) -> Self {
        Self {
            layer,
            directory: None,
            next: 0,
        }
    }

    /// Takes `name` out of `directory`.
    pub(super) fn take(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        let mut trees = Vec::new();
        self.take_one(directory, name, &mut trees)?;
        // Trees come from layers, so they may be deeper than there is stack: a
        // directory in a directory moves up and becomes one of its own.
        while let Some(number) = trees.pop() {
            let name = tree(number);
            let inside = rustix::fs::openat(self.directory()?, &name, DIRECTORY, Mode::empty())?;
            loop {
                let names = names(&inside)?;
                if names.is_empty() {
                    break;
                }
                for name in names {
                    self.take_one(inside.as_fd(), &name, &mut trees)?;
                }
            }
            rustix::fs::unlinkat(self.directory()?, &name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }

    fn take_one(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        trees: &mut Vec<u64>,
    ) -> Result<(), Errno> {
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let number = self.next;
                self.next += 1;
                rustix::fs::renameat(directory, name, self.directory()?, tree(number))?;
                trees.push(number);
                return Ok(());
            }
            FileType::RegularFile if stat.st_size > 0 => {
                let kept = stat.st_ino.to_string();
                match rustix::fs::linkat(directory, name, self.directory()?, kept, AtFlags::empty())
                {
                    // Another of its names was replaced before.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
            }
            _ => {}
        }
        rustix::fs::unlinkat(directory, name, AtFlags::empty())
    }

    fn directory(&mut self) -> Result<BorrowedFd<'_>, Errno> {
        let directory = if let Some(directory) = self.directory.take() {
            directory
        } else {
            rustix::fs::mkdirat(self.layer, KEPT, Mode::RWXU)?;
            rustix::fs::openat(self.layer, KEPT, DIRECTORY, Mode::empty())?
        };
        let directory: &OwnedFd = self.directory.insert(directory);
        Ok(directory.as_fd())
    }
}

fn tree(number: u64) -> String {
    format!("tree-{number}")
}

/// Some names in a directory; none only when it is empty.
fn names(directory: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
            if names.len() == NAMES {
                break;
            }
        }
    }
    Ok(names)
}
