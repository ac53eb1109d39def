//! `network ls`.

use std::collections::BTreeMap;

use clap::Args;
use serde::Deserialize;

use super::super::Environment;
use crate::{
    client::Call,
    failure::{self, Failure},
    options::filter,
    output::{
        human,
        table::{Column, Format, Row},
    },
};

/// Arguments of `network ls`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Filter output: driver=bridge, id=part, label=key=value, name=part, type=custom
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// "table", "table TEMPLATE", "json", or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not truncate the output
    #[arg(long)]
    no_trunc: bool,
    /// Only display network IDs
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Network {
    id: String,
    name: String,
    driver: String,
    scope: String,
    created: String,
    internal: bool,
    #[serde(rename = "EnableIPv4")]
    ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    ipv6: bool,
    labels: Option<BTreeMap<String, String>>,
}

const fn column(field: &'static str, heading: &'static str) -> Column {
    Column { field, heading }
}

const ALL_COLUMNS: [Column; 9] = [
    column("ID", "NETWORK ID"),
    column("Name", "NAME"),
    column("Driver", "DRIVER"),
    column("Scope", "SCOPE"),
    column("IPv4", "IPV4"),
    column("IPv6", "IPV6"),
    column("Internal", "INTERNAL"),
    column("Labels", "LABELS"),
    column("CreatedAt", "CREATED AT"),
];

/// How many of them a table has by itself.
const SHOWN: usize = 4;

/// `dctl network ls`.
pub(super) async fn run(
    environment: &Environment,
    arguments: ListArguments,
) -> Result<(), Failure> {
    let filters = filter::encode(&arguments.filter)?;
    let format = match (arguments.quiet, arguments.format.as_deref()) {
        (true, None | Some("table")) => Some("{{.ID}}"),
        (_, format) => format,
    };
    let format = Format::parse(format, &ALL_COLUMNS[..SHOWN], &ALL_COLUMNS)?;
    let client = environment.machine().await?;
    let call = Call::get("/networks").query_if("filters", filters);
    let mut networks: Vec<Network> = client.json(&call).await?;
    networks.sort_by(|one, other| one.name.cmp(&other.name));
    let row = |network| row(network, arguments.no_trunc);
    failure::print(format.render(networks.into_iter().map(row).collect())?)
}

fn row(network: Network, whole: bool) -> Row {
    let labels = network.labels.unwrap_or_default();
    let text: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let id = if whole {
        network.id
    } else {
        human::short_id(&network.id).to_owned()
    };
    let mut row = Row::default();
    row.set("CreatedAt", network.created);
    row.set("Driver", network.driver);
    row.set("ID", id);
    row.set("IPv4", network.ipv4.to_string());
    row.set("IPv6", network.ipv6.to_string());
    row.set("Internal", network.internal.to_string());
    row.set("Labels", text.join(","));
    row.set("Name", network.name);
    row.set("Scope", network.scope);
    row.labels = labels
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect();
    row
}
