//! Starting a container, and watching it to its end.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use guest_protocol::{
    AgentError, ErrorKind,
    container::{Container, Status},
    docker::EndpointSettings,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    Containers, Entry, LOST, Record, cgroup, health, keeps_log, log_attributes, log_limits,
    new_stdio,
    restart_policy::wanted_after,
    spec::{self, Joined, Sources, mounts, rootfs::Rootfs, user, user::User},
    user_namespace,
};
use crate::{
    clock,
    error::{Context, Result},
    exec::exit_code,
    images::overlay,
    runtime::{
        Created,
        job::{Confinement, Job},
    },
    stdio::{
        AgentEnds, ProcessEnds, Stdio,
        console::{ConsoleSocket, give_terminal},
        json_log::LogWriter,
    },
};

/// How long a container's end waits for its output to be handed on. A connection
/// that is slower goes on reading; nothing is lost.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);

/// The first pause of a restart policy, doubled each time up to the longest;
/// Docker's values.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// A run this long was a success: the next pause is the first again.
const LONG_RUN: Duration = Duration::from_secs(10);

/// A process that runs: its id, a descriptor of it, its end, and what it has in its
/// networks.
type Made = (
    Pid,
    OwnedFd,
    oneshot::Receiver<i64>,
    BTreeMap<String, EndpointSettings>,
);

impl Containers {
    /// Starts a container.
    ///
    /// # Errors
    /// [`ErrorKind::NotModified`] when it runs; else why it does not.
    pub(crate) async fn start(&self, reference: &str) -> Result<()> {
        let entry = self.find(reference)?;
        self.start_entry(&entry).await
    }

    /// Notes that a container was not started because the host could not do its part.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub(crate) async fn start_failed(&self, reference: &str, message: &str) -> Result<()> {
        let entry = self.find(reference)?;
        let _lifecycle = entry.lifecycle.lock().await;
        let status = entry.record().container.state.status;
        if matches!(status, Status::Created | Status::Exited) {
            let error = AgentError::new(ErrorKind::System, message);
            self.note_failed_start(&entry, &error);
        }
        Ok(())
    }

    pub(super) async fn start_entry(&self, entry: &Arc<Entry>) -> Result<()> {
        let _lifecycle = entry.lifecycle.lock().await;
        let status = entry.record().container.state.status;
        match status {
            Status::Running => {
                return Err(AgentError::new(
                    ErrorKind::NotModified,
                    format!("container {} is already running", entry.id),
                ));
            }
            Status::Paused => {
                return Err(AgentError::new(
                    ErrorKind::Conflict,
                    "cannot start a paused container, try unpause instead",
                ));
            }
            Status::Removing | Status::Dead => {
                return Err(AgentError::new(
                    ErrorKind::Conflict,
                    "container is marked for removal and cannot be started",
                ));
            }
            Status::Created | Status::Restarting | Status::Exited => {}
        }
        self.launch(entry, FIRST_PAUSE, false).await
    }

    /// Starts it; `pause` is how long its restart policy waits when this run ends.
    async fn launch(&self, entry: &Arc<Entry>, pause: Duration, again: bool) -> Result<()> {
        if *self.shared.closing.borrow() {
            return Err(AgentError::new(
                ErrorKind::Unavailable,
                "the machine is shutting down",
            ));
        }
        let stdio = entry.stdio();
        match self.launch_with(entry, &stdio, pause, again).await {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!("container {} did not start: {error}", &entry.id[..12]);
                self.clear(entry).await;
                stdio.cancel();
                self.note_failed_start(entry, &error);
                Err(error)
            }
        }
    }

    async fn launch_with(
        &self,
        entry: &Arc<Entry>,
        stdio: &Arc<Stdio>,
        pause: Duration,
        again: bool,
    ) -> Result<()> {
        unmounted(entry).await;
        let container = entry.container();
        let (user, confinement) = tokio::task::block_in_place(|| self.prepare(entry))?;
        let mut running = entry.record().clone();
        note_running(&mut running, again);
        // The disk takes its time: the process is made meanwhile.
        let (containers, record) = (self.clone(), running.clone());
        let kept = tokio::task::spawn_blocking(move || containers.shared.records.put(&record));
        let made = self
            .make_and_start(entry, &container, &user, stdio, confinement)
            .await;
        let kept = kept.await.context("keeping a record failed").flatten();
        let (pid, process, exit, networks) = made?;
        running.container.networks = networks;
        if let Err(error) = &kept {
            // It goes on in memory; the disk tells the truth with the next change.
            tracing::error!("the state of container {} was not kept: {error}", entry.id);
        }
        running.container.state.pid = pid.as_raw_nonzero().get().unsigned_abs();
        *entry.record() = running;
        entry.live().process = Some(Arc::new(process));
        entry.history.send_modify(|history| history.running = true);
        self.tell_volumes(entry, "mount");
        self.tell(entry, "start", &[]);
        self.tell_linking(entry);
        self.tend_health(entry);
        let (containers, entry, stdio) = (self.clone(), Arc::clone(entry), Arc::clone(stdio));
        tokio::spawn(async move { containers.supervise(entry, stdio, exit, pause).await });
        Ok(())
    }

    /// Makes the process and lets it go.
    async fn make_and_start(
        &self,
        entry: &Entry,
        container: &Container,
        user: &User,
        stdio: &Arc<Stdio>,
        confinement: Confinement,
    ) -> Result<Made> {
        let (created, ends) = self.make(container, user, stdio, confinement).await?;
        let exit = self.shared.reaper.watch(created.pid);
        let pid = created.pid;
        let process =
            pidfd_open(pid, PidfdFlags::empty()).context("the container's process is gone")?;
        let log = self
            .open_log(entry, container)
            .context("cannot open the container's log");
        let joined = tokio::task::block_in_place(|| {
            let pid = pid.as_raw_nonzero().get();
            self.set_propagation(container, user, pid)?;
            Ok((log?, self.join_networks(entry, pid)?))
        });
        let started = match joined {
            Ok((log, networks)) => {
                stdio.start(ends, log);
                created.start().await.map(|()| networks)
            }
            Err(error) => {
                // The runtime, which is the process's parent, waits for its start.
                drop(created);
                Err(error)
            }
        };
        match started {
            Ok(networks) => Ok((pid, process, exit, networks)),
            Err(error) => {
                // It may still wait for its start: it must not outlive this failure.
                let _ = pidfd_send_signal(&process, Signal::KILL);
                let _ = exit.await;
                Err(error)
            }
        }
    }

    /// The log of the run that begins, if its driver keeps one.
    fn open_log(&self, entry: &Entry, container: &Container) -> io::Result<Option<LogWriter>> {
        if !keeps_log(container) {
            return Ok(None);
        }
        let log = LogWriter::open(
            &self.shared.paths.log(&entry.id),
            log_limits(container).unwrap_or_default(),
            Arc::clone(&entry.log_progress),
        )?;
        Ok(Some(log.with_attributes(&log_attributes(container))))
    }

    /// Mounts the root file system and writes the bundle.
    fn prepare(&self, entry: &Entry) -> Result<(User, Confinement)> {
        let record = entry.record().clone();
        let container = &record.container;
        let paths = &self.shared.paths;
        let (folder, root) = (paths.container(&container.id), paths.rootfs(&container.id));
        // Folders that were made right before a power cut are not on the disk.
        fs::create_dir_all(&folder)
            .and_then(|()| spec::files::write_missing(container, &folder))
            .context("cannot write the container's files")?;
        let layers = self.shared.images.layers(&container.image_id)?;
        overlay::mount(&layers, &folder.join("upper"), &folder.join("work"), &root)
            .context("cannot mount the container's root file system")?;
        let rootfs = Rootfs::at(&root).context("cannot open the container's root file system")?;
        let host = &container.host_config;
        let user = user::resolve(
            &rootfs,
            container.config.user.as_deref().unwrap_or_default(),
            host.group_add.as_deref().unwrap_or_default(),
        )?;
        if let Some(folder) = container
            .config
            .working_dir
            .as_deref()
            .filter(|folder| !folder.is_empty())
        {
            rootfs
                .make_folder(Path::new(folder))
                .context(format_args!("cannot make the working directory {folder}"))?;
        }
        let mut volumes = self.mount_volumes(container)?;
        let mut places = self.fill_volumes(&record, &rootfs, &mut volumes)?;
        entry.live().volumes = volumes;
        let [uid, gid] = [user.uid, user.gid].map(|id| user_namespace::machine_id(host, id));
        places.extend(self.shared.shares.places(container, uid, gid)?);
        let bundle = paths.bundle(&container.id);
        fs::create_dir_all(&bundle).context("cannot make the container's bundle")?;
        let joined = self.joined_namespaces(container)?;
        let shared_memory = self.shared_memory(container, &joined)?;
        let network = joined.iter().find(|joined| joined.kind == "network");
        let etc = network.map_or_else(|| folder.clone(), |other| paths.container(&other.id));
        let linked = self.linked(container)?;
        let link_environment: Vec<String> = linked
            .into_iter()
            .flat_map(|linked| linked.environment)
            .collect();
        let confinement = spec::confinement(host, &bundle)?;
        let sources = Sources {
            container,
            user: &user,
            rootfs: &root,
            folder: &etc,
            link_environment: &link_environment,
            init_program: &paths.program,
            joined: &joined,
            shared_memory: shared_memory.as_deref(),
            places: &places,
        };
        let mut config = spec::container(&sources, &confinement)?;
        if user_namespace::is_wanted(host) {
            // What was looked for and made so far had the disk's ids.
            drop(rootfs);
            let place = paths.bundle(&container.id).join("disk");
            overlay::unmount(&root)
                .and_then(|()| {
                    user_namespace::mount_root(&paths.data, &layers, &folder, &root, &place)
                })
                .context("cannot mount the container's root file system for its user namespace")?;
            user_namespace::map_mounts(&mut config, &paths.data, &paths.mapped(&container.id))
                .context("cannot mount the container's files for its user namespace")?;
        }
        fs::write(bundle.join("config.json"), config.to_string())
            .context("cannot write the container's bundle")?;
        Ok((user, confinement))
    }

    fn joined_namespaces(&self, container: &Container) -> Result<Vec<Joined>> {
        let mut joined = Vec::new();
        for (kind, mode) in spec::shared_namespaces(&container.host_config) {
            let Some(reference) = mode.strip_prefix("container:") else {
                continue;
            };
            let other = self.find(reference)?;
            let pid = other.record().container.state.pid;
            if pid == 0 {
                return Err(AgentError::new(
                    ErrorKind::Conflict,
                    format!("cannot join {kind} namespace of a non running container: {reference}"),
                ));
            }
            joined.push(Joined {
                kind,
                pid,
                id: other.id.clone(),
            });
        }
        Ok(joined)
    }

    /// The `/dev/shm` that the container shares: another's, or its own for others.
    fn shared_memory(&self, container: &Container, joined: &[Joined]) -> Result<Option<PathBuf>> {
        if let Some(joined) = joined.iter().find(|joined| joined.kind == "ipc") {
            let other = self.find(&joined.id)?;
            if !spec::shares_memory(&other.record().container.host_config) {
                return Err(AgentError::invalid(format!(
                    "can't join IPC of container {}: non-shareable IPC (hint: use \
                     IpcMode:shareable for the donor container)",
                    joined.id
                )));
            }
            return Ok(Some(self.shared.paths.shared_memory(&joined.id)));
        }
        if !spec::shares_memory(&container.host_config) {
            return Ok(None);
        }
        let folder = self.shared.paths.shared_memory(&container.id);
        let size = mounts::shared_memory_size(&container.host_config);
        mounts::mount_shared_memory(&folder, size)
            .context("cannot make the container's shared memory")?;
        Ok(Some(folder))
    }

    /// Has the runtime make the process.
    async fn make(
        &self,
        container: &Container,
        user: &User,
        stdio: &Stdio,
        confinement: Confinement,
    ) -> Result<(Created, AgentEnds)> {
        let paths = &self.shared.paths;
        let host = &container.host_config;
        let weights = spec::resources::device_weights(host)?;
        let weigh = || {
            cgroup::weigh(&cgroup::path(container), &weights).context("cannot set weights of disks")
        };
        let devices =
            spec::resources::devices::rules(host)?.map(|rules| (cgroup::path(container), rules));
        let job = |console: Option<PathBuf>| Job::Container {
            id: container.id.clone(),
            bundle: paths.bundle(&container.id),
            state: paths.runtime_state(),
            console,
            devices,
            own_network: spec::own_network(host),
            confinement,
        };
        if !stdio.tty() {
            let (agent, process) = stdio.pipes().context("cannot make pipes")?;
            let uid = user_namespace::machine_id(host, user.uid);
            give_to(&process, uid).context("cannot give a container its pipes")?;
            let created = self
                .shared
                .runtime
                .create(&job(None), Some(process))
                .await?;
            weigh()?;
            return Ok((created, agent));
        }
        let path = paths.console(&container.id);
        let socket = ConsoleSocket::bind(&path).context("cannot wait for a terminal")?;
        let job = job(Some(path));
        let (created, master) = self
            .shared
            .runtime
            .create_with_terminal(&job, &socket)
            .await?;
        weigh()?;
        let uid = user_namespace::machine_id(host, user.uid);
        give_terminal(&master, uid).context("cannot give a container its terminal")?;
        let ends = stdio.terminal(master).context("cannot use a terminal")?;
        Ok((created, ends))
    }

    fn note_failed_start(&self, entry: &Arc<Entry>, error: &AgentError) {
        entry.live().stdio = new_stdio(&entry.record().container);
        let noted = self.change(entry, |record| {
            let state = &mut record.container.state;
            if state.status == Status::Restarting {
                state.status = Status::Exited;
                state.finished_at = clock::now();
            }
            state.pid = 0;
            state.exit_code = exit_code(error);
            state.error.clone_from(&error.message);
            record.container.host_config.auto_remove == Some(true)
        });
        let auto_remove = *noted.as_ref().unwrap_or(&false);
        Self::report(entry, noted.map(drop));
        entry.history.send_modify(|history| {
            history.running = false;
            history.exit_code = exit_code(error);
        });
        if auto_remove {
            self.remove_soon(entry);
        }
    }

    /// A container whose record cannot be written goes on in memory; the disk tells
    /// the truth again with the next change.
    fn report(entry: &Entry, result: Result<()>) {
        if let Err(error) = result {
            tracing::error!("the state of container {} was not kept: {error}", entry.id);
        }
    }

    /// Waits for the end of a run, clears up after it, and does what the restart
    /// policy says.
    async fn supervise(
        self,
        entry: Arc<Entry>,
        stdio: Arc<Stdio>,
        exit: oneshot::Receiver<i64>,
        pause: Duration,
    ) {
        let began = Instant::now();
        let code = exit.await.unwrap_or(LOST);
        health::stop_probing(&entry);
        let cgroup = entry.cgroup();
        let out_of_memory = cgroup::was_out_of_memory(&cgroup);
        // With a shared pid namespace its processes do not go with the first one.
        cgroup::kill(&cgroup);
        let _ = timeout(OUTPUT_GRACE, stdio.ended()).await;
        self.clear(&entry).await;

        let closing = *self.shared.closing.borrow();
        let long = began.elapsed() >= LONG_RUN;
        {
            let mut live = entry.live();
            live.process = None;
            live.stdio = new_stdio(&entry.record().container);
        }
        let (restart, noted) = {
            let mut record = entry.record();
            let restart = !closing && wanted_after(&record, code);
            let state = &mut record.container.state;
            state.status = if restart {
                Status::Restarting
            } else {
                Status::Exited
            };
            state.pid = 0;
            state.exit_code = code;
            state.oom_killed = out_of_memory;
            state.finished_at = clock::now();
            // One that goes with its run is not worth a write: at a crash it is still
            // on disk as running, and goes at the next boot.
            let noted = if record.container.host_config.auto_remove == Some(true) {
                Ok(())
            } else {
                self.shared.records.put(&record)
            };
            (restart, noted)
        };
        Self::report(&entry, noted);
        if out_of_memory {
            self.tell(&entry, "oom", &[]);
        }
        let seconds = began.elapsed().as_secs().to_string();
        self.tell(
            &entry,
            "die",
            &[("exitCode", code.to_string()), ("execDuration", seconds)],
        );
        self.tell_volumes(&entry, "unmount");
        entry.history.send_modify(|history| {
            history.running = restart;
            history.runs += 1;
            history.exit_code = code;
        });
        if restart {
            let pause = if long { FIRST_PAUSE } else { pause };
            self.start_again(entry, pause);
        } else if entry.record().container.host_config.auto_remove == Some(true) {
            self.remove_soon(&entry);
        }
    }

    fn start_again(&self, entry: Arc<Entry>, pause: Duration) {
        let containers = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _lifecycle = entry.lifecycle.lock().await;
            if entry.record().container.state.status != Status::Restarting {
                return;
            }
            let next = (pause * 2).min(LONGEST_PAUSE);
            // Boxed: a launch can lead here again.
            let launch = Box::pin(containers.launch(&entry, next, true));
            if let Err(error) = launch.await {
                tracing::error!("container {} was not started again: {error}", entry.id);
            }
        });
    }

    /// Takes away what a run leaves: cgroup, mount, the runtime's state. The mount
    /// goes in the background.
    async fn clear(&self, entry: &Entry) {
        let (paths, id) = (&self.shared.paths, &entry.id);
        let cgroup = entry.cgroup();
        cgroup::kill(&cgroup);
        tokio::task::block_in_place(|| self.leave_networks(entry));
        if let Err(error) = cgroup::remove(&cgroup).await {
            tracing::warn!("the cgroup of container {id} is left over: {error}");
        }
        let root = paths.rootfs(id);
        let unmounting = tokio::task::spawn_blocking(move || {
            if let Err(error) = overlay::unmount(&root) {
                tracing::warn!("{} stays mounted: {error}", root.display());
            }
        });
        let volumes = {
            let mut live = entry.live();
            live.unmounting = Some(unmounting);
            std::mem::take(&mut live.volumes)
        };
        drop(volumes);
        if let Err(error) = overlay::unmount(&paths.shared_memory(id)) {
            tracing::warn!("the shared memory of container {id} stays mounted: {error}");
        }
        let bundle = match user_namespace::unmap_mounts(&paths.mapped(id)) {
            Ok(()) => Some(paths.bundle(id)),
            Err(error) => {
                // Nothing is deleted where a volume may still be mounted.
                tracing::error!("files of container {id} stay mounted: {error}");
                None
            }
        };
        let state = paths.runtime_state().join(id);
        for folder in bundle.into_iter().chain([state]) {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!("{} is left over: {error}", folder.display());
                }
                _ => {}
            }
        }
    }
}

/// Waits until the last run's root file system is unmounted.
pub(super) async fn unmounted(entry: &Entry) {
    let unmounting = entry.live().unmounting.take();
    if let Some(unmounting) = unmounting {
        // Panics are reported where they happen.
        let _ = unmounting.await;
    }
}

fn note_running(record: &mut Record, again: bool) {
    record.stopped_by_user = false;
    let container = &mut record.container;
    if again {
        container.restart_count += 1;
    } else {
        container.restart_count = 0;
    }
    let state = &mut container.state;
    state.status = Status::Running;
    state.exit_code = 0;
    state.oom_killed = false;
    state.error.clear();
    state.started_at = clock::now();
    state.finished_at = 0;
    container.state.health = health::at_start(container);
}

/// Lets the container's user open its own stdio by name (`/dev/stdout`).
fn give_to(ends: &ProcessEnds, uid: u32) -> io::Result<()> {
    let uid = rustix::fs::Uid::from_raw(uid);
    for end in [&ends.stdin, &ends.stdout, &ends.stderr] {
        // `/dev/null` is everybody's.
        if rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(end)?.st_mode)
            == rustix::fs::FileType::Fifo
        {
            rustix::fs::fchown(end, Some(uid), None)?;
        }
    }
    Ok(())
}
