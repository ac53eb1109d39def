//! A `dctl` with a home of its own, whose machine is booted and killed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// What the machine has: little, so that it boots fast and its disk is soon read.
const SETTINGS: &str = "cpus = 2\nmemory-mib = 512\ndisk-gib = 1\n";

/// The home. All that runs in it ends with it.
pub(crate) struct Home {
    program: PathBuf,
    folder: PathBuf,
}

impl Home {
    pub(crate) fn new(program: &Path, folder: &Path) -> Result<Self> {
        let home = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
        };
        fs::create_dir_all(home.machine())?;
        fs::write(home.machine().join("machine.toml"), SETTINGS)?;
        Ok(home)
    }

    fn machine(&self) -> PathBuf {
        self.folder.join("data/machines/default")
    }

    fn runtime(&self) -> PathBuf {
        self.folder.join("run/machines/default")
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.machine().join("data.raw")
    }

    pub(crate) fn vsock(&self) -> PathBuf {
        self.runtime().join("vsock.sock")
    }

    /// Where writes to the disk are recorded.
    pub(crate) fn journal(&self) -> PathBuf {
        self.folder.join("journal")
    }

    /// Boots the machine, with a new engine that records.
    pub(crate) fn boot(&self) -> Result<()> {
        self.stop_engine();
        self.dctl(&["machine", "start"])
    }

    fn dctl(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new(&self.program)
            .args(arguments)
            .env("DCTL_HOME", &self.folder)
            .env("DCTL_DISK_JOURNAL", self.journal())
            .env_remove("DCTL_HOST")
            .env_remove("DCTL_MACHINE")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        if !output.status.success() {
            bail!(
                "dctl {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Kills the monitor without a warning, QEMU with it.
    pub(crate) fn kill_monitor(&self) -> Result<()> {
        let lock = self.machine().join("lock");
        let monitor = self.processes("vmm").or_else(|| self.processes("qemu"));
        let monitor = monitor.context("no monitor runs")?;
        kill_process(monitor, Signal::KILL)?;
        // Its lock is free when all of it is gone.
        let lock = fs::File::open(lock)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(())
    }

    /// Kills the engine without a warning.
    pub(crate) fn kill_engine(&self) -> Result<()> {
        let engine = self.processes("engine").context("no engine runs")?;
        kill_process(engine, Signal::KILL)?;
        while test_kill_process(engine).is_ok() && !is_zombie(engine) {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Ok(())
    }

    fn stop_engine(&self) {
        if self.processes("engine").is_some() {
            // There may be none any more.
            let _ = self.kill_engine();
        }
    }

    /// The process of this home with this subcommand.
    fn processes(&self, subcommand: &str) -> Option<Pid> {
        let mark = format!("DCTL_HOME={}", self.folder.display());
        for entry in fs::read_dir("/proc").ok()?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|id| id.parse().ok()) else {
                continue;
            };
            let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            let is_ours = read("environ")
                .split(|byte| *byte == 0)
                .any(|one| one == mark.as_bytes());
            let line = read("cmdline");
            if is_ours && line.split(|byte| *byte == 0).nth(1) == Some(subcommand.as_bytes()) {
                return Pid::from_raw(id);
            }
        }
        None
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What does not run needs no end.
        let _ = self.kill_monitor();
        self.stop_engine();
    }
}

/// Whether it has ended, and whoever started it has not looked yet.
fn is_zombie(process: Pid) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", process.as_raw_pid())).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
    })
}
