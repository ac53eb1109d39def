//! Calls about the machine itself.

use std::{result::Result as StdResult, sync::Arc};

use guest_protocol::{
    frame::FrameError,
    machine::Info,
    methods::{DiskGrow, ExecCreated, MachineLogs, MachineShell, SetTime},
};

use super::{Connection, containers::carry_exec, hung_up, reply};
use crate::{agent::Agent, boot::disk, clock, error::Result, machine};

pub(super) fn info(agent: &Agent) -> Result<Info> {
    machine::info(agent)
}

pub(super) fn set_time(call: &SetTime) -> Result<()> {
    clock::set(call.time)
}

pub(super) async fn grow_disk(agent: &Agent, call: DiskGrow) -> Result<()> {
    // It is there, or it cannot grow.
    agent.storage()?;
    disk::grow_to(agent.paths.data.clone(), call.size).await
}

pub(super) async fn logs(
    agent: &Agent,
    call: &MachineLogs,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    reply(connection, Ok(())).await?;
    let (mut host, mut output) = tokio::io::split(connection);
    tokio::select! {
        copied = agent.log.copy_to(&mut output, call.tail, call.follow) => {
            copied.map_err(FrameError::Io)
        }
        () = hung_up(&mut host) => Ok(()),
    }
}

pub(super) async fn shell(
    agent: &Arc<Agent>,
    call: MachineShell,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    match machine::shell(&agent.execs, call.config).await {
        Ok((command, subscription)) => {
            let created = ExecCreated {
                id: command.exec().id,
            };
            reply(connection, Ok(created)).await?;
            carry_exec(&command, subscription, connection).await;
            Ok(())
        }
        Err(error) => reply::<ExecCreated>(connection, Err(error)).await,
    }
}
