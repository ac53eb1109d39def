//! Keeps the guest's clock right: when a machine has booted, after the host has
//! slept, and now and then, because a guest's clock drifts.

use std::{sync::Arc, time::Duration};

use dctl_machine::{Machine, Stage};
use guest_protocol::methods::SetTime;
use rustix::time::{ClockId, clock_gettime};

use crate::agent::Agent;

/// How often it is looked whether the host has slept.
const LOOK: Duration = Duration::from_secs(10);
/// How often the clock is set without a reason.
const REFRESH: Duration = Duration::from_mins(10);
/// From when on a sleep counts.
const SLEPT: Duration = Duration::from_secs(1);

/// Sets the guest's clock for as long as the engine runs.
pub(crate) async fn keep(machine: Machine, agent: Arc<Agent>) {
    let mut stages = machine.stages();
    loop {
        if stages
            .wait_for(|stage| *stage == Stage::Running)
            .await
            .is_err()
        {
            return;
        }
        set(&agent).await;
        let off = stages.wait_for(|stage| *stage != Stage::Running);
        tokio::select! {
            _ = off => {}
            () = keep_running_guest(&agent) => {}
        }
    }
}

async fn keep_running_guest(agent: &Agent) {
    let mut slept = time_asleep();
    let mut set_at = awake();
    loop {
        tokio::time::sleep(LOOK).await;
        let now_slept = time_asleep();
        if now_slept.saturating_sub(slept) > SLEPT || awake().saturating_sub(set_at) > REFRESH {
            set(agent).await;
            set_at = awake();
        }
        slept = now_slept;
    }
}

async fn set(agent: &Agent) {
    let now = clock(ClockId::Realtime).as_nanos();
    let Ok(time) = i64::try_from(now) else { return };
    if let Err(error) = agent.call(SetTime { time }).await {
        tracing::warn!(%error, "the guest's clock could not be set");
    }
}

/// How long the host has slept since it booted.
fn time_asleep() -> Duration {
    clock(ClockId::Boottime).saturating_sub(awake())
}

/// How long the host has been awake since it booted.
fn awake() -> Duration {
    clock(ClockId::Monotonic)
}

fn clock(id: ClockId) -> Duration {
    Duration::try_from(clock_gettime(id)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_does_not_sleep_is_not_thought_to() {
        let before = time_asleep();
        assert!(time_asleep().saturating_sub(before) < SLEPT);
    }
}
