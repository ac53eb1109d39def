//! The agent as a process that can be killed with all that it started.

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::model::Model;

/// Longer than a start takes on a host that is out of breath.
const PATIENCE: Duration = Duration::from_mins(1);

/// An agent in a PID namespace of its own: its end is that of all processes in it,
/// as the end of PID 1 is in a machine.
pub(crate) struct Agent {
    /// `unshare`, which waits for the agent.
    outer: Mutex<Child>,
    folder: PathBuf,
}

impl Agent {
    /// Starts it and waits until it answers.
    pub(crate) fn start(program: &Path, folder: &Path) -> Result<Self> {
        let agent = Self::spawn(program, folder)?;
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(agent.socket()).is_err() {
            if let Some(status) = agent.outer().try_wait()? {
                bail!(
                    "the agent does not start ({status}): see {}",
                    agent.log().display()
                );
            }
            if Instant::now() > deadline {
                bail!("the agent does not listen: see {}", agent.log().display());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(agent)
    }

    /// Starts it.
    pub(crate) fn spawn(program: &Path, folder: &Path) -> Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("agent.log"))?;
        let outer = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"])
            .arg(program)
            .args(["serve", "--unix"])
            .arg(folder.join("agent.sock"))
            .arg("--data")
            .arg(folder.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot run unshare (package util-linux)")?;
        Ok(Self {
            outer: Mutex::new(outer),
            folder: folder.to_owned(),
        })
    }

    /// Kills it without a warning, and waits until everything in it is gone.
    pub(crate) fn kill(&self) -> Result<()> {
        let mut outer = self.outer();
        let id = outer.id();
        // The kernel lets go of the first process of a namespace when all others are
        // gone, and `unshare` ends after that.
        let inner = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))
            .unwrap_or_default()
            .split_whitespace()
            .next()
            .and_then(|child| Pid::from_raw(child.parse().ok()?));
        match inner {
            // It can end by itself just now.
            Some(inner) => drop(kill_process(inner, Signal::KILL)),
            // Not there yet: it goes with its parent.
            None => outer.kill()?,
        }
        outer.wait()?;
        Ok(())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("agent.sock")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    fn outer(&self) -> std::sync::MutexGuard<'_, Child> {
        self.outer
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Killed already, as a rule.
        let _ = self.kill();
    }
}

/// Removes the control groups that killed agents left to this host; a machine's go
/// with its kernel.
pub(crate) fn remove_control_groups(models: &[Model]) -> Result<()> {
    const SCRIPT: &str = r#"
root=/sys/fs/cgroup
[ -e $root/cgroup.controllers ] || mount -t cgroup2 cgroup2 $root
while read -r id; do
    find $root -depth -type d -path "*$id*" -exec rmdir {} \; 2> /dev/null
done
exit 0
"#;
    let ids: Vec<_> = models
        .iter()
        .flat_map(|model| &model.ids)
        .cloned()
        .collect();
    let ids = ids.join("\n") + "\n";
    let mut shell = Command::new("unshare")
        .args(["--mount", "sh", "-c", SCRIPT])
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = shell.stdin.take() {
        std::io::Write::write_all(&mut stdin, ids.as_bytes())?;
    }
    shell.wait()?;
    Ok(())
}
