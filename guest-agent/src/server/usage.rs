//! Calls about what containers use and what they changed: stats, sizes, changes.

use std::{collections::BTreeMap, result::Result as StdResult};

use guest_protocol::{
    AgentError, chunks,
    frame::FrameError,
    methods::{ContainerChanges, ContainerSizes, ContainerStats, DiskUsage},
    stats::Sample,
};

use super::{Connection, containers::containers, reply};
use crate::{agent::Agent, error::Result};

pub(super) fn stats(agent: &Agent, call: &ContainerStats) -> Result<Sample> {
    containers(agent)?.stats(&call.container)
}

pub(super) fn sizes(agent: &Agent, call: &ContainerSizes) -> Result<BTreeMap<String, DiskUsage>> {
    tokio::task::block_in_place(|| containers(agent)?.sizes(call.container.as_deref()))
}

pub(super) async fn changes(
    agent: &Agent,
    call: &ContainerChanges,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let found = tokio::task::block_in_place(|| {
        let changes = containers(agent)?.changes(&call.container)?;
        serde_json::to_vec(&changes)
            .map_err(|error| AgentError::system(format!("cannot tell the changes: {error}")))
    });
    match found {
        Ok(json) => {
            reply(connection, Ok(())).await?;
            chunks::write(connection, &json).await?;
            chunks::end(connection).await?;
            reply(connection, Ok(())).await
        }
        Err(error) => reply::<()>(connection, Err(error)).await,
    }
}
