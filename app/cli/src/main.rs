//! The `dctl` command line: a client of the engine, and the door to the hidden
//! parts of dctl that run as processes of their own (`engine`, `vmm`, `qemu`).
//!
//! [`commands`] holds one module for each command; they parse with [`options`],
//! talk through [`client`], carry stdio with [`session`] and show with [`output`]
//! and [`template`]. No container or image logic lives here: what a command does
//! is the engine's business.

mod client;
mod commands;
mod docker_config;
mod failure;
mod launcher;
mod options;
mod output;
mod session;
mod template;

use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    if let Some(code) = machine_process(std::env::args_os().skip(1)) {
        return code;
    }
    session::terminal::restore_on_panic();
    match commands::main(std::env::args_os()) {
        Ok(code) => code,
        Err(failure) => {
            if let Some(message) = failure.message() {
                failure::note(message);
            }
            failure.into()
        }
    }
}

/// Runs a machine, when that is what this process was started for. These parts
/// read their own arguments: a machine's start does not wait for the tree of
/// commands to be built.
fn machine_process(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let part = arguments.next()?;
    match part.to_str()? {
        "vmm" => Some(dctl_vmm::command::main(arguments)),
        "qemu" => Some(dctl_machine::qemu_supervisor(arguments)),
        _ => None,
    }
}
