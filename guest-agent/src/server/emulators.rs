//! Calls about emulators of other architectures.

use std::{result::Result as StdResult, sync::Arc};

use guest_protocol::{
    AgentError,
    chunks::ChunkReader,
    frame::FrameError,
    methods::{EmulatorInstall, LayerWanted},
};

use super::{Connection, reply};
use crate::{agent::Agent, images::pipe};

pub(super) async fn install(
    agent: &Agent,
    call: EmulatorInstall,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let found = agent.storage().and_then(|storage| {
        let emulators = Arc::clone(&storage.emulators);
        let has = emulators.has(&call.architecture, &call.digest)?;
        Ok((emulators, has))
    });
    let emulators = match found {
        Ok((_, true)) => return reply(connection, Ok(LayerWanted::Present)).await,
        Ok((emulators, false)) => emulators,
        Err(error) => return reply::<LayerWanted>(connection, Err(error)).await,
    };
    reply(connection, Ok(LayerWanted::Send)).await?;
    let (feed, program) = pipe::reader();
    let installing = tokio::task::spawn_blocking(move || {
        emulators.install(&call.architecture, &call.digest, program)
    });
    feed.copy(&mut ChunkReader::new(&mut *connection)).await;
    let result = installing
        .await
        .unwrap_or_else(|error| Err(AgentError::system(error.to_string())));
    reply(connection, result).await
}
