//! The OCI runtime specification of a container, as Docker would make it.
//!
//! Built from a container's record and what was found in its root file system;
//! written to the bundle that the runtime process reads. Whatever Docker's
//! `HostConfig` asks for is worked out here or in the modules below, or refused
//! when the container is created ([`check`]).

pub(crate) mod binds;
mod capabilities;
pub(crate) mod files;
pub(crate) mod links;
pub(crate) mod mounts;
mod namespaces;
pub(crate) mod resources;
pub(crate) mod rootfs;
mod seccomp;
mod security;
pub(crate) mod user;
pub(crate) mod volumes;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use guest_protocol::{
    container::{Container, ExecConfig},
    docker::HostConfig,
};
use serde_json::{Value, json};

pub(crate) use guest_protocol::container::{MASKED_PATHS, READONLY_PATHS};

use self::user::User;
pub(crate) use self::{
    namespaces::{cgroup, own_network, shared_namespaces, shares_memory},
    security::{confinement, exec_confinement},
};
use crate::{
    containers::user_namespace,
    error::Result,
    runtime::{executor::DEFAULT_PATH, job::Confinement},
};

/// The version of the OCI runtime specification that is written.
const OCI_VERSION: &str = "1.2.0";

/// What a container's specification is made of.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) container: &'a Container,
    pub(crate) user: &'a User,
    /// The mounted root file system.
    pub(crate) rootfs: &'a Path,
    /// The folder on the data disk with its `hosts`, `hostname` and `resolv.conf`:
    /// its own, or that of the container whose network it shares.
    pub(crate) folder: &'a Path,
    /// Variables that tell of the containers that it has links to.
    pub(crate) link_environment: &'a [String],
    /// This program, for containers that want an init process.
    pub(crate) init_program: &'a Path,
    /// The namespaces of other containers that it joins.
    pub(crate) joined: &'a [Joined],
    /// What is mounted at its `/dev/shm`, unless that is its own alone.
    pub(crate) shared_memory: Option<&'a Path>,
    /// Where things are that are not where the record says, by destination: parts of
    /// volumes that are mounted instead of the whole, files of the host.
    pub(crate) places: &'a BTreeMap<String, PathBuf>,
}

/// A namespace of another container.
#[derive(Debug)]
pub(crate) struct Joined {
    /// As OCI names it.
    pub(crate) kind: &'static str,
    /// Process id of that container's init.
    pub(crate) pid: u32,
    /// That container.
    pub(crate) id: String,
}

/// Refuses what this agent cannot do, so that `create` fails rather than `start`.
///
/// # Errors
/// Names the option.
pub(crate) fn check(host: &HostConfig) -> Result<()> {
    capabilities::check(host)?;
    resources::check(host)?;
    security::check(host)?;
    namespaces::check(host)
}

/// The variables of a container's first process; `linked` tell of other containers.
pub(crate) fn environment(
    container: &Container,
    hostname: &str,
    home: &str,
    linked: &[String],
) -> Vec<String> {
    let mut env = vec![
        format!("PATH={DEFAULT_PATH}"),
        format!("HOSTNAME={hostname}"),
    ];
    if container.config.tty == Some(true) {
        env.push("TERM=xterm".to_owned());
    }
    env.extend_from_slice(linked);
    merge_environment(&mut env, container.config.env.iter().flatten());
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={home}"));
    }
    env
}

/// Sets `variables` in `env`; one without `=` is removed.
pub(crate) fn merge_environment<'a>(
    env: &mut Vec<String>,
    variables: impl Iterator<Item = &'a String>,
) {
    for variable in variables {
        let name = variable.split('=').next().unwrap_or_default();
        let same = |known: &String| known.split('=').next() == Some(name);
        let known = env.iter().position(same);
        match (known, variable.contains('=')) {
            (Some(at), true) => env[at].clone_from(variable),
            (None, true) => env.push(variable.clone()),
            (Some(at), false) => {
                env.remove(at);
            }
            (None, false) => {}
        }
    }
}

/// The name a container goes by in its own UTS namespace.
pub(crate) fn hostname(container: &Container) -> String {
    container
        .config
        .hostname
        .as_ref()
        .filter(|name| !name.is_empty())
        .cloned()
        .unwrap_or_else(|| container.id.chars().take(12).collect())
}

/// The name of a new container: what was asked for, or that of the machine if it
/// shares its names, or the beginning of its id.
pub(crate) fn first_hostname(container: &Container) -> String {
    let host = &container.host_config;
    let shares = [&host.uts_mode, &host.network_mode]
        .into_iter()
        .any(|mode| mode.as_deref() == Some("host"));
    let named = container
        .config
        .hostname
        .as_ref()
        .is_some_and(|name| !name.is_empty());
    if shares && !named {
        return rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
    }
    hostname(container)
}

/// The OCI process of an exec in a running container.
pub(crate) fn exec_process(
    container: &Container,
    user: &User,
    exec: &ExecConfig,
    confinement: &Confinement,
) -> Value {
    let mut env = environment(container, &hostname(container), &user.home, &[]);
    if exec.tty && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    merge_environment(&mut env, exec.env.iter());
    let cwd = [
        exec.working_dir.as_str(),
        container.config.working_dir.as_deref().unwrap_or_default(),
        "/",
    ]
    .into_iter()
    .find(|folder| !folder.is_empty());
    json!({
        "terminal": exec.tty,
        "user": oci_user(user),
        "args": exec.cmd,
        "env": env,
        "cwd": cwd,
        "capabilities": security::oci_capabilities(confinement),
        "noNewPrivileges": security::no_new_privileges(&container.host_config),
        "rlimits": resources::rlimits(&container.host_config),
        "oomScoreAdj": container.host_config.oom_score_adj.unwrap_or(0),
    })
}

/// The whole specification.
///
/// # Errors
/// When the record asks for something that does not exist.
pub(crate) fn container(sources: &Sources<'_>, confinement: &Confinement) -> Result<Value> {
    let container = sources.container;
    let host = &container.host_config;
    let hostname = hostname(container);
    let init = host.init == Some(true);
    let mut args = Vec::new();
    if init {
        args.extend([mounts::INIT_PATH.to_owned(), "--".to_owned()]);
    }
    args.push(container.path.clone());
    args.extend(container.args.iter().cloned());

    let cwd = container
        .config
        .working_dir
        .as_deref()
        .filter(|folder| !folder.is_empty())
        .unwrap_or("/");
    let namespaces = namespaces::of(sources)?;
    let own = |kind: &str| {
        namespaces
            .iter()
            .any(|namespace| namespace["type"] == kind && namespace.get("path").is_none())
    };
    let (own_uts, own_ipc, own_network) = (own("uts"), own("ipc"), own("network"));
    let privileged = host.privileged == Some(true);
    let paths = |asked: Option<&Vec<String>>, default: &[&str]| match asked {
        Some(asked) => json!(asked),
        None if privileged => json!([]),
        None => json!(default),
    };
    let mut limits = resources::of(host);
    resources::throttle(host, &mut limits)?;
    let mut spec = json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": container.config.tty == Some(true),
            "user": oci_user(sources.user),
            "args": args,
            "env": environment(
                container,
                &hostname,
                &sources.user.home,
                sources.link_environment,
            ),
            "cwd": cwd,
            "capabilities": security::oci_capabilities(confinement),
            "noNewPrivileges": security::no_new_privileges(host),
            "rlimits": resources::rlimits(host),
            "oomScoreAdj": host.oom_score_adj.unwrap_or(0),
        },
        "root": {
            "path": sources.rootfs,
            "readonly": host.readonly_rootfs == Some(true),
        },
        "mounts": mounts::of(sources, own_ipc)?,
        "linux": {
            "cgroupsPath": namespaces::cgroup(container),
            "namespaces": namespaces,
            "resources": limits,
            "devices": resources::devices::of(host)?,
            "sysctl": namespaces::sysctls(host, own_network),
            "maskedPaths": paths(host.masked_paths.as_ref(), MASKED_PATHS),
            "readonlyPaths": paths(host.readonly_paths.as_ref(), READONLY_PATHS),
        },
    });
    if let Some(propagation) = binds::root_propagation(container.mounts.iter()) {
        spec["linux"]["rootfsPropagation"] = json!(propagation);
    }
    if user_namespace::is_wanted(host) {
        spec["linux"]["uidMappings"] = user_namespace::mapping();
        spec["linux"]["gidMappings"] = user_namespace::mapping();
    }
    if let Some(annotations) = &host.annotations {
        spec["annotations"] = json!(annotations);
    }
    if own_uts {
        spec["hostname"] = json!(hostname);
        if let Some(domain) = container
            .config
            .domainname
            .as_ref()
            .filter(|name| !name.is_empty())
        {
            spec["domainname"] = json!(domain);
        }
    }
    Ok(spec)
}

fn oci_user(user: &User) -> Value {
    json!({
        "uid": user.uid,
        "gid": user.gid,
        "umask": 0o22,
        "additionalGids": user.additional_gids,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_overridden_in_place() {
        let mut env = vec!["A=1".to_owned(), "B=2".to_owned()];
        let more = ["B=3".to_owned(), "C=".to_owned(), "A".to_owned()];
        merge_environment(&mut env, more.iter());
        assert_eq!(env, ["B=3", "C="]);
    }
}
