//! `inspect`: objects as the engine describes them.

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{Environment, container, network, volumes};
use crate::{
    client::{Call, Client, Error},
    failure::{self, Failure},
    output::json,
    template::Template,
};

/// Kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Containers.
    Container,
    /// Images.
    Image,
    /// Networks.
    Network,
    /// Volumes.
    Volume,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// "json", or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(short, long)]
    size: bool,
    /// Only inspect objects of this type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Kind>,
    /// The containers, images, networks and volumes
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

impl InspectArguments {
    /// The same, for one kind of object.
    pub(crate) fn only(mut self, kind: Kind) -> Self {
        self.kind = Some(kind);
        self
    }
}

/// `dctl inspect`.
pub(crate) async fn run(
    environment: &Environment,
    arguments: InspectArguments,
) -> Result<(), Failure> {
    let kind = arguments.kind;
    let template = match arguments.format.as_deref() {
        None | Some("" | "json") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let client = environment.machine().await?;
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for name in &arguments.names {
        match inspect(&client, name, kind, arguments.size).await {
            Ok(value) => found.push(value),
            Err(error @ Error::Refused { .. }) => {
                problems.push(if kind.is_none() && error.is_not_found() {
                    format!("Error: No such object: {name}")
                } else {
                    error.to_string()
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
    match (&template, arguments.format.as_deref()) {
        (Some(template), _) => {
            for value in &found {
                match template.render(value, None) {
                    Ok(text) => failure::print_line(text)?,
                    Err(problem) => problems.push(problem),
                }
            }
        }
        (None, Some("json")) => failure::print_line(Value::Array(found))?,
        (None, _) => {
            let text = json::pretty(&found).map_err(Failure::engine)?;
            failure::print_line(text)?;
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failure::new(problems.join("\n")))
}

/// The object of that name: of one kind, or of the first kind that has one.
async fn inspect(
    client: &Client,
    name: &str,
    kind: Option<Kind>,
    size: bool,
) -> Result<Value, Error> {
    if let Some(kind) = kind {
        return client.json(&call(name, kind, size)).await;
    }
    for kind in [Kind::Container, Kind::Image, Kind::Network] {
        match client.json(&call(name, kind, size)).await {
            Err(error) if error.is_not_found() => {}
            result => return result,
        }
    }
    client.json(&call(name, Kind::Volume, size)).await
}

fn call(name: &str, kind: Kind, size: bool) -> Call {
    match kind {
        Kind::Container => Call::get(container::path(name, "json")).flag("size", size),
        Kind::Image => Call::get(format!("/images/{}/json", Call::segment(name))),
        Kind::Network => Call::get(network::path(name)),
        Kind::Volume => Call::get(volumes::path(name)),
    }
}
