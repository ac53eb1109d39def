//! Containers' lives, from creation to removal, and looks at them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ContainerCreated, DiskUsage, Method, ProcessList, Request, WaitCondition};
use crate::{
    container::Container,
    docker::{ContainerConfig, ContainerUpdateBody, EndpointSettings, HostConfig},
    stats::Sample,
};

methods! {
    /// Makes a container.
    ContainerCreate {
        /// Its name; the agent invents one when there is none.
        name: Option<String>,
        /// The user's configuration, with `image` set; the agent merges the
        /// image's under it.
        config: Box<ContainerConfig>,
        /// What the user asks of the host.
        host_config: Box<HostConfig>,
        /// What it is to be in each network, by the network's name or id.
        #[serde(default)]
        networks: BTreeMap<String, EndpointSettings>,
    } -> ContainerCreated;

    /// Starts it. [`crate::ErrorKind::NotModified`] when it runs already.
    ContainerStart {
        /// Name, id or unambiguous prefix of it.
        container: String,
    } -> ();

    /// Sends the stop signal, waits, then kills. Replies when it has ended;
    /// [`crate::ErrorKind::NotModified`] when it does not run.
    ContainerStop {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// The signal by name or number, instead of its own stop signal.
        signal: Option<String>,
        /// Seconds before it is killed, instead of its own stop timeout; -1 for
        /// never.
        timeout: Option<i64>,
    } -> ();

    /// Stops it if it runs, and starts it.
    ContainerRestart {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// As for [`ContainerStop`].
        signal: Option<String>,
        /// As for [`ContainerStop`].
        timeout: Option<i64>,
    } -> ();

    /// Sends it a signal. After SIGKILL it replies when the container has ended.
    ContainerKill {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// By name, with or without `SIG`, or by number; empty for SIGKILL.
        signal: String,
    } -> ();

    /// Removes it.
    ContainerRemove {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// Kill it first if it runs.
        force: bool,
        /// Also its anonymous volumes.
        volumes: bool,
    } -> ();

    /// Gives it another name.
    ContainerRename {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// The new name.
        name: String,
    } -> ();

    /// One container.
    ContainerInspect {
        /// Name, id or unambiguous prefix of it.
        container: String,
    } -> Container;

    /// All containers, newest first.
    ContainerList {} -> Vec<Container>;

    /// Waits for it. The first reply says that the wait is registered; a second,
    /// a [`Reply`](crate::frame::Reply) of [`WaitResult`](super::WaitResult), comes
    /// when the condition is met.
    ContainerWait {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// What to wait for.
        condition: WaitCondition,
    } -> ();

    /// Its processes: titles and rows, as `ps` gives them.
    ContainerTop {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// Options of `ps`: which columns. Empty for `-ef`.
        #[serde(default)]
        options: String,
    } -> ProcessList;

    /// Freezes its processes.
    ContainerPause {
        /// Name, id or unambiguous prefix of it.
        container: String,
    } -> ();

    /// Lets its processes go on.
    ContainerUnpause {
        /// Name, id or unambiguous prefix of it.
        container: String,
    } -> ();

    /// Changes its limits and its restart policy, now if it runs. The reply is what
    /// was ignored, for the user to read.
    ContainerUpdate {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// What to change; zero, empty and missing fields stay as they are.
        change: Box<ContainerUpdateBody>,
    } -> Vec<String>;

    /// What it uses now.
    ContainerStats {
        /// Name, id or unambiguous prefix of it.
        container: String,
    } -> Sample;

    /// What differs between its root file system and its image. After the reply:
    /// [`chunks`](crate::chunks) with a JSON array of Docker's `FilesystemChange`.
    ContainerChanges {
        /// Name, id or unambiguous prefix of it.
        container: String,
    } -> ();

    /// How much disk containers take, by id.
    ContainerSizes {
        /// Name, id or unambiguous prefix of one; all without it.
        container: Option<String>,
    } -> BTreeMap<String, DiskUsage>;
}
