//! Fields that Docker's types always have, and JSON has not when they are empty.
//!
//! In Docker a template is applied to structs: a list that nobody gave prints as
//! `[]`, a map as `map[]`, a pointer as `<nil>`, and none of them is an error. Here it
//! is applied to JSON; [`empty`] tells what a field that is missing or null there is.
//! Source: the Go types in `github.com/docker/docker/api/types`.

use serde_json::{Map, Value, json};

use super::datum::Datum;

/// A type of Docker's, as far as JSON leaves it out.
struct Type {
    /// The field by which other types have it; empty for the outermost ones.
    name: &'static str,
    /// A field that an object of this type has and others have not.
    mark: &'static str,
    lists: &'static [&'static str],
    maps: &'static [&'static str],
    pointers: &'static [&'static str],
    texts: &'static [&'static str],
    numbers: &'static [&'static str],
    flags: &'static [&'static str],
}

const NONE: Type = Type {
    name: "",
    mark: "",
    lists: &[],
    maps: &[],
    pointers: &[],
    texts: &[],
    numbers: &[],
    flags: &[],
};

const TYPES: &[Type] = &[
    // A container.
    Type {
        mark: "ResolvConfPath",
        lists: &["Args", "ExecIDs", "Mounts"],
        pointers: &[
            "Config",
            "HostConfig",
            "ImageManifestDescriptor",
            "NetworkSettings",
            "SizeRootFs",
            "SizeRw",
            "State",
        ],
        ..NONE
    },
    Type {
        name: "State",
        mark: "OOMKilled",
        pointers: &["Health"],
        ..NONE
    },
    // Of a container and of an image.
    Type {
        name: "Config",
        mark: "AttachStdin",
        lists: &["Cmd", "Entrypoint", "Env", "OnBuild", "Shell"],
        maps: &["ExposedPorts", "Labels", "Volumes"],
        pointers: &["Healthcheck", "StopTimeout"],
        texts: &["MacAddress", "StopSignal", "User", "WorkingDir"],
        flags: &["ArgsEscaped", "NetworkDisabled"],
        ..NONE
    },
    Type {
        name: "Healthcheck",
        mark: "StartInterval",
        lists: &["Test"],
        numbers: &[
            "Interval",
            "Retries",
            "StartInterval",
            "StartPeriod",
            "Timeout",
        ],
        ..NONE
    },
    Type {
        name: "HostConfig",
        mark: "BlkioWeight",
        lists: &[
            "Binds",
            "BlkioDeviceReadBps",
            "BlkioDeviceReadIOps",
            "BlkioDeviceWriteBps",
            "BlkioDeviceWriteIOps",
            "BlkioWeightDevice",
            "CapAdd",
            "CapDrop",
            "DeviceCgroupRules",
            "DeviceRequests",
            "Devices",
            "Dns",
            "DnsOptions",
            "DnsSearch",
            "ExtraHosts",
            "GroupAdd",
            "Links",
            "MaskedPaths",
            "Mounts",
            "ReadonlyPaths",
            "SecurityOpt",
            "Ulimits",
            "VolumesFrom",
        ],
        maps: &[
            "Annotations",
            "PortBindings",
            "StorageOpt",
            "Sysctls",
            "Tmpfs",
        ],
        pointers: &["Init", "MemorySwappiness", "OomKillDisable", "PidsLimit"],
        numbers: &["KernelMemory", "KernelMemoryTCP"],
        ..NONE
    },
    Type {
        name: "NetworkSettings",
        mark: "SandboxKey",
        lists: &["SecondaryIPAddresses", "SecondaryIPv6Addresses"],
        maps: &["Networks", "Ports"],
        ..NONE
    },
    // A container's end point in a network.
    Type {
        mark: "EndpointID",
        lists: &["Aliases", "DNSNames", "Links"],
        maps: &["DriverOpts"],
        pointers: &["IPAMConfig"],
        ..NONE
    },
    // An image.
    Type {
        mark: "RepoDigests",
        lists: &["Manifests", "RepoTags"],
        pointers: &["Config", "Descriptor"],
        texts: &["OsVersion", "Variant"],
        ..NONE
    },
    Type {
        name: "RootFS",
        lists: &["Layers"],
        ..NONE
    },
    // A volume.
    Type {
        mark: "Mountpoint",
        maps: &["Labels", "Options", "Status"],
        pointers: &["ClusterVolume", "UsageData"],
        texts: &["CreatedAt"],
        ..NONE
    },
];

/// What the field `name` of `object` is that is missing or null; `None` when Docker's
/// type has no such field either. `parent` is the field by which `object` was reached.
pub(super) fn empty(
    object: &Map<String, Value>,
    parent: Option<&str>,
    name: &str,
) -> Option<Datum> {
    TYPES
        .iter()
        .filter(|of| {
            let is_named = !of.name.is_empty() && parent == Some(of.name);
            is_named || (!of.mark.is_empty() && object.contains_key(of.mark))
        })
        .find_map(|of| of.empty(name))
}

impl Type {
    fn empty(&self, name: &str) -> Option<Datum> {
        let has = |fields: &[&str]| fields.contains(&name);
        Some(match () {
            () if has(self.lists) => Datum::Nil(json!([])),
            () if has(self.maps) => Datum::Nil(json!({})),
            () if has(self.pointers) => Datum::Nil(Value::Null),
            () if has(self.texts) => Datum::Present(json!("")),
            () if has(self.numbers) => Datum::Present(json!(0)),
            () if has(self.flags) => Datum::Present(json!(false)),
            () => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Template, *};

    #[test]
    fn what_nobody_gave_prints_as_in_docker() {
        let container = json!({
            "ResolvConfPath": "", "ExecIDs": null,
            "State": {"OOMKilled": false},
            "Config": {"AttachStdin": false, "Entrypoint": null},
            "HostConfig": {"BlkioWeight": 0, "CapAdd": null},
            "Mounts": [],
        });
        for (template, expected) in [
            ("{{.Config.Entrypoint}}", "[]"),
            ("{{json .Config.Entrypoint}}", "null"),
            ("{{len .Config.Entrypoint}}", "0"),
            ("{{join .Config.Entrypoint \" \"}}|", "|"),
            ("{{range .Config.Entrypoint}}x{{else}}none{{end}}", "none"),
            ("{{if .Config.Entrypoint}}x{{end}}", ""),
            ("{{printf \"%v\" .Config.Entrypoint}}", "[]"),
            ("{{.Config.ExposedPorts}}", "map[]"),
            ("{{json .Config.ExposedPorts}}", "null"),
            ("{{range $port, $_ := .Config.ExposedPorts}}x{{end}}", ""),
            ("{{.Config.Healthcheck}}", "<nil>"),
            ("{{.Config.StopSignal}}|", "|"),
            ("{{.Config.NetworkDisabled}}", "false"),
            ("{{.State.Health}}", "<nil>"),
            ("{{with .State}}{{.Health}}{{end}}", "<nil>"),
            ("{{json .State.Health}}", "null"),
            ("{{with .State.Health}}x{{else}}none{{end}}", "none"),
            ("{{.HostConfig.CapAdd}} {{.HostConfig.Init}}", "[] <nil>"),
            (
                "{{.HostConfig.Tmpfs}} {{.ExecIDs}} {{.SizeRw}}",
                "map[] [] <nil>",
            ),
            ("{{$all := .Config.Shell}}{{$all}}", "[]"),
        ] {
            let rendered = Template::parse(template).unwrap().render(&container, None);
            assert_eq!(rendered.as_deref(), Ok(expected), "{template}");
        }
        for template in [
            "{{.Config.Nope}}",
            "{{.Health}}",
            "{{.State.Health.Status}}",
        ] {
            let rendered = Template::parse(template).unwrap().render(&container, None);
            assert!(rendered.is_err(), "{template}: {rendered:?}");
        }
    }

    #[test]
    fn an_image_that_configures_nothing() {
        let image = json!({"RepoDigests": [], "RootFS": {}, "Config": {}});
        for (template, expected) in [
            (
                "{{.Config.Cmd}}{{.Config.Env}}{{.Config.Labels}}",
                "[][]map[]",
            ),
            ("{{.Config.User}}{{.Config.WorkingDir}}|", "|"),
            ("{{.RootFS.Layers}} {{.RepoTags}} {{.Variant}}|", "[] [] |"),
        ] {
            let rendered = Template::parse(template).unwrap().render(&image, None);
            assert_eq!(rendered.as_deref(), Ok(expected), "{template}");
        }
    }
}
