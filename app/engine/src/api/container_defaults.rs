//! What a container's description says of options that nobody gave.
//!
//! The generated types leave out what is not set; Docker writes it, and people's
//! templates (`{{.HostConfig.Memory}}`) and programs count on it.

use guest_protocol::container::{MASKED_PATHS, READONLY_PATHS};
use serde_json::{Value, json};

/// A value, and the fields that have it.
type Default = (fn() -> Value, &'static [&'static str]);

/// Values of `HostConfig`, and the fields that have them.
const HOST_CONFIG: &[Default] = &[
    (
        || json!(false),
        &[
            "AutoRemove",
            "Privileged",
            "PublishAllPorts",
            "ReadonlyRootfs",
        ],
    ),
    (
        || Value::Null,
        &[
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
            "MemorySwappiness",
            "OomKillDisable",
            "PidsLimit",
            "PortBindings",
            "SecurityOpt",
            "Ulimits",
            "VolumesFrom",
        ],
    ),
    (
        || json!(0),
        &[
            "BlkioWeight",
            "CpuCount",
            "CpuPercent",
            "CpuPeriod",
            "CpuQuota",
            "CpuRealtimePeriod",
            "CpuRealtimeRuntime",
            "CpuShares",
            "IOMaximumBandwidth",
            "IOMaximumIOps",
            "Memory",
            "MemoryReservation",
            "MemorySwap",
            "NanoCpus",
            "OomScoreAdj",
        ],
    ),
    (
        || json!(""),
        &[
            "Cgroup",
            "CgroupParent",
            "ContainerIDFile",
            "CpusetCpus",
            "CpusetMems",
            "Isolation",
            "PidMode",
            "UTSMode",
            "UsernsMode",
            "VolumeDriver",
        ],
    ),
    (|| json!([0, 0]), &["ConsoleSize"]),
];

/// The same of a container's end points in networks.
const END_POINT: &[Default] = &[(
    || Value::Null,
    &["Aliases", "DNSNames", "DriverOpts", "IPAMConfig", "Links"],
)];

/// The same of `Config`.
const CONFIG: &[Default] = &[
    (
        || json!(false),
        &[
            "AttachStderr",
            "AttachStdin",
            "AttachStdout",
            "OpenStdin",
            "StdinOnce",
            "Tty",
        ],
    ),
    (|| Value::Null, &["Cmd", "Entrypoint", "OnBuild", "Volumes"]),
    (|| json!(""), &["Domainname", "User", "WorkingDir"]),
    (|| json!([]), &["Env"]),
    (|| json!({}), &["Labels"]),
];

/// Adds what is missing to `GET /containers/{id}/json`.
pub(super) fn fill(inspected: &mut Value) {
    add(inspected, &[(|| Value::Null, &["ExecIDs"])]);
    add(&mut inspected["HostConfig"], HOST_CONFIG);
    add_paths(&mut inspected["HostConfig"]);
    add(&mut inspected["Config"], CONFIG);
    let addresses = &["SecondaryIPAddresses", "SecondaryIPv6Addresses"];
    add(
        &mut inspected["NetworkSettings"],
        &[(|| Value::Null, addresses)],
    );
    fill_networks(inspected);
}

/// The same of the networks alone, for the list of containers.
pub(super) fn fill_networks(container: &mut Value) {
    let networks = container.pointer_mut("/NetworkSettings/Networks");
    for network in networks
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
    {
        add(network.1, END_POINT);
    }
}

/// What a container does not see of `/proc` and `/sys` when nobody says otherwise.
fn add_paths(host: &mut Value) {
    let privileged = host["Privileged"] == json!(true);
    for (field, paths) in [
        ("MaskedPaths", MASKED_PATHS),
        ("ReadonlyPaths", READONLY_PATHS),
    ] {
        if host[field].is_null() {
            host[field] = if privileged {
                Value::Null
            } else {
                json!(paths)
            };
        }
    }
}

/// Sets the fields of `object` that it has not.
fn add(object: &mut Value, defaults: &[Default]) {
    let Some(object) = object.as_object_mut() else {
        return;
    };
    for (value, names) in defaults {
        for name in *names {
            object.entry((*name).to_owned()).or_insert_with(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use guest_protocol::docker::{ContainerConfig, HostConfig};
    use serde::Deserialize;

    use super::*;

    #[test]
    fn what_is_there_stays_and_what_is_missing_comes() {
        let mut inspected = json!({"Config": {"Tty": true}, "HostConfig": {"Memory": 5}});
        fill(&mut inspected);
        assert_eq!(inspected["Config"]["Tty"], true);
        assert_eq!(inspected["Config"]["User"], "");
        assert_eq!(inspected["HostConfig"]["Memory"], 5);
        assert_eq!(inspected["HostConfig"]["NanoCpus"], 0);
        assert_eq!(inspected["HostConfig"]["MaskedPaths"], json!(MASKED_PATHS));
        assert!(inspected.get("ExecIDs").is_some_and(Value::is_null));
        let mut list = json!({"NetworkSettings": {"Networks": {"net": {"Links": ["a"]}}}});
        fill_networks(&mut list);
        let network = &list["NetworkSettings"]["Networks"]["net"];
        assert_eq!(network["Links"], json!(["a"]));
        assert!(network.get("Aliases").is_some_and(Value::is_null));
        let mut privileged = json!({"HostConfig": {"Privileged": true}});
        fill(&mut privileged);
        assert!(privileged["HostConfig"]["MaskedPaths"].is_null());
        // Of the types that clients read.
        HostConfig::deserialize(&inspected["HostConfig"]).unwrap();
        ContainerConfig::deserialize(&inspected["Config"]).unwrap();
    }
}
