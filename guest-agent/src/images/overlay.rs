//! A container's root file system: its image's layers under a writable one.
//!
//! Mounted through the file-descriptor mount interface (fsopen(2) and friends),
//! where each layer is a parameter of its own (`lowerdir+`, Linux 6.5): mount(2)
//! has room for one page of options, which an image of some forty layers fills.
//!
//! Source: `Documentation/filesystems/overlayfs.rst`.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
        fsconfig_set_string, fsmount, fsopen, move_mount,
    },
};

/// The most layers that OverlayFS takes (`OVL_MAX_STACK`).
pub(super) const MAX_LAYERS: usize = 500;

/// OverlayFS's mark on a directory that hides the lower ones' content: this
/// attribute with the value `y`.
pub(super) const OPAQUE: &str = "trusted.overlay.opaque";

/// Mounts `lower` (topmost first, at least one) under the writable `upper` at
/// `target`. Makes `upper`, `work` and `target` when they are missing (not
/// their parents). `upper` and
/// `work` must be on one file system, the data disk.
///
/// # Errors
/// What the kernel says, with the reason that OverlayFS gives for it.
pub(crate) fn mount(lower: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> io::Result<()> {
    // The upper directory's mode is that of the container's root.
    make_directory(upper, 0o755)?;
    make_directory(work, 0o700)?;
    make_directory(target, 0o755)?;
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let configured = || -> Result<OwnedFd, Errno> {
        fsconfig_set_string(&context, "source", "overlay")?;
        for layer in lower {
            fsconfig_set_string(&context, "lowerdir+", layer)?;
        }
        fsconfig_set_string(&context, "upperdir", upper)?;
        fsconfig_set_string(&context, "workdir", work)?;
        fsconfig_create(&context)?;
        fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )
    };
    let mounted = configured().map_err(|error| explained(error, &context, target))?;
    move_mount(
        &mounted,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(())
}

/// Unmounts what [`mount`] mounted; no error when nothing is mounted there.
///
/// # Errors
/// What the kernel says. Somebody who still has a file open there is none: the
/// mount is out of sight at once and goes when the last one closes.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Not a mount point, or not there at all.
        Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        result => Ok(result?),
    }
}

/// Whether `directory` hides everything below it. OverlayFS asks that of every
/// directory but a layer's root, so the layers below such a root have to be left
/// out.
pub(crate) fn is_opaque(directory: &Path) -> bool {
    let mut value = [0; 1];
    matches!(
        rustix::fs::getxattr(directory, OPAQUE, &mut value),
        Ok(1) if value == *b"y"
    )
}

/// Makes a directory unless it is there.
///
/// # Errors
/// What the kernel says.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        // The mode is what was asked for, whatever the umask.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// `error` with what the kernel logged in the context: lines such as
/// `e overlay: …`.
fn explained(error: Errno, context: &OwnedFd, target: &Path) -> io::Error {
    let mut messages = Vec::new();
    let mut line = [0; 512];
    while let Ok(length @ 1..) = rustix::io::read(context, &mut line) {
        let text = String::from_utf8_lossy(&line[..length]);
        let text = text.trim();
        messages.push(text.strip_prefix("e ").unwrap_or(text).to_owned());
    }
    let kind = io::Error::from(error).kind();
    let target = target.display();
    let mut text = format!("cannot mount the root file system at {target}: {error}");
    for message in messages {
        text.push_str("; ");
        text.push_str(&message);
    }
    io::Error::new(kind, text)
}
