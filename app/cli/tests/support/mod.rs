//! The real `dctl` with a home of its own.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a test that cannot go on fails; each test file uses a part"
)]

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Longer than anything here takes, however busy the host is.
const PATIENCE: Duration = Duration::from_mins(1);

/// A home. Its engine ends with it.
pub(crate) struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// `dctl` with `arguments`, not run yet.
    pub(crate) fn dctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dctl"));
        command
            .args(arguments)
            .env("DCTL_HOME", self.directory.path())
            .env_remove("DCTL_HOST")
            .env_remove("DCTL_LOG")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.dctl(arguments).output().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The engine's process, from its lock; `None` when none ever ran.
    pub(crate) fn engine(&self) -> Option<Pid> {
        let id = std::fs::read_to_string(self.path("run/engine.lock")).ok()?;
        Pid::from_raw(id.trim().parse().ok()?)
    }

    /// Ends the engine with `signal` and waits until it is gone.
    pub(crate) fn end_engine(&self, signal: Signal) {
        let Some(engine) = self.engine() else { return };
        if kill_process(engine, signal).is_err() {
            return;
        }
        // It is nobody's child here: there is no event to wait for.
        let began = Instant::now();
        while test_kill_process(engine).is_ok() && !is_zombie(engine) {
            assert!(began.elapsed() < PATIENCE, "the engine does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.end_engine(Signal::KILL);
    }
}

/// Whether it has ended, and whoever started it has not looked yet.
fn is_zombie(process: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_pid())).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
    })
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
