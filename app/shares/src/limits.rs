//! What one server may use, so that no guest can exhaust the host.

use std::time::Duration;

/// Bounds of a [`Server`](crate::Server). The default suits a machine of one user.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of data in one READ or WRITE. The client is told; a multiple of the page
    /// size, at most 1 MiB.
    pub transfer: u32,
    /// Files that the client knows at the same time; a request that would make it know
    /// more fails with ENFILE. A known file costs some 300 bytes.
    pub inodes: usize,
    /// Files and directories that are open at the same time, beyond which an open fails
    /// with ENFILE.
    pub handles: usize,
    /// Descriptors kept for known files that are not open. Least recently used ones are
    /// closed beyond it, and opened again by name when they are needed.
    pub descriptors: usize,
    /// How long the client may trust a name and attributes without asking.
    pub validity: Duration,
}

impl Default for Limits {
    /// Raises the process's soft limit of descriptors to its hard limit, and shares it
    /// out: the greater part for files, the rest for everything else in the process.
    fn default() -> Self {
        let allowed = raise_descriptor_limit();
        Self {
            transfer: 1 << 20,
            inodes: 2_000_000,
            handles: (allowed / 4).min(65_536),
            descriptors: (allowed / 2).min(200_000),
            validity: Duration::from_millis(20),
        }
    }
}

/// Descriptors that this process may have, after asking for as many as it can get.
fn raise_descriptor_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    const FEW: u64 = 1024;
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let allowed = if setrlimit(Resource::Nofile, raised).is_ok() {
        limit.maximum
    } else {
        limit.current
    };
    // No limit at all reads as none: a million is as good.
    usize::try_from(allowed.unwrap_or(1 << 20).max(FEW)).unwrap_or(1024)
}
