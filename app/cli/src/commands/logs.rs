//! `logs`.

use clap::Args;
use time::OffsetDateTime;

use super::{Environment, container};
use crate::{client::Call, failure::Failure, options::timestamp, session};

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArguments {
    /// Show what --log-opt labels and env noted with each line
    #[arg(long)]
    details: bool,
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Show logs since a timestamp (2026-01-02T13:23:37Z) or for so long (42m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Number of lines to show from the end of the logs
    #[arg(
        short = 'n',
        long,
        value_name = "NUMBER",
        default_value = "all",
        allow_hyphen_values = true
    )]
    tail: String,
    /// Show timestamps
    #[arg(short, long)]
    timestamps: bool,
    /// Show logs before a timestamp (2026-01-02T13:23:37Z) or until so long ago (42m)
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// `dctl logs`.
pub(crate) async fn run(
    environment: &Environment,
    arguments: LogsArguments,
) -> Result<(), Failure> {
    let now = OffsetDateTime::now_utc();
    let moment = |name: &str, text: &Option<String>| match text {
        Some(text) => timestamp::parse(text, now)
            .map(Some)
            .map_err(|problem| Failure::new(format!("invalid value for \"{name}\": {problem}"))),
        None => Ok(None),
    };
    let since = moment("since", &arguments.since)?;
    let until = moment("until", &arguments.until)?;
    let client = environment.machine().await?;
    let container = container::inspect(&client, &arguments.container).await?;
    let call = Call::get(container::path(&container.id, "logs"))
        .flag("stdout", true)
        .flag("stderr", true)
        .flag("follow", arguments.follow)
        .flag("timestamps", arguments.timestamps)
        .flag("details", arguments.details)
        .query("tail", &arguments.tail)
        .query_if("since", since)
        .query_if("until", until);
    let response = client.response(&call).await?;
    Ok(session::copy_body(response.into_body(), container.config.tty).await?)
}
