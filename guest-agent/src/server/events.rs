//! The call that follows events: first those that are remembered, then those that
//! come.

use std::{result::Result as StdResult, time::Duration};

use guest_protocol::{
    container::Event,
    frame::{self, FrameError},
    methods::{Events, Pruned},
};
use tokio::sync::broadcast::error::RecvError;

use super::{Connection, containers::containers, hung_up, reply};
use crate::{agent::Agent, clock, error::Result};

pub(super) async fn tell(
    agent: &Agent,
    call: &Events,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let (past, mut events) = match containers(agent) {
        Ok(containers) => containers.events().subscribe(call.since),
        Err(error) => return reply::<()>(connection, Err(error)).await,
    };
    reply(connection, Ok(())).await?;
    let wanted = |event: &Event| call.until.is_none_or(|until| event.time <= until);
    for event in past.iter().filter(|event| wanted(event)) {
        frame::write(connection, event).await?;
    }
    loop {
        let event = tokio::select! {
            // What has happened is told before the end.
            biased;
            event = events.recv() => event,
            () = reached(call.until) => return Ok(()),
            () = hung_up(connection) => return Ok(()),
        };
        match event {
            Ok(event) if wanted(&event) => frame::write(connection, &event).await?,
            Ok(_) | Err(RecvError::Closed) => return Ok(()),
            Err(RecvError::Lagged(lost)) => tracing::warn!("a listener missed {lost} events"),
        }
    }
}

pub(super) fn pruned(agent: &Agent, call: &Pruned) -> Result<()> {
    containers(agent)?
        .events()
        .pruned(&call.kind, call.reclaimed);
    Ok(())
}

/// Waits until the clock shows `time`, which the host may set meanwhile.
async fn reached(time: Option<i64>) {
    /// How long a change of the clock may go unnoticed.
    const LOOK: Duration = Duration::from_secs(1);
    let Some(time) = time else {
        return std::future::pending().await;
    };
    loop {
        let left = time.saturating_sub(clock::now());
        match u64::try_from(left) {
            Ok(left @ 1..) => tokio::time::sleep(Duration::from_nanos(left).min(LOOK)).await,
            _ => return,
        }
    }
}
