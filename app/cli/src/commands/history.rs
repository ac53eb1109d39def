//! `history`.

use clap::{ArgAction, Args};
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

/// Characters of a command that are shown.
const COMMAND_WIDTH: usize = 45;

/// Arguments of `history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArguments {
    /// "table", "table TEMPLATE", "json", or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print sizes and dates in human readable format
    #[arg(
        short = 'H',
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true"
    )]
    human: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Show only this platform, such as linux/amd64
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// The image
    image: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Step {
    id: String,
    created: i64,
    created_by: String,
    size: u64,
    comment: String,
}

const fn column(field: &'static str, heading: &'static str) -> Column {
    Column { field, heading }
}

const COLUMNS: [Column; 5] = [
    column("ID", "IMAGE"),
    column("CreatedSince", "CREATED"),
    column("CreatedBy", "CREATED BY"),
    column("Size", "SIZE"),
    column("Comment", "COMMENT"),
];
const PLAIN_COLUMNS: [Column; 5] = [
    column("ID", "IMAGE"),
    column("CreatedAt", "CREATED AT"),
    column("CreatedBy", "CREATED BY"),
    column("Size", "SIZE"),
    column("Comment", "COMMENT"),
];
const ALL_COLUMNS: [Column; 6] = [
    column("ID", "IMAGE"),
    column("CreatedSince", "CREATED"),
    column("CreatedAt", "CREATED AT"),
    column("CreatedBy", "CREATED BY"),
    column("Size", "SIZE"),
    column("Comment", "COMMENT"),
];

/// `dctl history`.
pub(crate) async fn run(
    environment: &Environment,
    arguments: HistoryArguments,
) -> Result<(), Failure> {
    let format = match (arguments.quiet, arguments.format.as_deref()) {
        (true, None | Some("table")) => Some("{{.ID}}"),
        (_, format) => format,
    };
    let columns = if arguments.human {
        &COLUMNS
    } else {
        &PLAIN_COLUMNS
    };
    let format = Format::parse(format, columns, &ALL_COLUMNS)?;
    let client = environment.machine().await?;
    let path = format!("/images/{}/history", Call::segment(&arguments.image));
    let call = Call::get(path).query_if("platform", arguments.platform.as_deref());
    let steps: Vec<Step> = client.json(&call).await?;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let rows = steps
        .iter()
        .map(|step| row(step, now, &arguments))
        .collect();
    failure::print(format.render(rows)?)
}

fn row(step: &Step, now: i64, arguments: &HistoryArguments) -> Row {
    let command = human::printable(&step.created_by).replace(['\t', '\n'], " ");
    let (id, command) = if arguments.no_trunc {
        (step.id.as_str(), command)
    } else {
        (
            human::short_id(&step.id),
            human::ellipsis(&command, COMMAND_WIDTH),
        )
    };
    let created = OffsetDateTime::from_unix_timestamp(step.created)
        .ok()
        .and_then(|time| {
            time.format(&time::format_description::well_known::Rfc3339)
                .ok()
        })
        .unwrap_or_default();
    let mut row = Row::default();
    row.set("ID", id);
    row.set(
        "CreatedSince",
        if arguments.human {
            human::ago(step.created, now)
        } else {
            created.clone()
        },
    );
    row.set("CreatedAt", created);
    row.set("CreatedBy", command);
    row.set(
        "Size",
        if arguments.human {
            human::size(step.size, 3)
        } else {
            step.size.to_string()
        },
    );
    row.set("Comment", human::printable(&step.comment));
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(no_trunc: bool, human: bool) -> HistoryArguments {
        HistoryArguments {
            format: None,
            human,
            no_trunc,
            platform: None,
            quiet: false,
            image: String::new(),
        }
    }

    #[test]
    fn a_step_is_shown_as_docker_does() {
        let step = Step {
            id: "sha256:0123456789abcdef".into(),
            created: 0,
            created_by: format!("RUN\t{}", "x".repeat(60)),
            size: 1_234_567,
            comment: "c".into(),
        };
        let fields = row(&step, 86400 * 14, &arguments(false, true)).fields;
        assert_eq!(fields["ID"], "0123456789ab");
        assert_eq!(fields["CreatedSince"], "2 weeks ago");
        assert_eq!(fields["Size"], "1.23MB");
        let command = fields["CreatedBy"].as_str().unwrap();
        assert!(command.starts_with("RUN x") && command.ends_with('…'));
        assert_eq!(command.chars().count(), COMMAND_WIDTH);
        let fields = row(&step, 0, &arguments(true, false)).fields;
        assert_eq!(fields["ID"], "sha256:0123456789abcdef");
        assert_eq!(fields["CreatedSince"], "1970-01-01T00:00:00Z");
        assert_eq!(fields["Size"], "1234567");
    }
}
