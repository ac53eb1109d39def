//! `version`, `info` and `events`: the engine itself.

use std::{collections::BTreeMap, fmt::Write as _};

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, macros::format_description};

use super::Environment;
use crate::{
    client::{API_VERSION, Call},
    failure::{self, Failure},
    options::{filter, timestamp},
    output::human,
    template::Template,
};

/// This program's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Arguments of commands that only have a format.
#[derive(Debug, Args)]
pub(crate) struct FormatArguments {
    /// "json", or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl FormatArguments {
    /// `value` as the user asked for it; `None` when they did not.
    fn render(&self, value: &Value) -> Result<Option<String>, Failure> {
        Ok(match self.format.as_deref() {
            None | Some("") => None,
            Some("json") => Some(value.to_string()),
            Some(text) => Some(Template::parse(text)?.render(value, None)?),
        })
    }
}

/// `dctl version`.
pub(crate) async fn version(
    environment: &Environment,
    arguments: FormatArguments,
) -> Result<(), Failure> {
    let client = environment.engine().await;
    let server: Result<Value, Failure> = match &client {
        Ok(client) => client
            .json(&Call::get("/version"))
            .await
            .map_err(Into::into),
        Err(_) => Ok(Value::Null),
    };
    let api_version = client.as_ref().map_or_else(
        |_| format!("{}.{}", API_VERSION.0, API_VERSION.1),
        crate::client::Client::api_version,
    );
    let both = json!({
        "Client": {
            "Version": VERSION,
            "ApiVersion": api_version,
            "Os": std::env::consts::OS,
            "Arch": std::env::consts::ARCH,
        },
        "Server": server.as_ref().unwrap_or(&Value::Null),
    });
    let failed = client.err().or(server.err());
    match (arguments.render(&both), failed) {
        // A template for what the engine did not say.
        (Err(_), Some(failed)) => Err(failed),
        (text, failed) => {
            match text? {
                Some(text) => failure::print_line(text)?,
                None => failure::print(describe_versions(&both))?,
            }
            failed.map_or(Ok(()), Err)
        }
    }
}

fn describe_versions(both: &Value) -> String {
    let mut text = String::new();
    let mut line = |depth: usize, name: &str, value: &Value| {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        if value != "null" {
            let line = format!("{:depth$}{:<17} {value}", "", format!("{name}:"));
            text.push_str(line.trim_end());
            text.push('\n');
        }
    };
    let client = &both["Client"];
    line(0, "Client", &Value::from("dctl"));
    line(1, "Version", &client["Version"]);
    line(1, "API version", &client["ApiVersion"]);
    line(1, "OS/Arch", &Value::from(os_and_architecture(client)));
    let server = &both["Server"];
    if server.is_null() {
        return text;
    }
    line(0, "Server", &server["Platform"]["Name"]);
    let components = server["Components"].as_array();
    for component in components.into_iter().flatten() {
        let name = component["Name"].as_str().unwrap_or_default();
        line(1, name, &Value::from(""));
        line(2, "Version", &component["Version"]);
        let details = component["Details"].as_object();
        for (field, label) in [
            ("ApiVersion", "API version"),
            ("KernelVersion", "Kernel version"),
        ] {
            if let Some(value) = details.and_then(|details| details.get(field)) {
                line(2, label, value);
            }
        }
    }
    line(1, "OS/Arch", &Value::from(os_and_architecture(server)));
    text
}

fn os_and_architecture(value: &Value) -> String {
    let part = |name: &str| value[name].as_str().unwrap_or("unknown").to_owned();
    format!("{}/{}", part("Os"), part("Arch"))
}

/// `dctl info`.
pub(crate) async fn info(
    environment: &Environment,
    arguments: FormatArguments,
) -> Result<(), Failure> {
    let client = environment.machine().await?;
    let info: Value = client.json(&Call::get("/info")).await?;
    if let Some(text) = arguments.render(&info)? {
        return failure::print_line(text);
    }
    let mut text = format!("Client:\n Version:  {VERSION}\n\nServer:\n");
    for (name, field, depth) in [
        ("Containers", "Containers", 1),
        ("Running", "ContainersRunning", 2),
        ("Paused", "ContainersPaused", 2),
        ("Stopped", "ContainersStopped", 2),
        ("Images", "Images", 1),
        ("Server Version", "ServerVersion", 1),
        ("Storage Driver", "Driver", 1),
        ("Logging Driver", "LoggingDriver", 1),
        ("Cgroup Driver", "CgroupDriver", 1),
        ("Cgroup Version", "CgroupVersion", 1),
        ("Default Runtime", "DefaultRuntime", 1),
        ("Kernel Version", "KernelVersion", 1),
        ("Operating System", "OperatingSystem", 1),
        ("OSType", "OSType", 1),
        ("Architecture", "Architecture", 1),
        ("CPUs", "NCPU", 1),
        ("Total Memory", "MemTotal", 1),
        ("Name", "Name", 1),
        ("ID", "ID", 1),
    ] {
        let value = match (&info[field], field) {
            (Value::Null, _) => continue,
            (value, "MemTotal") => human::binary_size(value.as_u64().unwrap_or(0)),
            (Value::String(value), _) => value.clone(),
            (value, _) => value.to_string(),
        };
        let _ = writeln!(text, "{:depth$}{name}: {value}", "");
    }
    failure::print(text)?;
    for warning in info["Warnings"].as_array().into_iter().flatten() {
        failure::note(warning.as_str().unwrap_or_default());
    }
    Ok(())
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArguments {
    /// Filter output: type=container, event=start, container=web and so on
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// "json", or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show all events created since a timestamp or for so long
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Event {
    #[serde(rename = "Type")]
    kind: String,
    action: String,
    actor: Actor,
    #[serde(rename = "timeNano")]
    time_nano: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: Option<BTreeMap<String, String>>,
}

/// `dctl events`.
pub(crate) async fn events(
    environment: &Environment,
    arguments: EventsArguments,
) -> Result<(), Failure> {
    let now = OffsetDateTime::now_utc();
    let moment = |text: &Option<String>| {
        text.as_deref()
            .map(|text| timestamp::parse(text, now))
            .transpose()
    };
    let template = match arguments.format.as_deref() {
        None | Some("" | "json") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let call = Call::get("/events")
        .query_if("filters", filter::encode(&arguments.filter)?)
        .query_if("since", moment(&arguments.since)?)
        .query_if("until", moment(&arguments.until)?);
    let client = environment.machine().await?;
    let mut events = client.lines::<Value>(&call).await?;
    while let Some(event) = events.next().await? {
        let line = match (&template, arguments.format.as_deref()) {
            (Some(template), _) => template.render(&event, None)?,
            (None, Some("json")) => event.to_string(),
            (None, _) => describe_event(&event),
        };
        failure::print_line(line)?;
    }
    Ok(())
}

fn describe_event(event: &Value) -> String {
    let event = Event::deserialize(event).unwrap_or_default();
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(event.time_nano))
        .ok()
        .and_then(|moment| moment.format(format).ok())
        .unwrap_or_default();
    let attributes = event.actor.attributes.iter().flatten();
    let attributes: Vec<_> = attributes
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let line = format!(
        "{moment} {} {} {}",
        event.kind, event.action, event.actor.id
    );
    let line = if attributes.is_empty() {
        line
    } else {
        format!("{line} ({})", attributes.join(", "))
    };
    human::printable(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_as_docker_shows_it() {
        let event = json!({
            "Type": "container", "Action": "start", "time": 1, "timeNano": 1_500_000_000_i64,
            "Actor": { "ID": "abc", "Attributes": { "name": "web", "image": "busybox" } },
        });
        assert_eq!(
            describe_event(&event),
            "1970-01-01T00:00:01.500000000Z container start abc (image=busybox, name=web)"
        );
    }

    #[test]
    fn versions_of_all_parts_are_shown() {
        let both = json!({
            "Client": { "Version": "0.1.0", "ApiVersion": "1.51", "Os": "linux", "Arch": "x86_64" },
            "Server": {
                "Platform": { "Name": "dctl" }, "Os": "linux", "Arch": "amd64",
                "Components": [
                    { "Name": "Engine", "Version": "0.1.0", "Details": { "ApiVersion": "1.51" } },
                    { "Name": "Agent", "Version": "0.2.0", "Details": { "KernelVersion": "6.12" } },
                ],
            },
        });
        insta::assert_snapshot!(describe_versions(&both));
    }
}
