//! What is mounted into a container: the kernel's file systems, the files that
//! the agent makes for it, its volumes and its tmpfs.

use std::{
    ffi::CString,
    io,
    path::{Component, Path, PathBuf},
};

use guest_protocol::{
    AgentError,
    docker::{ContainerConfig, HostConfig, Mount, MountPoint, MountPointTypeEnum, MountTypeEnum},
};
use rustix::mount::{MountFlags, mount};
use serde_json::{Value, json};

use super::Sources;
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
        if let (Some(source), Some(destination)) = (&volume.source, &volume.destination) {
            own.push(bind(
                Path::new(source),
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

fn tmpfs(mount: &Mount) -> Result<Value> {
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

/// A volume that a container asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeRequest {
    /// `None` for an anonymous one.
    pub(crate) name: Option<String>,
    pub(crate) destination: String,
    pub(crate) writable: bool,
    pub(crate) mode: String,
}

/// The volumes of a container: of `Binds`, `Mounts` and the image's and user's
/// `Volumes`, each destination once.
///
/// # Errors
/// For paths on the host, which are not shared into machines yet, and for what
/// makes no sense.
pub(crate) fn volumes(config: &ContainerConfig, host: &HostConfig) -> Result<Vec<VolumeRequest>> {
    let mut requests: Vec<VolumeRequest> = Vec::new();
    let mut add = |request: VolumeRequest, duplicate_is_error: bool| {
        if requests
            .iter()
            .any(|known| known.destination == request.destination)
        {
            if duplicate_is_error {
                return Err(AgentError::invalid(format!(
                    "Duplicate mount point: {}",
                    request.destination
                )));
            }
            return Ok(());
        }
        requests.push(request);
        Ok(())
    };
    for text in host.binds.iter().flatten() {
        add(parse_bind(text)?, true)?;
    }
    for mount in host.mounts.iter().flatten() {
        match mount.typ {
            Some(MountTypeEnum::VOLUME) => {
                let name = mount.source.clone().filter(|name| !name.is_empty());
                if let Some(name) = &name {
                    check_volume_name(name)?;
                }
                add(
                    VolumeRequest {
                        name,
                        destination: absolute(mount.target.as_deref().unwrap_or_default())?,
                        writable: mount.read_only != Some(true),
                        mode: String::new(),
                    },
                    true,
                )?;
            }
            Some(MountTypeEnum::TMPFS) => {
                tmpfs(mount)?;
            }
            Some(MountTypeEnum::BIND) => {
                return Err(no_host_paths(mount.source.as_deref().unwrap_or_default()));
            }
            _ => return Err(AgentError::invalid("this type of mount is not supported")),
        }
    }
    let tmpfs: Vec<String> = host
        .tmpfs
        .iter()
        .flatten()
        .map(|(destination, _)| absolute(destination))
        .collect::<Result<_>>()?;
    let mut anonymous: Vec<&String> = config
        .volumes
        .iter()
        .flatten()
        .map(|(path, _)| path)
        .collect();
    anonymous.sort();
    for path in anonymous {
        let destination = absolute(path)?;
        if !tmpfs.contains(&destination) {
            add(
                VolumeRequest {
                    name: None,
                    destination,
                    writable: true,
                    mode: String::new(),
                },
                false,
            )?;
        }
    }
    Ok(requests)
}

/// `volume:/destination[:options]` or `/destination`.
fn parse_bind(text: &str) -> Result<VolumeRequest> {
    let fields: Vec<&str> = text.split(':').collect();
    let (source, destination, mode) = match fields.as_slice() {
        [destination] => (None, *destination, ""),
        [source, destination] => (Some(*source), *destination, ""),
        [source, destination, mode] => (Some(*source), *destination, *mode),
        _ => {
            return Err(AgentError::invalid(format!(
                "invalid volume specification: '{text}'"
            )));
        }
    };
    if let Some(source) = source {
        if source.starts_with(['/', '.', '~']) {
            return Err(no_host_paths(source));
        }
        check_volume_name(source)?;
    }
    let mut writable = true;
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => writable = false,
            "rw" | "z" | "Z" | "nocopy" | "cached" | "delegated" | "consistent" => {}
            _ => {
                return Err(AgentError::invalid(format!(
                    "invalid mode in volume specification '{text}': {option}"
                )));
            }
        }
    }
    Ok(VolumeRequest {
        name: source.map(str::to_owned),
        destination: absolute(destination)?,
        writable,
        mode: mode.to_owned(),
    })
}

fn no_host_paths(path: &str) -> AgentError {
    AgentError::invalid(format!(
        "cannot mount {path:?}: folders of the host are not shared into machines yet; use a volume"
    ))
}

fn check_volume_name(name: &str) -> Result<()> {
    let valid = (2..=255).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|next| next.is_ascii_alphanumeric() || "_.-".contains(next));
    if valid {
        return Ok(());
    }
    Err(AgentError::invalid(format!(
        "{name:?} includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed"
    )))
}

/// An absolute path inside, in its simplest form.
fn absolute(path: &str) -> Result<String> {
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

/// A volume as `inspect` shows it.
pub(crate) fn mount_point(request: &VolumeRequest, name: &str, source: &Path) -> MountPoint {
    MountPoint {
        typ: Some(MountPointTypeEnum::VOLUME),
        name: Some(name.to_owned()),
        source: Some(source.to_string_lossy().into_owned()),
        destination: Some(request.destination.clone()),
        driver: Some("local".to_owned()),
        mode: Some(request.mode.clone()),
        rw: Some(request.writable),
        propagation: Some(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn host(binds: &[&str]) -> HostConfig {
        HostConfig {
            binds: Some(binds.iter().map(|&bind| bind.to_owned()).collect()),
            ..HostConfig::default()
        }
    }

    #[test]
    #[allow(clippy::zero_sized_map_values, reason = "Docker's type for a set")]
    fn volumes_of_every_kind_are_collected_once() {
        let config = ContainerConfig {
            volumes: Some(HashMap::from([
                ("/data/".into(), HashMap::new()),
                ("/var/lib/x".into(), HashMap::new()),
            ])),
            ..ContainerConfig::default()
        };
        let found = volumes(&config, &host(&["store:/data:ro", "/cache"])).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].name.as_deref(), Some("store"));
        assert!(!found[0].writable);
        assert_eq!(
            (&found[1].name, found[1].destination.as_str()),
            (&None, "/cache")
        );
    }

    #[test]
    fn what_cannot_be_mounted_is_refused() {
        for bind in [
            "/host:/data",
            "./x:/data",
            "a:b:c:d",
            "name:relative",
            "name:/",
            "name:/x:wrong",
            "x:/a",
        ] {
            assert!(
                volumes(&ContainerConfig::default(), &host(&[bind])).is_err(),
                "{bind}"
            );
        }
        assert!(volumes(&ContainerConfig::default(), &host(&["one:/x", "two:/x/"])).is_err());
    }
}
