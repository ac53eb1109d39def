//! `machine status` and `machine inspect`: one machine, told by its engine or read
//! from its files.

use std::path::PathBuf;

use clap::Args;
use dctl_machine::{DEFAULT_MACHINE, Machine, Paths, UserNamespace};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Environment, Name};
use crate::{
    client::Call,
    failure::{self, Failure},
    output::{human, json},
    template::Template,
};

/// Arguments of `machine status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    pub(super) name: Name,
    /// "json", or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Arguments of `machine inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// "json", or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// The machines
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// `GET /dctl/machine`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RunState {
    Off,
    Starting,
    Running,
    Paused,
    PoweringOff,
    #[serde(other)]
    Unresponsive,
}

#[derive(Debug, Deserialize)]
pub(super) struct Choice {
    pub(super) driver: String,
    pub(super) reason: String,
    #[serde(default)]
    pub(super) fresh: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Status {
    name: String,
    pub(super) state: RunState,
    pub(super) driver: Option<Choice>,
    cpus: u32,
    memory_mib: u64,
    #[serde(default)]
    userns: UserNamespace,
    #[serde(default)]
    egress_allow: Vec<String>,
    #[serde(default)]
    egress_deny: Vec<String>,
    disk_size: u64,
    disk_used: u64,
    process_id: Option<u32>,
    uptime_ms: Option<u64>,
    balloon: Option<Balloon>,
    last_exit: Option<String>,
    pub(super) console_log: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Balloon {
    reported_bytes: u64,
}

/// `dctl machine status`.
pub(super) async fn run(
    environment: &Environment,
    arguments: &StatusArguments,
) -> Result<(), Failure> {
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
    if status.userns == UserNamespace::Private {
        lines.push(("Userns", "private".to_owned()));
    }
    for (title, list) in [
        ("Allowed", &status.egress_allow),
        ("Denied", &status.egress_deny),
    ] {
        if !list.is_empty() {
            lines.push((title, list.join(", ")));
        }
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
    lines.join("\n") + "\n"
}

/// `dctl machine inspect`. Starts no engine.
pub(super) async fn inspect(
    environment: &Environment,
    arguments: &InspectArguments,
) -> Result<(), Failure> {
    let paths = Paths::from_environment().map_err(Failure::engine)?;
    let mut names = arguments.names.clone();
    if names.is_empty() {
        names.push(environment.machine_name()?);
    }
    let mut all = Vec::new();
    for name in &names {
        all.push(describe_in_full(&paths, name).await?);
    }
    match arguments.format.as_deref() {
        None | Some("" | "json") => {
            failure::print_line(json::pretty(&all).map_err(Failure::engine)?)
        }
        Some(text) => {
            let template = Template::parse(text)?;
            for machine in &all {
                failure::print_line(template.render(machine, None)?)?;
            }
            Ok(())
        }
    }
}

/// A machine's status, and where its files and its engine's socket are.
pub(super) async fn describe_in_full(paths: &Paths, name: &str) -> Result<Value, Failure> {
    let failed = |error: dctl_machine::Error| Failure::new(error.to_string());
    let machine = Machine::open(paths, name).map_err(failed)?;
    if !machine.exists() && name != DEFAULT_MACHINE {
        return Err(failed(dctl_machine::Error::NoSuchMachine(name.to_owned())));
    }
    let status = machine.status().await.map_err(failed)?;
    let mut value = serde_json::to_value(status).map_err(Failure::engine)?;
    value["socket"] = json!(paths.engine(name).map_err(failed)?.socket());
    value["directory"] = json!(machine.files().directory());
    Ok(value)
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
