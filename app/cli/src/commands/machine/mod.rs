//! `machine`: micro-VMs themselves. What a machine that may run is asked, goes
//! through its engine; what is about machines that are off ([`list`], [`transfer`],
//! making one) does not start an engine for it.

mod list;
mod settings;
mod status;
mod transfer;

use clap::{Args, Subcommand};
use dctl_machine::{DEFAULT_MACHINE, Paths};

use self::status::{RunState, Status};
use super::{Environment, exec};
use crate::{
    client::{Call, Client},
    failure::{self, Failure},
    options::detach_keys::DetachKeys,
    session::{self, Plan, terminal},
};

/// Names the exec behind a shell in the machine.
const EXEC_ID: &str = "dctl-exec-id";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum MachineCommand {
    /// Make a machine; it boots when a command needs it
    Create(settings::CreateArguments),
    /// Save a machine that is off, with all that is in it, to a file
    Export(transfer::ExportArguments),
    /// Make a machine of what was saved by export
    Import(transfer::ImportArguments),
    /// Return low-level information on machines
    Inspect(status::InspectArguments),
    /// Fetch the log of the machine's agent
    Logs(LogsArguments),
    /// List machines
    #[command(visible_alias = "list")]
    Ls(list::ListArguments),
    /// Empty the machine: containers, images and volumes go, its settings stay
    Reset(RemoveArguments),
    /// Power the machine off and boot it again
    Restart(StartArguments),
    /// Remove the machine with all that is in it
    #[command(visible_alias = "remove")]
    Rm(RemoveArguments),
    /// Change processors, memory, disk or user namespace of the machine
    Set(settings::SetArguments),
    /// Open a shell in the machine, outside of all containers
    Shell(ShellArguments),
    /// Boot the machine
    Start(StartArguments),
    /// Show what the machine is and how it does
    Status(status::StatusArguments),
    /// Power the machine off; containers are stopped first
    Stop(StopArguments),
}

/// Which machine, where `--machine` may say so as well.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The machine
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Arguments of `machine start` and `machine restart`.
#[derive(Debug, Args)]
pub(crate) struct StartArguments {
    #[command(flatten)]
    name: Name,
    /// What boots it, instead of what the probe finds: "kvm" or "qemu"
    #[arg(long, value_name = "DRIVER", value_parser = ["kvm", "qemu"])]
    driver: Option<String>,
}

/// Arguments of `machine stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArguments {
    #[command(flatten)]
    name: Name,
}

/// Arguments of `machine logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArguments {
    #[command(flatten)]
    name: Name,
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Number of lines to show from the end
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all")]
    tail: String,
    /// Show the guest's console instead, which is there even when it does not boot
    #[arg(long, conflicts_with = "follow")]
    console: bool,
}

/// Arguments of `machine shell`.
#[derive(Debug, Args)]
pub(crate) struct ShellArguments {
    /// A command instead of a shell
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

/// Arguments of `machine rm` and `machine reset`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    #[command(flatten)]
    name: Name,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// `dctl machine …`.
pub(crate) async fn run(environment: &Environment, command: MachineCommand) -> Result<(), Failure> {
    let named = |name: &Name| environment.with_machine(name.name.as_deref());
    match command {
        MachineCommand::Create(arguments) => settings::create(&arguments).await,
        MachineCommand::Export(arguments) => {
            transfer::export(&named(&arguments.name), &arguments).await
        }
        MachineCommand::Import(arguments) => transfer::import(environment, &arguments).await,
        MachineCommand::Inspect(arguments) => status::inspect(environment, &arguments).await,
        MachineCommand::Logs(arguments) => logs(&named(&arguments.name), &arguments).await,
        MachineCommand::Ls(arguments) => list::run(&arguments).await,
        MachineCommand::Reset(arguments) => {
            let environment = named(&arguments.name);
            let question = format!(
                "This removes all containers, images and volumes in the machine {}.",
                environment.machine_name()?
            );
            confirm(&question, arguments.force)?;
            let client = environment.engine().await?;
            Ok(client.done(&Call::post("/dctl/machine/reset")).await?)
        }
        MachineCommand::Restart(arguments) => {
            let client = named(&arguments.name).engine().await?;
            client.done(&Call::post("/dctl/machine/stop")).await?;
            ensure_running(&client, arguments.driver.as_deref()).await
        }
        MachineCommand::Rm(arguments) => remove(&named(&arguments.name), &arguments).await,
        MachineCommand::Set(arguments) => settings::set(&named(&arguments.name), &arguments).await,
        MachineCommand::Shell(arguments) => shell(environment, arguments).await,
        MachineCommand::Start(arguments) => {
            let client = named(&arguments.name).engine().await?;
            ensure_running(&client, arguments.driver.as_deref()).await
        }
        MachineCommand::Status(arguments) => status::run(&named(&arguments.name), &arguments).await,
        MachineCommand::Stop(arguments) => {
            let client = named(&arguments.name).engine().await?;
            Ok(client.done(&Call::post("/dctl/machine/stop")).await?)
        }
    }
}

/// Boots the machine if it is off. On a terminal a line says so for as long as it
/// takes, and if the driver was chosen just now, another which. `driver` forces one.
pub(crate) async fn ensure_running(client: &Client, driver: Option<&str>) -> Result<(), Failure> {
    use std::time::Duration;

    // A machine that runs answers in far less; nothing flickers then.
    const PATIENCE: Duration = Duration::from_millis(300);

    let call = Call::post("/dctl/machine/start").query_if("driver", driver);
    let boot = client.done(&call);
    tokio::pin!(boot);
    let mut line = StatusLine::default();
    let mut choice = None;
    let result = loop {
        tokio::select! {
            result = &mut boot => break result,
            () = tokio::time::sleep(PATIENCE) => {}
        }
        let look = Call::get("/dctl/machine");
        let status = client.json::<Status>(&look);
        let status = tokio::select! {
            result = &mut boot => break result,
            status = status => status,
        };
        // The boot itself tells what is wrong.
        let Ok(status) = status else { continue };
        match status.driver {
            Some(driver) if matches!(status.state, RunState::Starting) => {
                line.show(&format!("Booting the machine ({})…", driver.driver));
                choice = Some(driver);
            }
            _ => line.show("Starting the machine…"),
        }
    };
    line.clear();
    match result {
        Ok(()) => {}
        // An engine of somebody else's has no machine.
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    if let Some(choice) = choice.filter(|choice| choice.fresh) {
        failure::note(format_args!("driver {}: {}", choice.driver, choice.reason));
    }
    Ok(())
}

/// A line on standard error that goes away again; nothing without a terminal.
#[derive(Debug, Default)]
struct StatusLine {
    shown: Option<String>,
}

impl StatusLine {
    fn show(&mut self, text: &str) {
        use std::io::Write as _;
        if terminal::stderr_is_terminal() && self.shown.as_deref() != Some(text) {
            // Without standard error there is nobody to tell.
            let _ = write!(std::io::stderr(), "\r\x1b[2K{text}");
            self.shown = Some(text.to_owned());
        }
    }

    fn clear(&mut self) {
        use std::io::Write as _;
        if self.shown.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.clear();
    }
}

async fn logs(environment: &Environment, arguments: &LogsArguments) -> Result<(), Failure> {
    if arguments.console {
        let client = environment.engine().await?;
        let status: Status = client.json(&Call::get("/dctl/machine")).await?;
        let path = status.console_log;
        let text = std::fs::read(&path).map_err(|error| {
            Failure::new(format!(
                "cannot read the console of the machine, {}: {error}",
                path.display()
            ))
        })?;
        return failure::print(String::from_utf8_lossy(&text));
    }
    let client = environment.engine().await?;
    let call = Call::get("/dctl/machine/logs")
        .flag("follow", arguments.follow)
        .query("tail", &arguments.tail);
    let response = client.response(&call).await?;
    Ok(session::copy_body(response.into_body(), true).await?)
}

async fn shell(environment: &Environment, arguments: ShellArguments) -> Result<(), Failure> {
    let client = environment.machine().await?;
    let tty = terminal::stdin_is_terminal() && terminal::stdout_is_terminal();
    let size = terminal::size().filter(|_| tty);
    let call = Call::post("/dctl/machine/shell").with_json(&bollard_stubs::models::ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        console_size: size.map(|(rows, columns)| vec![rows.into(), columns.into()]),
        tty: Some(tty),
        cmd: Some(arguments.command),
        ..Default::default()
    })?;
    let hijacked = client.hijack(&call.upgrade()).await?;
    let id = hijacked
        .headers
        .get(EXEC_ID)
        .and_then(|id| id.to_str().ok())
        .ok_or_else(|| Failure::engine("the engine did not name the shell that it started"))?
        .to_owned();
    let plan = Plan {
        tty,
        stdin: true,
        detach_keys: DetachKeys::default(),
        resize_path: exec::path(&id, "resize"),
    };
    exec::carry(&client, &id, hijacked, &plan).await
}

async fn remove(environment: &Environment, arguments: &RemoveArguments) -> Result<(), Failure> {
    let name = environment.machine_name()?;
    let question = format!("This removes the machine {name} with all containers and images in it.");
    confirm(&question, arguments.force)?;
    let client = environment.engine().await?;
    client.done(&Call::delete("/dctl/machine")).await?;
    if name != DEFAULT_MACHINE {
        // It has nothing to serve any more.
        client.done(&Call::post("/dctl/engine/stop")).await?;
        // It ends when nobody calls it.
        drop(client);
        let paths = Paths::from_environment().map_err(Failure::engine)?;
        let files = paths.engine(&name).map_err(Failure::engine)?;
        files.remove().map_err(Failure::engine)?;
    }
    Ok(())
}

/// Asks on the terminal, unless `force` says that it was decided already.
fn confirm(what: &str, force: bool) -> Result<(), Failure> {
    if force {
        return Ok(());
    }
    if !terminal::stdin_is_terminal() {
        return Err(Failure::new(format!("{what} Say so with --force.")));
    }
    failure::print(format!("{what}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(format!("cannot read the answer: {error}")))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::silent(1))
    }
}
