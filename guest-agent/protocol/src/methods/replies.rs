//! What the agent answers with, where no other record of the protocol serves, and
//! the words that some calls are asked in.

use serde::{Deserialize, Serialize};

/// Reply to [`LayerImport`](super::LayerImport) and [`EmulatorInstall`](super::EmulatorInstall).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerWanted {
    /// Send the bytes.
    Send,
    /// It is on disk already; nothing follows.
    Present,
}

/// Reply to [`LayerExport`](super::LayerExport).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerArchive {
    /// Length of the tar, in bytes.
    pub size: u64,
}

/// Second reply to [`LayerImport`](super::LayerImport).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerImported {
    /// Bytes that the layer takes, unpacked.
    pub size: u64,
}

/// A layer that was made here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewLayer {
    /// Digest of its tar: `sha256:…`.
    pub diff_id: String,
    /// Length of its tar, in bytes.
    pub tar_size: u64,
    /// Bytes that it takes, unpacked.
    pub size: u64,
}

/// Reply to [`ContainerCommit`](super::ContainerCommit).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    /// The layer; none when the container changed nothing.
    pub layer: Option<NewLayer>,
    /// Configuration of the image that the container was made of.
    pub base_configuration: serde_json::Value,
    /// Its manifest.
    pub base_manifest: serde_json::Value,
    /// The container's id.
    pub container_id: String,
}

/// Reply to [`ContainerCreate`](super::ContainerCreate).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerCreated {
    /// Its id.
    pub id: String,
    /// What was ignored or adjusted, for the user to read.
    pub warnings: Vec<String>,
    /// What its image was made for: `os/architecture[/variant]`, as the image says.
    #[serde(default)]
    pub platform: String,
}

/// Reply to [`ExecCreate`](super::ExecCreate) and [`MachineShell`](super::MachineShell).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecCreated {
    /// Its id.
    pub id: String,
}

/// Reply to calls that go on as stdio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Whether the stream is a terminal's: raw, without frames.
    pub tty: bool,
}

/// What [`ContainerWait`](super::ContainerWait) waits for; Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitCondition {
    /// That it does not run: at once if so already.
    #[default]
    NotRunning,
    /// The next time it ends.
    NextExit,
    /// That it is gone.
    Removed,
}

/// How a container ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitResult {
    /// Its exit code.
    pub exit_code: i64,
    /// Why the wait failed, if it did.
    pub error: Option<String>,
}

/// How much disk a container takes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskUsage {
    /// What it wrote itself.
    pub written: u64,
    /// That and its image.
    pub total: u64,
}

/// Reply to [`ContainerTop`](super::ContainerTop).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessList {
    /// Column titles.
    pub titles: Vec<String>,
    /// One row a process.
    pub processes: Vec<Vec<String>>,
}

/// Reply of [`NetworkCreate`](super::NetworkCreate).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkCreated {
    /// The new network's id.
    pub id: String,
    /// What the user should know.
    pub warning: String,
}
