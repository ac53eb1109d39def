//! What an installation holds: open files and memory of its processes, of the agent
//! inside, and connections that the guest tracks. What grows with use leaks.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tests::{Installation, installation::Part};

/// Open files, and `VmRSS` in KiB, of a part.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Process {
    pub(crate) files: u64,
    pub(crate) memory: u64,
}

/// What is held at one time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Held {
    pub(crate) engine: Process,
    /// The machine's monitor; on the `qemu` driver the supervisor with our devices.
    pub(crate) monitor: Process,
    pub(crate) agent: Process,
    /// Connections that the guest's kernel tracks.
    pub(crate) tracked: u64,
}

impl fmt::Display for Held {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, process) in [
            ("engine", self.engine),
            ("monitor", self.monitor),
            ("agent", self.agent),
        ] {
            write!(
                formatter,
                "{name} {} files {} KiB, ",
                process.files, process.memory
            )?;
        }
        write!(formatter, "{} tracked connections", self.tracked)
    }
}

impl Held {
    /// What is held now.
    pub(crate) fn now(dctl: &Installation) -> Result<Self> {
        let script = "ls /proc/1/fd | wc -l; sed -n 's/VmRSS: *//p' /proc/1/status; \
             cat /proc/sys/net/netfilter/nf_conntrack_count";
        let guest = dctl
            .dctl(&["machine", "shell", "sh", "-c", script])
            .success()
            .text();
        let mut numbers = guest
            .split_whitespace()
            .filter_map(|word| word.parse::<u64>().ok());
        let mut next = || {
            numbers
                .next()
                .with_context(|| format!("the guest said {guest:?}"))
        };
        let agent = Process {
            files: next()?,
            memory: next()?,
        };
        Ok(Self {
            engine: process(dctl, Part::Engine)?,
            monitor: process(dctl, Part::Monitor)?,
            agent,
            tracked: next()?,
        })
    }
}

fn process(dctl: &Installation, part: Part) -> Result<Process> {
    let id = dctl
        .processes(part)
        .first()
        .with_context(|| format!("no {part:?} runs"))?
        .as_raw_nonzero();
    let process = PathBuf::from(format!("/proc/{id}"));
    Ok(Process {
        files: fs::read_dir(process.join("fd"))?.count() as u64,
        memory: resident(&process)?,
    })
}

/// `VmRSS` of a process, in KiB; of memory that is shared with a guest nothing.
fn resident(process: &Path) -> Result<u64> {
    let status = fs::read_to_string(process.join("status"))?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .with_context(|| format!("a process has {name}"))
    };
    Ok(field("RssAnon:")? + field("RssFile:")?)
}
