//! Being attached: stdio of a container or an exec on our own, with terminal,
//! signals and detach keys.
//!
//! Called by `run`, `start`, `attach`, `exec`, `logs` and `machine shell`. It
//! knows streams; what they belong to and what an exit code means is theirs.

pub(crate) mod confirm;
mod demultiplex;
mod input;
mod output;
mod signals;
pub(crate) mod terminal;

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use self::{
    demultiplex::{Demultiplexer, Stream},
    output::Output,
    signals::{Handling, Signals},
};
use self::{input::StandardInput, terminal::RawMode};
use crate::{
    client::{Call, Client, Error, Hijacked, HijackedWriter},
    options::detach_keys::{DetachFilter, DetachKeys, Typed},
};

/// How much of standard input is read at once, in bytes.
const INPUT_SIZE: usize = 64 * 1024;

/// How long the signal for a terminal that is gone may take to arrive and be sent
/// on.
const HANG_UP_WITHIN: Duration = Duration::from_secs(3);

/// What is carried and how.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The stream is a terminal's.
    pub(crate) tty: bool,
    /// Standard input is carried.
    pub(crate) stdin: bool,
    /// What leaves the session.
    pub(crate) detach_keys: DetachKeys,
    /// Where a new size of the terminal is sent: a path of the API.
    pub(crate) resize_path: String,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The other side has no more to say.
    Closed,
    /// The user typed the detach keys.
    Detached,
    /// A signal told us to go, or the terminal is gone.
    Signal(i32),
}

/// Why a session failed on our side.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// Standard output or error cannot be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// Standard input cannot be read.
    #[error("cannot read the input: {0}")]
    Input(io::Error),
    /// The terminal cannot be used.
    #[error("cannot use the terminal: {0}")]
    Terminal(io::Error),
    /// The engine's side failed.
    #[error(transparent)]
    Engine(#[from] Error),
}

/// Carries stdio until one side ends it. All output is written when this returns.
pub(crate) async fn carry(
    client: &Client,
    hijacked: Hijacked,
    plan: &Plan,
    signals: Option<&Signals>,
) -> Result<Outcome, SessionError> {
    let interactive = plan.tty && plan.stdin && terminal::stdin_is_terminal();
    let raw = interactive
        .then(RawMode::enter)
        .transpose()
        .map_err(SessionError::Terminal)?;
    let output = Output::start().map_err(SessionError::Output)?;
    let Hijacked {
        mut reader, writer, ..
    } = hijacked;

    let receive = async {
        let mut demultiplexer = Demultiplexer::default();
        loop {
            match reader.read().await {
                Ok(Some(chunk)) => {
                    if !pass_on(chunk, plan.tty, &mut demultiplexer, &output).await? {
                        return Ok(());
                    }
                }
                Ok(None) if plan.tty || demultiplexer.is_complete() => return Ok(()),
                Ok(None) => return Err(Error::Lost("the output was cut short".into()).into()),
                Err(error) => return Err(Error::Lost(error.to_string()).into()),
            }
        }
    };
    let forward = async {
        let sent = if plan.stdin {
            send_input(writer, plan, interactive).await?
        } else {
            close(writer).await;
            Sent::All
        };
        match sent {
            Sent::All => std::future::pending().await,
            Sent::Detached => Ok(Outcome::Detached),
            Sent::TerminalGone => {
                // The signal that says so is on its way, and is sent on first.
                tokio::time::sleep(HANG_UP_WITHIN).await;
                Ok(Outcome::Signal(signals::SIGHUP))
            }
        }
    };
    let resize = async {
        if plan.tty {
            follow_size(client, &plan.resize_path).await;
        }
        std::future::pending::<Infallible>().await
    };
    let end = async {
        match signals {
            Some(signals) => signals.ended().await,
            None => std::future::pending().await,
        }
    };

    let outcome = tokio::select! {
        biased;
        number = end => Ok(Outcome::Signal(number)),
        received = receive => received.map(|()| Outcome::Closed),
        outcome = forward => outcome,
        never = resize => match never {},
    };
    if matches!(outcome, Ok(Outcome::Signal(_))) {
        // Whatever keeps the output from being written will not go away.
        drop(raw);
        return outcome;
    }
    let written = output.finish().await;
    drop(raw);
    let outcome = outcome?;
    written.map_err(SessionError::Output)?;
    Ok(outcome)
}

/// Writes what came; `false` when it cannot be written.
async fn pass_on(
    mut chunk: Bytes,
    tty: bool,
    demultiplexer: &mut Demultiplexer,
    output: &Output,
) -> Result<bool, SessionError> {
    if tty {
        return Ok(output.write(Stream::Stdout, chunk).await);
    }
    while let Some((stream, payload)) = demultiplexer.next(&mut chunk).map_err(Error::Lost)? {
        if !output.write(stream, payload).await {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes a stream of the engine's: logs, frames included when there is no TTY.
pub(crate) async fn copy_body(
    mut body: hyper::body::Incoming,
    tty: bool,
) -> Result<(), SessionError> {
    use http_body_util::BodyExt as _;

    let output = Output::start().map_err(SessionError::Output)?;
    let mut demultiplexer = Demultiplexer::default();
    let mut result = Ok(());
    while let Some(frame) = body.frame().await {
        let chunk = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(error) => {
                result = Err(Error::from(error).into());
                break;
            }
        };
        if !pass_on(chunk, tty, &mut demultiplexer, &output).await? {
            break;
        }
    }
    output.finish().await.map_err(SessionError::Output)?;
    result
}

/// How the sending of standard input ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// There is no more, or nobody reads it.
    All,
    /// The detach keys were typed.
    Detached,
    /// The terminal that it came from is gone.
    TerminalGone,
}

/// Sends standard input until it ends.
async fn send_input(
    mut writer: HijackedWriter,
    plan: &Plan,
    interactive: bool,
) -> Result<Sent, SessionError> {
    let mut input = StandardInput::new().map_err(SessionError::Input)?;
    let mut filter = plan
        .tty
        .then(|| DetachFilter::new(plan.detach_keys.clone()));
    let mut buffer = vec![0; INPUT_SIZE];
    loop {
        let length = match input.read(&mut buffer).await {
            Ok(length) => length,
            // What a terminal says that is gone.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => 0,
            Err(error) => return Err(SessionError::Input(error)),
        };
        let typed = &buffer[..length];
        if typed.is_empty() {
            // A raw terminal has no other end.
            if interactive && terminal::is_gone() {
                return Ok(Sent::TerminalGone);
            }
            close(writer).await;
            return Ok(Sent::All);
        }
        let (sent, detach) = match &mut filter {
            None => (writer.write(typed).await, false),
            Some(filter) => match filter.filter(typed) {
                Typed::Forward(bytes) => (writer.write(&bytes).await, false),
                Typed::Detach(bytes) => (writer.write(&bytes).await, true),
            },
        };
        if detach {
            return Ok(Sent::Detached);
        }
        if let Err(error) = sent {
            // It reads no more. What it still has to say is on its way.
            tracing::debug!(%error, "the input is no longer read");
            return Ok(Sent::All);
        }
    }
}

async fn close(mut writer: HijackedWriter) {
    if let Err(error) = writer.close().await {
        tracing::debug!(%error, "the input was closed already");
    }
}

/// Sends the terminal's size now, and again whenever it changes.
async fn follow_size(client: &Client, path: &str) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    let mut sent = None;
    loop {
        let size = terminal::size();
        if let Some((rows, columns)) = size
            && size != sent
        {
            let call = Call::post(path)
                .query("h", rows.to_string())
                .query("w", columns.to_string());
            match client.done(&call).await {
                Ok(()) => sent = size,
                Err(error) => tracing::debug!(%error, "the terminal was not resized"),
            }
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}
