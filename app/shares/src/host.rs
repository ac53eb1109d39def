//! The few system calls through which the host's files are reached.
//!
//! A name is only ever looked up in a directory that is held by a descriptor, one
//! component at a time, and never through a symbolic link. What a descriptor names is
//! opened for use by way of `/proc/self/fd`, which leads to the very same file.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;
use rustix::path::DecInt;

/// The longest name of a directory entry, in bytes.
const NAME_MAX: usize = 255;

/// Nothing that a name says leads out of the directory.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_SYMLINKS);

/// The name of a directory entry: neither empty, `.` or `..` nor with a slash or NUL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, Errno> {
        if bytes.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let unusable = bytes.is_empty() || bytes == b"." || bytes == b"..";
        if unusable || bytes.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(Errno::INVAL);
        }
        Ok(Self(bytes))
    }

    pub(crate) fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// `/proc/self/fd`.
#[derive(Debug)]
pub(crate) struct Descriptors(OwnedFd);

impl Descriptors {
    pub(crate) fn open() -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(rustix::fs::CWD, "/proc/self/fd", flags, Mode::empty()).map(Self)
    }

    /// Opens what `file` names once more. With `PATH` that can be anything; otherwise the
    /// caller has made sure that it is a regular file or a directory.
    pub(crate) fn reopen(&self, file: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        rustix::fs::openat(&self.0, DecInt::from_fd(file), flags, Mode::empty())
    }

    /// The path by which the host would reach `file` now.
    pub(crate) fn path(&self, file: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
        let path = rustix::fs::readlinkat(&self.0, DecInt::from_fd(file), Vec::new())?;
        Ok(path.into_bytes())
    }

    pub(crate) fn set_mode(&self, file: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode);
        rustix::fs::chmodat(&self.0, DecInt::from_fd(file), mode, AtFlags::empty())
    }

    pub(crate) fn set_times(
        &self,
        file: BorrowedFd<'_>,
        times: &rustix::fs::Timestamps,
    ) -> Result<(), Errno> {
        rustix::fs::utimensat(&self.0, DecInt::from_fd(file), times, AtFlags::empty())
    }

    /// Gives `file` one more name.
    pub(crate) fn link(
        &self,
        file: BorrowedFd<'_>,
        directory: BorrowedFd<'_>,
        name: Name<'_>,
    ) -> Result<(), Errno> {
        let (from, flags) = (DecInt::from_fd(file), AtFlags::SYMLINK_FOLLOW);
        rustix::fs::linkat(&self.0, from, directory, name.0, flags)
    }
}

/// The path of a descriptor for calls that have no `*at` form.
pub(crate) fn proc_path(file: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// What is called `name` in a directory, whatever it is (`O_PATH`).
pub(crate) fn child(directory: BorrowedFd<'_>, name: Name<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(directory, name.0, flags, Mode::empty(), RESOLVE)
}

/// What is at a path below a directory, whatever it is (`O_PATH`); the directory itself
/// for an empty path.
pub(crate) fn below(directory: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    if path.is_empty() {
        return rustix::io::fcntl_dupfd_cloexec(directory, 0);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(directory, path, flags, Mode::empty(), RESOLVE)
}

/// Makes a regular file, which is not there yet, and opens it.
pub(crate) fn create(
    directory: BorrowedFd<'_>,
    name: Name<'_>,
    flags: OFlags,
    mode: u32,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(mode);
    rustix::fs::openat2(directory, name.0, flags, mode, RESOLVE)
}

/// Makes a regular file without a name on the directory's file system, and opens it.
pub(crate) fn create_nameless(
    directory: BorrowedFd<'_>,
    flags: OFlags,
    mode: u32,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::TMPFILE | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(mode);
    rustix::fs::openat2(directory, ".", flags, mode, RESOLVE)
}

/// The attributes of what a descriptor names.
pub(crate) fn status(file: impl AsFd) -> Result<Statx, Errno> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::statx(file, "", flags, mask)
}

/// What kind of file attributes describe.
pub(crate) fn file_type(status: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(status.stx_mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_components_are_names() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", b"../x"] {
            assert_eq!(Name::new(name), Err(Errno::INVAL), "{name:?}");
        }
        assert_eq!(Name::new(&[b'n'; 256]), Err(Errno::NAMETOOLONG));
        for name in [&b"..."[..], b"..x", b" ", b"\xff\n", &[b'n'; 255]] {
            assert_eq!(Name::new(name).map(Name::bytes), Ok(name));
        }
    }

    #[test]
    fn lookups_stay_below_the_directory() {
        let outside = tempfile::tempdir().unwrap();
        let inside = outside.path().join("in");
        std::fs::create_dir_all(inside.join("a/b")).unwrap();
        std::os::unix::fs::symlink("..", inside.join("up")).unwrap();
        std::os::unix::fs::symlink("a", inside.join("l")).unwrap();
        let directory = crate::open_root(&inside).unwrap();
        let found = |path: &[u8]| below(directory.as_fd(), path).map(drop);
        assert_eq!(found(b""), Ok(()));
        assert_eq!(found(b"a/b"), Ok(()));
        // The link itself.
        assert_eq!(found(b"up"), Ok(()));
        for path in [&b".."[..], b"a/../..", b"/etc"] {
            assert_eq!(found(path), Err(Errno::XDEV));
        }
        for path in [&b"up/in"[..], b"l/b"] {
            assert_eq!(found(path), Err(Errno::LOOP));
        }
    }
}
