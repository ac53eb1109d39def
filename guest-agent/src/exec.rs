//! Commands beside a container's first process, and in the machine itself: what
//! is known of each from its creation to a while after its end.
//!
//! Execs live in memory only: none outlives the machine. Containers' execs are
//! started by [`crate::containers`], the machine's by [`crate::machine`].

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use guest_protocol::{
    AgentError, ErrorKind,
    container::{Exec, ExecConfig},
};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;

use crate::{
    error::{Context, Result},
    reaper::Reaper,
    runtime::{Created, Runtime, job::Job},
    stdio::{AgentEnds, Shape, Stdio, console::ConsoleSocket, open_terminal},
};

/// How many execs are remembered.
const REMEMBERED: usize = 1024;

/// All execs. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Execs {
    table: Arc<Mutex<HashMap<String, Arc<Command>>>>,
    runtime: Arc<Runtime>,
    reaper: Reaper,
}

/// One exec.
#[derive(Debug)]
pub(crate) struct Command {
    exec: Mutex<Exec>,
    started: Mutex<bool>,
    stdio: Arc<Stdio>,
    ended: watch::Sender<bool>,
    /// Its process, while it runs.
    process: Mutex<Option<OwnedFd>>,
    /// For forgetting the oldest first.
    number: u64,
}

/// Where an exec's terminal comes from.
#[derive(Debug)]
pub(crate) enum Place {
    /// The container's devpts, through a socket.
    Container {
        /// Where the socket is.
        socket: PathBuf,
        /// Whose terminal it is to be.
        uid: u32,
    },
    /// The machine's own devpts.
    Machine,
}

impl Command {
    /// What is known of it.
    pub(crate) fn exec(&self) -> Exec {
        self.lock().clone()
    }

    /// Its stdio.
    pub(crate) fn stdio(&self) -> &Arc<Stdio> {
        &self.stdio
    }

    /// Waits until its exit code is recorded.
    pub(crate) async fn ended(&self) {
        // An error means that it is forgotten.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Kills its process, if it runs.
    pub(crate) fn kill(&self) {
        if let Some(process) = &*self.process() {
            // It may have ended just now.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Exec> {
        self.exec.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn started(&self) -> MutexGuard<'_, bool> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn process(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it with the exit code of one that was not even tried, for `error`, unless it
    /// has one.
    pub(crate) fn fail(&self, error: &AgentError) {
        if self.lock().exit_code.is_none() {
            let found = error.kind != ErrorKind::CommandNotFound;
            self.finish(if found { 126 } else { 127 });
        }
    }

    fn finish(&self, exit_code: i64) {
        *self.process() = None;
        {
            let mut exec = self.lock();
            exec.running = false;
            exec.pid = 0;
            exec.exit_code = Some(exit_code);
        }
        self.ended.send_replace(true);
    }
}

impl Execs {
    /// None yet.
    pub(crate) fn new(runtime: Arc<Runtime>, reaper: Reaper) -> Self {
        Self {
            table: Arc::default(),
            runtime,
            reaper,
        }
    }

    /// Prepares a command; `container` is empty for the machine itself.
    ///
    /// # Errors
    /// When there is no command, or too many run.
    pub(crate) fn create(&self, container: &str, config: ExecConfig) -> Result<Arc<Command>> {
        if config.cmd.is_empty() || config.cmd[0].is_empty() {
            return Err(AgentError::invalid("No exec command specified"));
        }
        let id = crate::identity::new_id()?;
        let mut table = self.lock();
        if table.len() >= REMEMBERED {
            let oldest = table
                .values()
                .filter(|command| !command.exec().running)
                .min_by_key(|command| command.number)
                .map(|command| command.exec().id);
            match oldest {
                Some(oldest) => table.remove(&oldest),
                None => {
                    return Err(AgentError::new(
                        ErrorKind::Unavailable,
                        "too many execs are running",
                    ));
                }
            };
        }
        let number = table
            .values()
            .map(|command| command.number + 1)
            .max()
            .unwrap_or(0);
        let stdio = Stdio::new(Shape {
            tty: config.tty,
            open_stdin: config.attach_stdin,
            stdin_once: true,
        });
        if let Some([height, width]) = config.console_size {
            stdio.resize(height, width);
        }
        let command = Arc::new(Command {
            exec: Mutex::new(Exec {
                id: id.clone(),
                container_id: container.to_owned(),
                config,
                ..Exec::default()
            }),
            started: Mutex::default(),
            stdio,
            ended: watch::Sender::new(false),
            process: Mutex::default(),
            number,
        });
        table.insert(id, Arc::clone(&command));
        Ok(command)
    }

    /// The exec `id`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub(crate) fn find(&self, id: &str) -> Result<Arc<Command>> {
        self.lock().get(id).cloned().ok_or_else(|| {
            AgentError::new(ErrorKind::NotFound, format!("No such exec instance: {id}"))
        })
    }

    /// Ids of the container's execs that run, or can be started yet.
    pub(crate) fn unfinished_in(&self, container: &str) -> Vec<String> {
        self.lock()
            .values()
            .map(|command| command.exec())
            .filter(|exec| exec.exit_code.is_none() && exec.container_id == container)
            .map(|exec| exec.id)
            .collect()
    }

    /// Forgets a container's execs.
    pub(crate) fn forget(&self, container: &str) {
        self.lock()
            .retain(|_, command| command.lock().container_id != container);
    }

    /// Forgets those of a container that were not started, and cannot be any more. Of
    /// others the exit code may be asked for yet.
    pub(crate) fn forget_unstarted(&self, container: &str) {
        self.lock()
            .retain(|_, command| *command.started() || command.lock().container_id != container);
    }

    /// Forgets one exec.
    pub(crate) fn forget_one(&self, command: &Command) {
        let id = command.exec().id;
        self.lock().remove(&id);
    }

    /// Sets the size of an exec's terminal.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub(crate) fn resize(&self, id: &str, height: u16, width: u16) -> Result<()> {
        self.find(id)?.stdio.resize(height, width);
        Ok(())
    }

    /// Whether nobody has taken the right to start `command`.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when somebody has.
    pub(crate) fn check_unclaimed(command: &Command) -> Result<()> {
        if *command.started() {
            return Err(already_run(command));
        }
        Ok(())
    }

    /// Takes the right to start `command`, which there is once.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it was started before.
    pub(crate) fn claim(command: &Command) -> Result<()> {
        if std::mem::replace(&mut *command.started(), true) {
            return Err(already_run(command));
        }
        Ok(())
    }

    /// Runs `command`, which was [`claim`](Self::claim)ed, by the job that `job`
    /// makes of where the terminal is to be sent; `on_end` learns of its exit code.
    ///
    /// # Errors
    /// Why it does not run. Its exit code is recorded as a shell would give it.
    pub(crate) async fn run(
        &self,
        command: &Arc<Command>,
        place: Place,
        job: impl FnOnce(Option<PathBuf>) -> Job,
        on_end: impl FnOnce(i64) + Send + 'static,
    ) -> Result<()> {
        match self.launch(command, place, job).await {
            Ok((created, ends)) => {
                let pid = created.pid;
                let exit = self.reaper.watch(pid);
                // Not started yet, so it is there.
                *command.process() = pidfd_open(pid, PidfdFlags::empty()).ok();
                {
                    let mut exec = command.lock();
                    exec.running = true;
                    exec.pid = pid.as_raw_nonzero().get().unsigned_abs();
                }
                command.stdio.start(ends, None);
                let started = created.start().await;
                let ended = Arc::clone(command);
                let watch = async move {
                    let code = exit.await.unwrap_or(137);
                    ended.finish(code);
                    ended.stdio.drain().await;
                    code
                };
                if let Err(error) = started {
                    watch.await;
                    command.finish(exit_code(&error));
                    return Err(error);
                }
                tokio::spawn(async move { on_end(watch.await) });
                Ok(())
            }
            Err(error) => {
                command.stdio.cancel();
                command.finish(exit_code(&error));
                Err(error)
            }
        }
    }

    async fn launch(
        &self,
        command: &Command,
        place: Place,
        job: impl FnOnce(Option<PathBuf>) -> Job,
    ) -> Result<(Created, AgentEnds)> {
        let stdio = &command.stdio;
        if !stdio.tty() {
            let (agent, process) = stdio.pipes().context("cannot make pipes")?;
            let created = self.runtime.create(&job(None), Some(process)).await?;
            return Ok((created, agent));
        }
        match place {
            Place::Machine => {
                let (master, process) = open_terminal().context("cannot open a terminal")?;
                let agent = stdio.terminal(master).context("cannot use a terminal")?;
                let created = self.runtime.create(&job(None), Some(process)).await?;
                Ok((created, agent))
            }
            Place::Container { socket: path, uid } => {
                let socket = ConsoleSocket::bind(&path).context("cannot wait for a terminal")?;
                let job = job(Some(path));
                let prepare = |master| {
                    stdio
                        .terminal_of(master, uid)
                        .context("cannot use a terminal")
                };
                self.runtime
                    .create_with_terminal(&job, &socket, prepare)
                    .await
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Command>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn already_run(command: &Command) -> AgentError {
    AgentError::new(
        ErrorKind::Conflict,
        format!("exec command {} has already run", command.lock().id),
    )
}

/// The exit code of a command that could not be run, as Docker records it.
pub(crate) fn exit_code(error: &AgentError) -> i64 {
    match error.kind {
        ErrorKind::CommandNotFound => 127,
        ErrorKind::CommandNotExecutable => 126,
        _ => 128,
    }
}
