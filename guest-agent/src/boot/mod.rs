//! From the kernel's hand-over to the first call answered, and back to power off.
//!
//! [`main`] is PID 1's. The order: a root that containers can pivot from
//! ([`root`]), the kernel's file systems ([`mounts`]), the call server, the data
//! disk ([`disk`]), ready. A disk that cannot be used does not stop the machine
//! from answering: it tells why.

pub(crate) mod developer;
pub(crate) mod disk;
mod mounts;
mod power;
mod root;
mod seed;

use std::{fs::File, path::PathBuf, process::ExitCode, sync::Arc};

use guest_protocol::{AGENT_PORT, POWER_BUTTON_PORT, READY_PORT, SHARE_CHANGES_PORT};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{
    agent::{Agent, Stages},
    allocator,
    containers::Paths,
    egress,
    error::{Context, Result},
    log::Log,
    runtime::loopback,
    server::{self, Listener},
    shares::{Shares, changes, engine},
    shutdown,
};

/// Where the data disk is mounted.
const DATA: &str = "/data";

/// The machine's name for itself.
const HOSTNAME: &str = "dctl";

/// PID 1. Never comes back: when it ends, the kernel panics, and the host sees that.
pub(crate) fn main() -> ExitCode {
    let stages = Stages::default();
    stages.reach("agent");
    let log = Log::new();
    log.install(false);
    match run(log, stages) {
        Ok(()) => power::off(),
        Err(error) => {
            // The console is all there is at this point.
            eprintln!("the agent cannot run: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(log: Log, stages: Stages) -> Result<()> {
    let seed = root::switch()?;
    mounts::mount_all();
    set_up_process();
    stages.reach("mounted");

    allocator::share_arenas();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(512 * 1024)
        .enable_all()
        .build()
        .context("cannot start the agent's threads")?;
    let agent = runtime.block_on(serve(log, stages, seed))?;
    // Ends every task, so that the database is closed before its disk goes.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    drop(agent);
    disk::unmount(DATA.as_ref());
    Ok(())
}

/// What a process gets from its parent and PID 1 has from nobody.
fn set_up_process() {
    let files = Rlimit {
        current: Some(1024 * 1024),
        maximum: Some(1024 * 1024),
    };
    let results = [
        (
            "the host name",
            rustix::system::sethostname(HOSTNAME.as_bytes()).map_err(Into::into),
        ),
        ("the loopback interface", loopback::bring_up_here()),
        (
            "the limit of open files",
            setrlimit(Resource::Nofile, files).map_err(Into::into),
        ),
        ("the working directory", std::env::set_current_dir("/")),
    ];
    for (what, result) in results {
        if let Err(error) = result {
            tracing::warn!("{what} was not set: {error}");
        }
    }
}

async fn serve(log: Log, stages: Stages, seed: Option<File>) -> Result<Arc<Agent>> {
    log.follow_kernel();
    let paths = Paths {
        data: PathBuf::from(DATA),
        run: PathBuf::from("/run/dctl"),
        program: PathBuf::from(root::PROGRAM),
    };
    let shares = Shares::of_machine(paths.run.join("shares"));
    let agent = Arc::new(Agent::new(log, stages, paths, shares)?);
    shutdown::listen_for_signals(&agent)?;
    if let Err(error) = egress::start() {
        // The machine is of use without, and says so.
        tracing::error!("nothing can leave the machine: {error}");
    }
    let calls = Listener::vsock(AGENT_PORT)?;
    let power_button = Listener::vsock(POWER_BUTTON_PORT)?;
    let button = Arc::clone(&agent);
    tokio::spawn(async move {
        // A connection is all the message there is.
        match power_button.accept().await {
            Ok(_) => tracing::info!("the power button was pressed"),
            Err(error) => tracing::error!("the power button is broken: {error}"),
        }
        button.power_button.press();
    });
    tokio::spawn(server::serve(Arc::clone(&agent), calls));
    if let Err(error) = engine::listen(agent.shares.engine()) {
        // Only containers that want it miss it.
        tracing::error!("{error}");
    }
    let changes = Listener::vsock(SHARE_CHANGES_PORT)?;
    tokio::spawn(changes::listen(agent.shares.clone(), changes));
    agent.stages.reach("listening");

    let disk = tokio::task::spawn_blocking(move || disk::mount(DATA.as_ref(), seed))
        .await
        .context("mounting the data disk failed")?;
    agent.stages.reach("disk");
    // Waits for the disk, which this thread may.
    let opening = Arc::clone(&agent);
    tokio::task::spawn_blocking(move || opening.open_storage(disk))
        .await
        .context("opening the data disk failed")?;
    agent.stages.reach("ready");
    tracing::info!("ready: {:?}", agent.stages.reached());
    if let Err(error) = server::announce(READY_PORT).await {
        // The host may have gone on by itself, having seen that calls are answered.
        tracing::warn!("{error}");
    }
    if let Ok(storage) = agent.storage() {
        let containers = storage.containers.clone();
        tokio::spawn(async move { containers.start_by_policy().await });
    }
    agent.power_button.pressed().await;
    shutdown::stop_containers(&agent).await;
    Ok(agent)
}
