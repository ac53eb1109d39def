//! What the agent asks of the runtime process, and what it hears back.

use std::path::PathBuf;

use guest_protocol::AgentError;
use serde::{Deserialize, Serialize};

use super::devices::Rule;

/// The largest job, in bytes. What is bulky travels in files.
pub(super) const LONGEST_JOB: usize = 128 * 1024;

/// One process to make.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// A container, of the OCI bundle there.
    Container {
        /// The container's id.
        id: String,
        /// Folder that holds `config.json`.
        bundle: PathBuf,
        /// Folder of the OCI runtime's state.
        state: PathBuf,
        /// Socket to send the terminal to, when there is to be one.
        console: Option<PathBuf>,
        /// The devices that it may open, and its cgroup; without them all.
        devices: Option<(PathBuf, Vec<Rule>)>,
        /// Whether it has a network namespace of its own to set up.
        own_network: bool,
        /// What the executor sees to.
        confinement: Confinement,
    },
    /// A process in a running container.
    Exec {
        /// The container's id.
        id: String,
        /// File that holds the OCI process.
        process: PathBuf,
        /// Folder of the OCI runtime's state.
        state: PathBuf,
        /// Socket to send the terminal to, when there is to be one.
        console: Option<PathBuf>,
        /// The user namespace to join, when it is not the machine's.
        user_namespace: Option<UserNamespace>,
        /// What the executor sees to.
        confinement: Confinement,
    },
    /// A process in the machine itself.
    Machine {
        /// Program and arguments.
        args: Vec<String>,
        /// Variables as `NAME=value`.
        env: Vec<String>,
        /// Working directory.
        working_directory: PathBuf,
        /// Whether its stdin is a terminal that it is to control.
        tty: bool,
    },
}

/// A container's user namespace, and what has to be set before it is joined.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UserNamespace {
    /// The container's first process, in the machine.
    pub(crate) pid: u32,
    /// As the OCI process says; to lower it takes the machine's capabilities.
    pub(crate) oom_score_adj: i64,
}

/// What a process is confined to last, right before its program is executed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Confinement {
    /// The capabilities that it keeps, such as `CAP_CHOWN`.
    pub(crate) capabilities: Vec<String>,
    /// The file that its system call filters are in; without one it has none.
    pub(crate) seccomp: Option<PathBuf>,
}

/// How a job went. Nothing more comes when the program runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The process is there.
    Created {
        /// Its id in the machine.
        pid: i32,
    },
    /// It could not be made, or its program not be executed.
    Failed(AgentError),
}
