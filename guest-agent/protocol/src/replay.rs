//! Changes of shared files that happened on the host, so that the guest can repeat them
//! where containers watch (inotify).
//!
//! The guest's kernel tells watchers what its own processes do. So the agent does to the
//! shared file system what was done on the host, as one of the users of [`marker`]: the
//! file server recognises them, answers as if the change were made now, and touches
//! nothing.

use serde::{Deserialize, Serialize};

/// File system users (`setfsuid`) in whose name changes are repeated. They are no users of
/// any container: a container that claims to be one of them only has its own changes
/// ignored.
pub mod marker {
    /// The first of them.
    pub const FIRST: u32 = 0xffff_fe00;
    /// Names are not there yet: what is looked up is missing, and is then created.
    pub const CREATED: u32 = FIRST;
    /// Names are still there, as files: what is looked up is found, and is then unlinked.
    pub const REMOVED_FILE: u32 = FIRST + 1;
    /// Names are still there, as directories.
    pub const REMOVED_DIRECTORY: u32 = FIRST + 2;
    /// A file has its old name still: what is missing on the host is found as a file, and
    /// what is there is missing.
    pub const MOVED_FILE: u32 = FIRST + 3;
    /// As [`MOVED_FILE`], a directory.
    pub const MOVED_DIRECTORY: u32 = FIRST + 4;
    /// Names are as they are; contents or attributes are about to change.
    pub const CHANGED: u32 = FIRST + 5;
    /// The last of them.
    pub const LAST: u32 = CHANGED;
}

/// What happened to a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// It appeared.
    Created,
    /// It is gone.
    Removed,
    /// It has another name now, in the same export.
    Moved {
        /// The new path below the export's root.
        to: Vec<u8>,
    },
    /// Its contents changed.
    Modified,
    /// Its mode, owner, times or extended attributes changed.
    Attributes,
    /// So much happened below this directory that the changes were not counted.
    Everything,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The export's name.
    pub export: String,
    /// The path below the export's root, in any bytes; empty for the root itself.
    pub path: Vec<u8>,
    /// Whether it is a directory.
    pub directory: bool,
    /// What happened.
    pub kind: ChangeKind,
}
