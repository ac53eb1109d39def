//! Ending the machine in order: containers stopped, data written, power off.

use std::{sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::timeout,
};

use crate::{
    agent::Agent,
    error::{Context, Result},
};

/// How long containers have to stop, whatever their own timeouts are.
const PATIENCE: Duration = Duration::from_secs(10);

/// What asks for an orderly shutdown. Pressing it twice is pressing it once.
#[derive(Debug)]
pub(crate) struct PowerButton {
    pressed: watch::Sender<bool>,
}

impl Default for PowerButton {
    fn default() -> Self {
        Self {
            pressed: watch::Sender::new(false),
        }
    }
}

impl PowerButton {
    /// Asks for shutdown.
    pub(crate) fn press(&self) {
        self.pressed.send_replace(true);
    }

    /// Waits until shutdown is asked for.
    pub(crate) async fn pressed(&self) {
        // The sender lives as long as the agent.
        let _ = self.pressed.subscribe().wait_for(|pressed| *pressed).await;
    }
}

/// Lets SIGTERM, SIGPWR and SIGINT press the power button.
///
/// # Errors
/// When a handler cannot be installed.
pub(crate) fn listen_for_signals(agent: &Arc<Agent>) -> Result<()> {
    for number in [libc::SIGTERM, libc::SIGPWR, libc::SIGINT] {
        let mut signal =
            signal(SignalKind::from_raw(number)).context("cannot listen for signals")?;
        let agent = Arc::clone(agent);
        tokio::spawn(async move {
            if signal.recv().await.is_some() {
                agent.power_button.press();
            }
        });
    }
    Ok(())
}

/// Stops all containers.
pub(crate) async fn stop_containers(agent: &Agent) {
    let Ok(storage) = agent.storage() else {
        return;
    };
    tracing::info!("stopping containers");
    // Killing takes its own time on top.
    if timeout(PATIENCE * 2, storage.containers.stop_all(PATIENCE))
        .await
        .is_err()
    {
        tracing::error!("some containers did not stop in time");
    }
}
