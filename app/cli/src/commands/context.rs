//! `context` and `env`: how Docker's client, Compose and other tools find an engine
//! of dctl's. Nothing here needs an engine that runs.

use std::{env, fs, io, path::Path};

use clap::{Args, Subcommand, ValueEnum};
use dctl_machine::{DEFAULT_MACHINE, Paths};

use super::Environment;
use crate::{
    docker_config::{Configuration, contexts::Context},
    failure::{self, Failure},
    launcher::Target,
    session::{confirm, terminal},
};

/// What Docker's client asks before any context.
const HOST_VARIABLE: &str = "DOCKER_HOST";
const CONTEXT_VARIABLE: &str = "DOCKER_CONTEXT";

/// Where an engine of Docker's own listens.
const DOCKERS_SOCKET: &str = "/var/run/docker.sock";

/// Remembers in dctl's data that the user was asked.
const ASKED: &str = "docker-context-offered";

/// `dctl context …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Have docker, Compose and other tools use this machine
    Use,
    /// Print the Docker context of this machine, and the one in use
    Show,
    /// Remove the Docker context of this machine
    #[command(visible_alias = "remove")]
    Rm,
}

/// Arguments of `env`.
#[derive(Debug, Args)]
pub(crate) struct EnvArguments {
    /// Whose commands to print; that of `SHELL` when not said
    #[arg(long, value_name = "SHELL")]
    shell: Option<Shell>,
    /// Print commands that undo it
    #[arg(short, long)]
    unset: bool,
}

/// Shells, by how they set a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    /// bash, zsh and what else is like sh
    #[value(aliases = ["bash", "zsh"])]
    Sh,
    /// fish
    Fish,
    /// `PowerShell`
    Powershell,
}

impl Shell {
    /// By the path of a program.
    fn of(program: &Path) -> Self {
        match program.file_stem().and_then(|stem| stem.to_str()) {
            Some("fish") => Self::Fish,
            Some("pwsh" | "powershell") => Self::Powershell,
            _ => Self::Sh,
        }
    }

    /// The command that sets a variable.
    fn set(self, name: &str, value: &str) -> String {
        match self {
            Self::Sh => format!("export {name}='{}'", value.replace('\'', "'\\''")),
            Self::Fish => {
                let value = value.replace('\\', "\\\\").replace('\'', "\\'");
                format!("set -gx {name} '{value}'")
            }
            Self::Powershell => format!("$Env:{name} = '{}'", value.replace('\'', "''")),
        }
    }

    /// The command that removes it.
    fn unset(self, name: &str) -> String {
        match self {
            Self::Sh => format!("unset {name}"),
            Self::Fish => format!("set -e {name}"),
            Self::Powershell => format!("Remove-Item Env:{name} -ErrorAction SilentlyContinue"),
        }
    }
}

/// `dctl context …`.
pub(crate) fn run(environment: &Environment, command: &ContextCommand) -> Result<(), Failure> {
    let machine = environment.machine_name()?;
    match command {
        ContextCommand::Use => {
            let context = Context::of_machine(&machine)?;
            let mut configuration = Configuration::open()?;
            let before = configuration.current_context().map(str::to_owned);
            register(&context, &machine, &host(environment)?, &mut configuration)?;
            if let Some(before) = before.filter(|before| before != context.name()) {
                failure::note(format_args!(
                    "it was \"{before}\": `docker context use {before}` goes back"
                ));
            }
            for variable in [HOST_VARIABLE, CONTEXT_VARIABLE] {
                if env::var_os(variable).is_some_and(|value| !value.is_empty()) {
                    failure::note(format_args!(
                        "{variable} is set, and docker goes by it before any context"
                    ));
                }
            }
            failure::print_line(context.name())
        }
        ContextCommand::Show => {
            let context = Context::of_machine(&machine)?;
            let configuration = Configuration::open()?;
            let state = match (context.is_ours()?, configuration.current_context()) {
                (Some(true), Some(current)) if current == context.name() => "in use".to_owned(),
                (Some(true), current) => {
                    format!(
                        "registered; docker uses \"{}\"",
                        current.unwrap_or("default")
                    )
                }
                (_, current) => {
                    format!(
                        "not registered; docker uses \"{}\"",
                        current.unwrap_or("default")
                    )
                }
            };
            failure::print_line(format_args!("{}: {state}", context.name()))
        }
        ContextCommand::Rm => {
            let context = Context::of_machine(&machine)?;
            let mut configuration = Configuration::open()?;
            if configuration.current_context() == Some(context.name()) {
                configuration.set_current_context(None)?;
            }
            if context.remove()? {
                failure::print_line(context.name())
            } else {
                Err(Failure::new(format!(
                    "dctl: there is no Docker context \"{}\" of dctl's",
                    context.name()
                )))
            }
        }
    }
}

/// `dctl env`.
pub(crate) fn env(environment: &Environment, arguments: &EnvArguments) -> Result<(), Failure> {
    let shell = arguments.shell.unwrap_or_else(|| {
        env::var_os("SHELL").map_or(Shell::Sh, |program| Shell::of(Path::new(&program)))
    });
    failure::print_line(if arguments.unset {
        shell.unset(HOST_VARIABLE)
    } else {
        shell.set(HOST_VARIABLE, &host(environment)?)
    })
}

/// Asks, once, whether Docker's client shall find dctl: only somebody at a terminal
/// who has no other engine for it.
pub(crate) fn offer_once(environment: &Environment) -> Result<(), Failure> {
    if !terminal::stdin_is_terminal() || !terminal::stdout_is_terminal() {
        return Ok(());
    }
    let machine = environment.machine_name()?;
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    if machine != DEFAULT_MACHINE
        || is_set(HOST_VARIABLE)
        || is_set(CONTEXT_VARIABLE)
        || Path::new(DOCKERS_SOCKET).exists()
        || !has_client()
    {
        return Ok(());
    }
    let paths = Paths::from_environment().map_err(Failure::engine)?;
    let asked = paths.data().join(ASKED);
    let mut configuration = Configuration::open()?;
    if configuration.current_context().is_some() || asked.exists() {
        return Ok(());
    }
    let context = Context::of_machine(&machine)?;
    let answer = confirm::ask(&format!(
        "Shall docker and Compose use dctl, by a Docker context \"{}\"? [Y/n] ",
        context.name()
    ))?;
    remember(&asked).map_err(|error| {
        Failure::engine(format_args!("cannot write {}: {error}", asked.display()))
    })?;
    if matches!(answer.to_ascii_lowercase().as_str(), "" | "y" | "yes") {
        register(&context, &machine, &host(environment)?, &mut configuration)?;
    } else {
        failure::note("`dctl context use` does it later");
    }
    Ok(())
}

fn register(
    context: &Context,
    machine: &str,
    host: &str,
    configuration: &mut Configuration,
) -> Result<(), Failure> {
    context.register(machine, host)?;
    configuration.set_current_context(Some(context.name()))
}

fn remember(asked: &Path) -> io::Result<()> {
    if let Some(directory) = asked.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(asked, "")
}

/// Where the engine of the machine listens, as Docker's client writes it.
pub(super) fn host(environment: &Environment) -> Result<String, Failure> {
    let socket = match Target::choose(environment.machine.as_deref())? {
        Target::Socket(socket) => socket,
        Target::Machine(name) => {
            let paths = Paths::from_environment().map_err(Failure::engine)?;
            paths.engine(&name).map_err(Failure::engine)?.socket()
        }
    };
    Ok(format!("unix://{}", socket.display()))
}

/// Whether there is a `docker` in `PATH`.
fn has_client() -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join("docker").is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_set_variables_in_their_own_ways() {
        let quoted = "unix:///it's";
        for (program, set, unset) in [
            ("/bin/zsh", r"export X='unix:///it'\''s'", "unset X"),
            ("/usr/bin/fish", r"set -gx X 'unix:///it\'s'", "set -e X"),
            (
                "pwsh",
                "$Env:X = 'unix:///it''s'",
                "Remove-Item Env:X -ErrorAction SilentlyContinue",
            ),
        ] {
            let shell = Shell::of(Path::new(program));
            assert_eq!(shell.set("X", quoted), set);
            assert_eq!(shell.unset("X"), unset);
        }
    }
}
