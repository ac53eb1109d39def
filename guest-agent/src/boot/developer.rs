//! The agent outside of a machine, for developing and testing: the same server
//! and the same containers, over a unix socket, in namespaces of its own.
//!
//! `dctl-agent serve --unix SOCKET --data FOLDER`, as root. Nothing outside of
//! the data folder, the socket and its cgroups is touched: bridges and rules are in a
//! network namespace of its own.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    process::set_child_subreaper,
    thread::{UnshareFlags, unshare_unsafe},
};

use super::mounts;
use crate::{
    agent::{Agent, Stages},
    containers::Paths,
    error::{Context, Result},
    log::Log,
    runtime::loopback,
    server::{self, Listener},
    shares::Shares,
    shutdown,
};

struct Options {
    socket: PathBuf,
    data: PathBuf,
}

/// Runs the agent until SIGTERM or SIGINT.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let Some(options) = parse(arguments) else {
        eprintln!("usage: dctl-agent serve --unix SOCKET --data FOLDER");
        return ExitCode::from(2);
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dctl-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[OsString]) -> Option<Options> {
    let (mut socket, mut data) = (None, None);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let slot = match argument.to_str()? {
            "--unix" => &mut socket,
            "--data" => &mut data,
            _ => return None,
        };
        *slot = Some(PathBuf::from(arguments.next()?));
    }
    Some(Options {
        socket: socket?,
        data: data?,
    })
}

fn run(options: &Options) -> Result<()> {
    let log = Log::new();
    log.install(true);
    let data = prepare(options)?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    runtime.block_on(async {
        let stages = Stages::default();
        let shares = Shares::in_folder(data.join("run/shares"));
        let paths = Paths {
            run: data.join("run"),
            data,
            program,
        };
        let agent = Arc::new(Agent::new(log, stages, paths, shares)?);
        shutdown::listen_for_signals(&agent)?;
        // Left by one that was killed.
        let _ = std::fs::remove_file(&options.socket);
        let calls = Listener::unix(&options.socket)?;
        tokio::task::block_in_place(|| agent.open_storage(Ok(())));
        agent.stages.reach("ready");
        tokio::spawn(server::serve(Arc::clone(&agent), calls));
        tracing::info!("listening on {}", options.socket.display());
        if let Ok(storage) = agent.storage() {
            let containers = storage.containers.clone();
            tokio::spawn(async move { containers.start_by_policy().await });
        }
        agent.power_button.pressed().await;
        shutdown::stop_containers(&agent).await;
        // It has served.
        let _ = std::fs::remove_file(&options.socket);
        Ok(())
    })
}

/// Makes mounts private, brings a pure cgroup v2 hierarchy, and becomes the parent
/// of orphans: what PID 1 has by nature.
fn prepare(options: &Options) -> Result<PathBuf> {
    std::fs::create_dir_all(&options.data).context("cannot make the data folder")?;
    let data = options
        .data
        .canonicalize()
        .context("cannot find the data folder")?;
    // SAFETY: only the mount and network namespaces are left, which no memory safety
    // hangs on.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }
        .context("cannot leave mount and network namespaces (this takes root)")?;
    loopback::bring_up_here().context("cannot bring up the loopback interface")?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .context("cannot make mounts private")?;
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        mount(
            "cgroup2",
            "/sys/fs/cgroup",
            "cgroup2",
            MountFlags::empty(),
            None,
        )
        .context("cannot mount cgroup v2")?;
    }
    mounts::delegate_controllers(Path::new("/sys/fs/cgroup")).context("cannot make cgroups")?;
    // What a machine loses with its memory is lost here, too.
    let run = data.join("run");
    match std::fs::remove_dir_all(&run) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("cannot clear away what an earlier run left");
        }
        _ => {}
    }
    std::fs::create_dir_all(run).context("cannot make the data folder")?;
    set_child_subreaper(Some(rustix::process::getpid())).context("cannot adopt orphans")?;
    Ok(data)
}
