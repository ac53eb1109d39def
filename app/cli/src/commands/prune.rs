//! `image prune` and `system prune`.

use std::fmt::Write as _;

use clap::Args;
use serde::Deserialize;

use super::{Environment, images::Removed};
use crate::{
    client::{Call, Client, Error},
    failure::{self, Failure},
    options::filter,
    output::human,
    session::confirm,
};

/// The engine does not have such things.
const NOT_IMPLEMENTED: u16 = 501;

/// Arguments of `image prune`.
#[derive(Debug, Args)]
pub(crate) struct ImagePruneArguments {
    /// Remove all unused images, not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Filter what is removed: until=24h, label=key=value, label!=key
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

/// Arguments of `system prune`.
#[derive(Debug, Args)]
pub(crate) struct SystemPruneArguments {
    /// Remove all unused images not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Filter what is removed: until=24h, label=key=value, label!=key
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Prune anonymous volumes
    #[arg(long)]
    volumes: bool,
}

/// What a prune of anything replies.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Pruned {
    containers_deleted: Option<Vec<String>>,
    networks_deleted: Option<Vec<String>>,
    volumes_deleted: Option<Vec<String>>,
    images_deleted: Option<Vec<Removed>>,
    space_reclaimed: u64,
}

/// `dctl image prune`.
pub(crate) async fn images(
    environment: &Environment,
    arguments: ImagePruneArguments,
) -> Result<(), Failure> {
    let call = images_call(arguments.all, &arguments.filter)?;
    let what = if arguments.all {
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        "WARNING! This will remove all dangling images."
    };
    if !arguments.force && !confirm::confirmed(what)? {
        return Err(Failure::new("image prune has been cancelled"));
    }
    let client = environment.machine().await?;
    let pruned = client.json::<Pruned>(&call).await?;
    failure::print(describe(&pruned) + &total(pruned.space_reclaimed))
}

/// `dctl system prune`.
pub(crate) async fn system(
    environment: &Environment,
    arguments: SystemPruneArguments,
) -> Result<(), Failure> {
    let filters = filter::encode(&arguments.filter)?;
    if arguments.volumes
        && arguments
            .filter
            .iter()
            .any(|filter| filter.starts_with("until="))
    {
        return Err(Failure::new(
            "ERROR: The \"until\" filter is not supported with \"--volumes\"",
        ));
    }
    if !arguments.force && !confirm::confirmed(&warning(&arguments))? {
        return Err(Failure::new("system prune has been cancelled"));
    }
    let client = environment.machine().await?;
    let prune =
        |what: &str| Call::post(format!("/{what}/prune")).query_if("filters", filters.as_ref());
    let mut calls = vec![prune("containers"), prune("networks")];
    if arguments.volumes {
        calls.push(prune("volumes"));
    }
    calls.push(images_call(arguments.all, &arguments.filter)?);
    let mut reclaimed = 0_u64;
    for call in calls {
        let pruned = pruned(&client, &call).await?;
        reclaimed = reclaimed.saturating_add(pruned.space_reclaimed);
        failure::print(describe(&pruned))?;
    }
    failure::print(total(reclaimed))
}

fn images_call(all: bool, filters: &[String]) -> Result<Call, Failure> {
    let mut filters = filters.to_vec();
    filters.push(format!("dangling={}", !all));
    Ok(Call::post("/images/prune").query_if("filters", filter::encode(&filters)?))
}

/// What the engine does not have, there is none of.
async fn pruned(client: &Client, call: &Call) -> Result<Pruned, Failure> {
    match client.json(call).await {
        Err(Error::Refused {
            status: NOT_IMPLEMENTED,
            ..
        }) => Ok(Pruned::default()),
        result => Ok(result?),
    }
}

fn warning(arguments: &SystemPruneArguments) -> String {
    let mut text = String::from(
        "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n",
    );
    if arguments.volumes {
        text.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    text.push_str(if arguments.all {
        "  - all images without at least one container associated to them\n"
    } else {
        "  - all dangling images\n"
    });
    text.push_str("  - unused build cache\n");
    if !arguments.filter.is_empty() {
        text.push_str("\n  Items to be pruned will be filtered with:\n");
        for filter in &arguments.filter {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  - {filter}");
        }
    }
    text
}

fn describe(pruned: &Pruned) -> String {
    let mut text = String::new();
    let mut list = |title: &str, names: &Option<Vec<String>>| {
        let names = names.as_deref().unwrap_or_default();
        if !names.is_empty() {
            let _ = write!(text, "Deleted {title}:\n{}\n\n", names.join("\n"));
        }
    };
    list("Containers", &pruned.containers_deleted);
    list("Networks", &pruned.networks_deleted);
    list("Volumes", &pruned.volumes_deleted);
    let images = pruned.images_deleted.as_deref().unwrap_or_default();
    if !images.is_empty() {
        text.push_str("Deleted Images:\n");
        for image in images {
            let _ = match image {
                Removed::Untagged(name) => writeln!(text, "untagged: {name}"),
                Removed::Deleted(id) => writeln!(text, "deleted: {id}"),
            };
        }
        text.push('\n');
    }
    text
}

fn total(reclaimed: u64) -> String {
    format!("Total reclaimed space: {}\n", human::size(reclaimed, 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_told_as_docker_does() {
        let pruned: Pruned = serde_json::from_str(
            r#"{"ImagesDeleted":[{"Untagged":"a:1"},{"Deleted":"sha256:b"}],"SpaceReclaimed":4261550}"#,
        )
        .unwrap();
        assert_eq!(
            describe(&pruned) + &total(pruned.space_reclaimed),
            "Deleted Images:\nuntagged: a:1\ndeleted: sha256:b\n\nTotal reclaimed space: 4.262MB\n"
        );
        let pruned: Pruned =
            serde_json::from_str(r#"{"ContainersDeleted":["ab","cd"],"ImagesDeleted":null}"#)
                .unwrap();
        assert_eq!(describe(&pruned), "Deleted Containers:\nab\ncd\n\n");
    }
}
