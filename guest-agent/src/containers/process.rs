//! A container's process: made by the runtime, joined to its stdio, its log and its
//! networks, and let go.

use std::{collections::BTreeMap, io, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use guest_protocol::{container::Container, docker::EndpointSettings};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::oneshot;

use super::{
    Containers, Entry, cgroup, keeps_log, log_attributes, log_limits,
    spec::{self, user::User},
    user_namespace,
};
use crate::{
    error::{Context, Result},
    runtime::{
        Created,
        job::{Confinement, Job},
    },
    stdio::{AgentEnds, ProcessEnds, Stdio, console::ConsoleSocket, json_log::LogWriter},
};

/// A process that runs.
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) descriptor: OwnedFd,
    /// Its exit code, when it ends.
    pub(super) exit: oneshot::Receiver<i64>,
    /// What it has in its networks.
    pub(super) networks: BTreeMap<String, EndpointSettings>,
}

impl Containers {
    /// Makes the process and lets it go.
    pub(super) async fn make_and_start(
        &self,
        entry: &Entry,
        container: &Container,
        user: &User,
        stdio: &Arc<Stdio>,
        confinement: Confinement,
    ) -> Result<Process> {
        let (created, ends) = self.make(container, user, stdio, confinement).await?;
        let exit = self.shared.reaper.watch(created.pid);
        let pid = created.pid;
        let descriptor =
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
            Ok(networks) => Ok(Process {
                pid,
                descriptor,
                exit,
                networks,
            }),
            Err(error) => {
                // It may still wait for its start: it must not outlive this failure.
                let _ = pidfd_send_signal(&descriptor, Signal::KILL);
                let _ = exit.await;
                Err(error)
            }
        }
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
        let uid = user_namespace::machine_id(host, user.uid);
        let prepare = |master| {
            stdio
                .terminal_of(master, uid)
                .context("cannot use a terminal")
        };
        let runtime = &self.shared.runtime;
        let made = runtime.create_with_terminal(&job, &socket, prepare).await?;
        weigh()?;
        Ok(made)
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
