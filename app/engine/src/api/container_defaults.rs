//! What a container's description says of options that nobody gave.
//!
//! The generated types leave out what is not set; Docker writes it, and people's
//! templates (`{{.HostConfig.Memory}}`) and programs count on it.

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
            "CapAdd",
            "CapDrop",
            "DeviceCgroupRules",
            "DeviceRequests",
            "ExtraHosts",
            "GroupAdd",
            "Links",
            "MemorySwappiness",
            "OomKillDisable",
            "PidsLimit",
            "SecurityOpt",
            "VolumesFrom",
        ],
    ),
    (
        || json!([]),
        &[
            "BlkioDeviceReadBps",
            "BlkioDeviceReadIOps",
            "BlkioDeviceWriteBps",
            "BlkioDeviceWriteIOps",
            "BlkioWeightDevice",
            "Devices",
            "Dns",
            "DnsOptions",
            "DnsSearch",
            "Ulimits",
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
    (|| json!({}), &["PortBindings"]),
];

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
    add(&mut inspected["HostConfig"], HOST_CONFIG);
    add(&mut inspected["Config"], CONFIG);
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
        // Of the types that clients read.
        HostConfig::deserialize(&inspected["HostConfig"]).unwrap();
        ContainerConfig::deserialize(&inspected["Config"]).unwrap();
    }
}
