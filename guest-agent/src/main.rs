//! PID 1 of a micro-VM: it sets the machine up, answers the host's calls over
//! vsock, and owns everything on the machine's data disk.
//!
//! Lives here: [`boot`] (mounts, disk, root), [`server`] (calls and who answers
//! them), [`containers`] and [`exec`] (processes' lives), [`runtime`] (making them), [`stdio`]
//! (their bytes), [`images`], [`archive`] (trees as tars), [`volumes`], [`emulation`] (other architectures),
//! [`shares`] (files of the host), [`machine`] (the machine itself), [`networks`], [`egress`]
//! (the way out), [`forwards`] (published ports), [`nftables`] over [`netlink`] (packet
//! filters), [`log`], [`allocator`] and the
//! [`reaper`]. The host's engine is the only caller.
//!
//! The agent never forks a container's process from itself: it is threaded. This
//! same program, started as `runtime`, does that.

mod agent;
mod allocator;
mod archive;
mod boot;
mod clock;
mod container_init;
mod containers;
mod database;
mod egress;
mod emulation;
mod error;
mod exec;
mod forwards;
mod hangup;
mod identity;
mod images;
mod log;
mod machine;
mod netlink;
mod networks;
mod nftables;
mod reaper;
mod runtime;
mod server;
mod shares;
mod shutdown;
mod stdio;
mod volumes;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().map(PathBuf::from).unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();
    if program.file_name() == Some(container_init::NAME.as_ref()) {
        return container_init::main(&arguments);
    }
    match arguments.first().and_then(|argument| argument.to_str()) {
        Some(runtime::ARGUMENT) => runtime::server::main(),
        Some("serve") => boot::developer::main(&arguments[1..]),
        _ if std::process::id() == 1 => boot::main(),
        _ => {
            eprintln!(
                "This program is PID 1 of a machine. To try it outside of one:\n  \
                 dctl-agent serve --unix SOCKET --data FOLDER"
            );
            ExitCode::from(2)
        }
    }
}
