//! What a container's processes may do: its security options, and what they come to.

use std::{collections::HashSet, path::Path, sync::LazyLock};

use guest_protocol::{AgentError, container::ExecConfig, docker::HostConfig};
use serde_json::{Value, json};

use super::{
    capabilities,
    seccomp::{Profile, Subject},
};
use crate::{
    error::{Context, Result},
    runtime::{job::Confinement, seccomp::Filters},
};

/// Capabilities that installing a system call filter and then dropping
/// capabilities take; the executor drops these, too.
const FOR_CONFINING: [&str; 2] = ["CAP_SYS_ADMIN", "CAP_SETPCAP"];

/// The name of the file in a container's bundle that holds its system call filters.
const FILTERS: &str = "seccomp";

/// One `--security-opt`.
enum SecurityOption<'a> {
    /// A profile: `unconfined`, `builtin`, or its JSON.
    Seccomp(&'a str),
    NoNewPrivileges(bool),
    /// `AppArmor` and `SELinux`, which the machine's kernel has not.
    Ignored,
}

fn parse(option: &str) -> Result<SecurityOption<'_>> {
    match option.split_once(['=', ':']) {
        Some(("seccomp", profile)) => Ok(SecurityOption::Seccomp(profile)),
        Some(("no-new-privileges", "true")) => Ok(SecurityOption::NoNewPrivileges(true)),
        Some(("no-new-privileges", "false")) => Ok(SecurityOption::NoNewPrivileges(false)),
        Some(("apparmor" | "label", _)) => Ok(SecurityOption::Ignored),
        None if option == "no-new-privileges" => Ok(SecurityOption::NoNewPrivileges(true)),
        None if option == "disable" => Ok(SecurityOption::Ignored),
        None => Err(AgentError::invalid(format!(
            "invalid --security-opt 1: {option:?}"
        ))),
        Some(_) => Err(AgentError::invalid(format!(
            "invalid --security-opt 2: {option:?}"
        ))),
    }
}

fn options(host: &HostConfig) -> impl Iterator<Item = SecurityOption<'_>> {
    host.security_opt
        .iter()
        .flatten()
        .filter_map(|option| parse(option).ok())
}

/// Refuses what makes no sense.
///
/// # Errors
/// In Docker's words.
pub(super) fn check(host: &HostConfig) -> Result<()> {
    for option in host.security_opt.iter().flatten() {
        parse(option)?;
    }
    filters(host).map(drop)
}

/// Whether the container's processes can gain nothing by executing a program.
pub(super) fn no_new_privileges(host: &HostConfig) -> bool {
    options(host)
        .filter_map(|option| match option {
            SecurityOption::NoNewPrivileges(wanted) => Some(wanted),
            _ => None,
        })
        .last()
        .unwrap_or(false)
}

/// The system call filters of a container, if it has any.
///
/// # Errors
/// When its profile is none, or a capability does not exist.
fn filters(host: &HostConfig) -> Result<Option<Filters>> {
    let asked = options(host)
        .filter_map(|option| match option {
            SecurityOption::Seccomp(profile) => Some(profile),
            _ => None,
        })
        .last();
    let own;
    let profile = match asked {
        Some("unconfined") => return Ok(None),
        None | Some("builtin" | "") => {
            if host.privileged == Some(true) {
                return Ok(None);
            }
            Profile::docker().map_err(|error| AgentError::system(error.to_string()))?
        }
        Some(json) => {
            own = Profile::parse(json).map_err(|error| AgentError::invalid(error.to_string()))?;
            &own
        }
    };
    let capabilities: HashSet<String> = capabilities::of(host)?.into_iter().collect();
    let programs = profile
        .compile(&Subject {
            capabilities: &capabilities,
            kernel: *KERNEL,
        })
        .map_err(|error| AgentError::invalid(error.to_string()))?;
    Ok((!programs.is_empty()).then(|| Filters::new(programs)))
}

/// The running kernel's version: 6 and 12.
static KERNEL: LazyLock<(u32, u32)> = LazyLock::new(|| {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let mut numbers = release
        .split(|next: char| !next.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
});

/// What the executor sees to for a container's first process; writes its system call
/// filters into `bundle`.
///
/// # Errors
/// When a capability does not exist, or the filters cannot be written.
pub(crate) fn confinement(host: &HostConfig, bundle: &Path) -> Result<Confinement> {
    let file = bundle.join(FILTERS);
    let seccomp = match filters(host)? {
        Some(filters) => {
            filters
                .write(&file)
                .context("cannot write the container's seccomp profile")?;
            Some(file)
        }
        None => None,
    };
    Ok(Confinement {
        capabilities: capabilities::of(host)?.into_iter().collect(),
        seccomp,
    })
}

/// As [`confinement`], for an exec in the container that `bundle` was written for.
///
/// # Errors
/// When a capability does not exist.
pub(crate) fn exec_confinement(
    host: &HostConfig,
    exec: &ExecConfig,
    bundle: &Path,
) -> Result<Confinement> {
    if exec.privileged {
        return Ok(Confinement {
            capabilities: capabilities::all().into_iter().collect(),
            seccomp: None,
        });
    }
    let file = bundle.join(FILTERS);
    Ok(Confinement {
        capabilities: capabilities::of(host)?.into_iter().collect(),
        seccomp: file.exists().then_some(file),
    })
}

/// The `capabilities` of a specification's process.
pub(super) fn oci_capabilities(confinement: &Confinement) -> Value {
    let mut set: Vec<&str> = confinement
        .capabilities
        .iter()
        .map(String::as_str)
        .collect();
    if confinement.seccomp.is_some() {
        set.extend(FOR_CONFINING);
        set.sort_unstable();
        set.dedup();
    }
    json!({
        "bounding": set,
        "effective": set,
        "permitted": set,
        "inheritable": [],
        "ambient": [],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(options: &[&str]) -> HostConfig {
        HostConfig {
            security_opt: Some(options.iter().map(|&option| option.to_owned()).collect()),
            ..HostConfig::default()
        }
    }

    #[test]
    fn options_that_are_none_are_refused() {
        for (option, message) in [
            ("foo", "invalid --security-opt 1: \"foo\""),
            ("foo=bar", "invalid --security-opt 2: \"foo=bar\""),
            ("no-new-privileges=x", "invalid --security-opt 2"),
            ("seccomp={", "Decoding seccomp profile failed"),
            ("seccomp=/profile.json", "Decoding seccomp profile failed"),
        ] {
            let error = check(&host(&[option])).unwrap_err();
            assert!(error.message.contains(message), "{error}");
        }
        for option in [
            "seccomp=unconfined",
            "seccomp=builtin",
            r#"seccomp={"defaultAction": "SCMP_ACT_ALLOW"}"#,
            "apparmor=unconfined",
            "apparmor:docker-default",
            "label=type:x",
            "no-new-privileges:true",
        ] {
            check(&host(&[option])).unwrap();
        }
    }

    #[test]
    fn the_last_word_holds() {
        assert!(no_new_privileges(&host(&["no-new-privileges"])));
        let both = host(&["no-new-privileges", "no-new-privileges=false"]);
        assert!(!no_new_privileges(&both));
    }

    #[test]
    fn a_privileged_container_has_only_a_profile_of_its_own() {
        let filtered = |host: &HostConfig| filters(host).unwrap().is_some();
        assert!(filtered(&HostConfig::default()));
        assert!(!filtered(&host(&["seccomp=unconfined"])));
        let mut privileged = host(&[]);
        privileged.privileged = Some(true);
        assert!(!filtered(&privileged));
        privileged.security_opt = Some(vec![r#"seccomp={"defaultAction":"SCMP_ACT_LOG"}"#.into()]);
        assert!(filtered(&privileged));
        // Everything is allowed: nothing is filtered.
        assert!(!filtered(&host(&[
            r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#
        ])));
    }
}
