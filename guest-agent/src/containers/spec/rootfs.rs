//! Looking into a container's root file system without being led out of it.
//!
//! Its contents are a stranger's: every path is resolved by the kernel with
//! `RESOLVE_IN_ROOT` (openat2(2)), so links lead where they would lead inside.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, mkdirat, open, openat2, readlinkat},
    io::Errno,
};

/// How many links a path may go through; the kernel's limit.
const MOST_LINKS: usize = 40;

/// A mounted root file system.
#[derive(Debug)]
pub(crate) struct Rootfs {
    root: OwnedFd,
}

impl Rootfs {
    /// The one that is mounted at `path`.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let root = open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self { root })
    }

    /// The one that `root` is open at.
    pub(crate) fn of(root: OwnedFd) -> Self {
        Self { root }
    }

    /// Opens a file to read it.
    pub(crate) fn open(&self, path: &str) -> io::Result<File> {
        // Not blocking: what is named like a file may be a pipe.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        Ok(self.open_with(Path::new(path), flags)?.into())
    }

    /// Whether `path` is a folder.
    pub(crate) fn has_folder(&self, path: &str) -> bool {
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.open_with(Path::new(path), folder).is_ok()
    }

    /// Makes the folder `path` and those above it where they are missing.
    ///
    /// # Errors
    /// When something that is no folder is in the way.
    pub(crate) fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.folder(path).map(drop)
    }

    /// As [`make_folder`](Self::make_folder), and opens it (`O_PATH`).
    pub(crate) fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match self.open_with(path, folder) {
            Err(Errno::NOENT) => {}
            result => return Ok(result?),
        }
        // Some part is missing: find out which by walking, links included, since a
        // dangling link's target is what has to be made.
        let mut missing = normal(path);
        for _ in 0..MOST_LINKS {
            let mut made = PathBuf::new();
            let mut redirected = None;
            let mut parts = missing.components();
            while let Some(part) = parts.next() {
                let parent = self.open_with(&made, folder)?;
                made.push(part);
                match self.open_with(&made, folder) {
                    Ok(_) => continue,
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(error.into()),
                }
                match readlinkat(&parent, part.as_os_str(), Vec::new()) {
                    Ok(target) => {
                        made.pop();
                        let target = PathBuf::from(target.to_string_lossy().into_owned());
                        redirected = Some(normal(&made.join(target).join(parts.as_path())));
                        break;
                    }
                    Err(Errno::NOENT) => mkdirat(&parent, part.as_os_str(), Mode::from(0o755))?,
                    Err(error) => return Err(error.into()),
                }
            }
            match redirected {
                Some(target) => missing = target,
                None => return Ok(self.open_with(&missing, folder)?),
            }
        }
        Err(Errno::LOOP.into())
    }

    fn open_with(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        openat2(
            &self.root,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        )
    }
}

/// `path` from the root on, with `.` and `..` worked out.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_are_made_inside_whatever_links_say() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir(&root).unwrap();
        symlink("/../../target", root.join("link")).unwrap();
        symlink("../../../up", root.join("relative")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        let rootfs = Rootfs::at(&root).unwrap();

        rootfs.make_folder(Path::new("/a/b/../c")).unwrap();
        assert!(root.join("a/c").is_dir());
        rootfs.make_folder(Path::new("/link/deep")).unwrap();
        assert!(root.join("target/deep").is_dir());
        rootfs.make_folder(Path::new("/relative/x")).unwrap();
        assert!(root.join("up/x").is_dir());
        assert!(rootfs.make_folder(Path::new("/loop/x")).is_err());
        assert!(rootfs.make_folder(Path::new("/file/x")).is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn files_are_read_inside() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(outside.path().join("secret"), "").unwrap();
        symlink("../secret", root.join("passwd")).unwrap();
        let rootfs = Rootfs::at(&root).unwrap();
        assert!(rootfs.open("passwd").is_err());
    }
}
