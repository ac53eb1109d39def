//! What is mounted into a container: the kernel's file systems, the files that
//! the agent makes for it, its volumes and its tmpfs.

use std::{
    ffi::CString,
    io,
    path::{Component, Path, PathBuf},
};

use guest_protocol::{
    AgentError,
    docker::{HostConfig, Mount, MountPointTypeEnum, MountTypeEnum},
};
use rustix::mount::{MountFlags, mount};
use serde_json::{Value, json};

use super::{Sources, binds};
use crate::error::Result;

/// Where a container finds the init process of `--init`.
pub(super) const INIT_PATH: &str = "/sbin/docker-init";

/// Docker's size of `/dev/shm`.
pub(crate) const DEFAULT_SHM_SIZE: i64 = 64 * 1024 * 1024;

/// The mounts of a specification, in the order they are made.
///
/// # Errors
/// When a destination is not absolute.
pub(super) fn of(sources: &Sources<'_>, own_ipc: bool) -> Result<Vec<Value>> {
    let container = sources.container;
    let host = &container.host_config;
    let privileged = host.privileged == Some(true);
    let access = if privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc",
               "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
               "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
               "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
               "options": ["nosuid", "noexec", "nodev", access]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
               "options": ["nosuid", "noexec", "nodev", "relatime", access]}),
    ];
    if own_ipc && kernel_has("mqueue") {
        mounts.push(
            json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                           "options": ["nosuid", "noexec", "nodev"]}),
        );
    }
    if let Some(shared) = sources.shared_memory {
        mounts.push(bind(shared, "/dev/shm", true));
    } else if !own_ipc {
        mounts.push(bind(Path::new("/dev/shm"), "/dev/shm", true));
    } else if host.ipc_mode.as_deref() != Some("none") {
        mounts.push(
            json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                           "options": ["nosuid", "noexec", "nodev", "mode=1777",
                                       format!("size={}", shared_memory_size(host))]}),
        );
    }
    for name in ["resolv.conf", "hostname", "hosts"] {
        mounts.push(bind(
            &sources.folder.join(name),
            &format!("/etc/{name}"),
            true,
        ));
    }
    if host.init == Some(true) {
        mounts.push(bind(sources.init_program, INIT_PATH, false));
    }
    let mut own: Vec<Value> = Vec::new();
    for (destination, options) in host.tmpfs.iter().flatten() {
        let destination = absolute(destination)?;
        let mut list = vec!["noexec".to_owned(), "nosuid".into(), "nodev".into()];
        list.extend(
            options
                .split(',')
                .filter(|option| !option.is_empty())
                .map(str::to_owned),
        );
        own.push(json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": list}));
    }
    for mount in host.mounts.iter().flatten() {
        if mount.typ == Some(MountTypeEnum::TMPFS) {
            own.push(tmpfs(mount)?);
        }
    }
    for volume in &container.mounts {
        let is_bind = binds::is_bind(volume);
        if volume.typ != Some(MountPointTypeEnum::VOLUME) && !is_bind {
            continue;
        }
        let source = volume
            .destination
            .as_ref()
            .and_then(|destination| sources.places.get(destination))
            .map(|path| path.to_string_lossy().into_owned())
            .or_else(|| volume.source.clone());
        if let (Some(source), Some(destination)) = (&source, &volume.destination)
            && is_bind
        {
            own.push(
                json!({"destination": destination, "type": "bind", "source": source,
                            "options": binds::options(volume)}),
            );
        } else if let (Some(source), Some(destination)) = (source, &volume.destination) {
            own.push(bind(
                Path::new(&source),
                destination,
                volume.rw != Some(false),
            ));
        }
    }
    // What lies deeper is mounted later, so that nothing is hidden.
    own.sort_by_key(|mount| {
        mount["destination"]
            .as_str()
            .map_or(0, |path| Path::new(path).components().count())
    });
    mounts.extend(own);
    Ok(mounts)
}

/// How large `/dev/shm` is, in bytes.
pub(crate) fn shared_memory_size(host: &HostConfig) -> i64 {
    host.shm_size
        .filter(|size| *size > 0)
        .unwrap_or(DEFAULT_SHM_SIZE)
}

/// Makes the `/dev/shm` of a container that others may share.
///
/// # Errors
/// When it cannot be mounted.
pub(crate) fn mount_shared_memory(folder: &Path, size: i64) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let options = CString::new(format!("mode=1777,size={size}"))?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    Ok(mount(
        "shm",
        folder,
        "tmpfs",
        flags,
        Some(options.as_c_str()),
    )?)
}

fn bind(source: &Path, destination: &str, writable: bool) -> Value {
    let access = if writable { "rw" } else { "ro" };
    json!({"destination": destination, "type": "bind", "source": source,
           "options": ["rbind", "rprivate", access]})
}

pub(super) fn tmpfs(mount: &Mount) -> Result<Value> {
    let mut options = vec!["noexec".to_owned(), "nosuid".into(), "nodev".into()];
    if let Some(given) = &mount.tmpfs_options {
        options.extend(given.size_bytes.map(|size| format!("size={size}")));
        options.extend(given.mode.map(|mode| format!("mode={mode:o}")));
        options.extend(
            given
                .options
                .iter()
                .flatten()
                .map(|option| option.join("=")),
        );
    }
    if mount.read_only == Some(true) {
        options.push("ro".into());
    }
    let destination = absolute(mount.target.as_deref().unwrap_or_default())?;
    Ok(json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options}))
}

fn kernel_has(file_system: &str) -> bool {
    std::fs::read_to_string("/proc/filesystems")
        .is_ok_and(|list| list.split_whitespace().any(|known| known == file_system))
}

/// An absolute path inside, in its simplest form.
pub(super) fn absolute(path: &str) -> Result<String> {
    let given = Path::new(path);
    if !given.is_absolute() {
        return Err(AgentError::invalid(format!(
            "invalid mount path: '{path}' mount path must be absolute"
        )));
    }
    let mut simple = PathBuf::from("/");
    for part in given.components() {
        match part {
            Component::Normal(name) => simple.push(name),
            Component::ParentDir => {
                simple.pop();
            }
            _ => {}
        }
    }
    if simple == Path::new("/") {
        return Err(AgentError::invalid(
            "invalid specification: destination can't be '/'",
        ));
    }
    Ok(simple.to_string_lossy().into_owned())
}
