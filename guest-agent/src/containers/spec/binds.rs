//! Bind mounts of the host's files: what of `Binds` and `Mounts` names a path on the
//! host, and how it is to be mounted.
//!
//! Reads requests and makes nothing. Whether the path exists is known on the host,
//! where it was shared before the agent is asked.

use guest_protocol::{
    AgentError,
    docker::{Mount, MountBindOptions, MountPoint, MountPointTypeEnum},
};
use rustix::mount::MountPropagationFlags;
use serde_json::{Value, json};

use crate::error::Result;

/// How changes of mounts travel; Docker's words, which are mount(8)'s.
const PROPAGATIONS: [&str; 6] = [
    "private", "rprivate", "shared", "rshared", "slave", "rslave",
];

/// What Docker gives a bind mount that says nothing.
const DEFAULT_PROPAGATION: &str = "rprivate";

/// Whether `option` of a bind says how changes of mounts travel.
pub(super) fn is_propagation(option: &str) -> bool {
    PROPAGATIONS.contains(&option)
}

/// Whether a bind's source is a path on the host.
pub(super) fn is_host_path(source: &str) -> bool {
    source.starts_with('/')
}

/// The mount of `source:/destination:mode`, whose options were checked.
pub(super) fn from_bind(source: &str, destination: String, mode: &str) -> MountPoint {
    let propagation = mode.split(',').find(|option| is_propagation(option));
    point(
        source,
        destination,
        mode,
        !mode.split(',').any(|option| option == "ro"),
        propagation,
    )
}

/// The mount of one of `Mounts` with the type `bind`.
///
/// # Errors
/// In Docker's words, for what makes no sense.
pub(super) fn from_mount(mount: &Mount, destination: String) -> Result<MountPoint> {
    let invalid = |reason: &str| {
        AgentError::invalid(format!("invalid mount config for type \"bind\": {reason}"))
    };
    let source = mount.source.as_deref().unwrap_or_default();
    if source.is_empty() {
        return Err(invalid("field Source must not be empty"));
    }
    if !is_host_path(source) {
        return Err(invalid(&format!(
            "invalid mount path: '{source}' mount path must be absolute"
        )));
    }
    if mount.volume_options.is_some() {
        return Err(invalid("field VolumeOptions must not be specified"));
    }
    let options = mount.bind_options.as_ref();
    let asks = |option: fn(&MountBindOptions) -> Option<bool>| {
        options.and_then(option).unwrap_or_default()
    };
    if asks(|options| options.read_only_force_recursive) && mount.read_only != Some(true) {
        return Err(invalid(
            "mount source must be read-only when ReadOnlyForceRecursive is set",
        ));
    }
    // A share has all that is mounted in its folder, and refuses changes of all or none.
    if asks(|options| options.non_recursive) {
        return Err(invalid(
            "what is mounted inside a folder of the host is always shared with it \
             (bind-recursive=disabled is not supported)",
        ));
    }
    if asks(|options| options.read_only_non_recursive) {
        return Err(invalid(
            "what is mounted inside a read-only folder of the host is read-only, too \
             (bind-recursive=writable is not supported)",
        ));
    }
    let propagation = options
        .and_then(|options| options.propagation)
        .map(|propagation| propagation.to_string())
        .filter(|propagation| !propagation.is_empty());
    if let Some(propagation) = &propagation
        && !is_propagation(propagation)
    {
        return Err(invalid(&format!("invalid propagation mode: {propagation}")));
    }
    Ok(point(
        source,
        destination,
        "",
        mount.read_only != Some(true),
        propagation.as_deref(),
    ))
}

fn point(
    source: &str,
    destination: String,
    mode: &str,
    writable: bool,
    propagation: Option<&str>,
) -> MountPoint {
    MountPoint {
        typ: Some(MountPointTypeEnum::BIND),
        source: Some(simple(source)),
        destination: Some(destination),
        mode: Some(mode.to_owned()),
        rw: Some(writable),
        propagation: Some(propagation.unwrap_or(DEFAULT_PROPAGATION).to_owned()),
        ..MountPoint::default()
    }
}

/// A path on the host in its simplest form, as the engine shared it.
fn simple(path: &str) -> String {
    guest_protocol::share::clean_path(path)
}

/// Whether `point` is a file or folder of the host.
pub(crate) fn is_bind(point: &MountPoint) -> bool {
    point.typ == Some(MountPointTypeEnum::BIND)
}

/// How changes of mounts are to travel between a bind mount and the machine's side of
/// it; what the runtime does not set.
pub(crate) fn propagation(point: &MountPoint) -> MountPropagationFlags {
    let word = point.propagation.as_deref().unwrap_or(DEFAULT_PROPAGATION);
    let (word, recursive) = match word.strip_prefix('r') {
        Some(word) => (word, MountPropagationFlags::REC),
        None => (word, MountPropagationFlags::empty()),
    };
    recursive
        | match word {
            "shared" => MountPropagationFlags::SHARED,
            "slave" => MountPropagationFlags::DOWNSTREAM,
            _ => MountPropagationFlags::PRIVATE,
        }
}

/// The OCI mount options of a bind mount.
pub(super) fn options(point: &MountPoint) -> Value {
    let propagation = point
        .propagation
        .as_deref()
        .filter(|propagation| is_propagation(propagation))
        .unwrap_or(DEFAULT_PROPAGATION);
    let access = if point.rw == Some(false) { "ro" } else { "rw" };
    json!(["rbind", propagation, access])
}

/// How the container's root must pass on changes of mounts for its bind mounts to.
pub(super) fn root_propagation<'a>(
    points: impl Iterator<Item = &'a MountPoint>,
) -> Option<&'static str> {
    let mut wanted = None;
    for point in points.filter(|point| is_bind(point)) {
        match point.propagation.as_deref() {
            Some("shared" | "rshared") => return Some("shared"),
            Some("slave" | "rslave") => wanted = Some("slave"),
            _ => {}
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use guest_protocol::docker::MountBindOptionsPropagationEnum;

    use super::*;

    #[test]
    fn a_bind_is_shown_as_docker_does() {
        let point = from_bind("/src/./a//b/../c/", "/x".into(), "ro,rslave,z");
        assert_eq!(point.source.as_deref(), Some("/src/a/c"));
        assert_eq!(point.mode.as_deref(), Some("ro,rslave,z"));
        assert_eq!(point.propagation.as_deref(), Some("rslave"));
        assert_eq!(options(&point), json!(["rbind", "rslave", "ro"]));
        assert_eq!(
            propagation(&point),
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC
        );
        assert_eq!(root_propagation([&point].into_iter()), Some("slave"));
        let point = from_bind("/src", "/x".into(), "");
        assert_eq!(point.rw, Some(true));
        assert_eq!(options(&point), json!(["rbind", "rprivate", "rw"]));
        assert_eq!(root_propagation([&point].into_iter()), None);
    }

    #[test]
    fn a_mount_is_checked_as_docker_does() {
        let mount = |source: &str| Mount {
            source: Some(source.to_owned()),
            read_only: Some(true),
            bind_options: Some(MountBindOptions {
                propagation: Some(MountBindOptionsPropagationEnum::RSHARED),
                ..MountBindOptions::default()
            }),
            ..Mount::default()
        };
        let point = from_mount(&mount("/a"), "/x".into()).unwrap();
        assert_eq!(options(&point), json!(["rbind", "rshared", "ro"]));
        assert_eq!(point.mode.as_deref(), Some(""));
        for (source, reason) in [
            ("", "field Source must not be empty"),
            ("a", "mount path must be absolute"),
        ] {
            let error = from_mount(&mount(source), "/x".into()).unwrap_err();
            assert!(error.message.contains(reason), "{error}");
        }
    }

    #[test]
    fn what_is_mounted_inside_goes_with_the_folder() {
        let refused = |options: MountBindOptions, read_only: bool| {
            let mount = Mount {
                source: Some("/a".into()),
                read_only: Some(read_only),
                bind_options: Some(options),
                ..Mount::default()
            };
            from_mount(&mount, "/x".into())
                .err()
                .map(|error| error.message)
        };
        let forced = || MountBindOptions {
            read_only_force_recursive: Some(true),
            ..MountBindOptions::default()
        };
        assert_eq!(refused(forced(), true), None);
        assert!(
            refused(forced(), false)
                .unwrap()
                .contains("must be read-only")
        );
        let alone = MountBindOptions {
            non_recursive: Some(true),
            ..MountBindOptions::default()
        };
        assert!(
            refused(alone, false)
                .unwrap()
                .contains("bind-recursive=disabled")
        );
        let writable = MountBindOptions {
            read_only_non_recursive: Some(true),
            ..MountBindOptions::default()
        };
        assert!(
            refused(writable, true)
                .unwrap()
                .contains("bind-recursive=writable")
        );
    }
}
