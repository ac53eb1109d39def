//! Containers under the real agent, outside of a machine: run as root, with
//! Debian's busybox-static as the image.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../support/mod.rs"]
mod support;

mod files;
mod health;
mod lifecycle;
mod networks;
mod pause;
mod ports;
mod process;
mod restart;
mod streams;
mod usage;
mod user_namespace;

use guest_protocol::methods::{ContainerLogs, ContainerRemove, ContainerStop};

fn stop(container: &str, timeout: i64) -> ContainerStop {
    ContainerStop {
        container: container.into(),
        signal: None,
        timeout: Some(timeout),
    }
}

fn remove(container: &str, force: bool) -> ContainerRemove {
    ContainerRemove {
        container: container.into(),
        force,
        volumes: true,
    }
}

fn logs(container: &str, follow: bool) -> ContainerLogs {
    ContainerLogs {
        container: container.into(),
        follow,
        stdout: true,
        stderr: true,
        since: 0,
        until: 0,
        timestamps: false,
        tail: None,
        details: false,
    }
}
