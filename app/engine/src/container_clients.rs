//! Clients in containers: the engine's own API, for containers that mount its socket.
//!
//! Who may use the API may do with this host's files what its user may, so the guest is
//! answered only while this host's user has a container that was made with the socket
//! ([`Shares::engine_access`]): the guest's word is not enough.

use std::sync::Arc;

use axum::Router;
use dctl_machine::Machine;
use guest_protocol::API_PORT;
use tokio::{
    net::UnixStream,
    sync::{Semaphore, watch},
};

use crate::{guest_streams, server, shares::Shares};

/// Connections at once; further ones are closed.
const MOST: usize = 256;

/// Serves for as long as the engine runs.
pub(crate) async fn keep(machine: Machine, shares: Arc<Shares>, router: Router) {
    let slots = Arc::new(Semaphore::new(MOST));
    let ending = watch::Sender::new(false);
    guest_streams::accept(&machine, API_PORT, |stream| {
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            tracing::warn!("containers have too many connections to the engine");
            return;
        };
        let (shares, router, ending) = (Arc::clone(&shares), router.clone(), ending.subscribe());
        tokio::spawn(async move {
            let _slot = slot;
            serve(stream, &shares, router, ending).await;
        });
    })
    .await;
}

async fn serve(stream: UnixStream, shares: &Shares, router: Router, ending: watch::Receiver<bool>) {
    match shares.engine_access().await {
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!("the machine asked the engine for something, which no container may");
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "whether a container may ask the engine is not known");
            return;
        }
    }
    let limits = server::Limits::default();
    if let Err(error) = server::serve_connection(stream, router, limits, ending).await {
        tracing::debug!(%error, "a container's connection failed");
    }
}
