//! `contract record SOCKET DIRECTORY [GROUP...]` writes what the engine on a socket answers,
//! `contract compare SOCKET` tells where its answers differ from what was recorded.
//! `cargo xtask contract` runs it.

use std::{path::PathBuf, process::ExitCode};

use tests::{
    contract::{self, Engine},
    images,
    registry::Registry,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (task, socket) = match arguments.as_slice() {
        ["record", socket, directory, groups @ ..] => {
            (Task::Record(directory.into(), groups), *socket)
        }
        ["compare", socket, groups @ ..] => (Task::Compare(groups), *socket),
        _ => {
            eprintln!(
                "usage: contract record SOCKET DIRECTORY [GROUP...] | contract compare SOCKET [GROUP...]"
            );
            return ExitCode::from(2);
        }
    };
    let (open, closed) = (Registry::start(), Registry::with_login());
    let engine = Engine {
        socket: socket.into(),
        registry: open.address().to_string(),
        closed_registry: closed.address().to_string(),
    };
    let pushed = tempfile::tempdir().map(|layout| {
        images::write_busybox(layout.path());
        open.push(layout.path(), "busybox:latest");
    });
    match pushed.and_then(|()| task.run(&engine)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("contract: {error}");
            ExitCode::FAILURE
        }
    }
}

enum Task<'a> {
    /// These groups, or all.
    Record(PathBuf, &'a [&'a str]),
    /// These groups, or all.
    Compare(&'a [&'a str]),
}

impl Task<'_> {
    fn run(&self, engine: &Engine) -> std::io::Result<ExitCode> {
        contract::pull_image(engine)?;
        match self {
            Self::Record(directory, groups) => contract::record(engine, directory, groups)?,
            Self::Compare(groups) => {
                let report = contract::compare(engine, groups)?;
                println!("{report}");
                if !report.is_empty() {
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
