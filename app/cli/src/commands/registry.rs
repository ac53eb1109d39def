//! `search` and `manifest inspect`: what registries say.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::Value;

use super::Environment;
use crate::{
    client::Call,
    failure::{self, Failure},
    options::filter,
    output::{
        human, json,
        table::{Column, Format, Row},
    },
};

/// Characters of a description that are shown.
const DESCRIPTION_WIDTH: usize = 45;

/// Arguments of `search`.
#[derive(Debug, Args)]
pub(crate) struct SearchArguments {
    /// Filter output: stars=3, is-official=true
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// "table", "table TEMPLATE", "json", or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Max number of search results
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u32>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// What to search for
    term: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Found {
    name: String,
    description: String,
    star_count: u64,
    is_official: bool,
    is_automated: bool,
}

const fn column(field: &'static str, heading: &'static str) -> Column {
    Column { field, heading }
}

const COLUMNS: [Column; 4] = [
    column("Name", "NAME"),
    column("Description", "DESCRIPTION"),
    column("StarCount", "STARS"),
    column("IsOfficial", "OFFICIAL"),
];
const ALL_COLUMNS: [Column; 5] = [
    column("Name", "NAME"),
    column("Description", "DESCRIPTION"),
    column("StarCount", "STARS"),
    column("IsOfficial", "OFFICIAL"),
    column("IsAutomated", "AUTOMATED"),
];

/// `dctl search`.
pub(crate) async fn search(
    environment: &Environment,
    arguments: SearchArguments,
) -> Result<(), Failure> {
    let format = Format::parse(arguments.format.as_deref(), &COLUMNS, &ALL_COLUMNS)?;
    let call = Call::get("/images/search")
        .query("term", &arguments.term)
        .query_if("limit", arguments.limit.map(|limit| limit.to_string()))
        .query_if("filters", filter::encode(&arguments.filter)?);
    let client = environment.engine().await?;
    let found: Vec<Found> = client.json(&call).await?;
    let yes = |is: bool| if is { "[OK]" } else { "" };
    let rows = found
        .into_iter()
        .map(|found| {
            let description = human::printable(&found.description).replace('\n', " ");
            let mut row = Row::default();
            row.set("Name", human::printable(&found.name));
            row.set(
                "Description",
                if arguments.no_trunc {
                    description
                } else {
                    human::ellipsis(&description, DESCRIPTION_WIDTH)
                },
            );
            row.set("StarCount", found.star_count.to_string());
            row.set("IsOfficial", yes(found.is_official));
            row.set("IsAutomated", yes(found.is_automated));
            row
        })
        .collect();
    failure::print(format.render(rows)?)
}

/// Commands of `manifest`.
#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Display an image manifest, or manifest list
    Inspect(ManifestInspectArguments),
}

/// Arguments of `manifest inspect`.
#[derive(Debug, Args)]
pub(crate) struct ManifestInspectArguments {
    /// Output additional info including layers and platform
    #[arg(short, long)]
    verbose: bool,
    /// The image
    #[arg(value_name = "MANIFEST")]
    name: String,
}

/// `dctl manifest`.
pub(crate) async fn manifest(
    environment: &Environment,
    command: ManifestCommand,
) -> Result<(), Failure> {
    let ManifestCommand::Inspect(arguments) = command;
    let path = format!("/dctl/manifest/{}", Call::segment(&arguments.name));
    let call = Call::get(path).flag("verbose", arguments.verbose);
    let client = environment.engine().await?;
    let manifest: Value = client.json(&call).await?;
    failure::print_line(json::pretty(&manifest).map_err(Failure::engine)?)
}
