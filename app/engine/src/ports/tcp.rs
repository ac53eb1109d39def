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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use guest_protocol::{
        frame::{self, Reply},
        methods::Request,
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
        sync::Semaphore,
        time::timeout,
    };

    use super::*;
    use crate::tests::engine::agent_at;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// An agent whose containers echo.
    fn agent(listener: UnixListener) {
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let request: Request = frame::read(&mut stream).await.unwrap();
                    assert_eq!(request.name(), "Forward");
                    let reply = Reply::Ok(Forwarding::Connected);
                    frame::write(&mut stream, &reply).await.unwrap();
                    let (mut from, mut to) = stream.split();
                    // The client ends it as it likes.
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
    }

    /// A connection, if what it says is echoed; none if it is reset.
    async fn echoed(address: std::net::SocketAddr) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut answer = [0; 5];
        let talk = async {
            stream.write_all(b"hello").await?;
            stream.read_exact(&mut answer).await
        };
        timeout(PATIENCE, talk).await.unwrap().ok()?;
        assert_eq!(&answer, b"hello");
        Some(stream)
    }

    #[tokio::test]
    async fn a_flood_is_bounded_and_what_is_carried_stays() {
        const ROOM: usize = 8;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent");
        agent(UnixListener::bind(&path).unwrap());
        let slots = Arc::new(Semaphore::new(ROOM));
        let target = Target {
            agent: agent_at(&path),
            container: "web".into(),
            port: 80,
            slots: Arc::clone(&slots),
            opening: Arc::new(Semaphore::new(2)),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, target));
        let mut carried = Vec::new();
        for _ in 0..ROOM {
            carried.push(echoed(address).await.unwrap());
        }
        for _ in 0..10 * ROOM {
            assert!(echoed(address).await.is_none());
        }
        assert_eq!(slots.available_permits(), 0);
        for stream in &mut carried {
            let mut answer = [0; 5];
            stream.write_all(b"still").await.unwrap();
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"still");
        }
        // There is room again when they go.
        drop(carried);
        let all = timeout(PATIENCE, slots.acquire_many(ROOM as u32)).await;
        drop(all.unwrap().unwrap());
        echoed(address).await.unwrap();
        serving.abort();
    }
}
