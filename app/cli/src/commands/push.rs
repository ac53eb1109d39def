//! `push`.

use clap::Args;

use super::{
    Environment,
    pull::{self, Output},
};
use crate::{
    client::Call,
    failure::{self, Failure},
};
use guest_protocol::Reference;

/// Arguments of `push`.
#[derive(Debug, Args)]
pub(crate) struct PushArguments {
    /// Push all tags of an image to the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Push only this platform, such as linux/amd64
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

/// `dctl push`.
pub(crate) async fn run(
    environment: &Environment,
    arguments: PushArguments,
) -> Result<(), Failure> {
    let reference = Reference::parse(&arguments.name).map_err(|error| error.to_string())?;
    if reference.digest().is_some() {
        return Err(Failure::new("cannot push a digest reference"));
    }
    if arguments.all_tags && reference.tag().is_some() {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    let client = environment.machine().await?;
    let output = if arguments.quiet {
        Output::None
    } else {
        if !arguments.all_tags && reference.tag().is_none() {
            failure::print_line("Using default tag: latest")?;
        }
        Output::Stdout
    };
    let path = format!("/images/{}/push", Call::segment(&reference.familiar_name()));
    let tag = (!arguments.all_tags).then(|| reference.version());
    let call = Call::post(path)
        .query_if("tag", tag)
        .query_if("platform", arguments.platform);
    let messages = client.lines(&call).await?;
    pull::show(messages, output).await?;
    if arguments.quiet {
        if arguments.all_tags {
            return failure::print_line(reference.repository());
        }
        return failure::print_line(reference.or_latest().in_full());
    }
    Ok(())
}
