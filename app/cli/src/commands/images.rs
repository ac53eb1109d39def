//! `images`, `rmi` and `tag`.

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
use guest_protocol::Reference;

/// Arguments of `images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArguments {
    /// Show all images (default hides intermediate images)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output: dangling=true, label=key=value, reference=pattern and so on
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// "table", "table TEMPLATE", "json", or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// Only this repository
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Summary {
    id: String,
    repo_tags: Option<Vec<String>>,
    repo_digests: Option<Vec<String>>,
    created: i64,
    size: u64,
    labels: Option<BTreeMap<String, String>>,
    containers: i64,
}

const fn column(field: &'static str, heading: &'static str) -> Column {
    Column { field, heading }
}

const REPOSITORY: Column = column("Repository", "REPOSITORY");
const TAG: Column = column("Tag", "TAG");
const DIGEST: Column = column("Digest", "DIGEST");
const ID: Column = column("ID", "IMAGE ID");
const CREATED: Column = column("CreatedSince", "CREATED");
const SIZE: Column = column("Size", "SIZE");
const COLUMNS: [Column; 5] = [REPOSITORY, TAG, ID, CREATED, SIZE];
const COLUMNS_WITH_DIGEST: [Column; 6] = [REPOSITORY, TAG, DIGEST, ID, CREATED, SIZE];
const ALL_COLUMNS: [Column; 8] = [
    REPOSITORY,
    TAG,
    DIGEST,
    ID,
    CREATED,
    SIZE,
    column("CreatedAt", "CREATED AT"),
    column("Containers", "CONTAINERS"),
];

/// `dctl images`.
pub(crate) async fn list(
    environment: &Environment,
    arguments: ImagesArguments,
) -> Result<(), Failure> {
    let mut filters = arguments.filter.clone();
    filters.extend(
        arguments
            .name
            .iter()
            .map(|name| format!("reference={name}")),
    );
    let filters = filter::encode(&filters)?;
    let format = match (arguments.quiet, arguments.format.as_deref()) {
        (true, None | Some("table")) => Some("{{.ID}}"),
        (_, format) => format,
    };
    let digests = arguments.digests || format.is_some_and(|format| format.contains(".Digest"));
    let columns: &[Column] = if arguments.digests {
        &COLUMNS_WITH_DIGEST
    } else {
        &COLUMNS
    };
    let format = Format::parse(format, columns, &ALL_COLUMNS)?;
    let client = environment.machine().await?;
    let call = Call::get("/images/json")
        .flag("all", arguments.all)
        .flag("digests", digests)
        .query_if("filters", filters);
    let images: Vec<Summary> = client.json(&call).await?;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let mut rows = Vec::new();
    for image in &images {
        let shown = rows.len();
        rows.extend(self::rows(image, now, arguments.no_trunc, digests));
        if arguments.quiet {
            rows.truncate(shown + 1);
        }
    }
    failure::print(format.render(rows)?)
}

/// One row for each name of an image.
fn rows(image: &Summary, now: i64, whole: bool, digests: bool) -> Vec<Row> {
    const NONE: &str = "<none>";

    let mut by_repository: BTreeMap<&str, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
    for name in image.repo_tags.iter().flatten() {
        if let Some((repository, tag)) = name.rsplit_once(':')
            && repository != NONE
        {
            by_repository.entry(repository).or_default().0.push(tag);
        }
    }
    for name in image.repo_digests.iter().flatten() {
        if let Some((repository, digest)) = name.split_once('@')
            && repository != NONE
        {
            by_repository.entry(repository).or_default().1.push(digest);
        }
    }
    let mut names = Vec::new();
    for (repository, (tags, found)) in by_repository {
        match (tags.as_slice(), found.as_slice()) {
            ([], []) => {}
            ([], _) if !digests => names.push((repository, NONE, NONE)),
            ([], found) => names.extend(found.iter().map(|digest| (repository, NONE, *digest))),
            (tags, found) if digests && !found.is_empty() => {
                for tag in tags {
                    names.extend(found.iter().map(|digest| (repository, *tag, *digest)));
                }
            }
            (tags, _) => names.extend(tags.iter().map(|tag| (repository, *tag, NONE))),
        }
    }
    if names.is_empty() {
        names.push((NONE, NONE, NONE));
    }
    names
        .into_iter()
        .map(|(repository, tag, digest)| {
            let mut row = Row::default();
            let id = if whole {
                &image.id
            } else {
                human::short_id(&image.id)
            };
            let containers = match image.containers {
                -1 => "N/A".to_owned(),
                number => number.to_string(),
            };
            row.set("Containers", containers);
            row.set("CreatedAt", human::moment(image.created));
            row.set("CreatedSince", human::ago(image.created, now));
            row.set("Digest", digest);
            row.set("ID", id);
            row.set("Repository", repository);
            row.set("Size", human::size(image.size, 3));
            row.set("Tag", tag);
            for (name, value) in image.labels.iter().flatten() {
                row.labels.insert(name.clone(), Value::from(value.as_str()));
            }
            row
        })
        .collect()
}

/// Arguments of `rmi`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    /// Force removal of the image
    #[arg(short, long)]
    force: bool,
    /// Do not delete untagged parents
    #[arg(long)]
    no_prune: bool,
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// What became of an image or of a name of it.
#[derive(Debug, Deserialize)]
pub(crate) enum Removed {
    /// The name is gone.
    Untagged(String),
    /// The image or layer is.
    Deleted(String),
}

/// `dctl rmi`.
pub(crate) async fn remove(
    environment: &Environment,
    arguments: RemoveArguments,
) -> Result<(), Failure> {
    let client = environment.machine().await?;
    let mut failed = false;
    for name in &arguments.images {
        let call = Call::delete(format!("/images/{}", Call::segment(name)))
            .flag("force", arguments.force)
            .flag("noprune", arguments.no_prune);
        match client.json::<Vec<Removed>>(&call).await {
            Ok(removed) => {
                for item in removed {
                    match item {
                        Removed::Untagged(name) => {
                            failure::print_line(format_args!("Untagged: {name}"))?;
                        }
                        Removed::Deleted(id) => failure::print_line(format_args!("Deleted: {id}"))?,
                    }
                }
            }
            Err(error @ crate::client::Error::Refused { .. }) => {
                failed |= !(arguments.force && error.is_not_found());
                failure::note(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    if failed {
        Err(Failure::silent(1))
    } else {
        Ok(())
    }
}

/// Arguments of `tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArguments {
    /// The image
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    /// Its new name
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

/// `dctl tag`.
pub(crate) async fn tag(environment: &Environment, arguments: TagArguments) -> Result<(), Failure> {
    let unusable = |why: String| {
        Failure::new(format!(
            "Error parsing reference: \"{}\" is not a valid repository/tag: {why}",
            arguments.target
        ))
    };
    let target =
        Reference::parse(&arguments.target).map_err(|error| unusable(error.to_string()))?;
    if target.digest().is_some() {
        return Err(unusable(
            "refusing to create a tag with a digest reference".to_owned(),
        ));
    }
    let client = environment.machine().await?;
    let call = Call::post(format!("/images/{}/tag", Call::segment(&arguments.source)))
        .query("repo", target.familiar_name())
        .query("tag", target.version());
    Ok(client.done(&call).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(tags: &[&str], digests: &[&str]) -> Summary {
        Summary {
            id: "sha256:0123456789abcdef".into(),
            repo_tags: Some(tags.iter().map(ToString::to_string).collect()),
            repo_digests: Some(digests.iter().map(ToString::to_string).collect()),
            created: 0,
            size: 4_261_550,
            containers: -1,
            ..Summary::default()
        }
    }

    fn names(image: &Summary, digests: bool) -> Vec<String> {
        rows(image, 0, false, digests)
            .iter()
            .map(|row| {
                let text = |field: &str| row.fields[field].as_str().unwrap().to_owned();
                [text("Repository"), text("Tag"), text("Digest")].join(" ")
            })
            .collect()
    }

    #[test]
    fn each_name_has_a_row() {
        let both = image(&["a:1", "a:2", "localhost:5000/b:3"], &["a@sha256:d"]);
        assert_eq!(
            names(&both, false),
            ["a 1 <none>", "a 2 <none>", "localhost:5000/b 3 <none>"]
        );
        assert_eq!(
            names(&both, true),
            ["a 1 sha256:d", "a 2 sha256:d", "localhost:5000/b 3 <none>"]
        );
        assert_eq!(
            names(&image(&[], &["a@sha256:d"]), false),
            ["a <none> <none>"]
        );
        assert_eq!(
            names(&image(&["<none>:<none>"], &[]), false),
            ["<none> <none> <none>"]
        );
    }

    #[test]
    fn the_table_is_dockers() {
        let rows = rows(&image(&["busybox:latest"], &[]), 14 * 86400, false, false);
        let text = Format::parse(None, &COLUMNS, &ALL_COLUMNS)
            .unwrap()
            .render(rows)
            .unwrap();
        assert_eq!(
            text,
            "REPOSITORY   TAG       IMAGE ID       CREATED       SIZE\n\
             busybox      latest    0123456789ab   2 weeks ago   4.26MB\n"
        );
    }

    #[test]
    fn what_a_removal_did_is_read() {
        let removed: Vec<Removed> =
            serde_json::from_str(r#"[{"Untagged":"a:1"},{"Deleted":"sha256:b"}]"#).unwrap();
        assert!(matches!(&removed[1], Removed::Deleted(id) if id == "sha256:b"));
    }
}
