//! Devices of a container: those it has, those it may open, and how much of a disk
//! it may use.

use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use guest_protocol::{
    AgentError,
    docker::{DeviceMapping, HostConfig},
};
use serde_json::{Value, json};

use crate::{
    error::{Context, Result},
    runtime::devices::{self, Rule},
};

/// The most devices that a folder given with `--device` may hold.
const MOST_DEVICES: usize = 1024;

/// What of the machine's `/dev` is no device of a privileged container: those that
/// every container has of its own, and folders of other things.
const NOT_SHARED: [&str; 10] = [
    "console", "fd", "full", "mqueue", "null", "ptmx", "pts", "shm", "tty", "zero",
];

/// A device that a container is given.
#[derive(Debug, Clone)]
struct Device {
    /// Where it is inside.
    path: PathBuf,
    /// `b` or `c`.
    kind: &'static str,
    metadata: Metadata,
    /// Letters of `rwm`.
    access: String,
}

impl Device {
    fn numbers(&self) -> (u32, u32) {
        numbers(&self.metadata)
    }
}

/// The `devices` of a specification, beyond those that every container has.
///
/// # Errors
/// When the machine has no such device.
pub(crate) fn of(host: &HostConfig) -> Result<Vec<Value>> {
    let mut devices: BTreeMap<PathBuf, Device> = BTreeMap::new();
    if host.privileged == Some(true) {
        let all = inside(Path::new("/dev"), Path::new("/dev"), "rwm")
            .context("cannot look for the machine's devices")?;
        devices.extend(all.into_iter().map(|device| (device.path.clone(), device)));
        for name in NOT_SHARED {
            devices.retain(|path, _| !path.starts_with(Path::new("/dev").join(name)));
        }
    }
    for device in added(host)? {
        devices.insert(device.path.clone(), device);
    }
    Ok(devices
        .into_values()
        .map(|device| {
            let (major, minor) = device.numbers();
            json!({
                "path": device.path,
                "type": device.kind,
                "major": major,
                "minor": minor,
                "fileMode": device.metadata.mode() & 0o777,
                "uid": device.metadata.uid(),
                "gid": device.metadata.gid(),
            })
        })
        .collect())
}

/// The devices that a container may open; `None` for all.
///
/// # Errors
/// When a rule cannot be understood, or the machine has no such device.
pub(crate) fn rules(host: &HostConfig) -> Result<Option<Vec<Rule>>> {
    if host.privileged == Some(true) {
        return Ok(None);
    }
    let mut rules = devices::ALWAYS.to_vec();
    for text in host.device_cgroup_rules.iter().flatten() {
        // `a` stands for both kinds.
        let kinds = match text.strip_prefix("a ") {
            Some(rest) => vec![format!("b {rest}"), format!("c {rest}")],
            None => vec![text.clone()],
        };
        for kind in kinds {
            rules.push(Rule::parse(&kind).ok_or_else(|| {
                AgentError::invalid(format!("invalid device cgroup rule format: '{text}'"))
            })?);
        }
    }
    for device in added(host)? {
        let (major, minor) = device.numbers();
        let rule = Rule::new(device.kind, Some(major), Some(minor), &device.access);
        rules.push(rule.ok_or_else(|| {
            AgentError::invalid(format!("invalid device permissions: {:?}", device.access))
        })?);
    }
    Ok(Some(rules))
}

/// The devices given with `--device`.
fn added(host: &HostConfig) -> Result<Vec<Device>> {
    let mut all = Vec::new();
    for mapping in host.devices.iter().flatten() {
        all.extend(mapped(mapping)?);
    }
    Ok(all)
}

/// One `--device`: a device, or all those in a folder.
fn mapped(mapping: &DeviceMapping) -> Result<Vec<Device>> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let source = mapping.path_on_host.clone().unwrap_or_default();
    let target = given(&mapping.path_in_container).unwrap_or_else(|| source.clone());
    let access = given(&mapping.cgroup_permissions).unwrap_or_else(|| "rwm".to_owned());
    let gathering =
        format!("error gathering device information while adding custom device {source:?}");
    let metadata = fs::metadata(&source).context(&gathering)?;
    if !Path::new(&target).starts_with("/dev") || target.contains("..") {
        return Err(AgentError::invalid(format!(
            "invalid device path {target:?}: devices of a container are in /dev"
        )));
    }
    if metadata.is_dir() {
        return inside(Path::new(&source), Path::new(&target), &access).context(&gathering);
    }
    let kind = kind(&metadata)
        .ok_or_else(|| AgentError::invalid(format!("{gathering}: not a device node")))?;
    Ok(vec![Device {
        path: target.into(),
        kind,
        metadata,
        access,
    }])
}

/// The devices in a folder of the machine and in those below, as they are named in
/// the container's folder `target`.
fn inside(folder: &Path, target: &Path, access: &str) -> io::Result<Vec<Device>> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), target.to_owned())];
    while let Some((folder, target)) = folders.pop() {
        for item in fs::read_dir(folder)? {
            let item = item?;
            let metadata = item.metadata()?;
            let path = target.join(item.file_name());
            if metadata.is_dir() {
                folders.push((item.path(), path));
            } else if let Some(kind) = kind(&metadata) {
                found.push(Device {
                    path,
                    kind,
                    metadata,
                    access: access.to_owned(),
                });
            }
            if found.len() > MOST_DEVICES {
                return Err(io::Error::other("it has too many devices"));
            }
        }
    }
    Ok(found)
}

fn kind(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_char_device() {
        Some("c")
    } else if kind.is_block_device() {
        Some("b")
    } else {
        None
    }
}

fn numbers(metadata: &Metadata) -> (u32, u32) {
    let device = metadata.rdev();
    (rustix::fs::major(device), rustix::fs::minor(device))
}

/// A limit on the use of a disk.
#[derive(Debug)]
pub(super) struct Throttled {
    /// As OCI names it.
    pub(super) name: &'static str,
    pub(super) major: u32,
    pub(super) minor: u32,
    /// Bytes or operations a second.
    pub(super) rate: i64,
}

/// The limits on the use of disks.
///
/// # Errors
/// When the machine has no such disk.
pub(super) fn throttled(host: &HostConfig) -> Result<Vec<Throttled>> {
    let lists = [
        ("throttleReadBpsDevice", &host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", &host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", &host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", &host.blkio_device_write_iops),
    ];
    let mut all = Vec::new();
    for (name, list) in lists {
        for device in list.iter().flatten() {
            // Zero is no limit.
            let Some(rate) = device.rate.filter(|rate| *rate > 0) else {
                continue;
            };
            let (major, minor) = block_device(device.path.as_deref().unwrap_or_default())?;
            all.push(Throttled {
                name,
                major,
                minor,
                rate,
            });
        }
    }
    Ok(all)
}

/// The numbers of a disk of the machine.
///
/// # Errors
/// When there is none.
pub(super) fn block_device(path: &str) -> Result<(u32, u32)> {
    let metadata = fs::metadata(path).map_err(|error| {
        AgentError::invalid(format!("cannot limit the use of device {path}: {error}"))
    })?;
    if !metadata.file_type().is_block_device() {
        return Err(AgentError::invalid(format!(
            "cannot limit the use of device {path}: it is no block device"
        )));
    }
    Ok(numbers(&metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_device(source: &str, target: &str, access: &str) -> HostConfig {
        HostConfig {
            devices: Some(vec![DeviceMapping {
                path_on_host: Some(source.into()),
                path_in_container: Some(target.into()),
                cgroup_permissions: Some(access.into()),
            }]),
            ..HostConfig::default()
        }
    }

    #[test]
    fn a_device_is_given_under_its_name_inside() {
        let host = with_device("/dev/null", "/dev/nothing", "r");
        let devices = of(&host).unwrap();
        assert_eq!(devices[0]["path"], "/dev/nothing");
        assert_eq!(
            (&devices[0]["major"], &devices[0]["minor"]),
            (&json!(1), &json!(3))
        );
        let rules = rules(&host).unwrap().unwrap();
        assert_eq!(rules.last(), Rule::new("c", Some(1), Some(3), "r").as_ref());
    }

    #[test]
    fn what_is_no_device_is_refused() {
        for (source, target, access, message) in [
            (
                "/dev/no-such",
                "/dev/x",
                "rwm",
                "error gathering device information while adding custom device \"/dev/no-such\"",
            ),
            ("/etc/hostname", "/dev/x", "rwm", "not a device node"),
            (
                "/dev/null",
                "/x",
                "rwm",
                "devices of a container are in /dev",
            ),
            (
                "/dev/null",
                "/dev/../x",
                "rwm",
                "devices of a container are in /dev",
            ),
            ("/dev/null", "/dev/x", "x", "invalid device permissions"),
        ] {
            let host = with_device(source, target, access);
            let error = of(&host).and(rules(&host).map(drop)).unwrap_err();
            assert!(error.message.contains(message), "{error}");
        }
    }

    #[test]
    fn all_devices_are_a_privileged_containers() {
        let host = HostConfig {
            privileged: Some(true),
            ..HostConfig::default()
        };
        assert_eq!(rules(&host).unwrap(), None);
        let devices = of(&host).unwrap();
        let has = |path: &str| devices.iter().any(|device| device["path"] == path);
        assert!(has("/dev/random") && !has("/dev/null") && !has("/dev/ptmx"));
    }

    #[test]
    fn a_rule_for_all_kinds_is_two() {
        let host = HostConfig {
            device_cgroup_rules: Some(vec!["a 7:* rw".into()]),
            ..HostConfig::default()
        };
        let count = rules(&host).unwrap().unwrap().len();
        assert_eq!(count, devices::ALWAYS.len() + 2);
        let host = HostConfig {
            device_cgroup_rules: Some(vec!["x".into()]),
            ..HostConfig::default()
        };
        assert!(rules(&host).is_err());
    }
}
