//! `machine export` and `machine import`: whole machines as files.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use dctl_machine::{Machine, Paths, Progress};

use super::{Environment, Name, StatusLine};
use crate::{
    failure::{self, Failure},
    output::human,
    session::terminal,
};

/// Arguments of `machine export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    #[command(flatten)]
    pub(super) name: Name,
    /// The file to write, or "-" for standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Arguments of `machine import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// The file to read, or "-" for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The machine's name here, instead of the one it had
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(error.to_string())
}

/// `dctl machine export`. A file is there whole or not at all.
pub(super) async fn export(
    environment: &Environment,
    arguments: &ExportArguments,
) -> Result<(), Failure> {
    let paths = Paths::from_environment().map_err(Failure::engine)?;
    let machine = Machine::open(&paths, &environment.machine_name()?).map_err(failed)?;
    let mut bar = Bar::new("Exporting");
    let progress = move |progress| bar.show(progress);
    if arguments.output == Path::new("-") {
        if terminal::stdout_is_terminal() {
            return Err(Failure::new(
                "a machine is not written to a terminal: redirect it, or name a file with --output",
            ));
        }
        let mut stdout = machine
            .export(io::stdout(), progress)
            .await
            .map_err(failed)?;
        return stdout.flush().map_err(failed);
    }
    let directory = match arguments.output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let cannot = |error: io::Error| {
        Failure::new(format!(
            "cannot write {}: {error}",
            arguments.output.display()
        ))
    };
    let file = tempfile::NamedTempFile::new_in(directory).map_err(cannot)?;
    let file = machine.export(file, progress).await.map_err(failed)?;
    file.as_file().sync_all().map_err(cannot)?;
    file.persist(&arguments.output)
        .map_err(|error| cannot(error.error))?;
    Ok(())
}

/// `dctl machine import`.
pub(super) async fn import(
    environment: &Environment,
    arguments: &ImportArguments,
) -> Result<(), Failure> {
    let paths = Paths::from_environment().map_err(Failure::engine)?;
    let input: Box<dyn Read + Send> = if arguments.file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let file = File::open(&arguments.file).map_err(|error| {
            Failure::new(format!("cannot read {}: {error}", arguments.file.display()))
        })?;
        Box::new(file)
    };
    let mut bar = Bar::new("Importing");
    // The global option names the machine that is made as well.
    let name = arguments
        .name
        .clone()
        .or_else(|| environment.machine.clone());
    let machine = Machine::import(&paths, input, name, move |progress| bar.show(progress))
        .await
        .map_err(failed)?;
    failure::print_line(machine.name())
}

/// A line that says how far it is, on a terminal.
struct Bar {
    what: &'static str,
    line: StatusLine,
}

impl Bar {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            line: StatusLine::default(),
        }
    }

    fn show(&mut self, Progress { done, total }: Progress) {
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
        self.line.show(&format!(
            "{}… {percent}% of {}",
            self.what,
            human::binary_size(total)
        ));
    }
}
