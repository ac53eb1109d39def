//! `pull`, and the pull before a run.

use std::io;

use clap::Args;

use super::Environment;
use crate::{
    client::{Call, Client, Error},
    failure::{self, Failure},
    output::progress::{Message, Progress},
    session::terminal,
};
use guest_protocol::Reference;

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArguments {
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Platform of the image, such as linux/amd64
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
}

/// Where progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// On standard output.
    Stdout,
    /// On standard error.
    Stderr,
    /// Nowhere.
    None,
}

/// `dctl pull`.
pub(crate) async fn run(
    environment: &Environment,
    arguments: PullArguments,
) -> Result<(), Failure> {
    let reference = Reference::parse(&arguments.name).map_err(|error| error.to_string())?;
    let client = environment.machine().await?;
    let output = if arguments.quiet {
        Output::None
    } else {
        if reference.tag().is_none() && reference.digest().is_none() {
            failure::print_line("Using default tag: latest")?;
        }
        Output::Stdout
    };
    pull(&client, &reference, arguments.platform.as_deref(), output).await?;
    failure::print_line(reference.in_full())
}

/// Pulls an image and shows how it goes.
pub(crate) async fn pull(
    client: &Client,
    reference: &Reference,
    platform: Option<&str>,
    output: Output,
) -> Result<(), Failure> {
    // As Docker's client: a digest goes where a tag would.
    let call = Call::post("/images/create")
        .query("fromImage", reference.familiar_name())
        .query("tag", reference.version())
        .query_if("platform", platform);
    let mut messages = client.lines::<Message>(&call).await?;
    let (writer, width): (Box<dyn io::Write>, _) = match output {
        Output::Stdout => (Box::new(io::stdout()), terminal::stdout_width()),
        Output::Stderr => (Box::new(io::stderr()), terminal::stderr_width()),
        Output::None => (Box::new(io::sink()), None),
    };
    let mut progress = Progress::new(writer, width);
    while let Some(message) = messages.next().await? {
        if let Some(problem) = message.failure() {
            return Err(Error::Refused {
                status: 500,
                message: problem.to_owned(),
            }
            .into());
        }
        progress
            .show(&message)
            .map_err(|error| failure::output(&error))?;
    }
    Ok(())
}
