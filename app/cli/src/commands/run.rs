//! `run` and `create`.

use std::{fs, io::Write as _, path::Path};

use bollard_stubs::models::ContainerCreateBody;
use clap::Args;
use serde::Deserialize;

use super::{
    Environment, container,
    container_options::{Attached, ContainerOptions, PullPolicy},
    context, pull,
};
use crate::{
    client::{Call, Client, Error},
    docker_config::Configuration,
    failure::{self, Failure},
    options::detach_keys::DetachKeys,
    session::{Plan, terminal},
};
use guest_protocol::Reference;

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Run the container in the background and print its ID
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "KEYS", value_parser = DetachKeys::parse)]
    detach_keys: Option<DetachKeys>,
    /// Proxy received signals to the process
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    #[command(flatten)]
    options: ContainerOptions,
}

/// Arguments of `create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArguments {
    #[command(flatten)]
    options: ContainerOptions,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

/// `dctl create`.
pub(crate) async fn create(
    environment: &Environment,
    arguments: CreateArguments,
) -> Result<(), Failure> {
    let options = &arguments.options;
    let id = async {
        let body = body(environment, options, options.attached()?)?;
        let client = environment.machine().await?;
        create_container(&client, options, &body).await
    }
    .await
    .map_err(|failure| failure.before_run("create"))?;
    failure::print_line(id)
}

/// `dctl run`.
pub(crate) async fn run(environment: &Environment, arguments: RunArguments) -> Result<(), Failure> {
    let options = &arguments.options;
    let fails = |failure: Failure| failure.before_run("run");
    let attached = if arguments.detach {
        if options.names_streams() {
            return Err(fails(Failure::new(
                "conflicting options: cannot specify both --attach and --detach",
            )));
        }
        Attached::default()
    } else {
        options.attached().map_err(fails)?
    };
    if attached.stdin && options.tty && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let body = body(environment, options, attached).map_err(fails)?;
    context::offer_once(environment)?;
    let client = environment.machine().await.map_err(fails)?;
    let id = create_container(&client, options, &body)
        .await
        .map_err(fails)?;
    if attached.any() {
        run_attached(&client, &id, &arguments, attached).await
    } else {
        container::start(&client, &id)
            .await
            .map_err(|failure| failure.at_start("run"))?;
        failure::print_line(id)
    }
}

/// What is asked for, and the proxies that the user's containers are told of.
fn body(
    environment: &Environment,
    options: &ContainerOptions,
    attached: Attached,
) -> Result<ContainerCreateBody, Failure> {
    let mut body = options.body(attached)?;
    let host = context::host(environment)?;
    match Configuration::open() {
        Ok(configuration) => {
            let proxies = configuration.proxy_variables(&host, options.variables());
            body.env.get_or_insert_default().extend(proxies);
        }
        // Docker's client goes on, too.
        Err(failure) => failure::note(format_args!(
            "WARNING: Error loading config file: {}",
            failure.message().unwrap_or_default()
        )),
    }
    Ok(body)
}

/// Attaches before the start, so that no output is lost, and waits from before
/// the start, so that no exit is missed.
async fn run_attached(
    client: &Client,
    id: &str,
    arguments: &RunArguments,
    attached: Attached,
) -> Result<(), Failure> {
    let fails = |failure: Failure| failure.before_run("run");
    let tty = arguments.options.tty;
    let signals = container::signals(client, id, arguments.sig_proxy, tty).map_err(fails)?;
    let condition = if arguments.options.remove {
        "removed"
    } else {
        "next-exit"
    };
    // Both at once: neither needs the other, and each is a round trip to the agent.
    let (hijacked, waiting) = tokio::try_join!(
        container::attach(client, id, attached, arguments.detach_keys.as_ref()),
        container::begin_wait(client, id, condition),
    )
    .map_err(fails)?;
    if let Err(failure) = container::start(client, id).await {
        drop(hijacked);
        if arguments.options.remove {
            // The engine removes it after a start that failed; when that is done,
            // its name is free again.
            let _ = waiting.finish().await;
        }
        return Err(failure.at_start("run"));
    }
    if let Some(signals) = &signals {
        signals.started();
    }
    let plan = Plan {
        tty,
        stdin: attached.stdin,
        detach_keys: arguments.detach_keys.clone().unwrap_or_default(),
        resize_path: container::path(id, "resize"),
    };
    container::carry_to_exit(client, hijacked, &plan, signals.as_ref(), waiting).await
}

/// Creates it, and pulls its image according to the policy.
async fn create_container(
    client: &Client,
    options: &ContainerOptions,
    body: &ContainerCreateBody,
) -> Result<String, Failure> {
    let reference = Reference::parse(options.image()).map(Reference::or_latest);
    let id_file = options.cidfile.as_deref().map(IdFile::new).transpose()?;
    if options.pull == PullPolicy::Always {
        let reference = reference.as_ref().map_err(ToString::to_string)?;
        pull_image(client, options, reference).await?;
    }
    let call = Call::post("/containers/create")
        .query_if("name", options.name.as_ref())
        .query_if("platform", options.platform.as_ref())
        .with_json(body)?;
    let created: Created = match (client.json(&call).await, &reference) {
        (Err(error), Ok(reference))
            if is_missing_image(&error) && options.pull == PullPolicy::Missing =>
        {
            if !options.quiet {
                failure::note(format_args!("Unable to find image '{reference}' locally"));
            }
            pull_image(client, options, reference).await?;
            client.json(&call).await?
        }
        // It is not an id of an image either, then: say what is wrong with it.
        (Err(error), Err(problem)) if is_missing_image(&error) => {
            return Err(Failure::new(problem.to_string()));
        }
        (result, _) => result?,
    };
    for warning in created.warnings.iter().flatten() {
        failure::note(format_args!("WARNING: {warning}"));
    }
    if let Some(file) = id_file {
        file.write(&created.id)?;
    }
    Ok(created.id)
}

/// Whether it is the image that does not exist, and not something else that was asked
/// for.
fn is_missing_image(error: &Error) -> bool {
    matches!(error, Error::Refused { status: 404, message, .. }
        if message.starts_with("No such image"))
}

async fn pull_image(
    client: &Client,
    options: &ContainerOptions,
    reference: &Reference,
) -> Result<(), Failure> {
    // Standard output belongs to the container.
    let output = if options.quiet {
        pull::Output::None
    } else {
        pull::Output::Stderr
    };
    pull::pull(client, reference, options.platform.as_deref(), output).await
}

/// The file for a container's id: it must be new, and does not stay behind empty.
struct IdFile<'a> {
    path: &'a Path,
    file: fs::File,
    written: bool,
}

impl<'a> IdFile<'a> {
    fn new(path: &'a Path) -> Result<Self, Failure> {
        let file = fs::File::create_new(path).map_err(|error| {
            if error.kind() == std::io::ErrorKind::AlreadyExists {
                Failure::new(format!(
                    "container ID file found, make sure the other container isn't running or delete {}",
                    path.display()
                ))
            } else {
                Failure::new(format!(
                    "failed to create the container ID file {}: {error}",
                    path.display()
                ))
            }
        })?;
        Ok(Self {
            path,
            file,
            written: false,
        })
    }

    fn write(mut self, id: &str) -> Result<(), Failure> {
        self.file.write_all(id.as_bytes()).map_err(|error| {
            Failure::new(format!(
                "failed to write the container ID to {}: {error}",
                self.path.display()
            ))
        })?;
        self.written = true;
        Ok(())
    }
}

impl Drop for IdFile<'_> {
    fn drop(&mut self) {
        if !self.written {
            // Another client may have removed it.
            let _ = fs::remove_file(self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_file_is_new_and_never_left_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        drop(IdFile::new(&path).unwrap());
        assert!(!path.exists());
        IdFile::new(&path).unwrap().write("abc").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "abc");
        assert!(IdFile::new(&path).is_err());
        assert!(path.exists());
    }
}
