//! What commands on containers share: starting, attaching, waiting, and doing
//! something to each of several.

use std::pin::pin;

use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::{Response, body::Incoming};
use serde::Deserialize;

use super::container_options::Attached;
use crate::{
    client::{self, Call, Client, Hijacked},
    failure::{self, Failure},
    options::detach_keys::DetachKeys,
    session::{self, Handling, Outcome, Plan, Signals},
};

/// The largest result of a wait, in bytes.
const MAX_RESULT: usize = 64 * 1024;

/// How many containers are worked on at the same time.
const AT_ONCE: usize = 50;

/// A path of the API below a container.
pub(crate) fn path(container: &str, what: &str) -> String {
    format!("/containers/{}/{what}", Call::segment(container))
}

/// What commands need to know of a container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Container {
    /// Its id.
    pub(crate) id: String,
    /// What it was configured to be.
    pub(crate) config: Config,
    /// How it is now.
    pub(crate) state: State,
    /// What was asked of the host.
    #[serde(default)]
    pub(crate) host_config: HostConfig,
}

/// Configuration of a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Config {
    /// It has a terminal.
    pub(crate) tty: bool,
    /// Its standard input is open.
    pub(crate) open_stdin: bool,
}

/// State of a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct State {
    /// It runs.
    pub(crate) running: bool,
    /// It is frozen.
    pub(crate) paused: bool,
    /// It is between two runs.
    pub(crate) restarting: bool,
}

/// Host configuration of a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct HostConfig {
    /// It is removed when it exits.
    pub(crate) auto_remove: bool,
}

/// Looks at a container.
pub(crate) async fn inspect(client: &Client, name: &str) -> Result<Container, client::Error> {
    client.json(&Call::get(path(name, "json"))).await
}

/// Starts a container.
pub(crate) async fn start(client: &Client, name: &str) -> Result<(), Failure> {
    Ok(client.done(&Call::post(path(name, "start"))).await?)
}

/// Joins the stdio of a container.
pub(crate) async fn attach(
    client: &Client,
    name: &str,
    attached: Attached,
    detach_keys: Option<&DetachKeys>,
) -> Result<Hijacked, Failure> {
    let call = Call::post(path(name, "attach"))
        .flag("stream", true)
        .flag("stdin", attached.stdin)
        .flag("stdout", attached.stdout)
        .flag("stderr", attached.stderr)
        .query_if("detachKeys", detach_keys.map(DetachKeys::as_text))
        .upgrade();
    Ok(client.hijack(&call).await?)
}

/// Catches signals for as long as a container is attached; `None` when they stay
/// what they are.
pub(crate) fn signals(
    client: &Client,
    container: &str,
    forward: bool,
    tty: bool,
) -> Result<Option<Signals>, Failure> {
    let handling = match (forward, tty) {
        (true, _) => Handling::Forward {
            client: client.clone(),
            container: container.to_owned(),
        },
        (false, true) => Handling::End,
        (false, false) => return Ok(None),
    };
    Signals::catch(handling, tty)
        .map(Some)
        .map_err(|error| Failure::engine(format_args!("cannot catch signals: {error}")))
}

/// Carries an attached container's stdio, waits for its end, and takes over its
/// exit code.
pub(crate) async fn carry_to_exit(
    client: &Client,
    hijacked: Hijacked,
    plan: &Plan,
    signals: Option<&Signals>,
    waiting: Waiting,
) -> Result<(), Failure> {
    match session::carry(client, hijacked, plan, signals).await? {
        Outcome::Closed => {}
        Outcome::Detached => return Ok(()),
        Outcome::Signal(number) => return Err(ended_by(number)),
    }
    let told_to_end = async {
        match signals {
            Some(signals) => signals.ended().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        status = waiting.finish() => status?.into_result(),
        number = told_to_end => Err(ended_by(number)),
    }
}

/// The end of a session that a signal ended.
pub(crate) fn ended_by(signal: i32) -> Failure {
    Failure::silent(u8::try_from(128 + signal).unwrap_or(1))
}

/// A wait that the engine has registered.
#[derive(Debug)]
pub(crate) struct Waiting {
    response: Response<Incoming>,
}

/// Registers a wait. When this returns, no exit is missed any more.
pub(crate) async fn begin_wait(
    client: &Client,
    name: &str,
    condition: &str,
) -> Result<Waiting, Failure> {
    let call = Call::post(path(name, "wait")).query("condition", condition);
    Ok(Waiting {
        response: client.response(&call).await?,
    })
}

impl Waiting {
    /// Waits for the exit.
    pub(crate) async fn finish(self) -> Result<ExitStatus, Failure> {
        let body = http_body_util::Limited::new(self.response.into_body(), MAX_RESULT)
            .collect()
            .await;
        let body = match body {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                let error = match error.downcast::<hyper::Error>() {
                    Ok(error) => (*error).into(),
                    Err(_) => client::Error::TooLong { limit: MAX_RESULT },
                };
                return Err(error.into());
            }
        };
        if body.is_empty() {
            return Err(client::Error::Lost("it never told how the container ended".into()).into());
        }
        serde_json::from_slice(&body).map_err(|source| {
            client::Error::Malformed {
                path: "wait".into(),
                source,
            }
            .into()
        })
    }
}

/// How a container ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ExitStatus {
    /// Its exit code.
    pub(crate) status_code: i64,
    /// Why the wait failed, if it did.
    #[serde(default)]
    pub(crate) error: Option<WaitError>,
}

/// Why a wait failed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct WaitError {
    /// In words.
    #[serde(default)]
    pub(crate) message: String,
}

impl ExitStatus {
    /// The container's exit code as ours.
    pub(crate) fn into_result(self) -> Result<(), Failure> {
        match self {
            Self {
                error: Some(error), ..
            } => Err(Failure::engine(error.message)),
            Self { status_code: 0, .. } => Ok(()),
            Self { status_code, .. } => Err(Failure::silent(
                u8::try_from(status_code).unwrap_or(u8::MAX),
            )),
        }
    }
}

/// Does something with each name, several at a time, and prints what succeeded,
/// in order. Failures are told, and make it fail unless they are `tolerated`; one
/// that is not about a name alone ends it.
pub(crate) async fn for_each<F>(
    names: &[String],
    action: F,
    tolerated: fn(&client::Error) -> bool,
) -> Result<(), Failure>
where
    F: AsyncFn(&str) -> Result<(), client::Error>,
{
    let results = stream::iter(names)
        .map(async |name| (name, action(name).await))
        .buffered(AT_ONCE);
    let mut results = pin!(results);
    let mut failed = false;
    while let Some((name, result)) = results.next().await {
        match result {
            Ok(()) => failure::print_line(name)?,
            Err(error @ client::Error::Refused { .. }) => {
                failed |= !tolerated(&error);
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
