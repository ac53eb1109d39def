//! `system df`.

use std::collections::BTreeMap;

use clap::Args;
use serde::Deserialize;
use time::OffsetDateTime;

use super::Environment;
use crate::{
    client::Call,
    failure::{self, Failure},
    output::{
        human,
        table::{Column, Format, Row},
    },
};

/// Arguments of `system df`.
#[derive(Debug, Args)]
pub(crate) struct DiskUsageArguments {
    /// "table", "table TEMPLATE", "json", or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show detailed information on space usage
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Usage {
    layers_size: u64,
    images: Option<Vec<Image>>,
    containers: Option<Vec<Container>>,
    volumes: Option<Vec<Volume>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Image {
    id: String,
    repo_tags: Option<Vec<String>>,
    created: i64,
    size: u64,
    shared_size: i64,
    containers: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Container {
    id: String,
    names: Vec<String>,
    image: String,
    command: String,
    created: i64,
    state: String,
    status: String,
    size_rw: u64,
    mounts: Option<Vec<BTreeMap<String, serde_json::Value>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Volume {
    name: String,
    usage_data: Option<VolumeUsage>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct VolumeUsage {
    ref_count: i64,
    size: i64,
}

const fn column(field: &'static str, heading: &'static str) -> Column {
    Column { field, heading }
}

const COLUMNS: [Column; 5] = [
    column("Type", "TYPE"),
    column("TotalCount", "TOTAL"),
    column("Active", "ACTIVE"),
    column("Size", "SIZE"),
    column("Reclaimable", "RECLAIMABLE"),
];

/// `dctl system df`.
pub(crate) async fn run(
    environment: &Environment,
    arguments: DiskUsageArguments,
) -> Result<(), Failure> {
    let format = Format::parse(arguments.format.as_deref(), &COLUMNS, &COLUMNS)?;
    let client = environment.machine().await?;
    let usage: Usage = client.json(&Call::get("/system/df")).await?;
    if arguments.verbose && arguments.format.is_none() {
        return failure::print(verbose(&usage, OffsetDateTime::now_utc().unix_timestamp()));
    }
    failure::print(format.render(usage.rows())?)
}

/// A kind of thing: how many there are, how many are in use, and their bytes.
struct Kind {
    name: &'static str,
    total: usize,
    active: usize,
    size: u64,
    reclaimable: u64,
}

impl Kind {
    fn row(&self) -> Row {
        let share = self
            .reclaimable
            .saturating_mul(100)
            .checked_div(self.size)
            .map(|share| format!(" ({share}%)"))
            .unwrap_or_default();
        let mut row = Row::default();
        row.set("Type", self.name);
        row.set("TotalCount", self.total.to_string());
        row.set("Active", self.active.to_string());
        row.set("Size", human::size(self.size, 4));
        row.set(
            "Reclaimable",
            format!("{}{share}", human::size(self.reclaimable, 4)),
        );
        row
    }
}

impl Usage {
    fn rows(&self) -> Vec<Row> {
        [self.of_images(), self.of_containers(), self.of_volumes()]
            .into_iter()
            .chain([Kind {
                name: "Build Cache",
                total: 0,
                active: 0,
                size: 0,
                reclaimable: 0,
            }])
            .map(|kind| kind.row())
            .collect()
    }

    /// What images in use have stays, what they share counts once.
    fn of_images(&self) -> Kind {
        let images = self.images.as_deref().unwrap_or_default();
        let used: u64 = images
            .iter()
            .filter(|image| image.containers > 0)
            .map(|image| match image.shared_size {
                -1 => image.size,
                shared => image.size.saturating_sub(shared as u64),
            })
            .sum();
        Kind {
            name: "Images",
            total: images.len(),
            active: images.iter().filter(|image| image.containers > 0).count(),
            size: self.layers_size,
            reclaimable: self.layers_size.saturating_sub(used),
        }
    }

    fn of_containers(&self) -> Kind {
        let containers = self.containers.as_deref().unwrap_or_default();
        let active = |container: &&Container| {
            matches!(
                container.state.as_str(),
                "running" | "paused" | "restarting"
            )
        };
        let size = |containers: &mut dyn Iterator<Item = &Container>| {
            containers.fold(0_u64, |sum, container| {
                sum.saturating_add(container.size_rw)
            })
        };
        Kind {
            name: "Containers",
            total: containers.len(),
            active: containers.iter().filter(active).count(),
            size: size(&mut containers.iter()),
            reclaimable: size(&mut containers.iter().filter(|container| !active(container))),
        }
    }

    fn of_volumes(&self) -> Kind {
        let usages: Vec<VolumeUsage> = self
            .volumes
            .iter()
            .flatten()
            .map(|volume| volume.usage_data.unwrap_or_default())
            .collect();
        let bytes = |usage: &VolumeUsage| u64::try_from(usage.size).unwrap_or(0);
        Kind {
            name: "Local Volumes",
            total: usages.len(),
            active: usages.iter().filter(|usage| usage.ref_count > 0).count(),
            size: usages.iter().map(bytes).sum(),
            reclaimable: usages
                .iter()
                .filter(|usage| usage.ref_count <= 0)
                .map(bytes)
                .sum(),
        }
    }
}

/// A table with these cells.
fn table(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let headings = headings.iter().map(ToString::to_string).collect();
    let lines: Vec<Vec<String>> = std::iter::once(headings).chain(rows).collect();
    crate::output::table::align(&lines)
}

fn verbose(usage: &Usage, now: i64) -> String {
    let images = usage.images.iter().flatten().flat_map(|image| {
        let shared = u64::try_from(image.shared_size).unwrap_or(0);
        let cells = move |repository: &str, tag: &str| {
            vec![
                repository.to_owned(),
                tag.to_owned(),
                human::short_id(&image.id).to_owned(),
                human::ago(image.created, now),
                human::size(image.size, 3),
                human::size(shared, 4),
                human::size(image.size.saturating_sub(shared), 4),
                image.containers.to_string(),
            ]
        };
        let tags = image.repo_tags.as_deref().unwrap_or_default();
        let rows: Vec<_> = tags
            .iter()
            .filter_map(|name| name.rsplit_once(':'))
            .map(|(repository, tag)| cells(repository, tag))
            .collect();
        if rows.is_empty() {
            vec![cells("<none>", "<none>")]
        } else {
            rows
        }
    });
    let containers = usage.containers.iter().flatten().map(|container| {
        let names: Vec<_> = container
            .names
            .iter()
            .map(|name| name.trim_start_matches('/'))
            .collect();
        vec![
            human::short_id(&container.id).to_owned(),
            human::printable(&container.image),
            human::quote(&human::ellipsis(&container.command, 20)),
            container.mounts.as_ref().map_or(0, Vec::len).to_string(),
            human::size(container.size_rw, 3),
            human::ago(container.created, now),
            container.status.clone(),
            names.join(","),
        ]
    });
    let volumes = usage.volumes.iter().flatten().map(|volume| {
        let usage = volume.usage_data.unwrap_or_default();
        vec![
            volume.name.clone(),
            usage.ref_count.to_string(),
            human::size(u64::try_from(usage.size).unwrap_or(0), 4),
        ]
    });
    [
        "Images space usage:\n\n".to_owned(),
        table(
            &[
                "REPOSITORY",
                "TAG",
                "IMAGE ID",
                "CREATED",
                "SIZE",
                "SHARED SIZE",
                "UNIQUE SIZE",
                "CONTAINERS",
            ],
            images,
        ),
        "\nContainers space usage:\n\n".to_owned(),
        table(
            &[
                "CONTAINER ID",
                "IMAGE",
                "COMMAND",
                "LOCAL VOLUMES",
                "SIZE",
                "CREATED",
                "STATUS",
                "NAMES",
            ],
            containers,
        ),
        "\nLocal Volumes space usage:\n\n".to_owned(),
        table(&["VOLUME NAME", "LINKS", "SIZE"], volumes),
        "\nBuild cache usage: 0B\n\n".to_owned(),
        table(
            &[
                "CACHE ID",
                "CACHE TYPE",
                "SIZE",
                "CREATED",
                "LAST USED",
                "USAGE",
                "SHARED",
            ],
            std::iter::empty(),
        ),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> Usage {
        serde_json::from_value(serde_json::json!({
            "LayersSize": 3000,
            "Images": [
                {"Id": "sha256:0123456789abcdef", "RepoTags": ["a:1"], "Size": 2000,
                 "SharedSize": 1000, "Containers": 1},
                {"Id": "sha256:1123456789abcdef", "Size": 2000, "SharedSize": 1000, "Containers": 0},
            ],
            "Containers": [
                {"Id": "ab", "Names": ["/x"], "State": "running", "SizeRw": 10},
                {"Id": "cd", "Names": ["/y"], "State": "exited", "SizeRw": 30},
            ],
            "Volumes": [{"Name": "v", "UsageData": {"RefCount": 0, "Size": 500}}],
        }))
        .unwrap()
    }

    #[test]
    fn what_is_unused_can_be_reclaimed() {
        let text = Format::parse(None, &COLUMNS, &COLUMNS)
            .unwrap()
            .render(usage().rows())
            .unwrap();
        assert_eq!(
            text,
            "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
             Images          2         1         3kB       2kB (66%)\n\
             Containers      2         1         40B       30B (75%)\n\
             Local Volumes   1         0         500B      500B (100%)\n\
             Build Cache     0         0         0B        0B\n"
        );
    }

    #[test]
    fn details_have_their_sections() {
        let text = verbose(&usage(), 0);
        assert!(
            text.contains("\n<none>       <none>    1123456789ab"),
            "{text}"
        );
        assert!(text.contains("\nv             0         500B\n"), "{text}");
    }
}
