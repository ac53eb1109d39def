//! Calls about containers and execs.

use std::{os::fd::AsFd, result::Result as StdResult, sync::Arc};

use guest_protocol::{
    container::{Container, Exec},
    frame::FrameError,
    methods::{
        Attached, ContainerAttach, ContainerCreate, ContainerCreated, ContainerInspect,
        ContainerKill, ContainerLogs, ContainerPause, ContainerRemove, ContainerRename,
        ContainerResize, ContainerRestart, ContainerStart, ContainerStop, ContainerTop,
        ContainerUnpause, ContainerUpdate, ContainerWait, ExecCreate, ExecCreated, ExecInspect,
        ExecResize, ExecStart, ProcessList, WaitResult,
    },
};
use tokio::io::AsyncWriteExt;

use super::{Connection, hung_up, reply};
use crate::{
    agent::Agent,
    containers::Containers,
    error::{Context, Result},
    exec::{Command, Execs},
    hangup::Hangup,
    stdio::{
        AttachEnd, Stdio, Streams, Subscription,
        detach_keys::DetachKeys,
        json_log::LogWriter,
        log_reader::{self, Selection},
    },
};

pub(super) fn containers(agent: &Agent) -> Result<&Containers> {
    Ok(&agent.storage()?.containers)
}

pub(super) fn create(agent: &Agent, call: ContainerCreate) -> Result<ContainerCreated> {
    containers(agent)?.create(
        call.name.as_deref(),
        *call.config,
        *call.host_config,
        call.networks,
    )
}

pub(super) async fn start(agent: &Agent, call: &ContainerStart) -> Result<()> {
    containers(agent)?.start(&call.container).await
}

pub(super) async fn stop(agent: &Agent, call: &ContainerStop) -> Result<()> {
    containers(agent)?
        .stop(&call.container, call.signal.as_deref(), call.timeout)
        .await
}

pub(super) async fn restart(agent: &Agent, call: &ContainerRestart) -> Result<()> {
    containers(agent)?
        .restart(&call.container, call.signal.as_deref(), call.timeout)
        .await
}

pub(super) async fn kill(agent: &Agent, call: &ContainerKill) -> Result<()> {
    containers(agent)?.kill(&call.container, &call.signal).await
}

pub(super) async fn remove(agent: &Agent, call: &ContainerRemove) -> Result<()> {
    containers(agent)?
        .remove(&call.container, call.force, call.volumes)
        .await
}

pub(super) async fn rename(agent: &Agent, call: &ContainerRename) -> Result<()> {
    containers(agent)?.rename(&call.container, &call.name).await
}

pub(super) fn inspect(agent: &Agent, call: &ContainerInspect) -> Result<Container> {
    containers(agent)?.inspect(&call.container)
}

pub(super) fn list(agent: &Agent) -> Result<Vec<Container>> {
    Ok(containers(agent)?.list())
}

pub(super) fn resize(agent: &Agent, call: &ContainerResize) -> Result<()> {
    containers(agent)?.resize(&call.container, call.height, call.width)
}

pub(super) fn top(agent: &Agent, call: &ContainerTop) -> Result<ProcessList> {
    containers(agent)?.top(&call.container, &call.options)
}

pub(super) async fn pause(agent: &Agent, call: &ContainerPause) -> Result<()> {
    containers(agent)?.pause(&call.container).await
}

pub(super) async fn unpause(agent: &Agent, call: &ContainerUnpause) -> Result<()> {
    containers(agent)?.unpause(&call.container).await
}

pub(super) async fn update(agent: &Agent, call: &ContainerUpdate) -> Result<Vec<String>> {
    containers(agent)?
        .update(&call.container, &call.change)
        .await
}

pub(super) async fn wait(
    agent: &Agent,
    call: &ContainerWait,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let registered =
        containers(agent).and_then(|containers| containers.wait(&call.container, call.condition));
    let wait = match registered {
        Ok(wait) => wait,
        Err(error) => return reply::<()>(connection, Err(error)).await,
    };
    reply(connection, Ok(())).await?;
    let result = tokio::select! {
        result = wait.done() => result,
        () = hung_up(connection) => return Ok(()),
    };
    let result = match result {
        Ok(exit_code) => WaitResult {
            exit_code,
            error: None,
        },
        Err(error) => WaitResult {
            exit_code: 0,
            error: Some(error.message),
        },
    };
    reply(connection, Ok(result)).await
}

pub(super) async fn attach(
    agent: &Agent,
    call: &ContainerAttach,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let streams = Streams {
        stdin: call.stdin,
        stdout: call.stdout,
        stderr: call.stderr,
    };
    let prepare = || {
        let containers = containers(agent)?;
        let keys = DetachKeys::parse(&call.detach_keys)?;
        let stdio = containers.attachable(&call.container)?;
        // One that keeps no log has none to show.
        let log = call.logs.then(|| containers.log(&call.container).ok());
        let log = log.flatten();
        let look = |writer: Option<&LogWriter>| log.as_ref().map(|log| log.open_beside(writer));
        let (files, subscription) = if call.stream {
            let (files, subscription) = stdio.subscribe_after(streams, look);
            (files, Some(subscription))
        } else {
            (stdio.look_at_log(look), None)
        };
        let files = files
            .transpose()
            .context("cannot open the container's log")?;
        Ok((containers, keys, stdio, log.zip(files), subscription))
    };
    let (containers, keys, stdio, log, subscription) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => return reply::<Attached>(connection, Err(error)).await,
    };
    reply(connection, Ok(Attached { tty: stdio.tty() })).await?;
    containers.attached(&call.container);
    if let Some((log, files)) = log {
        let selection = Selection {
            stdout: call.stdout,
            stderr: call.stderr,
            unfinished: call.stream,
            ..Selection::default()
        };
        log_reader::copy(files, log.progress, selection, log.tty, connection).await?;
    }
    if let Some(subscription) = subscription
        && carry(&stdio, subscription, connection, keys).await == AttachEnd::Detached
    {
        containers.detached(&call.container);
    }
    Ok(())
}

async fn carry(
    stdio: &Stdio,
    subscription: Subscription,
    connection: &mut Connection,
    keys: DetachKeys,
) -> AttachEnd {
    let gone = match Hangup::of(connection.as_fd()) {
        Ok(gone) => gone,
        Err(error) => {
            tracing::warn!("a connection cannot be watched: {error}");
            return AttachEnd::Gone;
        }
    };
    let (mut reader, mut writer) = tokio::io::split(connection);
    stdio
        .attach(subscription, &mut reader, &mut writer, keys, &gone)
        .await
}

pub(super) async fn logs(
    agent: &Agent,
    call: &ContainerLogs,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let open = || {
        let log = containers(agent)?.log(&call.container)?;
        let files = log.open().context("cannot open the container's log")?;
        Ok((files, log))
    };
    let (files, log) = match open() {
        Ok(opened) => opened,
        Err(error) => return reply::<Attached>(connection, Err(error)).await,
    };
    reply(connection, Ok(Attached { tty: log.tty })).await?;
    let selection = Selection {
        follow: call.follow,
        stdout: call.stdout,
        stderr: call.stderr,
        since: call.since,
        until: call.until,
        timestamps: call.timestamps,
        tail: call.tail,
        details: call.details,
        unfinished: false,
    };
    let (mut host, mut output) = tokio::io::split(connection);
    let copied = log_reader::copy(files, log.progress, selection, log.tty, &mut output);
    tokio::select! {
        copied = copied => copied.map_err(FrameError::Io),
        // A container that writes nothing would keep its followers for ever.
        () = hung_up(&mut host) => Ok(()),
    }
}

pub(super) fn create_exec(agent: &Agent, call: ExecCreate) -> Result<ExecCreated> {
    let command = containers(agent)?.create_exec(&call.container, call.config)?;
    Ok(ExecCreated {
        id: command.exec().id,
    })
}

pub(super) async fn start_exec(
    agent: &Arc<Agent>,
    call: &ExecStart,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let command = match startable(agent, call) {
        Ok(command) => command,
        Err(error) => return reply::<Attached>(connection, Err(error)).await,
    };
    let tty = command.stdio().tty();
    if call.detach {
        let started = run_exec(agent, &command).await;
        return reply(connection, started.map(|()| Attached { tty })).await;
    }
    let config = command.exec().config;
    let streams = Streams {
        stdin: config.attach_stdin,
        stdout: config.attach_stdout,
        stderr: config.attach_stderr && !call.raw,
    };
    let subscription = command.stdio().subscribe(streams).framed(!call.raw);
    // Before it runs, as Docker does: clients that read the reply's headers with a
    // buffer would lose output that comes with them.
    reply(connection, Ok(Attached { tty })).await?;
    match run_exec(agent, &command).await {
        Ok(()) => carry_exec(&command, subscription, connection).await,
        Err(error) => {
            let text = format!("{}\r\n", error.message);
            if !call.raw {
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                connection.write_all(&[1, 0, 0, 0]).await?;
                connection.write_all(&length.to_be_bytes()).await?;
            }
            connection.write_all(text.as_bytes()).await?;
        }
    }
    Ok(())
}

/// The exec, if it can be started now.
fn startable(agent: &Agent, call: &ExecStart) -> Result<Arc<Command>> {
    let command = agent.execs.find(&call.exec)?;
    containers(agent)?.check_exec(&command)?;
    if call.detach {
        // Otherwise it is told on the connection.
        Execs::check_unclaimed(&command)?;
    }
    if let Some([height, width]) = call.console_size {
        command.stdio().resize(height, width);
    }
    Ok(command)
}

async fn run_exec(agent: &Agent, command: &Arc<Command>) -> Result<()> {
    // A task of its own: a host that hangs up must not leave it half started.
    let (starting, containers) = (Arc::clone(command), containers(agent)?.clone());
    tokio::spawn(async move { containers.start_exec(&starting).await })
        .await
        .map_err(|error| {
            guest_protocol::AgentError::system(format!("the exec was lost: {error}"))
        })?
}

/// Carries an exec's stdio, and ends once its exit code can be asked for.
pub(super) async fn carry_exec(
    command: &Command,
    subscription: Subscription,
    connection: &mut Connection,
) {
    let keys = DetachKeys::parse(&command.exec().config.detach_keys);
    let keys = match keys.or_else(|_| DetachKeys::parse("")) {
        Ok(keys) => keys,
        Err(error) => {
            tracing::error!("{error}");
            return;
        }
    };
    if carry(command.stdio(), subscription, connection, keys).await == AttachEnd::Output {
        command.ended().await;
    }
}

pub(super) fn inspect_exec(agent: &Agent, call: &ExecInspect) -> Result<Exec> {
    Ok(agent.execs.find(&call.exec)?.exec())
}

pub(super) fn resize_exec(agent: &Agent, call: &ExecResize) -> Result<()> {
    agent.execs.resize(&call.exec, call.height, call.width)
}
