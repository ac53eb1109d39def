//! `export`, `import` and `commit`: containers' files as archives and images.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

use super::{Environment, archives, container, pull};
use crate::{
    client::Call,
    failure::{self, Failure},
};
use guest_protocol::Reference;

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// `dctl export`.
pub(crate) async fn export(
    environment: &Environment,
    arguments: ExportArguments,
) -> Result<(), Failure> {
    let output = archives::Output::for_archive(arguments.output)?;
    let client = environment.machine().await?;
    let call = Call::get(container::path(&arguments.container, "export"));
    archives::write(&client, &call, output).await
}

/// Arguments of `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Set commit message for imported image
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Platform of the image, such as linux/amd64
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The archive: a file, an address, or - for STDIN
    #[arg(value_name = "FILE|URL|-")]
    source: String,
    /// The image's name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

/// `dctl import`.
pub(crate) async fn import(
    environment: &Environment,
    arguments: ImportArguments,
) -> Result<(), Failure> {
    let is_address = ["http://", "https://"]
        .iter()
        .any(|scheme| arguments.source.starts_with(scheme));
    let source = if is_address { &arguments.source } else { "-" };
    let mut call = Call::post("/images/create")
        .query("fromSrc", source)
        .query_if("message", arguments.message)
        .query_if("platform", arguments.platform);
    for change in &arguments.change {
        call = call.query("changes", change);
    }
    let call = named(call, arguments.name.as_deref())?;
    if is_address {
        let client = environment.machine().await?;
        return pull::show(client.lines(&call).await?, pull::Output::Stdout).await;
    }
    let path = (arguments.source != "-").then(|| Path::new(&arguments.source));
    let input = archives::input(path).await?;
    let client = environment.machine().await?;
    pull::show(client.upload(&call, input).await?, pull::Output::Stdout).await
}

/// Adds an image's name to a call.
fn named(call: Call, name: Option<&str>) -> Result<Call, Failure> {
    let Some(name) = name else {
        return Ok(call);
    };
    let reference = Reference::parse(name).map_err(|error| error.to_string())?;
    Ok(call
        .query("repo", reference.familiar_name())
        .query("tag", reference.or_latest().version()))
}

/// Arguments of `commit`.
#[derive(Debug, Args)]
pub(crate) struct CommitArguments {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Commit message
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Pause container during commit
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pause: bool,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// The image's name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

/// `dctl commit`.
pub(crate) async fn commit(
    environment: &Environment,
    arguments: CommitArguments,
) -> Result<(), Failure> {
    let mut call = Call::post("/commit")
        .query("container", &arguments.container)
        .query_if("author", arguments.author)
        .query_if("comment", arguments.message)
        .query("pause", if arguments.pause { "1" } else { "0" });
    for change in &arguments.change {
        call = call.query("changes", change);
    }
    let call = named(call, arguments.name.as_deref())?;
    let client = environment.machine().await?;
    let created: Created = client.json(&call).await?;
    failure::print_line(created.id)
}
