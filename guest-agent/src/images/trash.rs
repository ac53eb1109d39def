//! Deletes trees of files, however deep and large.
//!
//! What goes away is first renamed into the trash directory, which is one step,
//! and deleted there when there is time. Trees come from layers, so they may be
//! deeper than there are file descriptors or stack: a directory inside a
//! directory is renamed up into the trash rather than descended into.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags},
    io::Errno,
};

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The trash directory. Everything put into it must be on its file system.
#[derive(Debug)]
pub(crate) struct Trash {
    directory: OwnedFd,
    /// Number of the next thing, its name here.
    next: AtomicU64,
    /// Held by the one who empties.
    emptying: Mutex<()>,
}

impl Trash {
    /// Opens the trash at `path`, made if missing.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn open(path: &Path) -> Result<Self, Errno> {
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let directory = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
        let trash = Self {
            directory,
            next: AtomicU64::new(0),
            emptying: Mutex::new(()),
        };
        // Numbers go on after those that an earlier run left.
        let mut highest: Option<u64> = None;
        for name in trash.names(trash.directory.as_fd())? {
            let number = std::str::from_utf8(&name)
                .ok()
                .and_then(|name| name.parse().ok());
            highest = highest.max(number);
        }
        if let Some(highest) = highest {
            trash
                .next
                .store(highest.saturating_add(1), Ordering::Relaxed);
        }
        Ok(trash)
    }

    /// Takes away `name` in `directory`: a file at once, a tree when the trash is
    /// emptied.
    ///
    /// # Errors
    /// What the kernel says; `EXDEV` when `directory` is on another file system.
    pub(crate) fn put(&self, directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            // What Linux and POSIX say of a directory.
            Err(Errno::ISDIR | Errno::PERM) => {}
            result => return result,
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        rustix::fs::renameat(directory, name, &self.directory, number.to_string())
    }

    /// Deletes everything in the trash. What cannot be deleted does not keep the rest.
    ///
    /// # Errors
    /// What the kernel said first; what is left is deleted the next time.
    pub(crate) fn empty(&self) -> Result<(), Errno> {
        let _one_at_a_time = self.emptying.lock().unwrap_or_else(PoisonError::into_inner);
        let mut first = None;
        loop {
            let mut deleted = false;
            for name in self.names(self.directory.as_fd())? {
                match self.delete(&name) {
                    Ok(()) => deleted = true,
                    Err(error) => {
                        first.get_or_insert(error);
                    }
                }
            }
            if !deleted {
                return first.map_or(Ok(()), Err);
            }
        }
    }

    /// Deletes one thing in the trash; directories in it become things of their
    /// own.
    fn delete(&self, name: &[u8]) -> Result<(), Errno> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {}
            result => return result,
        }
        let directory = rustix::fs::openat(&self.directory, name, DIRECTORY, Mode::empty())?;
        loop {
            let names = self.names(directory.as_fd())?;
            if names.is_empty() {
                break;
            }
            for name in names {
                self.put(directory.as_fd(), &name)?;
            }
        }
        rustix::fs::unlinkat(&self.directory, name, AtFlags::REMOVEDIR)
    }

    /// Some names in a directory; none only when it is empty.
    #[allow(
        clippy::unused_self,
        reason = "it belongs to the trash and nowhere else"
    )]
    fn names(&self, directory: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
        const AT_A_TIME: usize = 4096;
        let mut names = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
                if names.len() == AT_A_TIME {
                    break;
                }
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_tree_deeper_than_descriptors_last_is_deleted() {
        let temporary = tempfile::tempdir().unwrap();
        let trash = Trash::open(&temporary.path().join("trash")).unwrap();
        // Far beyond PATH_MAX, too.
        let mut inner = temporary.path().join("0");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("file"), "x").unwrap();
        for depth in 1..3000 {
            let outer = temporary.path().join(depth.to_string());
            fs::create_dir(&outer).unwrap();
            fs::rename(&inner, outer.join("d")).unwrap();
            inner = outer;
        }
        let root = rustix::fs::open(temporary.path(), DIRECTORY, Mode::empty()).unwrap();
        trash.put(root.as_fd(), b"2999").unwrap();
        trash.empty().unwrap();
        assert!(!inner.exists());
        assert_eq!(
            fs::read_dir(temporary.path().join("trash"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn what_an_earlier_run_left_does_not_stand_in_the_way() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("trash");
        fs::create_dir_all(path.join("7/full")).unwrap();
        let trash = Trash::open(&path).unwrap();
        let root = rustix::fs::open(temporary.path(), DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..9 {
            fs::create_dir_all(temporary.path().join("a/full")).unwrap();
            trash.put(root.as_fd(), b"a").unwrap();
        }
        trash.empty().unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_deleted_does_not_keep_the_rest() {
        let temporary = tempfile::tempdir().unwrap();
        let trash = Trash::open(&temporary.path().join("trash")).unwrap();
        let root = rustix::fs::open(temporary.path(), DIRECTORY, Mode::empty()).unwrap();
        for name in ["a", "b", "c"] {
            fs::create_dir_all(temporary.path().join(name).join("in/deep")).unwrap();
            trash.put(root.as_fd(), name.as_bytes()).unwrap();
        }
        // A mount on it: busy, even for root.
        let busy = temporary.path().join("trash/0/in");
        rustix::mount::mount_bind(&busy, &busy).unwrap();
        assert_eq!(trash.empty(), Err(Errno::BUSY));
        let left = || {
            fs::read_dir(temporary.path().join("trash"))
                .unwrap()
                .count()
        };
        assert_eq!(left(), 1);
        rustix::mount::unmount(&busy, rustix::mount::UnmountFlags::empty()).unwrap();
        trash.empty().unwrap();
        assert_eq!(left(), 0);
    }

    #[test]
    fn links_are_deleted_and_not_followed() {
        let temporary = tempfile::tempdir().unwrap();
        fs::create_dir(temporary.path().join("precious")).unwrap();
        fs::write(temporary.path().join("precious/file"), "x").unwrap();
        fs::create_dir(temporary.path().join("tree")).unwrap();
        std::os::unix::fs::symlink("../../precious", temporary.path().join("tree/link")).unwrap();
        let trash = Trash::open(&temporary.path().join("trash")).unwrap();
        let root = rustix::fs::open(temporary.path(), DIRECTORY, Mode::empty()).unwrap();
        trash.put(root.as_fd(), b"tree").unwrap();
        trash.empty().unwrap();
        assert!(temporary.path().join("precious/file").exists());
        assert!(!temporary.path().join("tree").exists());
    }
}
