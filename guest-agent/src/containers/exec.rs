//! Commands in running containers.

use std::{path::Path, sync::Arc};

use guest_protocol::{
    AgentError, ErrorKind,
    container::{Container, ExecConfig, Status},
};

use super::{
    Containers, Entry,
    pause::restarting,
    spec::{
        self,
        rootfs::Rootfs,
        user::{self, User},
    },
    user_namespace,
};
use crate::{
    error::{Context, Result},
    exec::{Command, Execs, Place},
    runtime::{
        executor::Purpose,
        job::{Job, UserNamespace},
    },
    stdio::detach_keys::DetachKeys,
};

impl Containers {
    /// Prepares a command to run in a running container.
    ///
    /// # Errors
    /// When the container does not run, or has no such user.
    pub(crate) fn create_exec(&self, reference: &str, config: ExecConfig) -> Result<Arc<Command>> {
        let entry = self.find(reference)?;
        require_running(&entry, reference)?;
        let action = format!("exec_create: {}", told(&config.cmd));
        let keys = &config.detach_keys;
        DetachKeys::parse(keys)
            .map_err(|_| AgentError::invalid(format!("Invalid escape keys ({keys}) provided")))?;
        let container = entry.container();
        resolve_user(&container, &root_of(&container)?, &config)?;
        let command = self.shared.execs.create(&entry.id, config)?;
        self.tell(&entry, &action, &[("execID", command.exec().id)]);
        Ok(command)
    }

    /// Whether a command may be run now in its container.
    ///
    /// # Errors
    /// When the container does not run.
    pub(crate) fn check_exec(&self, command: &Command) -> Result<()> {
        let entry = self.find(&command.exec().container_id)?;
        require_running(&entry, &entry.id)
    }

    /// Runs a prepared command.
    ///
    /// # Errors
    /// When it was run before, the container does not run, or its program cannot be
    /// executed.
    pub(crate) async fn start_exec(&self, command: &Arc<Command>) -> Result<()> {
        let entry = self.find(&command.exec().container_id)?;
        require_running(&entry, &entry.id)?;
        Execs::claim(command)?;
        let started = self.start_claimed(command, &entry).await;
        if let Err(error) = &started {
            command.fail(error);
        }
        started
    }

    async fn start_claimed(&self, command: &Arc<Command>, entry: &Arc<Entry>) -> Result<()> {
        let exec = command.exec();
        let container = entry.container();
        let config = &exec.config;
        let paths = &self.shared.paths;
        let rootfs = root_of(&container)?;
        if !config.working_dir.is_empty() && !rootfs.has_folder(&config.working_dir) {
            return Err(Purpose::Exec.start_error(
                ErrorKind::CommandNotFound,
                &format!(
                    "chdir to cwd ({:?}) set in config.json failed: no such file or directory",
                    config.working_dir
                ),
            ));
        }
        let user = resolve_user(&container, &rootfs, config)?;
        let confinement =
            spec::exec_confinement(&container.host_config, config, &paths.bundle(&entry.id))?;
        let process = paths
            .bundle(&entry.id)
            .join(format!("exec-{}.json", exec.id));
        let json = spec::exec_process(&container, &user, config, &confinement).to_string();
        std::fs::write(&process, json).context("cannot describe the process")?;

        let action = format!("exec_start: {}", told(&config.cmd));
        self.tell(entry, &action, &[("execID", exec.id.clone())]);
        let job = |console| Job::Exec {
            id: entry.id.clone(),
            process: process.clone(),
            state: paths.runtime_state(),
            console,
            user_namespace: user_namespace::is_wanted(&container.host_config).then(|| {
                UserNamespace {
                    pid: container.state.pid,
                    oom_score_adj: container.host_config.oom_score_adj.unwrap_or(0),
                }
            }),
            confinement,
        };
        let containers = self.clone();
        let (ended, id) = (Arc::clone(entry), exec.id.clone());
        let on_end = move |code: i64| {
            let more = [("execID", id), ("exitCode", code.to_string())];
            containers.tell(&ended, "exec_die", &more);
        };
        let place = Place::Container {
            socket: paths.console(&exec.id),
            uid: user_namespace::machine_id(&container.host_config, user.uid),
        };
        let result = self.shared.execs.run(command, place, job, on_end).await;
        // Read by now; a leftover would go with the container's bundle.
        let _ = std::fs::remove_file(&process);
        result
    }
}

/// A command as events tell it: the program, a space, and its arguments.
fn told(command: &[String]) -> String {
    let (program, arguments) = command.split_first().unzip();
    let arguments = arguments.map(|arguments| arguments.join(" "));
    format!(
        "{} {}",
        program.map_or("", String::as_str),
        arguments.unwrap_or_default()
    )
}

/// A running container's files as it sees them, volumes included.
fn root_of(container: &Container) -> Result<Rootfs> {
    let root = format!("/proc/{}/root", container.state.pid);
    Rootfs::at(Path::new(&root)).context("cannot look into the container's root file system")
}

/// Whom a command in a container runs as.
fn resolve_user(container: &Container, rootfs: &Rootfs, config: &ExecConfig) -> Result<User> {
    let name = if config.user.is_empty() {
        container.config.user.as_deref().unwrap_or_default()
    } else {
        &config.user
    };
    let groups = container.host_config.group_add.as_deref();
    user::resolve(rootfs, name, groups.unwrap_or_default())
}

/// Refuses a container in which nothing can be run now, in Docker's words.
fn require_running(entry: &Entry, reference: &str) -> Result<()> {
    let status = entry.record().container.state.status;
    match status {
        Status::Paused => Err(AgentError::new(
            ErrorKind::Conflict,
            format!("Container {reference} is paused, unpause the container before exec"),
        )),
        Status::Restarting => Err(restarting(reference)),
        _ if entry.live().process.is_some() => Ok(()),
        _ => Err(AgentError::new(
            ErrorKind::Conflict,
            format!("container {} is not running", entry.id),
        )),
    }
}
