//! `ps`.

mod ports;

use std::collections::BTreeMap;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::Environment;
use crate::{
    client::Call,
    failure::{self, Failure},
    options::filter,
    output::{
        human,
        table::{Column, Format, Row},
    },
};

/// Arguments of `ps`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Filter output: status=exited, name=web, label=key=value and so on
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// "table", "table TEMPLATE", "json", or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show n last created containers (includes all states)
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = -1, hide_default_value = true, allow_hyphen_values = true)]
    last: i64,
    /// Show the latest created container (includes all states)
    #[arg(short, long)]
    latest: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display container IDs
    #[arg(short, long)]
    quiet: bool,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Summary {
    id: String,
    names: Vec<String>,
    image: String,
    #[serde(rename = "ImageID")]
    image_id: String,
    command: String,
    created: i64,
    state: String,
    status: String,
    labels: Option<BTreeMap<String, String>>,
    mounts: Option<Vec<Mount>>,
    ports: Option<Vec<ports::Port>>,
    #[serde(rename = "NetworkSettings")]
    network_settings: Option<Networks>,
    size_rw: Option<u64>,
    size_root_fs: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Mount {
    name: Option<String>,
    source: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Networks {
    networks: Option<BTreeMap<String, Value>>,
}

const fn column(field: &'static str, heading: &'static str) -> Column {
    Column { field, heading }
}

const COLUMNS: [Column; 7] = [
    column("ID", "CONTAINER ID"),
    column("Image", "IMAGE"),
    column("Command", "COMMAND"),
    column("RunningFor", "CREATED"),
    column("Status", "STATUS"),
    column("Ports", "PORTS"),
    column("Names", "NAMES"),
];

const SIZE: Column = column("Size", "SIZE");

/// What templates can name besides.
const MORE: [Column; 6] = [
    column("CreatedAt", "CREATED AT"),
    column("State", "STATE"),
    column("Labels", "LABELS"),
    column("Mounts", "MOUNTS"),
    column("LocalVolumes", "LOCAL VOLUMES"),
    column("Networks", "NETWORKS"),
];

/// `dctl ps`.
pub(crate) async fn run(
    environment: &Environment,
    arguments: ListArguments,
) -> Result<(), Failure> {
    let filters = filter::encode(&arguments.filter)?;
    let mut columns = COLUMNS.to_vec();
    if arguments.size {
        columns.push(SIZE);
    }
    let all_columns = [&COLUMNS[..], &[SIZE], &MORE].concat();
    let format = match (arguments.quiet, arguments.format.as_deref()) {
        (true, None | Some("table")) => Some("{{.ID}}"),
        (_, format) => format,
    };
    let size = arguments.size || format.is_some_and(|format| format.contains(".Size"));
    let format = Format::parse(format, &columns, &all_columns)?;
    let limit = if arguments.latest { 1 } else { arguments.last };
    let client = environment.machine().await?;
    let call = Call::get("/containers/json")
        .flag("all", arguments.all)
        .flag("size", size)
        .query_if("limit", (limit > 0).then(|| limit.to_string()))
        .query_if("filters", filters);
    let containers: Vec<Summary> = client.json(&call).await?;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let rows = containers
        .iter()
        .map(|container| row(container, now, arguments.no_trunc))
        .collect();
    failure::print(format.render(rows)?)
}

fn row(container: &Summary, now: i64, whole: bool) -> Row {
    let mut row = Row::default();
    let id = if whole {
        &container.id
    } else {
        human::short_id(&container.id)
    };
    let command = human::printable(&container.command);
    let command = if whole {
        command
    } else {
        human::ellipsis(&command, 20)
    };
    let image = match container.image.as_str() {
        "" => "<no image>",
        image if !whole && (image == container.image_id || image.starts_with("sha256:")) => {
            human::short_id(image)
        }
        image => image,
    };
    // A link's name has two slashes.
    let names: Vec<_> = container
        .names
        .iter()
        .map(|name| name.strip_prefix('/').unwrap_or(name))
        .filter(|name| whole || !name.contains('/'))
        .collect();
    let labels = container.labels.as_ref();
    let pairs = labels.into_iter().flatten();
    let joined: Vec<_> = pairs
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mounts = container.mounts.iter().flatten();
    let mounts: Vec<_> = mounts
        .map(|mount| {
            let name = mount.name.as_deref().filter(|name| !name.is_empty());
            let name = name.unwrap_or(&mount.source);
            if whole {
                name.to_owned()
            } else {
                human::ellipsis(name, 15)
            }
        })
        .collect();
    let volumes = container.mounts.iter().flatten();
    let volumes = volumes.filter(|mount| mount.name.is_some()).count();
    let networks = container.network_settings.as_ref();
    let networks = networks.and_then(|settings| settings.networks.as_ref());
    let networks: Vec<_> = networks
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    row.set("Command", human::quote(&command));
    row.set("CreatedAt", human::moment(container.created));
    row.set("ID", id);
    row.set("Image", image);
    row.set("Labels", joined.join(","));
    row.set("LocalVolumes", volumes.to_string());
    row.set("Mounts", mounts.join(","));
    row.set("Names", names.join(","));
    row.set("Networks", networks.join(","));
    row.set(
        "Ports",
        ports::column(container.ports.as_deref().unwrap_or_default()),
    );
    row.set("RunningFor", human::ago(container.created, now));
    row.set("Size", size(container));
    row.set("State", container.state.as_str());
    row.set("Status", container.status.as_str());
    for (name, value) in labels.into_iter().flatten() {
        row.labels.insert(name.clone(), Value::from(value.as_str()));
    }
    row
}

fn size(container: &Summary) -> String {
    let written = human::size(container.size_rw.unwrap_or(0), 3);
    match container.size_root_fs {
        Some(total) if total > 0 => format!("{written} (virtual {})", human::size(total, 3)),
        _ => written,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_as_docker_shows_it() {
        let summary: Summary = serde_json::from_value(json!({
            "Id": "0123456789abcdef0123456789abcdef",
            "Names": ["/web"],
            "Image": "busybox",
            "ImageID": "sha256:aa",
            "Command": "sh -c 'echo hello; sleep 1000'",
            "Created": 1000,
            "State": "exited",
            "Status": "Exited (0) 2 seconds ago",
            "Labels": { "a": "b", "c": "d" },
            "SizeRw": 5, "SizeRootFs": 4_261_550,
            "NetworkSettings": { "Networks": { "bridge": {} } },
            "Unknown": 1,
        }))
        .unwrap();
        let table = |whole| {
            Format::parse(None, &COLUMNS, &COLUMNS)
                .unwrap()
                .render(vec![row(&summary, 1120, whole)])
                .unwrap()
        };
        assert_eq!(
            table(false),
            "CONTAINER ID   IMAGE     COMMAND                  CREATED         STATUS                     PORTS     NAMES\n\
             0123456789ab   busybox   \"sh -c 'echo hello; …\"   2 minutes ago   Exited (0) 2 seconds ago             web\n"
        );
        assert!(table(true).contains("0123456789abcdef0123456789abcdef"));
        let row = row(&summary, 0, false);
        assert_eq!(row.fields["Size"], "5B (virtual 4.26MB)");
        assert_eq!(row.fields["Labels"], "a=b,c=d");
        assert_eq!(row.fields["Networks"], "bridge");
        assert_eq!(row.labels["c"], "d");
    }

    #[test]
    fn every_column_is_set() {
        let row = row(&Summary::default(), 0, false);
        for column in [&COLUMNS[..], &[SIZE], &MORE].concat() {
            assert!(row.fields.contains_key(column.field), "{}", column.field);
        }
    }
}
