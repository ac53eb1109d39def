//! A dctl home in a temporary directory; whatever runs in it ends with it.

use std::{fs, path::Path, time::Duration};

use dctl_machine::{DEFAULT_MACHINE, Machine, Paths, Settings};
use dctl_vmm::control::Client;

/// For what takes no time unless something is broken.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A fresh home.
pub(crate) struct Home {
    directory: tempfile::TempDir,
    pub(crate) paths: Paths,
}

impl Home {
    pub(crate) fn new(test: &str) -> Self {
        // Short: socket paths must fit.
        let directory = tempfile::Builder::new()
            .prefix(&format!("{test:.20}-"))
            .tempdir_in("/tmp")
            .unwrap();
        let paths = Paths::under(directory.path());
        Self { directory, paths }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The default machine, small.
    pub(crate) fn machine(&self) -> Machine {
        let machine = self.open();
        let settings = Settings {
            cpus: Some(2),
            memory_mib: Some(512),
            disk_gib: Some(8),
            ..Settings::default()
        };
        settings.save(machine.files()).unwrap();
        machine
    }

    /// The default machine as another process would have it.
    pub(crate) fn open(&self) -> Machine {
        Machine::open(&self.paths, DEFAULT_MACHINE).unwrap()
    }
}

impl Drop for Home {
    /// No test leaves a monitor behind, however it ends.
    fn drop(&mut self) {
        for name in self.paths.machines().unwrap_or_default() {
            let Ok(files) = self.paths.machine(&name) else {
                continue;
            };
            if let Ok(mut client) = Client::connect(&files.control_socket(), SOON) {
                let _ = client.power_off(Duration::ZERO);
                wait_for_lock(&files.lock());
            }
        }
    }
}

/// Waits until the monitor that holds the lock has ended.
pub(crate) fn wait_for_lock(lock: &Path) {
    if let Ok(file) = fs::File::open(lock) {
        let _ = rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive);
    }
}
