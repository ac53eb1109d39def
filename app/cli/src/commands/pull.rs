//! `pull`, and the pull before a run.

use std::io;

use clap::Args;

use super::Environment;
use crate::{
    client::{Call, Client, Error, JsonLines},
    failure::{self, Failure},
    output::progress::{Message, Progress},
    session::terminal,
};
use guest_protocol::Reference;

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArguments {
    /// Download all tagged images in the repository
    #[arg(short, long)]
    all_tags: bool,
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
    if arguments.all_tags && (reference.tag().is_some() || reference.digest().is_some()) {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    let client = environment.machine().await?;
    let output = if arguments.quiet {
        Output::None
    } else {
        if !arguments.all_tags && reference.tag().is_none() && reference.digest().is_none() {
            failure::print_line("Using default tag: latest")?;
        }
        Output::Stdout
    };
    if arguments.all_tags {
        let call = Call::post("/images/create")
            .query("fromImage", reference.familiar_name())
            .query_if("platform", arguments.platform);
        show(client.lines(&call).await?, output).await?;
        return failure::print_line(reference.repository());
    }
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
    show(client.lines(&call).await?, output).await
}

/// Shows progress to its end, which may be a failure.
pub(crate) async fn show(mut messages: JsonLines<Message>, output: Output) -> Result<(), Failure> {
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
