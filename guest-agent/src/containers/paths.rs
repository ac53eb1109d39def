//! Where a container's files are: what lasts on the data disk, the rest elsewhere.

use std::path::PathBuf;

/// Where things are.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// The data disk.
    pub(crate) data: PathBuf,
    /// What need not survive a boot.
    pub(crate) run: PathBuf,
    /// This program, for containers that want an init process.
    pub(crate) program: PathBuf,
}

impl Paths {
    pub(super) fn containers(&self) -> PathBuf {
        self.data.join("containers")
    }

    /// Where containers' files go that are removed.
    pub(super) fn trash(&self) -> PathBuf {
        self.data.join("containers-trash")
    }

    pub(super) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    pub(super) fn rootfs(&self, id: &str) -> PathBuf {
        self.container(id).join("merged")
    }

    pub(super) fn log(&self, id: &str) -> PathBuf {
        self.container(id).join(format!("{id}-json.log"))
    }

    pub(super) fn bundle(&self, id: &str) -> PathBuf {
        self.run.join("containers").join(id)
    }

    /// The `/dev/shm` of a container that others may share.
    pub(super) fn shared_memory(&self, id: &str) -> PathBuf {
        self.bundle(id).join("shm")
    }

    /// Where files of a container in a user namespace are mounted.
    pub(super) fn mapped(&self, id: &str) -> PathBuf {
        self.bundle(id).join("mapped")
    }

    pub(super) fn runtime_state(&self) -> PathBuf {
        self.run.join("runtime")
    }

    pub(super) fn console(&self, id: &str) -> PathBuf {
        // Short: a socket's path has 108 bytes at most.
        self.run
            .join(format!("console-{}", &id[..id.len().min(16)]))
    }
}
