//! A container's root file system: its image's layers under a writable one.

use std::{io, path::Path, path::PathBuf};

/// Mounts `lower` (topmost first) under the writable `upper` at `target`.
/// Makes `upper`, `work` and `target` when they are missing. `upper` and `work`
/// must be on one file system, the data disk.
pub fn mount(lower: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> io::Result<()> {
    todo!()
}

/// Unmounts what [`mount`] mounted; no error when nothing is mounted there.
pub fn unmount(target: &Path) -> io::Result<()> {
    todo!()
}
