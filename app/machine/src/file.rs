//! Files that are written whole or not at all.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// Replaces `path` by a file with `contents`, mode 0600: whoever reads it, at any
/// time and after any crash, sees the old file or the new one.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    let directory = parent(path);
    let failed = |error| Error::io("write", path, error);
    let mut file = tempfile::NamedTempFile::new_in(&directory).map_err(failed)?;
    file.write_all(contents).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    sync_directory(&directory)
}

/// Makes new and renamed entries of a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(|error| Error::io("sync", directory, error))
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
