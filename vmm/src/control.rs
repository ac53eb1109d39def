//! The words spoken on a monitor's control socket: one JSON object a line, one
//! answer for each request, in order. QEMU's supervisor in `app/machine` speaks
//! the same.

mod client;
mod lines;

pub use client::{Client, ClientError};
pub use lines::{LineTooLong, Lines};

use serde::{Deserialize, Serialize};

use crate::config::ExportConfig;

/// The longest line, in bytes: the names of all exports fit.
pub const MAX_LINE: usize = 64 * 1024;

/// What can be asked of a monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// The virtual machine's state.
    State,
    /// Stop the virtual CPUs where they are.
    Pause,
    /// Let them go on.
    Resume,
    /// Memory that the guest has given back, and what it says of the rest.
    Balloon,
    /// The image of a disk has grown: take over its new size, and tell the guest.
    ResizeDisk {
        /// Which disk, in the configuration's order.
        index: u16,
    },
    /// Share a file or directory of the host with the guest, or try one again whose
    /// path could not be opened. An export of that name and path stays what it is.
    AddExport(ExportConfig),
    /// Stop sharing it. Files that the guest has open stay open to it until it closes
    /// them; one that is not shared is fine.
    RemoveExport {
        /// Its name.
        name: String,
    },
    /// What is shared.
    Exports,
    /// Press the guest's power button (connect to its power-button port) and
    /// answer at once; after `timeout_ms` without a power-off, use force. Zero is
    /// force at once.
    PowerOff {
        /// How long the guest may take, in milliseconds.
        timeout_ms: u64,
    },
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// Done, or begun.
    Done,
    /// To [`Request::State`].
    State(State),
    /// To [`Request::Balloon`].
    Balloon(BalloonStatistics),
    /// To [`Request::ResizeDisk`].
    DiskSize {
        /// The disk's size from now on, in bytes.
        bytes: u64,
    },
    /// To [`Request::Exports`].
    Exports {
        /// Their names.
        names: Vec<String>,
    },
    /// It could not be done.
    Error {
        /// Why, for a user.
        message: String,
    },
}

/// Whether virtual CPUs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// They run.
    Running,
    /// They are stopped by [`Request::Pause`].
    Paused,
    /// The power button was pressed.
    PoweringOff,
}

/// A virtual machine at work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Whether it runs.
    pub run_state: RunState,
    /// The monitor's process id.
    pub process_id: u32,
    /// Virtual CPUs.
    pub cpus: u8,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Since the monitor was started, in milliseconds.
    pub uptime_ms: u64,
    /// Whether seccomp filters are in force.
    pub seccomp: bool,
    /// Whether landlock is in force.
    pub landlock: bool,
}

/// Memory that went back to the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BalloonStatistics {
    /// Bytes given back by free page reporting so far (not less what was taken
    /// again since).
    pub reported_bytes: u64,
    /// Bytes in the balloon now.
    pub balloon_bytes: u64,
    /// The guest's free memory, bytes, if it told.
    pub free_memory: Option<u64>,
    /// The guest's available memory, bytes, if it told.
    pub available_memory: Option<u64>,
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn requests_survive_their_line(timeout_ms in 0_u64.., index in 0_u16.., name in "\\PC{0,50}", which in 0..9) {
            let request = match which {
                0 => Request::State,
                1 => Request::Pause,
                2 => Request::Resume,
                3 => Request::Balloon,
                4 => Request::ResizeDisk { index },
                5 => Request::AddExport(ExportConfig {
                    path: PathBuf::from(&name),
                    name,
                    read_only: index & 1 == 0,
                }),
                6 => Request::RemoveExport { name },
                7 => Request::Exports,
                _ => Request::PowerOff { timeout_ms },
            };
            let line = serde_json::to_string(&request).unwrap();
            prop_assert!(!line.contains('\n') && line.len() <= MAX_LINE);
            prop_assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        }

        #[test]
        fn no_line_makes_the_parser_panic(line in proptest::collection::vec(0_u8.., 0..200)) {
            let _ = serde_json::from_slice::<Request>(&line);
        }
    }
}
