//! Containers: their records, their life, and the commands run in them.
//!
//! [`Containers`] is what the method handlers call. Its parts: [`create`] makes a
//! record, [`start`] turns it into a process ([`preparation`], [`process`]),
//! [`supervision`] watches that to its end, after which [`cleanup`] comes,
//! [`stop`] ends it, [`pause`] freezes it, [`remove`](mod@remove) clears it away, [`exec`] runs
//! commands beside it and [`health`] does so by itself. [`update`] changes its limits;
//! [`stats`], [`top`], [`sizes`] and [`changes`] look at it, [`files`] and [`commit`] take
//! what is in it, [`volumes`] and [`propagation`] are about what is mounted, [`networks`] about where
//! it is connected, and [`ports`] about what is published.
//! [`records`] keeps it all on the data disk ([`paths`] says where); [`spec`] says what the process is to
//! look like. Nothing here knows of connections: handlers bring streams.
//!
//! Locking: an [`Entry`]'s `lifecycle` is held across start, stop, rename and
//! remove, one at a time; its `record` only for a look or a change. The end of a
//! process is handled without `lifecycle`, and `stop` waits for it without.

mod cgroup;
mod changes;
mod cleanup;
mod commit;
pub(crate) mod create;
mod defaults;
mod events;
mod exec;
pub(crate) mod files;
mod health;
mod lifecycle;
mod limits;
mod log;
mod mount_points;
mod names;
mod networks;
mod paths;
mod pause;
mod ports;
mod preparation;
mod process;
mod propagation;
mod records;
mod remove;
mod restart_policy;
pub(crate) mod signal;
mod sizes;
mod spec;
mod start;
mod stats;
mod stop;
mod supervision;
mod top;
mod update;
mod user_namespace;
mod volumes;

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use guest_protocol::{
    AgentError, ErrorKind,
    container::{Container, HealthStatus, Status},
    methods::WaitCondition,
};
use tokio::{sync::watch, task::JoinHandle};

pub(crate) use self::{events::Events, paths::Paths};
use self::{
    lifecycle::Lifecycle,
    log::{keeps_log, log_attributes, log_limits},
    records::{Record, Records},
};
use crate::{
    clock,
    error::{Context, Result},
    exec::Execs,
    images::{ImageStore, ImageUser, overlay, trash::Trash},
    networks::Networks,
    reaper::Reaper,
    runtime::Runtime,
    shares::Shares,
    stdio::{Shape, Stdio, json_log::Progress},
    volumes::{Mounted, Volumes},
};

/// How long a container that did not start with the machine waits for its next try;
/// doubled each time, up to the longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(1);

/// Exit code of a container that was running when the machine went down.
const LOST: i64 = 137;

/// What containers are made of, each with its own records.
#[derive(Debug)]
pub(crate) struct Stores {
    pub(crate) images: ImageStore,
    pub(crate) volumes: Volumes,
    pub(crate) networks: Networks,
    pub(crate) shares: Shares,
}

/// All containers. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Containers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    paths: Paths,
    records: Records,
    images: ImageStore,
    volumes: Volumes,
    networks: Networks,
    trash: Trash,
    shares: Shares,
    runtime: Arc<Runtime>,
    reaper: Reaper,
    events: Events,
    index: Mutex<Index>,
    execs: Execs,
    closing: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Index {
    entries: HashMap<String, Arc<Entry>>,
    /// Name to id.
    names: HashMap<String, String>,
}

/// One container.
#[derive(Debug)]
struct Entry {
    id: String,
    lifecycle: Lifecycle,
    record: Mutex<Record>,
    live: Mutex<Live>,
    history: watch::Sender<History>,
    log_progress: Arc<watch::Sender<Progress>>,
}

/// What there is of a container while it runs, or before it does.
#[derive(Debug)]
struct Live {
    /// Of this run, or of the next when it does not run.
    stdio: Arc<Stdio>,
    /// Its first process.
    process: Option<Arc<OwnedFd>>,
    /// The last run's root file system being unmounted, which writes back what
    /// the container wrote.
    unmounting: Option<JoinHandle<()>>,
    /// Held for as long as somebody looks after its health.
    health: Option<watch::Sender<()>>,
    /// The volumes that this run has mounted.
    volumes: Vec<Mounted>,
}

/// What those who wait look at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct History {
    running: bool,
    /// How many runs ended.
    runs: u64,
    exit_code: i64,
    removed: bool,
}

impl Entry {
    fn new(record: Record) -> Arc<Self> {
        let history = History {
            running: false,
            exit_code: record.container.state.exit_code,
            ..History::default()
        };
        Arc::new(Self {
            id: record.container.id.clone(),
            lifecycle: Lifecycle::default(),
            live: Mutex::new(Live {
                stdio: new_stdio(&record.container),
                process: None,
                unmounting: None,
                health: None,
                volumes: Vec::new(),
            }),
            record: Mutex::new(record),
            history: watch::Sender::new(history),
            log_progress: Arc::new(watch::Sender::new(Progress::default())),
        })
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cgroup(&self) -> PathBuf {
        cgroup::path(&self.record().container)
    }

    fn container(&self) -> Container {
        self.record().container.clone()
    }

    fn stdio(&self) -> Arc<Stdio> {
        Arc::clone(&self.live().stdio)
    }

    fn is_running(&self) -> bool {
        self.record().container.state.is_running()
    }
}

/// The stdio of a container that does not run yet.
fn new_stdio(container: &Container) -> Arc<Stdio> {
    let stdio = Stdio::new(Shape {
        tty: container.config.tty == Some(true),
        open_stdin: container.config.open_stdin == Some(true),
        stdin_once: container.config.stdin_once == Some(true),
    });
    // Its terminal's first size; clients tell the size anew when it has started.
    if let Some(&[height, width]) = container.host_config.console_size.as_deref()
        && let (Ok(height @ 1..), Ok(width @ 1..)) = (height.try_into(), width.try_into())
    {
        stdio.resize(height, width);
    }
    stdio
}

/// A wait that is registered.
#[derive(Debug)]
pub(crate) struct Wait {
    history: watch::Receiver<History>,
    condition: WaitCondition,
    runs_before: u64,
}

impl Wait {
    /// The exit code, when the condition is met.
    ///
    /// # Errors
    /// When the agent is shutting down.
    pub(crate) async fn done(mut self) -> Result<i64> {
        let met = |history: &History| match self.condition {
            WaitCondition::NotRunning => !history.running || history.removed,
            WaitCondition::NextExit => history.runs > self.runs_before || history.removed,
            WaitCondition::Removed => history.removed,
        };
        self.history
            .wait_for(met)
            .await
            .map(|history| history.exit_code)
            .map_err(|_| AgentError::new(ErrorKind::Unavailable, "the machine is shutting down"))
    }
}

impl Containers {
    /// Opens the containers on the data disk. Those that ran when the machine went
    /// down are marked as ended, and what is left of them is cleared away. Those that
    /// go with their run are removed.
    ///
    /// # Errors
    /// When the records cannot be read or corrected.
    pub(crate) fn open(
        paths: Paths,
        database: Arc<redb::Database>,
        Stores {
            images,
            volumes,
            networks,
            shares,
        }: Stores,
        runtime: Arc<Runtime>,
        reaper: Reaper,
        execs: Execs,
    ) -> Result<Self> {
        for folder in [
            paths.containers(),
            paths.run.join("containers"),
            paths.runtime_state(),
        ] {
            std::fs::create_dir_all(&folder)
                .context(format_args!("cannot make {}", folder.display()))?;
        }
        let records = Records::open(database)?;
        let mut index = Index::default();
        let mut gone = Vec::new();
        for mut record in records.load()? {
            if remove::wanted_after_boot(&record.container) {
                gone.push(record.container);
                continue;
            }
            // What it had there is gone.
            record.container.networks = record.networks.clone();
            let state = &mut record.container.state;
            if state.is_running() {
                state.status = Status::Exited;
                state.exit_code = LOST;
                // The clock may not be set yet.
                state.finished_at = clock::now().max(state.started_at);
                state.pid = 0;
                if let Some(health) = &mut state.health {
                    health.status = HealthStatus::Unhealthy;
                }
                records.put(&record)?;
            }
            let (id, name) = (record.container.id.clone(), record.container.name.clone());
            index.names.insert(name, id.clone());
            index.entries.insert(id, Entry::new(record));
        }
        let trash = Trash::open(&paths.trash()).context("cannot open the containers' trash")?;
        let containers = Self {
            shared: Arc::new(Shared {
                paths,
                records,
                images,
                volumes,
                networks,
                trash,
                shares,
                runtime,
                reaper,
                events: Events::new(),
                index: Mutex::new(index),
                execs,
                closing: watch::Sender::new(false),
            }),
        };
        for container in &gone {
            let leaving = containers.leaving_volumes(container);
            containers
                .shared
                .records
                .remove_and(&container.id, |transaction| leaving.remove_in(transaction))?;
            leaving.done();
        }
        containers.make_lost_folders();
        containers.clear_leftovers();
        containers
            .shared
            .images
            .collect(&|image| containers.users_of(image))?;
        Ok(containers)
    }

    /// Makes the folders that a power cut took while their containers were being made:
    /// a record is there with its folder, or not at all. On a full disk the start tries
    /// again: others are to be there, to make room.
    fn make_lost_folders(&self) {
        for entry in self.entries() {
            let folder = self.shared.paths.container(&entry.id);
            match std::fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    tracing::error!("cannot make {}: {error}", folder.display());
                }
                _ => {}
            }
        }
    }

    /// Clears away folders without a record and mounts without a process.
    fn clear_leftovers(&self) {
        let Ok(folders) = std::fs::read_dir(self.shared.paths.containers()) else {
            return;
        };
        for folder in folders.flatten() {
            let id = folder.file_name().to_string_lossy().into_owned();
            if let Err(error) = overlay::unmount(&self.shared.paths.rootfs(&id)) {
                tracing::warn!("a root file system of container {id} stays mounted: {error}");
            }
            if !self.index().entries.contains_key(&id) {
                self.throw_away(&id);
            }
        }
        // What an earlier run began, too.
        let containers = self.clone();
        let emptying = std::thread::Builder::new()
            .name("container-trash".into())
            .spawn(move || containers.empty_trash());
        if let Err(error) = emptying {
            tracing::warn!("files of removed containers stay on the disk: {error}");
        }
    }

    /// Starts what restart policies want running after a boot.
    pub(crate) async fn start_by_policy(&self) {
        let wanted: Vec<_> = self
            .entries()
            .into_iter()
            .filter(|entry| restart_policy::wanted_after_boot(&entry.record()))
            .collect();
        for entry in wanted {
            if let Err(error) = self.start_entry(&entry).await {
                tracing::error!("container {} was not started again: {error}", entry.id);
                // Files of the host may be missing, and come.
                if entry.container().mounts.iter().any(spec::binds::is_bind) {
                    let containers = self.clone();
                    tokio::spawn(async move { containers.start_when_possible(&entry).await });
                }
            }
        }
    }

    /// Tries to start a container that its policy wants running, until somebody does.
    async fn start_when_possible(&self, entry: &Arc<Entry>) {
        let mut pause = FIRST_RETRY;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_RETRY);
            let removed = !self.index().entries.contains_key(&entry.id);
            if removed
                || *self.shared.closing.borrow()
                || !restart_policy::wanted_after_boot(&entry.record())
            {
                return;
            }
            if self.start_entry(entry).await.is_ok() {
                return;
            }
        }
    }

    /// Where events are told.
    pub(crate) fn events(&self) -> &Events {
        &self.shared.events
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.shared
            .index
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.index().entries.values().cloned().collect()
    }

    /// The container that `reference` means: a name, an id, or the beginning of
    /// one id only.
    fn find(&self, reference: &str) -> Result<Arc<Entry>> {
        let name = reference.strip_prefix('/').unwrap_or(reference);
        let index = self.index();
        if let Some(entry) = index.entries.get(name) {
            return Ok(Arc::clone(entry));
        }
        if let Some(entry) = index.names.get(name).and_then(|id| index.entries.get(id)) {
            return Ok(Arc::clone(entry));
        }
        let mut matches = index
            .entries
            .values()
            .filter(|entry| entry.id.starts_with(name));
        match (matches.next(), matches.next()) {
            (Some(entry), None) if !name.is_empty() => Ok(Arc::clone(entry)),
            (Some(_), Some(_)) if !name.is_empty() => Err(AgentError::invalid(format!(
                "multiple IDs found with provided prefix: {name}"
            ))),
            _ => Err(AgentError::no_such_container(reference)),
        }
    }

    /// Keeps a change of a record: on disk first, then in memory.
    fn change<T>(&self, entry: &Entry, change: impl FnOnce(&mut Record) -> T) -> Result<T> {
        let mut record = entry.record();
        let mut changed = record.clone();
        let result = change(&mut changed);
        self.shared.records.put(&changed)?;
        *record = changed;
        Ok(result)
    }

    /// One container.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub(crate) fn inspect(&self, reference: &str) -> Result<Container> {
        let entry = self.find(reference)?;
        let mut container = entry.container();
        container.exec_ids = self.shared.execs.unfinished_in(&entry.id);
        Ok(container)
    }

    /// All containers, newest first.
    pub(crate) fn list(&self) -> Vec<Container> {
        let mut containers: Vec<_> = self
            .entries()
            .iter()
            .map(|entry| entry.container())
            .collect();
        containers.sort_by_key(|container| std::cmp::Reverse(container.created));
        containers
    }

    /// The containers made of the image `id`.
    pub(crate) fn users_of(&self, image: &str) -> Vec<ImageUser> {
        self.entries()
            .iter()
            .filter_map(|entry| {
                let record = entry.record();
                (record.container.image_id == image).then(|| ImageUser {
                    container_id: entry.id.clone(),
                    running: record.container.state.is_running(),
                })
            })
            .collect()
    }

    /// Registers a wait.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub(crate) fn wait(&self, reference: &str, condition: WaitCondition) -> Result<Wait> {
        let history = self.find(reference)?.history.subscribe();
        let runs_before = history.borrow().runs;
        Ok(Wait {
            history,
            condition,
            runs_before,
        })
    }

    /// Sets the size of its terminal, now or at its next start.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub(crate) fn resize(&self, reference: &str, height: u16, width: u16) -> Result<()> {
        let entry = self.find(reference)?;
        entry.stdio().resize(height, width);
        self.tell(
            &entry,
            "resize",
            &[("height", height.to_string()), ("width", width.to_string())],
        );
        Ok(())
    }

    /// Tells that a user's connection left the container's terminal.
    pub(crate) fn detached(&self, reference: &str) {
        if let Ok(entry) = self.find(reference) {
            self.tell(&entry, "detach", &[]);
        }
    }

    /// Tells that a connection joined the container's stdio.
    pub(crate) fn attached(&self, reference: &str) {
        if let Ok(entry) = self.find(reference) {
            self.tell(&entry, "attach", &[]);
        }
    }

    fn tell(&self, entry: &Entry, action: &str, more: &[(&str, String)]) {
        self.shared
            .events
            .container(&entry.record().container, action, more);
    }
}
