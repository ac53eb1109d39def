//! What an engine and its agent have in hand: connections, tasks, files, processes.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::tests::{engine::Engine, stage::DeveloperAgent};

/// How long things may take to go: what lingers does so for some seconds.
const PATIENCE: Duration = Duration::from_secs(40);

/// What is there at a moment.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Footprint {
    /// Tasks of this test's runtime, which the engine's are among.
    tasks: usize,
    /// Clients' connections.
    clients: usize,
    /// Connections to the agent.
    calls: usize,
    /// Descriptors that the agent has open.
    files: Vec<String>,
    /// Processes that the agent has started.
    processes: Vec<String>,
}

impl fmt::Debug for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tasks, {} clients, {} calls, {} files {:?}, {} processes {:?}",
            self.tasks,
            self.clients,
            self.calls,
            self.files.len(),
            counted(&self.files),
            self.processes.len(),
            self.processes,
        )
    }
}

fn counted(names: &[String]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for name in names {
        *counts.entry(name.as_str()).or_default() += 1;
    }
    counts
}

impl Footprint {
    /// Looks.
    pub(super) fn of(engine: &Engine, agent: &DeveloperAgent) -> Self {
        let mut files: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", agent.id()))
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .map(|target| kind(&target))
            .collect();
        files.sort();
        Self {
            tasks: tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks(),
            clients: connections(engine.socket()),
            calls: connections(&engine.agent_socket()),
            files,
            processes: descendants(agent.id()),
        }
    }

    /// Waits until everything is as it was.
    pub(super) async fn returns(&self, engine: &Engine, agent: &DeveloperAgent, after: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Self::of(engine, agent);
            if now == *self {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "after {after} there are\n{now:?}, before it there were\n{self:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A descriptor's target without what tells it from others of its kind.
fn kind(target: &Path) -> String {
    let target = target.display().to_string();
    match target.split_once(":[") {
        Some((kind, _)) => kind.to_owned(),
        None => target,
    }
}

/// Connections that were made to the socket at `path` and that its listener has
/// accepted.
pub(super) fn connections(path: &Path) -> usize {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap();
    let path = path.display().to_string();
    let of_path = table
        .lines()
        .filter(|line| line.split_whitespace().nth(7) == Some(&path));
    // Flags, type and state: a listener's flag is not a connection's.
    of_path
        .filter(|line| line.split_whitespace().nth(3) == Some("00000000"))
        .count()
}

/// Command lines of all processes below one.
fn descendants(process: u32) -> Vec<String> {
    let mut parents = HashMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|it| it.parse().ok()) else {
            continue;
        };
        if let Some(parent) = parent(&entry.path()) {
            parents.insert(id, parent);
        }
    }
    let is_below = |mut id: u32| {
        while let Some(&parent) = parents.get(&id) {
            if parent == process {
                return true;
            }
            id = parent;
        }
        false
    };
    let mut found: Vec<_> = parents
        .keys()
        .filter(|id| is_below(**id))
        .map(|id| {
            let line = std::fs::read(PathBuf::from(format!("/proc/{id}/cmdline")));
            String::from_utf8_lossy(&line.unwrap_or_default()).replace('\0', " ")
        })
        .collect();
    found.sort();
    found
}

/// A process's parent; the name before it in the file may hold anything.
fn parent(process: &Path) -> Option<u32> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}
