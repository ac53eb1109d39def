//! What the runtime makes in a container's root file system to mount something there.
//!
//! No change of the container's: `diff` does not tell it and `commit` leaves it out.
//! Docker has it in a layer of its own.

use std::path::Path;

use guest_protocol::container::Container;

/// Made in every root file system, volumes aside.
const MADE: [&str; 14] = [
    "/.dockerenv",
    "/dev/console",
    "/dev/mqueue",
    "/dev/pts",
    "/dev/shm",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/proc",
    "/sbin/docker-init",
    "/sys",
    "/sys/fs",
    "/sys/fs/cgroup",
];

/// Directories that may be made for what is in [`MADE`].
const PARENTS: [&str; 3] = ["/dev", "/etc", "/sbin"];

/// Whether the runtime makes `path`.
pub(super) fn is_made(path: &Path) -> bool {
    MADE.iter().any(|made| Path::new(made) == path)
}

/// Whether the runtime makes `path`, if it is missing, for something in it.
pub(super) fn is_parent(path: &Path) -> bool {
    PARENTS.iter().any(|parent| Path::new(parent) == path)
}

/// Where something is mounted in `container`, below its root.
pub(super) fn of(container: &Container) -> Vec<Vec<u8>> {
    let own = container
        .mounts
        .iter()
        .filter_map(|mount| mount.destination.as_deref());
    let tmpfs = container
        .host_config
        .tmpfs
        .iter()
        .flatten()
        .map(|(path, _)| path.as_str());
    MADE.into_iter()
        .chain(PARENTS)
        .chain(own)
        .chain(tmpfs)
        .map(|path| path.trim_matches('/').as_bytes().to_vec())
        .collect()
}
