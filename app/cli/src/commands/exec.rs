//! `exec`.

use std::path::PathBuf;

use bollard_stubs::models::{ExecConfig, ExecStartConfig};
use clap::Args;
use serde::Deserialize;

use super::{Environment, container};
use crate::{
    client::{Call, Client},
    failure::Failure,
    options::{detach_keys::DetachKeys, environment},
    session::{self, Outcome, Plan, terminal},
};

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArguments {
    /// Run the command in the background
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "KEYS", value_parser = DetachKeys::parse)]
    detach_keys: Option<DetachKeys>,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    interactive: bool,
    /// Give extended privileges to the command
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    tty: bool,
    /// User name or id, and group: <name|uid>[:<group|gid>]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// The container, then the command and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_names = ["CONTAINER", "COMMAND"], hide = true)]
    container_and_command: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ended {
    #[serde(default)]
    running: bool,
    exit_code: Option<i64>,
}

/// `dctl exec`.
pub(crate) async fn run(
    environment: &Environment,
    arguments: ExecArguments,
) -> Result<(), Failure> {
    let [name, command @ ..] = arguments.container_and_command.as_slice() else {
        return Err(Failure::new("'dctl exec' requires at least 2 arguments"));
    };
    let env = environment::variables(&arguments.env_file, &arguments.env, |name| {
        std::env::var(name).ok()
    })?;
    let attach = !arguments.detach;
    let stdin = attach && arguments.interactive;
    if stdin && arguments.tty && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let size = terminal::size().filter(|_| arguments.tty && attach);
    let size = size.map(|(rows, columns)| vec![rows.into(), columns.into()]);
    let client = environment.machine().await?;
    let config = ExecConfig {
        attach_stdin: Some(stdin),
        attach_stdout: Some(attach),
        attach_stderr: Some(attach),
        console_size: size.clone(),
        detach_keys: arguments
            .detach_keys
            .as_ref()
            .map(|keys| keys.as_text().to_owned()),
        tty: Some(arguments.tty),
        env: Some(env),
        cmd: Some(command.to_vec()),
        privileged: Some(arguments.privileged),
        user: arguments.user.clone(),
        working_dir: arguments.workdir.clone(),
    };
    let call = Call::post(container::path(name, "exec")).with_json(&config)?;
    let exec: Created = client.json(&call).await?;
    let start = Call::post(path(&exec.id, "start")).with_json(&ExecStartConfig {
        detach: Some(arguments.detach),
        tty: Some(arguments.tty),
        console_size: size,
    })?;
    if arguments.detach {
        return Ok(client.done(&start).await?);
    }
    let plan = Plan {
        tty: arguments.tty,
        stdin,
        detach_keys: arguments.detach_keys.unwrap_or_default(),
        resize_path: path(&exec.id, "resize"),
    };
    let fails = |failure: Failure| failure.at_start("exec");
    let hijacked = client
        .hijack(&start.upgrade())
        .await
        .map_err(|error| fails(error.into()))?;
    carry(&client, &exec.id, hijacked, &plan).await
}

/// Carries an exec's stdio, and ends with its exit code. Its own terminal's
/// signals end us; without a terminal they do as they please.
pub(crate) async fn carry(
    client: &Client,
    exec: &str,
    hijacked: crate::client::Hijacked,
    plan: &Plan,
) -> Result<(), Failure> {
    let signals = container::signals(client, exec, false, plan.tty)?;
    match session::carry(client, hijacked, plan, signals.as_ref()).await? {
        Outcome::Closed => {}
        Outcome::Detached => return Ok(()),
        Outcome::Signal(number) => return Err(container::ended_by(number)),
    }
    let ended: Ended = client.json(&Call::get(path(exec, "json"))).await?;
    match ended.exit_code {
        _ if ended.running => Ok(()),
        None | Some(0) => Ok(()),
        Some(code) => Err(Failure::silent(u8::try_from(code).unwrap_or(u8::MAX))),
    }
}

/// A path of the API below an exec.
pub(crate) fn path(exec: &str, what: &str) -> String {
    format!("/exec/{}/{what}", Call::segment(exec))
}
