//! HTTP/1 on the socket: connections, what clients may take of the engine, version
//! prefixes, and an end in order.

mod connection;
mod steady;

pub(crate) use connection::serve as serve_connection;

use std::{pin::pin, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    net::UnixListener,
    sync::{Semaphore, watch},
};

/// How long requests under way may take when the engine ends.
const GRACE: Duration = Duration::from_secs(3);
/// How long to wait when the process has no descriptor left for a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What clients may take of the engine. The socket is its user's alone, so this is
/// about clients that are broken, not about thieves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at once; a client that needs more waits. With what [`Self::head`]
    /// allows, they take half a gibibyte at most.
    pub(crate) connections: usize,
    /// Bytes of a request line with its headers. Registries' credentials for a build
    /// are the most that is sent, some kilobytes for each registry.
    pub(crate) head: usize,
    /// How long headers may take, and a connection may wait for its next request:
    /// dockerd's time for headers, for clients that keep connections.
    pub(crate) head_time: Duration,
    /// How long a body of known length may stand still: its sender has all of it.
    /// One of unknown length may be typed by somebody, and takes its time.
    pub(crate) body_pause: Duration,
    /// How long a change goes on whose client is gone: more than any but a slow stop
    /// takes, and the agent goes on with that by itself.
    pub(crate) unattended: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            head: 256 * 1024,
            head_time: Duration::from_mins(5),
            body_pause: Duration::from_mins(1),
            unattended: Duration::from_mins(1),
        }
    }
}

/// Serves until `end`, then lets requests under way finish, for a moment.
pub(crate) async fn serve(
    listener: UnixListener,
    router: Router,
    limits: Limits,
    end: impl Future<Output = ()>,
) {
    let ending = watch::Sender::new(false);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut end = pin!(end);
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            next = next => next,
            () = &mut end => break,
        };
        match accepted {
            Ok((client, _)) => {
                let served = connection::serve(client, router.clone(), limits, ending.subscribe());
                tokio::spawn(async move {
                    let _slot = slot;
                    if let Err(error) = served.await {
                        tracing::debug!(%error, "a connection failed");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    ending.send_replace(true);
    // Closed when the last connection has dropped its end.
    if tokio::time::timeout(GRACE, ending.closed()).await.is_err() {
        tracing::info!("requests under way were cut off");
    }
}
