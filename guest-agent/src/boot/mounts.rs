//! The kernel's file systems, and the devices' links.

use std::{ffi::CStr, fs, io, path::Path};

use rustix::mount::{MountFlags, mount};

const PLAIN: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

struct FileSystem {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: &'static CStr,
    /// Without it containers lack something, so that it is worth a warning.
    needed: bool,
}

const FILE_SYSTEMS: &[FileSystem] = &[
    needed("proc", "/proc", PLAIN, c""),
    needed("sysfs", "/sys", PLAIN, c""),
    needed("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=0755"),
    needed(
        "devpts",
        "/dev/pts",
        PLAIN_DEVICES,
        c"ptmxmode=0666,mode=0620,gid=5",
    ),
    needed("tmpfs", "/dev/shm", PLAIN, c"mode=1777"),
    needed("tmpfs", "/run", PLAIN, c"mode=0755"),
    needed("tmpfs", "/tmp", PLAIN, c"mode=1777"),
    needed("cgroup2", "/sys/fs/cgroup", PLAIN, CGROUP_OPTIONS),
    optional("binfmt_misc", "/proc/sys/fs/binfmt_misc", PLAIN, c""),
    optional("bpf", "/sys/fs/bpf", PLAIN, c"mode=0700"),
    optional("tracefs", "/sys/kernel/tracing", PLAIN, c""),
    optional("debugfs", "/sys/kernel/debug", PLAIN, c""),
];

/// Containers come and go: moving a process into a cgroup is to be fast, rather
/// than fork (`favordynmods`, Documentation/admin-guide/cgroup-v2.rst).
const CGROUP_OPTIONS: &CStr = c"nsdelegate,memory_recursiveprot,favordynmods";

const PLAIN_DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);

const fn needed(
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: &'static CStr,
) -> FileSystem {
    FileSystem {
        kind,
        target,
        flags,
        options,
        needed: true,
    }
}

const fn optional(
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: &'static CStr,
) -> FileSystem {
    FileSystem {
        needed: false,
        ..needed(kind, target, flags, options)
    }
}

/// Mounts all that the kernel has, and delegates all cgroup controllers. What is
/// missing is reported and done without.
pub(super) fn mount_all() {
    for file_system in FILE_SYSTEMS {
        let FileSystem {
            kind,
            target,
            flags,
            options,
            needed,
        } = file_system;
        // Fails where the kernel makes the mount point, or there is none to be made.
        let _ = fs::create_dir_all(target);
        match mount(*kind, *target, *kind, *flags, Some(*options)) {
            Err(error) if *needed => tracing::warn!("{kind} is not mounted on {target}: {error}"),
            _ => {}
        }
    }
    if let Err(error) = delegate_controllers(Path::new("/sys/fs/cgroup")) {
        tracing::warn!("containers cannot be limited: {error}");
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        // For shells in the machine; nothing depends on them.
        let _ = std::os::unix::fs::symlink(target, Path::new("/dev").join(name));
    }
}

/// Hands every controller on to the cgroups below `root`, those of containers.
pub(super) fn delegate_controllers(root: &Path) -> io::Result<()> {
    let containers = root.join("containers");
    fs::create_dir_all(&containers)?;
    for cgroup in [root, &containers] {
        let controllers = fs::read_to_string(cgroup.join("cgroup.controllers"))?;
        for controller in controllers.split_whitespace() {
            // One by one: a controller that refuses keeps none of the others.
            if let Err(error) = fs::write(
                cgroup.join("cgroup.subtree_control"),
                format!("+{controller}"),
            ) {
                tracing::warn!("cgroup controller {controller} is not available: {error}");
            }
        }
    }
    Ok(())
}
