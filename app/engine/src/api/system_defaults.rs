//! What `GET /info` says besides what its type has: fields without a value, which Docker
//! writes all the same, and those of older versions of the API.

use serde_json::{Value, json};

use super::version::{
    ApiVersion, NO_ALLOWED_NON_DISTRIBUTABLE, NO_BRIDGE_FILTERS, NO_EXPECTED_COMMITS,
};

/// Adds what is missing to `GET /info`. `commit` is the version of what makes containers.
pub(super) fn fill(info: &mut Value, commit: &str, version: ApiVersion) {
    for (field, value) in [
        ("CDISpecDirs", json!([])),
        ("ContainerdCommit", json!({"ID": ""})),
        ("GenericResources", Value::Null),
        ("InitCommit", json!({"ID": ""})),
        ("Isolation", json!("")),
        ("RuncCommit", json!({"ID": commit})),
    ] {
        info[field] = value;
    }
    info["Plugins"]["Authorization"] = Value::Null;
    info["RegistryConfig"]["Mirrors"] = Value::Null;
    info["RegistryConfig"]["IndexConfigs"]["docker.io"] = json!({
        "Name": "docker.io",
        "Mirrors": [],
        "Secure": true,
        "Official": true,
    });
    info["Swarm"]["RemoteManagers"] = Value::Null;
    info["Warnings"] = Value::Null;
    if version < NO_BRIDGE_FILTERS {
        info["BridgeNfIptables"] = json!(false);
        info["BridgeNfIp6tables"] = json!(false);
    } else {
        // What the agent speaks with the kernel.
        info["FirewallBackend"] = json!({"Driver": "nftables"});
    }
    if version < NO_EXPECTED_COMMITS {
        info["RuncCommit"]["Expected"] = json!(commit);
    }
    if version < NO_ALLOWED_NON_DISTRIBUTABLE {
        for field in [
            "AllowNondistributableArtifactsCIDRs",
            "AllowNondistributableArtifactsHostnames",
        ] {
            info["RegistryConfig"][field] = Value::Null;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{MAX_VERSION, version::MIN_VERSION},
        *,
    };

    #[test]
    fn what_is_told_depends_on_the_version() {
        let filled = |version| {
            let mut info = json!({"Name": "dctl"});
            fill(&mut info, "1", version);
            info
        };
        let (old, new) = (filled(MIN_VERSION), filled(MAX_VERSION));
        assert_eq!(new["RuncCommit"], json!({"ID": "1"}));
        assert_eq!(old["RuncCommit"], json!({"ID": "1", "Expected": "1"}));
        // Which control groups of version 2 do not have.
        assert!(old.get("KernelMemory").is_none());
        assert!(new.get("BridgeNfIptables").is_none());
    }
}
