//! `machine`: the micro-VM itself.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::Value;

use super::{Environment, exec};
use crate::{
    client::{Call, Client},
    failure::{self, Failure},
    options::detach_keys::DetachKeys,
    output::{human, json},
    session::{self, Plan, terminal},
    template::Template,
};

/// Names the exec behind a shell in the machine.
const EXEC_ID: &str = "dctl-exec-id";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum MachineCommand {
    /// Boot the machine
    Start(StartArguments),
    /// Power the machine off; containers are stopped first
    Stop,
    /// Power the machine off and boot it again
    Restart(StartArguments),
    /// Show what the machine is and how it does
    Status(StatusArguments),
    /// Fetch the log of the machine's agent
    Logs(LogsArguments),
    /// Open a shell in the machine, outside of all containers
    Shell(ShellArguments),
    /// Remove the machine with all containers and images in it
    Rm(RemoveArguments),
}

/// Arguments of `machine start` and `machine restart`.
#[derive(Debug, Args)]
pub(crate) struct StartArguments {
    /// What boots it, instead of what the probe finds: "kvm" or "qemu"
    #[arg(long, value_name = "DRIVER", value_parser = ["kvm", "qemu"])]
    driver: Option<String>,
}

/// Arguments of `machine status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// "json", or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Arguments of `machine logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArguments {
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

/// Arguments of `machine rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// `GET /dctl/machine`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RunState {
    Off,
    Starting,
    Running,
    Paused,
    PoweringOff,
    #[serde(other)]
    Unresponsive,
}

#[derive(Debug, Deserialize)]
struct Choice {
    driver: String,
    reason: String,
    #[serde(default)]
    fresh: bool,
}

#[derive(Debug, Deserialize)]
struct Status {
    name: String,
    state: RunState,
    driver: Option<Choice>,
    cpus: u32,
    memory_mib: u64,
    disk_size: u64,
    disk_used: u64,
    process_id: Option<u32>,
    uptime_ms: Option<u64>,
    balloon: Option<Balloon>,
    last_exit: Option<String>,
    console_log: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Balloon {
    reported_bytes: u64,
}

/// `dctl machine …`.
pub(crate) async fn run(environment: &Environment, command: MachineCommand) -> Result<(), Failure> {
    match command {
        MachineCommand::Start(arguments) => {
            let client = environment.engine().await?;
            ensure_running(&client, arguments.driver.as_deref()).await
        }
        MachineCommand::Stop => {
            let client = environment.engine().await?;
            Ok(client.done(&Call::post("/dctl/machine/stop")).await?)
        }
        MachineCommand::Restart(arguments) => {
            let client = environment.engine().await?;
            client.done(&Call::post("/dctl/machine/stop")).await?;
            ensure_running(&client, arguments.driver.as_deref()).await
        }
        MachineCommand::Status(arguments) => status(environment, &arguments).await,
        MachineCommand::Logs(arguments) => logs(environment, &arguments).await,
        MachineCommand::Shell(arguments) => shell(environment, arguments).await,
        MachineCommand::Rm(arguments) => remove(environment, &arguments).await,
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

async fn status(environment: &Environment, arguments: &StatusArguments) -> Result<(), Failure> {
    let client = environment.engine().await?;
    let value: Value = client.json(&Call::get("/dctl/machine")).await?;
    match arguments.format.as_deref() {
        None | Some("") => {
            let status = Status::deserialize(&value).map_err(Failure::engine)?;
            failure::print(describe(&status))
        }
        Some("json") => failure::print_line(json::pretty(&value).map_err(Failure::engine)?),
        Some(template) => failure::print_line(Template::parse(template)?.render(&value, None)?),
    }
}

fn describe(status: &Status) -> String {
    let state = match status.state {
        RunState::Off => "off",
        RunState::Starting => "starting",
        RunState::Running => "running",
        RunState::Paused => "paused",
        RunState::PoweringOff => "powering off",
        RunState::Unresponsive => "unresponsive",
    };
    let mut lines = vec![
        ("Name", status.name.clone()),
        ("State", state.to_owned()),
        ("CPUs", status.cpus.to_string()),
        ("Memory", human::binary_size(status.memory_mib << 20)),
    ];
    if status.disk_size > 0 {
        lines.push((
            "Disk",
            format!(
                "{}, {} used on this host",
                human::binary_size(status.disk_size),
                human::binary_size(status.disk_used)
            ),
        ));
    }
    if let Some(choice) = &status.driver {
        lines.push(("Driver", format!("{} ({})", choice.driver, choice.reason)));
    }
    if let Some(process) = status.process_id {
        lines.push(("Process", process.to_string()));
    }
    if let Some(uptime) = status.uptime_ms {
        let seconds = i64::try_from(uptime / 1000).unwrap_or(i64::MAX);
        lines.push(("Up", human::duration(seconds)));
    }
    if let Some(balloon) = &status.balloon {
        let returned = human::binary_size(balloon.reported_bytes);
        lines.push(("Returned", format!("{returned} of memory so far")));
    }
    if let Some(reason) = &status.last_exit {
        lines.push(("Last exit", reason.clone()));
    }
    let lines: Vec<_> = lines
        .into_iter()
        .map(|(name, value)| format!("{:<11}{value}", format!("{name}:")))
        .collect();
    lines.join(
        "
",
    ) + "
"
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
    if !arguments.force {
        if !terminal::stdin_is_terminal() {
            return Err(Failure::new(
                "this removes the machine with all containers and images in it: say so with --force",
            ));
        }
        failure::print(
            "This removes the machine with all containers and images in it.\nAre you sure you want to continue? [y/N] ",
        )?;
        let mut answer = String::new();
        std::io::stdin()
            .read_line(&mut answer)
            .map_err(|error| Failure::new(format!("cannot read the answer: {error}")))?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(Failure::silent(1));
        }
    }
    let client = environment.engine().await?;
    Ok(client.done(&Call::delete("/dctl/machine")).await?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_described() {
        let status: Status = serde_json::from_value(json!({
            "name": "default", "state": "running",
            "driver": { "driver": "qemu", "reason": "KVM is not usable", "forced": false, "fresh": true },
            "cpus": 2, "memory_mib": 4096, "disk_size": 68_719_476_736_u64, "disk_used": 12_582_912,
            "process_id": 42, "uptime_ms": 180_000, "balloon": { "reported_bytes": 1_073_741_824 },
            "last_exit": null, "console_log": "/c", "monitor_log": "/m",
        }))
        .unwrap();
        insta::assert_snapshot!(describe(&status));
    }
}
