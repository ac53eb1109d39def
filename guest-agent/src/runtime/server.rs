//! The runtime process: single-threaded, forks one child for each job.
//!
//! A child makes the process that was asked for with libcontainer, reports its
//! id, and ends; the new process is thereby the agent's child. Everything that
//! arrives here comes from the agent: it is trusted.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Command, ExitCode},
};

use guest_protocol::AgentError;
use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType};
use rustix::{
    io::dup,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::{Signal, ioctl_tiocsctty, set_parent_process_death_signal, setsid},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
};

use super::{
    devices,
    executor::{ConfiningExecutor, Purpose, Status, execution_error},
    job::{Confinement, Job, LONGEST_JOB, Report, UserNamespace},
    loopback, user_namespace,
};
use crate::{
    error::{Context, Result, chain},
    stdio::{ProcessEnds, null},
};

/// Serves jobs from the socket that is stdin, until the agent is gone.
pub(crate) fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Its stderr is the machine's console: nobody else could hear it.
            eprintln!("the container runtime failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let socket = dup(io::stdin())?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    dup2_stdin(null()?)?;
    // Children end unnoticed: nobody waits for them here.
    set_child_signal(libc::SIG_IGN);
    let mut message = vec![0; LONGEST_JOB];
    loop {
        let Some((length, files)) = receive(&socket, &mut message)? else {
            return Ok(());
        };
        // SAFETY: this process has one thread, so the child's copy of memory is
        // consistent and the child may do anything.
        match unsafe { libc::fork() } {
            0 => {
                drop(socket);
                set_child_signal(libc::SIG_DFL);
                // The agent may go first only by dying, and all else with it.
                let _ = set_parent_process_death_signal(None);
                run(&message[..length], files);
                std::process::exit(0);
            }
            -1 => {
                let error = io::Error::last_os_error();
                if let Some(files) = files {
                    Status::new(files.status).failed(AgentError::system(format!(
                        "cannot fork the container runtime: {error}"
                    )));
                }
            }
            _ => {}
        }
    }
}

struct Files {
    status: OwnedFd,
    stdio: ProcessEnds,
}

fn receive(socket: &OwnedFd, message: &mut [u8]) -> io::Result<Option<(usize, Option<Files>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(
            socket,
            &mut [IoSliceMut::new(message)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            result => break result?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut files = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        })
        .flatten();
    let files = match (files.next(), files.next(), files.next(), files.next()) {
        (Some(status), Some(stdin), Some(stdout), Some(stderr)) => Some(Files {
            status,
            stdio: ProcessEnds {
                stdin,
                stdout,
                stderr,
            },
        }),
        _ => None,
    };
    Ok(Some((received.bytes, files)))
}

fn run(message: &[u8], files: Option<Files>) {
    let Some(Files { status, stdio }) = files else {
        eprintln!("the container runtime got a job without its files");
        return;
    };
    let status = Status::new(status);
    let result = serde_json::from_slice(message)
        .context("a job was not understood")
        .and_then(|job| perform(job, stdio, &status));
    if let Err(error) = result {
        status.failed(error);
    }
}

fn perform(job: Job, stdio: ProcessEnds, status: &Status) -> Result<()> {
    match job {
        Job::Container {
            id,
            bundle,
            state,
            console,
            devices,
            own_network,
            confinement,
        } => {
            let tty = console.is_some();
            let mut container = builder(id, stdio, tty, Purpose::Container, &confinement, status)?
                .with_root_path(state)
                .map_err(|error| failure(&error))?
                .with_console_socket(console)
                .as_init(bundle)
                .with_systemd(false)
                .with_detach(true)
                .build()
                .map_err(|error| failure(&error))?;
            let pid = container
                .pid()
                .ok_or_else(|| AgentError::system("the container has no process"))?
                .as_raw();
            if let Some((cgroup, rules)) = devices {
                devices::confine(&cgroup, &rules)
                    .context("cannot confine the container to its devices")?;
            }
            if own_network {
                loopback::bring_up(pid).context("cannot bring up the loopback interface")?;
            }
            status.report(&Report::Created { pid })?;
            status.wait_for_start()?;
            container.start().map_err(|error| failure(&error))
        }
        Job::Exec {
            id,
            process,
            state,
            console,
            user_namespace,
            confinement,
        } => {
            let tty = console.is_some();
            let builder = builder(id, stdio, tty, Purpose::Exec, &confinement, status)?;
            if let Some(UserNamespace { pid, oom_score_adj }) = user_namespace {
                user_namespace::join(pid, oom_score_adj)
                    .context("cannot join the container's user namespace")?;
            }
            let pid = builder
                .with_root_path(state)
                .map_err(|error| exec_failure(&error))?
                .with_console_socket(console)
                .as_tenant()
                .with_detach(true)
                .with_process(Some(process))
                .build()
                .map_err(|error| exec_failure(&error))?
                .as_raw();
            status.report(&Report::Created { pid })
        }
        Job::Machine {
            args,
            env,
            working_directory,
            tty,
        } => {
            let [program, arguments @ ..] = args.as_slice() else {
                return Err(AgentError::invalid("no command specified"));
            };
            let mut command = Command::new(program);
            command
                .args(arguments)
                .env_clear()
                .envs(env.iter().filter_map(|variable| variable.split_once('=')))
                .current_dir(working_directory);
            // SAFETY: one thread, see `serve`.
            match unsafe { libc::fork() } {
                // The parent ends at once, which makes this one the agent's child.
                0 => Err(execute_in_machine(command, &stdio, tty, status)),
                -1 => Err(io::Error::last_os_error()).context("cannot fork"),
                _ => std::process::exit(0),
            }
        }
    }
}

/// Executes `command` in this process; comes back only with the reason why not.
fn execute_in_machine(
    mut command: Command,
    stdio: &ProcessEnds,
    tty: bool,
    status: &Status,
) -> AgentError {
    let prepare = || -> io::Result<()> {
        setsid()?;
        if tty {
            ioctl_tiocsctty(&stdio.stdin)?;
        }
        dup2_stdin(&stdio.stdin)?;
        dup2_stdout(&stdio.stdout)?;
        dup2_stderr(&stdio.stderr)?;
        Ok(())
    };
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let prepared = prepare()
        .context("cannot set up a terminal")
        .and_then(|()| status.report(&Report::Created { pid }))
        .and_then(|()| status.wait_for_start());
    if let Err(error) = prepared {
        return error;
    }
    let error = command.exec();
    execution_error(
        Purpose::Machine,
        &command.get_program().to_string_lossy(),
        &error,
    )
}

fn builder(
    id: String,
    stdio: ProcessEnds,
    tty: bool,
    purpose: Purpose,
    confinement: &Confinement,
    status: &Status,
) -> Result<ContainerBuilder> {
    // A container's program waits for its start in any case; an exec's would run before
    // the agent has its terminal, and find it without a size.
    let waits = tty && purpose == Purpose::Exec;
    let executor = ConfiningExecutor::new(purpose, confinement, status.clone())?.waiting(waits);
    let builder = ContainerBuilder::new(id, SyscallType::Linux).with_executor(executor);
    Ok(if tty {
        builder
    } else {
        builder
            .with_stdin(stdio.stdin)
            .with_stdout(stdio.stdout)
            .with_stderr(stdio.stderr)
    })
}

fn failure(error: &libcontainer::error::LibcontainerError) -> AgentError {
    AgentError::system(format!(
        "failed to create task for container: {}",
        chain(error)
    ))
}

fn exec_failure(error: &libcontainer::error::LibcontainerError) -> AgentError {
    AgentError::system(format!(
        "OCI runtime exec failed: exec failed: {}",
        chain(error)
    ))
}

fn set_child_signal(action: libc::sighandler_t) {
    // SAFETY: SIG_IGN and SIG_DFL run no code of ours.
    unsafe {
        libc::signal(libc::SIGCHLD, action);
    }
}
