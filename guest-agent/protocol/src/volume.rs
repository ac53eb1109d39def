//! Volumes, and what is in containers: records and what a path is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The label that marks a volume which was made for one container and has no name
/// that a user gave.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Always `local`.
    pub driver: String,
    /// The user's labels, and [`ANONYMOUS_LABEL`].
    pub labels: BTreeMap<String, String>,
    /// Options of its driver.
    pub options: BTreeMap<String, String>,
    /// When it was created; Unix nanoseconds.
    pub created: i64,
    /// Where its files are (a path in the guest).
    pub mountpoint: String,
    /// Ids of the containers that it is mounted into, running or not.
    pub users: Vec<String>,
}

impl Volume {
    /// Whether it was made for one container and has no name that a user gave.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS_LABEL)
    }
}

/// What a path in a container is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathStat {
    /// Its last component, as it was asked for.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Type and permissions, as in `st_mode` of stat(2).
    pub mode: u32,
    /// When it was changed; Unix nanoseconds.
    pub modified: i64,
    /// Of a symbolic link: the path it leads to in the container, links on the way
    /// followed. Empty otherwise.
    pub link_target: String,
}
