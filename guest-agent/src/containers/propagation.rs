//! How changes of mounts travel (mount(8), "shared subtree operations") between the
//! files of the host in a container and the machine's own mount of them.
//!
//! The runtime sets the propagation of the container's root and ignores that of each
//! mount: without `shared` all of them receive what is mounted on the machine's side. So
//! what a container asked for is set right after the runtime has made it and before its
//! process runs, by a thread of our own in its mount namespace.

use std::{fs::File, io, os::fd::OwnedFd, thread};

use guest_protocol::container::Container;
use rustix::{
    fs::CWD,
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
        mount_change, mount_remount, move_mount, open_tree, unmount,
    },
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

use super::{
    Containers,
    spec::{binds, user::User},
    user_namespace,
};
use crate::{
    error::{Context, Result},
    shares::FLAGS,
};

/// A bind mount of a container.
struct Mount<'a> {
    destination: &'a str,
    flags: MountPropagationFlags,
    read_only: bool,
    /// A copy of the machine's own mount, made outside, that replaces the runtime's: it
    /// sends as well as receives, whatever the runtime did to the container's root.
    shared: Option<OwnedFd>,
}

impl Containers {
    /// Sets the propagation of all bind mounts of a container whose first process,
    /// `pid`, waits for its start.
    ///
    /// # Errors
    /// When the process, or what is mounted, has gone.
    pub(super) fn set_propagation(
        &self,
        container: &Container,
        user: &User,
        pid: i32,
    ) -> Result<()> {
        let host = &container.host_config;
        let [uid, gid] = [user.uid, user.gid].map(|id| user_namespace::machine_id(host, id));
        let places = self.shared.shares.places(container, uid, gid)?;
        if places.is_empty() {
            return Ok(());
        }
        let mut mounts = Vec::new();
        for point in container
            .mounts
            .iter()
            .filter(|point| binds::is_bind(point))
        {
            let Some((destination, place)) = point
                .destination
                .as_deref()
                .and_then(|destination| places.get_key_value(destination))
            else {
                continue;
            };
            let flags = binds::propagation(point);
            let clone = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_RECURSIVE;
            let shared = flags
                .contains(MountPropagationFlags::SHARED)
                .then(|| open_tree(CWD, place, clone))
                .transpose()
                .context(format_args!("cannot share the mounts in {destination}"))?;
            mounts.push(Mount {
                destination,
                flags,
                read_only: point.rw == Some(false),
                shared,
            });
        }
        let namespace = File::open(format!("/proc/{pid}/ns/mnt"))
            .context("cannot open the container's mount namespace")?;
        // A thread that ends: it cannot come back out of the namespace.
        thread::scope(|scope| {
            thread::Builder::new()
                .name("propagation".to_owned())
                .spawn_scoped(scope, || set(&namespace, &mounts))?
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("it failed unexpectedly")))
        })
        .context("cannot set how mounts are propagated")
    }
}

/// Sets the propagation of `mounts` in a mount namespace, for ever the calling thread's.
fn set(namespace: &File, mounts: &[Mount<'_>]) -> io::Result<()> {
    // SAFETY: only the working directory and the root are not shared any more, which no
    // memory safety hangs on.
    unsafe { unshare_unsafe(UnshareFlags::FS) }?;
    // From here on paths are the container's: links lead nowhere else.
    let namespace = std::os::fd::AsFd::as_fd(namespace);
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))?;
    for mount in mounts {
        if let Some(tree) = &mount.shared {
            unmount(mount.destination, UnmountFlags::DETACH)?;
            let flags =
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
            move_mount(tree, "", CWD, mount.destination, flags)?;
            if mount.read_only {
                let flags = FLAGS | MountFlags::BIND | MountFlags::RDONLY;
                mount_remount(mount.destination, flags, "")?;
            }
        }
        mount_change(mount.destination, mount.flags)?;
    }
    Ok(())
}
