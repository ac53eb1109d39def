//! The volumes and other mounts that a container asks for: `Binds` ([`binds`] knows
//! those of the host's files), `Mounts`,
//! `VolumesFrom`, and the `Volumes` of its image and its own configuration, by
//! Docker's rules of precedence.
//!
//! Reads requests and makes nothing.

use std::collections::BTreeMap;

use guest_protocol::{
    AgentError,
    docker::{ContainerConfig, HostConfig, Mount, MountPoint, MountPointTypeEnum, MountTypeEnum},
};
use serde::{Deserialize, Serialize};

use super::{
    binds,
    mounts::{absolute, tmpfs},
};
use crate::{
    error::Result,
    volumes::{Wanted, check_name},
};

/// What of a mounted volume its [`MountPoint`] does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Details {
    /// Do not fill it from the image.
    pub(crate) no_copy: bool,
    /// Only this folder in it; empty for all of it.
    pub(crate) subpath: String,
}

/// Something that is to be mounted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Request {
    /// A volume, made if need be.
    Volume(Box<VolumeRequest>),
    /// A tmpfs that `inspect` shows, or files of the host: nothing is to be made.
    Plain(MountPoint),
    /// What another container has.
    Shared(MountPoint, Details),
}

/// A volume that a container asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeRequest {
    pub(crate) wanted: Wanted,
    pub(crate) destination: String,
    pub(crate) writable: bool,
    /// As inspect shows it.
    pub(crate) mode: String,
    pub(crate) details: Details,
}

/// All that a container asks for, each destination once. `others` gives the mounts of
/// another container.
///
/// # Errors
/// For what makes no sense.
pub(crate) fn requests(
    config: &ContainerConfig,
    host: &HostConfig,
    others: impl Fn(&str) -> Result<Vec<(MountPoint, Details)>>,
) -> Result<Vec<Request>> {
    let mut requests: BTreeMap<String, Request> = BTreeMap::new();
    for text in host.volumes_from.iter().flatten() {
        let (container, writable) = parse_volumes_from(text)?;
        for (mut point, details) in others(container)? {
            if !writable {
                point.rw = Some(false);
            }
            let destination = point.destination.clone().unwrap_or_default();
            requests.insert(destination, Request::Shared(point, details));
        }
    }
    let mut taken: Vec<String> = Vec::new();
    for (destination, _) in host.tmpfs.iter().flatten() {
        taken.push(absolute(destination)?);
    }
    let mut add = |destination: String, request: Request| {
        if taken.contains(&destination) {
            return Err(AgentError::invalid(format!(
                "Duplicate mount point: {destination}"
            )));
        }
        taken.push(destination.clone());
        requests.insert(destination, request);
        Ok(())
    };
    for text in host.binds.iter().flatten() {
        let (destination, request) = parse_bind(text)?;
        add(destination, request)?;
    }
    for mount in host.mounts.iter().flatten() {
        let (destination, request) = parse_mount(mount)?;
        add(destination, request)?;
    }
    for path in config.volumes.iter().flatten().map(|(path, _)| path) {
        let destination = absolute(path)?;
        if taken.contains(&destination) {
            continue;
        }
        requests.entry(destination.clone()).or_insert_with(|| {
            Request::Volume(Box::new(VolumeRequest {
                wanted: Wanted::default(),
                destination,
                writable: true,
                mode: String::new(),
                details: Details::default(),
            }))
        });
    }
    Ok(requests.into_values().collect())
}

/// `container[:mode]`.
fn parse_volumes_from(text: &str) -> Result<(&str, bool)> {
    let (container, mode) = text.split_once(':').unwrap_or((text, "rw"));
    if container.is_empty() {
        return Err(AgentError::invalid(format!(
            "malformed volumes-from specification: {text}"
        )));
    }
    match mode {
        "rw" | "z" | "Z" | "rw,z" | "rw,Z" => Ok((container, true)),
        "ro" | "ro,z" | "ro,Z" => Ok((container, false)),
        _ => Err(AgentError::invalid(format!("invalid mode: {mode}"))),
    }
}

/// `volume:/destination[:options]`, `/source:/destination[:options]` or
/// `/destination`: where, and what.
fn parse_bind(text: &str) -> Result<(String, Request)> {
    let invalid = |reason: &str| {
        AgentError::invalid(if reason.is_empty() {
            format!("invalid volume specification: '{text}'")
        } else {
            format!("invalid volume specification: '{text}': {reason}")
        })
    };
    let fields: Vec<&str> = text.split(':').collect();
    let (source, destination, mode) = match fields.as_slice() {
        [destination] => (None, *destination, ""),
        [source, destination] => (Some(*source), *destination, ""),
        [source, destination, mode] => (Some(*source), *destination, *mode),
        _ => return Err(invalid("")),
    };
    if let Some(source) = source {
        if source.is_empty() || destination.is_empty() {
            return Err(invalid(""));
        }
        if !binds::is_host_path(source) {
            check_name(source)?;
        }
    }
    let host_path = source.filter(|source| binds::is_host_path(source));
    let mut writable = true;
    let mut details = Details::default();
    let mut seen: Vec<&str> = Vec::new();
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        let group = match option {
            "ro" | "rw" => "access",
            "z" | "Z" => "label",
            "nocopy" => "copy",
            "cached" | "delegated" | "consistent" => "consistency",
            _ if host_path.is_some() && binds::is_propagation(option) => "propagation",
            _ => return Err(AgentError::invalid(format!("invalid mode: {mode}"))),
        };
        if seen.contains(&group) {
            return Err(AgentError::invalid(format!("invalid mode: {mode}")));
        }
        seen.push(group);
        writable &= option != "ro";
        details.no_copy |= option == "nocopy";
    }
    let destination = absolute(destination).map_err(|error| invalid(&error.message))?;
    if let Some(path) = host_path {
        let point = binds::from_bind(path, destination.clone(), mode);
        return Ok((destination, Request::Plain(point)));
    }
    let request = VolumeRequest {
        wanted: Wanted {
            name: source.map(str::to_owned),
            ..Wanted::default()
        },
        destination: destination.clone(),
        writable,
        // What Docker shows for a volume without one.
        mode: if mode.is_empty() { "z" } else { mode }.to_owned(),
        details,
    };
    Ok((destination, Request::Volume(Box::new(request))))
}

/// One of `Mounts`: where, and what.
fn parse_mount(mount: &Mount) -> Result<(String, Request)> {
    let kind = mount.typ.unwrap_or(MountTypeEnum::EMPTY);
    let invalid = |reason: &str| {
        AgentError::invalid(format!(
            "invalid mount config for type \"{kind}\": {reason}"
        ))
    };
    let source = mount.source.as_deref().unwrap_or_default();
    match kind {
        MountTypeEnum::VOLUME | MountTypeEnum::TMPFS | MountTypeEnum::BIND => {}
        MountTypeEnum::EMPTY => return Err(invalid("mount type unknown")),
        _ => return Err(invalid("this type of mount is not supported")),
    }
    let target = mount.target.as_deref().unwrap_or_default();
    if target.is_empty() {
        return Err(invalid("field Target must not be empty"));
    }
    let destination = absolute(target).map_err(|error| invalid(&error.message))?;
    if kind == MountTypeEnum::BIND {
        let point = binds::from_mount(mount, destination.clone())?;
        return Ok((destination, Request::Plain(point)));
    }
    if kind == MountTypeEnum::TMPFS {
        if !source.is_empty() {
            return Err(invalid("field Source must not be specified"));
        }
        tmpfs(mount)?;
        let point = MountPoint {
            typ: Some(MountPointTypeEnum::TMPFS),
            source: Some(String::new()),
            destination: Some(destination.clone()),
            mode: Some(String::new()),
            rw: Some(mount.read_only != Some(true)),
            propagation: Some(String::new()),
            ..MountPoint::default()
        };
        return Ok((destination, Request::Plain(point)));
    }
    let options = mount.volume_options.clone().unwrap_or_default();
    let subpath = options.subpath.unwrap_or_default();
    let is_inside = subpath
        .split('/')
        .all(|part| part != ".." && !part.contains('\0'))
        && !subpath.starts_with('/');
    if !is_inside {
        return Err(invalid("subpath must be a relative path within the volume"));
    }
    if !subpath.is_empty() && source.is_empty() {
        return Err(invalid("must not set Subpath when using anonymous volumes"));
    }
    if !source.is_empty() {
        check_name(source)?;
    }
    let driver = options.driver_config.unwrap_or_default();
    let request = VolumeRequest {
        wanted: Wanted {
            name: (!source.is_empty()).then(|| source.to_owned()),
            driver: driver.name.unwrap_or_default(),
            options: driver.options.into_iter().flatten().collect(),
            labels: options.labels.into_iter().flatten().collect(),
        },
        destination: destination.clone(),
        writable: mount.read_only != Some(true),
        mode: "z".to_owned(),
        details: Details {
            no_copy: options.no_copy == Some(true),
            subpath,
        },
    };
    Ok((destination, Request::Volume(Box::new(request))))
}

/// A volume as `inspect` shows it.
pub(crate) fn mount_point(request: &VolumeRequest, name: &str, source: &str) -> MountPoint {
    MountPoint {
        typ: Some(MountPointTypeEnum::VOLUME),
        name: Some(name.to_owned()),
        source: Some(source.to_owned()),
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

    fn of(config: &ContainerConfig, host: &HostConfig) -> Result<Vec<Request>> {
        requests(config, host, |name| {
            Err(AgentError::no_such_container(name))
        })
    }

    #[allow(clippy::zero_sized_map_values, reason = "Docker's type for a set")]
    fn config(paths: &[&str]) -> ContainerConfig {
        ContainerConfig {
            volumes: Some(
                paths
                    .iter()
                    .map(|&path| (path.to_owned(), HashMap::new()))
                    .collect(),
            ),
            ..ContainerConfig::default()
        }
    }

    #[test]
    fn volumes_of_every_kind_are_collected_once() {
        let found = of(
            &config(&["/data/", "/var/lib/x"]),
            &host(&["store:/data:ro", "/cache"]),
        )
        .unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|request| match request {
                Request::Volume(volume) => (
                    volume.destination.as_str(),
                    volume.wanted.name.as_deref(),
                    volume.writable,
                ),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("/cache", None, true),
                ("/data", Some("store"), false),
                ("/var/lib/x", None, true),
            ]
        );
    }

    #[test]
    fn what_cannot_be_mounted_is_refused() {
        for (bind, reason) in [
            ("./x:/data", "invalid characters for a local volume name"),
            ("~/x:/data", "invalid characters for a local volume name"),
            ("/host:/data:shared,slave", "invalid mode: shared,slave"),
            ("name:/data:shared", "invalid mode: shared"),
            ("ab:b:c:d", "invalid volume specification"),
            ("name:relative", "mount path must be absolute"),
            ("name:/", "destination can't be '/'"),
            ("name:/x:wrong", "invalid mode: wrong"),
            ("name:/x:ro,rw", "invalid mode: ro,rw"),
            ("x:/a", "too short"),
            ("name:", "invalid volume specification"),
        ] {
            let error = of(&ContainerConfig::default(), &host(&[bind])).unwrap_err();
            assert!(error.message.contains(reason), "{bind}: {error}");
        }
        let twice = of(&ContainerConfig::default(), &host(&["one:/x", "two:/x/"]));
        assert_eq!(twice.unwrap_err().message, "Duplicate mount point: /x");
    }

    #[test]
    fn what_another_container_has_gives_way_to_what_is_asked_for() {
        let theirs = |name: &str| {
            assert_eq!(name, "other");
            Ok(["/a", "/b"]
                .map(|path| {
                    let point = MountPoint {
                        destination: Some(path.to_owned()),
                        name: Some("theirs".to_owned()),
                        rw: Some(true),
                        ..MountPoint::default()
                    };
                    (point, Details::default())
                })
                .into())
        };
        let host = HostConfig {
            volumes_from: Some(vec!["other:ro".to_owned()]),
            ..host(&["mine:/b"])
        };
        let found = requests(&config(&["/a"]), &host, theirs).unwrap();
        assert_eq!(found.len(), 2);
        assert!(matches!(&found[0], Request::Shared(point, _) if point.rw == Some(false)));
        assert!(
            matches!(&found[1], Request::Volume(volume) if volume.wanted.name.as_deref() == Some("mine"))
        );
        assert!(parse_volumes_from("x:maybe").is_err());
        assert!(parse_volumes_from(":ro").is_err());
    }

    #[test]
    fn mounts_are_checked_as_docker_does() {
        let mount = |change: fn(&mut Mount)| {
            let mut mount = Mount {
                typ: Some(MountTypeEnum::VOLUME),
                source: Some("store".to_owned()),
                target: Some("/x".to_owned()),
                ..Mount::default()
            };
            change(&mut mount);
            parse_mount(&mount).map_err(|error| error.message)
        };
        assert!(mount(|_| {}).is_ok());
        for (change, reason) in [
            (
                (|m| m.target = None) as fn(&mut Mount),
                "field Target must not be empty",
            ),
            (
                |m| m.target = Some("x".into()),
                "mount path must be absolute",
            ),
            (
                |m| m.typ = Some(MountTypeEnum::BIND),
                "'store' mount path must be absolute",
            ),
            (|m| m.typ = Some(MountTypeEnum::NPIPE), "not supported"),
            (
                |m| m.typ = Some(MountTypeEnum::TMPFS),
                "field Source must not",
            ),
            (
                |m| m.volume_options.get_or_insert_default().subpath = Some("../x".into()),
                "subpath",
            ),
        ] {
            let error = mount(change).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
