//! The machine itself: what it says of itself, and a shell in it.

use std::{fs, path::PathBuf, sync::Arc};

use guest_protocol::{
    PROTOCOL_VERSION,
    container::{ExecConfig, Status},
    machine::Info,
};

use crate::{
    agent::Agent,
    clock,
    error::{Context, Result},
    exec::{Command, Execs, Place},
    runtime::job::Job,
    stdio::{Streams, Subscription},
};

/// What a shell in the machine is when nothing else is asked for.
const SHELL: [&str; 2] = ["/bin/busybox", "sh"];

/// The environment of a shell in the machine.
const ENVIRONMENT: [&str; 3] = [
    "PATH=/bin:/sbin:/usr/bin:/usr/sbin",
    "HOME=/",
    "PS1=machine:\\w# ",
];

/// What the agent says of itself and of the machine. Without a data disk it
/// leaves out what is there.
///
/// # Errors
/// When the kernel's own accounts cannot be read.
pub(crate) fn info(agent: &Agent) -> Result<Info> {
    let name = rustix::system::uname();
    let memory = fs::read_to_string("/proc/meminfo").context("cannot read the memory's state")?;
    let kilobytes = |field: &str| -> u64 {
        memory
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context("cannot read the boot's id")?;
    let mut info = Info {
        protocol: PROTOCOL_VERSION,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_version: name.release().to_string_lossy().into_owned(),
        architecture: name.machine().to_string_lossy().into_owned(),
        boot_id: boot_id.trim().to_owned(),
        uptime_ms: clock::uptime_ms(),
        cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
        memory_total: kilobytes("MemTotal") * 1024,
        memory_available: kilobytes("MemAvailable") * 1024,
        time: clock::now(),
        boot_stages: agent.stages.reached(),
        ..Info::default()
    };
    if let Ok(storage) = agent.storage() {
        let disk =
            rustix::fs::statvfs(&agent.paths.data).context("cannot measure the data disk")?;
        info.disk_total = disk.f_blocks * disk.f_frsize;
        info.disk_available = disk.f_bavail * disk.f_frsize;
        let containers = storage.containers.list();
        let count = |status: Status| {
            containers
                .iter()
                .filter(|container| container.state.status == status)
                .count() as u64
        };
        info.containers = containers.len() as u64;
        info.containers_running = count(Status::Running);
        info.containers_paused = count(Status::Paused);
        info.images = storage.images.list()?.len() as u64;
    }
    Ok(info)
}

/// Starts a shell, or what `config` asks for, in the machine.
///
/// # Errors
/// When it cannot be executed.
pub(crate) async fn shell(
    execs: &Execs,
    mut config: ExecConfig,
) -> Result<(Arc<Command>, Subscription)> {
    if config.cmd.is_empty() {
        config.cmd = SHELL.map(str::to_owned).to_vec();
    }
    let streams = Streams {
        stdin: config.attach_stdin,
        stdout: config.attach_stdout,
        stderr: config.attach_stderr,
    };
    let mut env = ENVIRONMENT.map(str::to_owned).to_vec();
    if config.tty {
        env.push("TERM=xterm".to_owned());
    }
    env.extend(config.env.iter().cloned());
    let working_directory = if config.working_dir.is_empty() {
        PathBuf::from("/")
    } else {
        PathBuf::from(&config.working_dir)
    };
    let job = Job::Machine {
        args: config.cmd.clone(),
        env,
        working_directory,
        tty: config.tty,
    };
    let command = execs.create("", config)?;
    let subscription = command.stdio().subscribe(streams);
    Execs::claim(&command)?;
    execs.run(&command, Place::Machine, |_| job, |_| {}).await?;
    Ok((command, subscription))
}
