//! The data disk: a raw file, sparse, so that it takes what the guest uses.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use crate::{Error, Result, file};

/// What a disk takes on the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Its size as the guest sees it, in bytes.
    pub(crate) size: u64,
    /// What it takes on the host, in bytes.
    pub(crate) used: u64,
}

/// Makes sure that there is a disk of at least `size` bytes. One that is larger
/// stays as it is: the guest's file system fills it.
pub(crate) fn prepare(path: &Path, size: u64) -> Result<()> {
    let failed = |error| Error::io("create the disk", path, error);
    let disk = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    if disk.metadata().map_err(failed)?.len() >= size {
        return Ok(());
    }
    disk.set_len(size).map_err(failed)?;
    disk.sync_all().map_err(failed)?;
    match path.parent() {
        Some(directory) => file::sync_directory(directory),
        None => Ok(()),
    }
}

/// Free space for this user on the file system of `directory`, in bytes.
pub(crate) fn free_space(directory: &Path) -> std::io::Result<u64> {
    let space = rustix::fs::statvfs(directory)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Size and use; zero for a disk that is not there.
pub(crate) fn usage(path: &Path) -> Result<Usage> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Usage {
            size: metadata.len(),
            // stat(2): in units of 512 bytes, whatever the file system's.
            used: metadata.blocks() * 512,
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Usage::default()),
        Err(error) => Err(Error::io("look at", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_sparse_grows_and_never_shrinks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data.raw");
        assert_eq!(usage(&path).unwrap(), Usage::default());
        prepare(&path, 1 << 36).unwrap();
        let made = usage(&path).unwrap();
        assert_eq!(made.size, 1 << 36);
        assert!(made.used < 1 << 20, "{made:?}");
        prepare(&path, 1 << 37).unwrap();
        assert_eq!(usage(&path).unwrap().size, 1 << 37);
        prepare(&path, 1 << 30).unwrap();
        assert_eq!(usage(&path).unwrap().size, 1 << 37);
    }
}
