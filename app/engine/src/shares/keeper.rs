//! Ends the sharing of what no container mounts any more, for as long as the engine
//! runs: containers go at the API's word, and by themselves (`--rm`).

use std::{sync::Arc, time::Duration};

use dctl_machine::{Machine, Stage};
use guest_protocol::{container::Event, frame, methods::Events};

use super::Shares;
use crate::agent::{Agent, CallError};

/// Before a machine that did not answer is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps what is shared to what containers need.
pub(crate) async fn keep(machine: Machine, agent: Arc<Agent>, shares: Arc<Shares>) {
    let mut stages = machine.stages();
    while stages
        .wait_for(|stage| *stage == Stage::Running)
        .await
        .is_ok()
    {
        let off = stages.wait_for(|stage| *stage != Stage::Running);
        tokio::select! {
            _ = off => {}
            () = follow(&agent, &shares) => {}
        }
    }
}

async fn follow(agent: &Agent, shares: &Shares) {
    loop {
        if let Err(error) = until_hung_up(agent, shares).await {
            tracing::debug!(%error, "the agent's events were lost");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn until_hung_up(agent: &Agent, shares: &Shares) -> Result<(), CallError> {
    let request = Events {
        since: None,
        until: None,
    };
    let ((), mut events) = agent.open_running(request).await?;
    shares.reconcile(agent).await?;
    loop {
        let event: Event = frame::read(&mut events)
            .await
            .map_err(|error| CallError::connection("Events", error))?;
        if event.kind == "container" && event.action == "destroy" {
            shares.reconcile(agent).await?;
        }
    }
}
