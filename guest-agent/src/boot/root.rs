//! A root file system that containers can pivot away from.
//!
//! The kernel unpacks the initial ramdisk into `rootfs`, the one mount that has no
//! parent and that `pivot_root(2)` therefore refuses. So a tmpfs is moved over it
//! before anything else. Nothing is copied: the few programs are bind mounts.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_move},
    process::chroot,
};

use crate::error::{Context, Result};

/// This program, in the machine.
pub(super) const PROGRAM: &str = "/bin/dctl-agent";

/// Where the new root is made. Beside it the old one stays, out of reach.
const NEW_ROOT: &str = "/new-root";

/// The empty file system for a blank data disk, in the initial ramdisk.
const SEED: &str = "/seed.ext4.sparse.zst";

/// Folders of the new root.
const FOLDERS: &[&str] = &[
    "bin", "data", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var",
];

/// Switches to a tmpfs as the root; gives the seed of a data disk, if there is one.
///
/// # Errors
/// When the kernel refuses; there is no going on then.
pub(super) fn switch() -> Result<Option<File>> {
    let seed = match File::open(SEED) {
        Ok(seed) => Some(seed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).context(format_args!("cannot open {SEED}")),
    };
    build().context("cannot make a root file system")?;
    enter().context("cannot switch to the root file system")?;
    Ok(seed)
}

fn build() -> io::Result<()> {
    let root = Path::new(NEW_ROOT);
    fs::create_dir_all(root)?;
    mount(
        "root",
        root,
        "tmpfs",
        MountFlags::NODEV,
        Some(c"mode=0755,size=16m"),
    )?;
    for folder in FOLDERS {
        fs::create_dir(root.join(folder))?;
    }
    // The shell, with a link for each command that it is.
    let programs = root.join("bin");
    mount_bind("/bin", &programs)?;
    let agent = programs.join("dctl-agent");
    File::create(&agent)?;
    mount_bind("/init", &agent)?;
    Ok(())
}

fn enter() -> io::Result<()> {
    std::env::set_current_dir(NEW_ROOT)?;
    mount_move(".", "/")?;
    chroot(".")?;
    std::env::set_current_dir("/")?;
    // Containers' mounts are nobody else's.
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    Ok(())
}
