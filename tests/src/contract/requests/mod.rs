//! The requests, in groups. Each group makes what it needs, touches nothing else, and
//! removes what it made; groups run side by side.
//!
//! In paths and bodies `$image` is a busybox image that is there, `$registry` and
//! `$closed` are registries, and other `$names` were kept of earlier answers.

mod archives;
mod container_input;
mod containers;
mod events;
mod exec;
mod images;
mod lists;
mod networks;
mod registries;
mod streams;
mod swarm;
mod system;
mod versions;
mod volumes;

use std::io;

use serde_json::{Value, json};

use super::session::Session;

/// Requests that belong together.
pub(super) struct Group {
    /// Its name, and its recording's.
    pub(super) name: &'static str,
    pub(super) requests: fn(&mut Session<'_>),
}

const GROUPS: &[Group] = &[
    group("archives", archives::requests),
    group("container-input", container_input::requests),
    group("containers", containers::requests),
    group("events", events::requests),
    group("exec", exec::requests),
    group("images", images::requests),
    group("lists", lists::requests),
    group("networks", networks::requests),
    group("registries", registries::requests),
    group("streams", streams::requests),
    group("swarm", swarm::requests),
    group("system", system::requests),
    group("versions", versions::requests),
    group("volumes", volumes::requests),
];

/// The groups of these names; all when none is named.
///
/// # Errors
/// If there is none of such a name.
pub(super) fn groups(names: &[&str]) -> io::Result<Vec<&'static Group>> {
    let find = |name: &&str| GROUPS.iter().find(|group| group.name == *name);
    if let Some(unknown) = names.iter().find(|name| find(name).is_none()) {
        return Err(io::Error::other(format!("there is no group {unknown}")));
    }
    if names.is_empty() {
        return Ok(GROUPS.iter().collect());
    }
    Ok(names.iter().filter_map(find).collect())
}

const fn group(name: &'static str, requests: fn(&mut Session<'_>)) -> Group {
    Group { name, requests }
}

/// A container's configuration: a shell command, and the group's label.
fn shell(group: &str, command: &str) -> Value {
    json!({
        "Image": "$image",
        "Cmd": ["sh", "-c", command],
        "Labels": {"contract": group},
        // It ends at once when it is told to.
        "StopSignal": "SIGKILL",
    })
}

/// Makes a container that is not compared.
fn make(session: &mut Session<'_>, name: &str, config: Value) {
    session.prepare(
        "DELETE",
        &format!("/containers/{name}?force=1&v=1"),
        Value::Null,
    );
    session.prepare("POST", &format!("/containers/create?name={name}"), config);
}

/// Makes and starts one.
fn start(session: &mut Session<'_>, name: &str, config: Value) {
    make(session, name, config);
    session.prepare("POST", &format!("/containers/{name}/start"), Value::Null);
}

/// Removes containers, whatever they do.
fn remove(session: &mut Session<'_>, names: &[&str]) {
    for name in names {
        session.prepare(
            "DELETE",
            &format!("/containers/{name}?force=1&v=1"),
            Value::Null,
        );
    }
}
