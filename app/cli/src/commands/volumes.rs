//! `volume`: create, list, inspect, remove, prune, backup, restore.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Environment, archives, container::for_each};
use crate::{
    client::{Call, Error},
    failure::{self, Failure},
    options::{environment, filter, resources},
    output::{
        human, json,
        table::{Column, Format, Row},
    },
    session::confirm,
    template::Template,
};

/// `volume`'s commands.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Write a volume's files to a tar archive
    Backup(BackupArguments),
    /// Create a volume
    Create(CreateArguments),
    /// Display detailed information on one or more volumes
    Inspect(InspectArguments),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(ListArguments),
    /// Remove unused local volumes
    Prune(PruneArguments),
    /// Replace a volume's files by those of a tar archive
    Restore(RestoreArguments),
    /// Remove one or more volumes
    #[command(visible_alias = "remove")]
    Rm(RemoveArguments),
}

/// Arguments of `volume create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArguments {
    /// Specify volume driver name
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    driver: String,
    /// Set metadata for a volume
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = resources::pair)]
    opt: Vec<(String, String)>,
    /// Its name
    #[arg(value_name = "VOLUME")]
    name: Option<String>,
}

/// Arguments of `volume inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// "json", or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// The volumes
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

/// Arguments of `volume ls`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Filter output: dangling=true, driver=local, label=key=value, name=part
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// "table", "table TEMPLATE", "json", or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only display volume names
    #[arg(short, long)]
    quiet: bool,
}

/// Arguments of `volume prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArguments {
    /// Remove all unused volumes, not just anonymous ones
    #[arg(short, long)]
    all: bool,
    /// Filter what is removed: label=key=value, label!=key
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

/// Arguments of `volume rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    /// Force the removal of one or more volumes
    #[arg(short, long)]
    force: bool,
    /// The volumes
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

/// Arguments of `volume backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The volume
    #[arg(value_name = "VOLUME")]
    name: String,
}

/// Arguments of `volume restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// Read from a file, instead of STDIN
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The volume
    #[arg(value_name = "VOLUME")]
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Volume {
    name: String,
    driver: String,
    mountpoint: String,
    scope: String,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Listed {
    volumes: Option<Vec<Volume>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Pruned {
    volumes_deleted: Option<Vec<String>>,
    space_reclaimed: u64,
}

const fn column(field: &'static str, heading: &'static str) -> Column {
    Column { field, heading }
}

const COLUMNS: [Column; 2] = [column("Driver", "DRIVER"), column("Name", "VOLUME NAME")];
const ALL_COLUMNS: [Column; 5] = [
    column("Driver", "DRIVER"),
    column("Name", "VOLUME NAME"),
    column("Mountpoint", "MOUNTPOINT"),
    column("Scope", "SCOPE"),
    column("Labels", "LABELS"),
];

pub(super) fn path(name: &str) -> String {
    format!("/volumes/{}", Call::segment(name))
}

/// `dctl volume`.
pub(crate) async fn run(environment: &Environment, command: VolumeCommand) -> Result<(), Failure> {
    match command {
        VolumeCommand::Backup(arguments) => backup(environment, arguments).await,
        VolumeCommand::Create(arguments) => create(environment, arguments).await,
        VolumeCommand::Inspect(arguments) => inspect(environment, arguments).await,
        VolumeCommand::Ls(arguments) => list(environment, arguments).await,
        VolumeCommand::Prune(arguments) => prune(environment, arguments).await,
        VolumeCommand::Restore(arguments) => restore(environment, arguments).await,
        VolumeCommand::Rm(arguments) => remove(environment, arguments).await,
    }
}

async fn create(environment: &Environment, arguments: CreateArguments) -> Result<(), Failure> {
    let options: BTreeMap<_, _> = arguments.opt.into_iter().collect();
    let call = Call::post("/volumes/create").with_json(&json!({
        "Name": arguments.name.unwrap_or_default(),
        "Driver": arguments.driver,
        "DriverOpts": options,
        "Labels": environment::labels(&arguments.label)?,
    }))?;
    let client = environment.machine().await?;
    let volume: Volume = client.json(&call).await?;
    failure::print_line(volume.name)
}

async fn inspect(environment: &Environment, arguments: InspectArguments) -> Result<(), Failure> {
    let template = match arguments.format.as_deref() {
        None | Some("" | "json") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let client = environment.machine().await?;
    let mut found: Vec<Value> = Vec::new();
    let mut problems = Vec::new();
    for name in &arguments.names {
        match client.json(&Call::get(path(name))).await {
            Ok(volume) => found.push(volume),
            Err(error @ Error::Refused { .. }) => problems.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    match template {
        Some(template) => {
            for volume in &found {
                failure::print_line(template.render(volume, None)?)?;
            }
        }
        None => failure::print_line(json::pretty(&found).map_err(Failure::engine)?)?,
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(problems.join("\n")))
    }
}

async fn list(environment: &Environment, arguments: ListArguments) -> Result<(), Failure> {
    let filters = filter::encode(&arguments.filter)?;
    let format = match (arguments.quiet, arguments.format.as_deref()) {
        (true, None | Some("table")) => Some("{{.Name}}"),
        (_, format) => format,
    };
    let format = Format::parse(format, &COLUMNS, &ALL_COLUMNS)?;
    let client = environment.machine().await?;
    let call = Call::get("/volumes").query_if("filters", filters);
    let listed: Listed = client.json(&call).await?;
    let rows = listed.volumes.unwrap_or_default().into_iter().map(row);
    failure::print(format.render(rows.collect())?)
}

fn row(volume: Volume) -> Row {
    let labels = volume.labels.unwrap_or_default();
    let text: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut row = Row::default();
    row.set("Driver", volume.driver);
    row.set("Labels", text.join(","));
    row.set("Mountpoint", volume.mountpoint);
    row.set("Name", volume.name);
    row.set("Scope", volume.scope);
    row.labels = labels
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect();
    row
}

async fn remove(environment: &Environment, arguments: RemoveArguments) -> Result<(), Failure> {
    let client = environment.machine().await?;
    let remove = async |name: &str| {
        let call = Call::delete(path(name)).flag("force", arguments.force);
        client.done(&call).await
    };
    for_each(&arguments.names, remove, |_| false).await
}

async fn prune(environment: &Environment, arguments: PruneArguments) -> Result<(), Failure> {
    let what = if arguments.all {
        "WARNING! This will remove all local volumes not used by at least one container."
    } else {
        "WARNING! This will remove anonymous local volumes not used by at least one container."
    };
    let mut filters = arguments.filter;
    if arguments.all {
        filters.push("all=true".to_owned());
    }
    let call = Call::post("/volumes/prune").query_if("filters", filter::encode(&filters)?);
    if !arguments.force && !confirm::confirmed(what)? {
        return Err(Failure::new("volume prune has been cancelled"));
    }
    let client = environment.machine().await?;
    let pruned: Pruned = client.json(&call).await?;
    let deleted = pruned.volumes_deleted.unwrap_or_default();
    if !deleted.is_empty() {
        failure::print(format!("Deleted Volumes:\n{}\n\n", deleted.join("\n")))?;
    }
    failure::print_line(format_args!(
        "Total reclaimed space: {}",
        human::size(pruned.space_reclaimed, 4)
    ))
}

async fn backup(environment: &Environment, arguments: BackupArguments) -> Result<(), Failure> {
    let output = archives::Output::for_archive(arguments.output)?;
    let client = environment.machine().await?;
    let name = Call::segment(&arguments.name);
    let call = Call::get(format!("/dctl/volumes/{name}/backup"));
    archives::write(&client, &call, output).await
}

async fn restore(environment: &Environment, arguments: RestoreArguments) -> Result<(), Failure> {
    let input = archives::input(arguments.input.as_deref()).await?;
    let client = environment.machine().await?;
    let name = Call::segment(&arguments.name);
    let call = Call::post(format!("/dctl/volumes/{name}/restore"));
    client.send_archive(&call, input).await?;
    failure::print_line(arguments.name)
}
