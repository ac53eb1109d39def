//! `container prune`.

use clap::Args;
use serde::Deserialize;

use super::Environment;
use crate::{
    client::Call,
    failure::{self, Failure},
    options::filter,
    output::human,
    session::confirm,
};

/// Arguments of `container prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArguments {
    /// Filter what is removed: until=24h, label=key=value, label!=key
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Pruned {
    containers_deleted: Option<Vec<String>>,
    space_reclaimed: u64,
}

/// `dctl container prune`.
pub(crate) async fn run(
    environment: &Environment,
    arguments: PruneArguments,
) -> Result<(), Failure> {
    let filters = filter::encode(&arguments.filter)?;
    if !arguments.force && !confirm::confirmed("WARNING! This will remove all stopped containers.")?
    {
        return Err(Failure::new("container prune has been cancelled"));
    }
    let client = environment.machine().await?;
    let call = Call::post("/containers/prune").query_if("filters", filters);
    let pruned: Pruned = client.json(&call).await?;
    failure::print(report(&pruned))
}

fn report(pruned: &Pruned) -> String {
    let mut text = String::new();
    let deleted = pruned.containers_deleted.as_deref().unwrap_or_default();
    if !deleted.is_empty() {
        text.push_str("Deleted Containers:\n");
        for id in deleted {
            text.push_str(id);
            text.push('\n');
        }
        text.push('\n');
    }
    let size = human::size(pruned.space_reclaimed, 4);
    text + "Total reclaimed space: " + &size + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_told_as_docker_does() {
        let pruned = Pruned {
            containers_deleted: Some(vec!["ab".into(), "cd".into()]),
            space_reclaimed: 4_261_550,
        };
        assert_eq!(
            report(&pruned),
            "Deleted Containers:\nab\ncd\n\nTotal reclaimed space: 4.262MB\n"
        );
        assert_eq!(report(&Pruned::default()), "Total reclaimed space: 0B\n");
    }
}
