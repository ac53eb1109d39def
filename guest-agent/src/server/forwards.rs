//! Calls of the host's published ports.

use std::{io, os::fd::OwnedFd, result::Result as StdResult, sync::Arc, time::Duration};

use guest_protocol::{
    AgentError, ErrorKind,
    frame::{self, FrameError},
    methods::{ContainerPorts, ContainerStartFailed, Forward},
    port::{Forwarding, Transport},
};
use stream_relay::End;
use tokio::sync::{Semaphore, broadcast::error::RecvError};

use super::{Connection, containers::containers, hung_up, reply};
use crate::{
    agent::Agent,
    error::{Context, Result},
    forwards::{self, listening::Watch},
};

/// How many connections are forwarded at once; further ones are refused.
const MOST_FORWARDS: usize = 3072;

/// How often sockets of containers in the machine's network are looked at.
const LOOK: Duration = Duration::from_millis(400);

/// The right to be one of the forwarded connections.
#[derive(Debug, Clone)]
pub(super) struct Forwards {
    slots: Arc<Semaphore>,
}

impl Default for Forwards {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(MOST_FORWARDS)),
        }
    }
}

pub(super) fn note(agent: &Agent, call: ContainerPorts) -> Result<()> {
    containers(agent)?.note_ports(&call.container, call.ports)
}

pub(super) async fn note_failed(agent: &Agent, call: &ContainerStartFailed) -> Result<()> {
    let containers = containers(agent)?;
    containers
        .start_failed(&call.container, &call.message)
        .await
}

/// Connects, and carries the connection to its end.
pub(super) async fn forward(
    agent: &Agent,
    forwards: &Forwards,
    call: &Forward,
    mut connection: Connection,
) -> StdResult<(), FrameError> {
    let Ok(_slot) = forwards.slots.try_acquire() else {
        let error = AgentError::new(ErrorKind::Unavailable, "too many forwarded connections");
        return reply::<Forwarding>(&mut connection, Err(error)).await;
    };
    let network = match containers(agent).and_then(|all| all.network(&call.container)) {
        Ok(network) => network,
        Err(error) => return reply::<Forwarding>(&mut connection, Err(error)).await,
    };
    match call.transport {
        Transport::Tcp => {
            let connected = network.connect(call.port).await;
            if let Some(tcp) = tell(&mut connection, connected).await? {
                carry(tcp, connection).await?;
            }
        }
        Transport::Udp => {
            let connected = network.connect_datagrams(call.port).await;
            if let Some(socket) = tell(&mut connection, connected).await? {
                forwards::carry_datagrams(socket, connection).await?;
            }
        }
    }
    Ok(())
}

/// Replies how connecting went.
async fn tell<T>(
    connection: &mut Connection,
    connected: io::Result<T>,
) -> StdResult<Option<T>, FrameError> {
    match connected {
        Ok(connected) => {
            reply(connection, Ok(Forwarding::Connected)).await?;
            Ok(Some(connected))
        }
        Err(error) => {
            let refused = match error.raw_os_error() {
                Some(errno) => Ok(Forwarding::Refused { errno }),
                None if error.kind() == io::ErrorKind::TimedOut => Ok(Forwarding::Refused {
                    errno: libc::ETIMEDOUT,
                }),
                None => Err(error).context("cannot connect to the container"),
            };
            reply(connection, refused).await?;
            Ok(None)
        }
    }
}

async fn carry(tcp: std::net::TcpStream, connection: Connection) -> io::Result<()> {
    // A descriptor for itself: the connection's own leaves the event loop with it.
    let carrier: OwnedFd = connection.as_fd().try_clone_to_owned()?;
    drop(connection);
    if stream_relay::relay(tcp, carrier).await? == End::Reset {
        tracing::debug!("a forwarded connection was reset");
    }
    Ok(())
}

/// Tells what containers in the machine's network listen on, each time it changes.
pub(super) async fn listening(
    agent: &Agent,
    connection: &mut Connection,
) -> StdResult<(), FrameError> {
    let containers = match containers(agent) {
        Ok(containers) => containers,
        Err(error) => return reply::<()>(connection, Err(error)).await,
    };
    reply(connection, Ok(())).await?;
    let (_, mut events) = containers.events().subscribe(None);
    let mut watch = Watch::default();
    let mut told = None;
    loop {
        let sharers = containers.network_sharers();
        let nobody = sharers.is_empty();
        let sockets = tokio::task::block_in_place(|| watch.look(sharers));
        if told.as_ref() != Some(sockets) {
            frame::write(connection, sockets).await?;
            told = Some(sockets.clone());
        }
        tokio::select! {
            // Looked at only while there is somebody who could listen.
            () = tokio::time::sleep(LOOK), if !nobody => {}
            event = events.recv() => match event {
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
            () = hung_up(connection) => return Ok(()),
        }
    }
}
