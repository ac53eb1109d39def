//! `doctor`, `completion`, and the hidden commands: parts of dctl that run as
//! processes of their own.

use std::{
    fs::File,
    io,
    os::fd::{IntoRawFd, RawFd},
    process::ExitCode,
};

use clap::Args;
use clap_complete::Shell;
use dctl_machine::{DEFAULT_MACHINE, Paths};

use super::help;
use crate::failure::{self, Failure};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// "json", or nothing for people
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json"])]
    format: Option<String>,
}

/// `dctl doctor`.
pub(crate) async fn doctor(arguments: DoctorArguments) -> Result<(), Failure> {
    let paths = Paths::from_environment().map_err(Failure::engine)?;
    let report = dctl_machine::doctor::report(&paths).await;
    if arguments.format.is_some() {
        let text = crate::output::json::pretty(&report).map_err(Failure::engine)?;
        failure::print_line(text)?;
    } else {
        failure::print(report.to_string())?;
    }
    if report.is_broken() {
        return Err(Failure::silent(1));
    }
    Ok(())
}

/// Arguments of `completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArguments {
    /// The shell
    shell: Shell,
}

/// `dctl completion`.
pub(crate) fn completion(arguments: &CompletionArguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut help::command(), "dctl", &mut script);
    failure::print(String::from_utf8_lossy(&script))
}

/// Arguments of `engine`.
#[derive(Debug, Args)]
pub(crate) struct EngineArguments {
    /// Where to say that it is ready; it then leaves the terminal's session, too
    #[arg(long, value_name = "DESCRIPTOR")]
    ready_fd: Option<RawFd>,
}

/// `dctl engine`.
pub(crate) fn engine(
    arguments: &EngineArguments,
    machine: Option<String>,
) -> Result<ExitCode, Failure> {
    let ready_fd = match arguments.ready_fd {
        Some(descriptor) => Some(leave_session(descriptor).map_err(|error| {
            Failure::engine(format_args!("cannot run in the background: {error}"))
        })?),
        None => None,
    };
    let options = dctl_engine::Options {
        paths: Paths::from_environment().map_err(Failure::engine)?,
        machine: machine.unwrap_or_else(|| DEFAULT_MACHINE.to_owned()),
        ready_fd,
    };
    match dctl_engine::run(options) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            failure::note(format_args!("dctl engine: {error}"));
            Ok(error.exit_code())
        }
    }
}

/// Begins a session without terminal. The descriptor for the word that the engine
/// is ready moves away from standard output, where nothing else must reach it.
fn leave_session(ready_fd: RawFd) -> io::Result<RawFd> {
    // It fails for the leader of a group, who has left already.
    let _ = rustix::process::setsid();
    if ready_fd != rustix::stdio::raw_stdout() {
        return Ok(ready_fd);
    }
    let moved = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(moved.into_raw_fd())
}
