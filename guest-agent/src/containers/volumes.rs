//! Volumes: folders on the data disk that outlive the containers that use them.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::{MetadataExt, chown, symlink},
    },
    path::Path,
};

use super::spec::rootfs::Rootfs;

/// Fills a new volume with what the image has at its destination, and gives it
/// that folder's owner and mode, as Docker does when a volume is first used.
///
/// Volumes that hold anything are left alone. Device nodes and the like are not
/// copied.
///
/// # Errors
/// When a file cannot be read or written.
pub(super) fn fill(rootfs: &Rootfs, destination: &Path, volume: &Path) -> io::Result<()> {
    let folder = rootfs.folder(destination)?;
    if fs::read_dir(volume)?.next().is_some() {
        return Ok(());
    }
    // The kernel's own link to the folder that was found inside the root.
    let source = format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd());
    copy_folder(Path::new(&format!("{source}/.")), volume)
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::metadata(from)?;
    for item in fs::read_dir(from)? {
        let item = item?;
        let (source, target) = (item.path(), to.join(item.file_name()));
        let kind = item.file_type()?;
        if kind.is_dir() {
            fs::create_dir(&target)?;
            copy_folder(&source, &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
            copy_owner(&source.symlink_metadata()?, &target)?;
        } else if kind.is_file() {
            // Copies the mode as well.
            fs::copy(&source, &target)?;
            copy_owner(&item.metadata()?, &target)?;
            fs::set_permissions(&target, item.metadata()?.permissions())?;
        }
    }
    chown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(to, metadata.permissions())
}

fn copy_owner(metadata: &fs::Metadata, to: &Path) -> io::Result<()> {
    std::os::unix::fs::lchown(to, Some(metadata.uid()), Some(metadata.gid()))
}
