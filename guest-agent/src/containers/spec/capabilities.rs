//! Which capabilities a container has: Docker's default set, `--cap-add`,
//! `--cap-drop` and `--privileged`.

use std::collections::BTreeSet;

use guest_protocol::{AgentError, docker::HostConfig};

use crate::error::Result;

/// Docker's default set.
const DEFAULT: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The capabilities that can be had: the agent's own. PID 1 has all that the kernel
/// knows.
pub(crate) fn all() -> BTreeSet<String> {
    caps::read(None, caps::CapSet::Bounding)
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// The capabilities of a container.
///
/// # Errors
/// When a name is not a capability's.
pub(crate) fn of(host: &HostConfig) -> Result<BTreeSet<String>> {
    if host.privileged == Some(true) {
        return Ok(all());
    }
    let add = normalize(host.cap_add.as_deref().unwrap_or_default())?;
    let drop = normalize(host.cap_drop.as_deref().unwrap_or_default())?;
    let mut set: BTreeSet<String> = match (add.contains("ALL"), drop.contains("ALL")) {
        (true, _) => all(),
        (false, true) => BTreeSet::new(),
        (false, false) => DEFAULT.iter().map(|&name| name.to_owned()).collect(),
    };
    set.retain(|name| !drop.contains(name));
    set.extend(add.into_iter().filter(|name| name != "ALL"));
    Ok(set)
}

/// Refuses what is no capability.
///
/// # Errors
/// In Docker's words.
pub(super) fn check(host: &HostConfig) -> Result<()> {
    for (option, names) in [("CapAdd", &host.cap_add), ("CapDrop", &host.cap_drop)] {
        normalize(names.as_deref().unwrap_or_default())
            .map_err(|error| AgentError::invalid(format!("invalid {option}: {}", error.message)))?;
    }
    Ok(())
}

fn normalize(names: &[String]) -> Result<BTreeSet<String>> {
    names
        .iter()
        .map(|name| {
            let upper = name.to_ascii_uppercase();
            if upper == "ALL" {
                return Ok(upper);
            }
            let full = if upper.starts_with("CAP_") {
                upper
            } else {
                format!("CAP_{upper}")
            };
            full.parse::<caps::Capability>()
                .map(|capability| capability.to_string())
                .map_err(|_| AgentError::invalid(format!("unknown capability: {full:?}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(add: &[&str], drop: &[&str]) -> HostConfig {
        let own = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
        HostConfig {
            cap_add: own(add),
            cap_drop: own(drop),
            ..HostConfig::default()
        }
    }

    #[test]
    fn added_and_dropped() {
        assert_eq!(of(&HostConfig::default()).unwrap().len(), DEFAULT.len());
        let set = of(&host(&["net_admin"], &["ALL"])).unwrap();
        assert_eq!(set, BTreeSet::from(["CAP_NET_ADMIN".to_owned()]));
        let set = of(&host(&[], &["CAP_MKNOD"])).unwrap();
        assert!(!set.contains("CAP_MKNOD"));
        let set = of(&host(&["ALL"], &["SYS_ADMIN"])).unwrap();
        assert!(!set.contains("CAP_SYS_ADMIN") && set.contains("CAP_SYS_TIME"));
        assert_eq!(
            check(&host(&["no_such"], &[])).unwrap_err().message,
            "invalid CapAdd: unknown capability: \"CAP_NO_SUCH\""
        );
    }
}
