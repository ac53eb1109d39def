//! Mounting the shared file system: from the virtio-fs device, or, in a machine
//! without one, over vsock.

use std::{fs, io, path::Path};

use guest_protocol::SHARES_TAG;
use rustix::{
    io::Errno,
    mount::{MountFlags, MountPropagationFlags, mount as mount_file_system, mount_change},
};

use super::connection;

/// What is on the host runs in containers as it is; devices are the machine's own.
pub(crate) const FLAGS: MountFlags = MountFlags::NODEV.union(MountFlags::NOSUID);

/// Mounts it at `root`; `lost` is called when it is unmounted because the host hung up.
pub(super) fn mount(root: &Path, lost: impl FnOnce() + Send + 'static) -> io::Result<()> {
    fs::create_dir_all(root)?;
    match mount_file_system(SHARES_TAG, root, "virtiofs", FLAGS, None) {
        Ok(()) => {}
        // No device has this tag.
        Err(Errno::INVAL | Errno::NODEV) => connection::mount(root, FLAGS, lost)?,
        Err(error) => return Err(error.into()),
    }
    // Containers' mounts of it may receive what others mount in it.
    Ok(mount_change(root, MountPropagationFlags::SHARED)?)
}
