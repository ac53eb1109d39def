//! `diff` and `port`: what a container changed, and where its ports are.

use std::collections::BTreeMap;

use clap::Args;
use serde::Deserialize;

use super::{Environment, container};
use crate::{
    client::Call,
    failure::{self, Failure},
};

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArguments {
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Change {
    path: String,
    kind: u8,
}

/// `dctl diff`.
pub(crate) async fn diff(
    environment: &Environment,
    arguments: DiffArguments,
) -> Result<(), Failure> {
    let client = environment.machine().await?;
    let call = Call::get(container::path(&arguments.container, "changes"));
    let changes: Option<Vec<Change>> = client.json(&call).await?;
    let lines = changes.iter().flatten().map(|change| {
        let letter = match change.kind {
            0 => 'C',
            1 => 'A',
            _ => 'D',
        };
        format!("{letter} {}\n", change.path)
    });
    failure::print(lines.collect::<String>())
}

/// Arguments of `port`.
#[derive(Debug, Args)]
pub(crate) struct PortArguments {
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// A port of the container
    #[arg(value_name = "PRIVATE_PORT[/PROTO]")]
    port: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Inspected {
    network_settings: NetworkSettings,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings {
    ports: Option<Ports>,
}

/// A container's ports, and where on the host each is published.
type Ports = BTreeMap<String, Option<Vec<Binding>>>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Binding {
    host_ip: String,
    host_port: String,
}

impl Binding {
    fn address(&self) -> String {
        if self.host_ip.contains(':') {
            format!("[{}]:{}", self.host_ip, self.host_port)
        } else {
            format!("{}:{}", self.host_ip, self.host_port)
        }
    }
}

/// `dctl port`.
pub(crate) async fn port(
    environment: &Environment,
    arguments: PortArguments,
) -> Result<(), Failure> {
    let client = environment.machine().await?;
    let call = Call::get(container::path(&arguments.container, "json"));
    let inspected: Inspected = client.json(&call).await?;
    let ports = inspected.network_settings.ports.unwrap_or_default();
    let lines = match &arguments.port {
        None => all(&ports),
        Some(port) => one(&ports, port, &arguments.container)?,
    };
    failure::print(lines.concat())
}

fn all(ports: &Ports) -> Vec<String> {
    let mut lines = Vec::new();
    for (port, bindings) in ports {
        for binding in bindings.iter().flatten() {
            lines.push((number(port), format!("{port} -> {}\n", binding.address())));
        }
    }
    // By number rather than by text.
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

fn number(port: &str) -> u16 {
    let digits = port.split('/').next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

fn one(ports: &Ports, wanted: &str, container: &str) -> Result<Vec<String>, String> {
    let (port, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    if port.parse::<u16>().is_err() {
        return Err(format!("invalid port: {wanted}"));
    }
    let key = format!("{port}/{protocol}");
    match ports.get(&key).and_then(Option::as_ref) {
        Some(bindings) if !bindings.is_empty() => Ok(bindings
            .iter()
            .map(|binding| format!("{}\n", binding.address()))
            .collect()),
        _ => Err(format!("no public port '{key}' published for {container}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_listed_by_number() {
        let json = r#"{
            "8080/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}, {"HostIp": "::", "HostPort": "80"}],
            "443/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8443"}],
            "53/udp": null
        }"#;
        let ports: Ports = serde_json::from_str(json).unwrap();
        assert_eq!(
            all(&ports),
            [
                "443/tcp -> 127.0.0.1:8443\n",
                "8080/tcp -> 0.0.0.0:80\n",
                "8080/tcp -> [::]:80\n",
            ]
        );
        assert_eq!(one(&ports, "443", "web").unwrap(), ["127.0.0.1:8443\n"]);
        assert_eq!(
            one(&ports, "53/udp", "web").unwrap_err(),
            "no public port '53/udp' published for web"
        );
        assert!(one(&ports, "http", "web").is_err());
    }
}
