//! The engine: the Docker Engine API on a unix socket, in front of a machine.
//!
//! The hidden subcommand `dctl engine` calls [`run`]; clients are `dctl`, Docker's
//! own command line and whatever else speaks the API. The engine owns no container
//! state: each answer comes from the guest agent ([`agent`]), so it can be stopped,
//! killed and started with nothing lost. It pulls images ([`images`],
//! [`registry`]), for which it has the user's credentials and network, and listens on the
//! host for containers ([`ports`]).
//!
//! It must not know what a hypervisor is; [`dctl_machine`] does.

mod agent;
mod api;
mod clock;
mod container_clients;
mod egress;
mod guest;
mod guest_streams;
mod hangup;
mod images;
mod instance;
mod log;
mod ports;
mod registry;
mod server;
mod shares;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use dctl_machine::{Machine, Paths};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use agent::Agent;
use instance::{Instance, ReadyNotice};
use ports::Ports;
use shares::Shares;

/// Files that the engine opens at once at most, as far as the system lets it: each
/// connection to a published port takes two, and four more while it moves much.
const FILES: u64 = 65_536;

/// Threads that serve requests. They wait more than they work.
const THREADS: usize = 2;

/// What an engine is told when it is started.
#[derive(Debug)]
pub struct Options {
    /// Where everything lies.
    pub paths: Paths,
    /// The machine that it serves.
    pub machine: String,
    /// An inherited descriptor, for instance a pipe's, to which `ready` and a line
    /// feed are written once the socket listens.
    pub ready_fd: Option<i32>,
}

/// Why an engine did not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another engine serves this machine already.
    #[error("an engine runs already{}", process_id.map(|id| format!(" (process {id})")).unwrap_or_default())]
    AlreadyRunning {
        /// Its process, if it could be told.
        process_id: Option<u32>,
    },
    /// The machine's name or files are unusable.
    #[error(transparent)]
    Machine(#[from] dctl_machine::Error),
    /// A file or socket could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl EngineError {
    /// The exit code of an engine that gives way to another one.
    pub const ALREADY_RUNNING: u8 = 75;

    fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// The exit code that says so.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::AlreadyRunning { .. } => ExitCode::from(Self::ALREADY_RUNNING),
            Self::Machine(_) | Self::Io { .. } => ExitCode::FAILURE,
        }
    }
}

/// Serves the API until SIGTERM, SIGINT or `POST /dctl/engine/stop`.
///
/// The machine goes on when the engine ends; the next one finds it.
///
/// # Errors
/// [`EngineError::AlreadyRunning`] when another engine has the lock, and whatever
/// keeps it from listening.
pub fn run(options: Options) -> Result<(), EngineError> {
    let Options {
        paths,
        machine,
        ready_fd,
    } = options;
    paths.create()?;
    let files = paths.engine(&machine)?;
    files.create()?;
    let instance = Instance::acquire(&files)?;
    let log_path = files.log();
    log::start(&log_path).map_err(|source| EngineError::io("open", &log_path, source))?;
    let ready = ready_fd.map(ReadyNotice::inherited).transpose()?;
    let machine = Machine::open(&paths, &machine)?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(|source| EngineError::io("start threads for", instance.socket(), source))?;
    let result = runtime.block_on(serve(&instance, machine, ready));
    // Streams that were hijacked do not end by themselves.
    runtime.shutdown_background();
    tracing::info!("the engine ends");
    result
}

/// Takes as many descriptors as it may. The monitors that it starts inherit that.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(FILES, |most| most.min(FILES));
    if limit.current.is_some_and(|current| current < most) {
        limit.current = Some(most);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "no more files can be opened than by default");
        }
    }
}

async fn serve(
    instance: &Instance,
    machine: Machine,
    ready: Option<ReadyNotice>,
) -> Result<(), EngineError> {
    let failed = |source| EngineError::io("handle signals for", instance.socket(), source);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let guest = Arc::new(machine.clone());
    let agent = Arc::new(Agent::new(guest.clone()));
    let ports = Ports::new(Arc::clone(&agent));
    let shares = Arc::new(Shares::new(guest, instance.socket()));
    let shutdown = Arc::new(Notify::new());
    let context = api::Context {
        agent: Arc::clone(&agent),
        shares: Arc::clone(&shares),
        starter: dctl_machine::assets::starter_image()
            .inspect_err(|error| tracing::warn!(%error, "there is no starter image"))
            .ok(),
        shutdown: Arc::clone(&shutdown),
        ports: ports.clone(),
    };
    let listener = instance.listen()?;
    tracing::info!(socket = %instance.socket().display(), version = env!("CARGO_PKG_VERSION"), "the engine listens");
    if let Some(ready) = ready {
        ready.send();
    }
    let router = api::router(context);
    let egress = tokio::spawn(egress::keep(machine.clone()));
    let clients = container_clients::keep(machine.clone(), Arc::clone(&shares), router.clone());
    let clients = tokio::spawn(clients);
    let keeping = tokio::spawn(shares::keep(machine.clone(), Arc::clone(&agent), shares));
    let clock = tokio::spawn(clock::keep(machine, agent));
    let ports = tokio::spawn(ports::watch::follow(ports));
    let end = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = shutdown.notified() => {}
        }
    };
    let limits = server::Limits::default();
    server::serve(listener, router, limits, end).await;
    clock.abort();
    ports.abort();
    egress.abort();
    clients.abort();
    keeping.abort();
    Ok(())
}
