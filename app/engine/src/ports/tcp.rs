//! Connections: one call to the agent for each.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use guest_protocol::{
    methods::Forward,
    port::{Forwarding, Transport},
};
use stream_relay::{prepare, relay, reset_on_close};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::Target;
use crate::agent::CallError;

/// How long to wait when the process has no descriptor left for a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How often it is said that connections are dropped.
const SAY: Duration = Duration::from_secs(10);

/// Accepts connections for as long as it is let.
pub(super) async fn serve(listener: TcpListener, target: Target) {
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(%error, "a connection to a published port was not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Ok(slot) = target.slots.clone().try_acquire_owned() else {
            say_dropped();
            reset_on_close(&client);
            continue;
        };
        let target = target.clone();
        tokio::spawn(async move {
            if let Err(error) = carry(client, &target).await {
                tracing::debug!(%error, port = target.port, "a connection was not carried");
            }
            drop(slot);
        });
    }
}

/// Says that there are too many connections, now and then.
pub(super) fn say_dropped() {
    static SAID: Mutex<Option<Instant>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.is_none_or(|said| said.elapsed() > SAY) {
        *said = Some(Instant::now());
        tracing::warn!("too many connections to published ports: new ones are dropped");
    }
}

async fn carry(client: TcpStream, target: &Target) -> io::Result<()> {
    prepare(&client)?;
    match target.open(Transport::Tcp).await {
        Ok(guest) => {
            let carrier = OwnedFd::from(guest.into_std()?);
            relay(client.into_std()?, carrier).await.map(drop)
        }
        Err(error) => {
            // There is nothing behind the port: as if nobody listened.
            reset_on_close(&client);
            Err(error)
        }
    }
}

impl Target {
    /// A stream to the container's port.
    pub(super) async fn open(&self, transport: Transport) -> io::Result<UnixStream> {
        let call = Forward {
            container: self.container.clone(),
            transport,
            port: self.port,
        };
        // Never closed, so this cannot fail.
        let _opening = self.opening.acquire().await.map_err(io::Error::other)?;
        match self.agent.open_running(call).await {
            Ok((Forwarding::Connected, stream)) => Ok(stream),
            Ok((Forwarding::Refused { errno }, _)) => Err(io::Error::from_raw_os_error(errno)),
            Err(CallError::Connection { source, .. }) => Err(io::Error::other(source)),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}
