//! TCP connections that leave.
//!
//! The first packet of one is held until the engine has connected. Then it is let go,
//! the kernel makes a connection of it that a transparent listener accepts, and the
//! two are joined.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use guest_protocol::egress::{Refusal, Request};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::{
    engine::{Carrier, Engine},
    packet::{self, Packet},
    queue::Held,
    sockets,
};

/// Connections at most, made or in the making; the first packets of further ones are
/// lost, and come again.
const MOST: usize = 4096;

/// How long a container may take to go on with a connection that is made: longer than
/// its kernel tries.
const PICK_UP: Duration = Duration::from_mins(1);

/// Who connects, and to whom.
type Ends = (SocketAddr, SocketAddr);

/// How far a connection is.
#[derive(Debug)]
enum State {
    /// The engine connects.
    Opening,
    /// It has, and the container's kernel does.
    Ready(Carrier),
    /// Bytes pass.
    Live,
}

/// The connections.
#[derive(Debug)]
pub(super) struct Connections {
    engine: Arc<Engine>,
    states: Mutex<HashMap<Ends, State>>,
}

/// The transparent listeners, of IPv4 and of IPv6, on the same port.
#[derive(Debug)]
pub(super) struct Listeners {
    v4: TcpListener,
    v6: TcpListener,
    port: u16,
}

impl Listeners {
    /// Listens on a port that the kernel chooses.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn bind() -> io::Result<Self> {
        let v4 = sockets::tcp_listener((Ipv4Addr::UNSPECIFIED, 0).into())?;
        let port = v4.local_addr()?.port();
        let v6 = sockets::tcp_listener((Ipv6Addr::UNSPECIFIED, port).into())?;
        Ok(Self {
            v4: TcpListener::from_std(v4)?,
            v6: TcpListener::from_std(v6)?,
            port,
        })
    }

    /// Their port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Connections {
    /// Accepts connections from now on.
    pub(super) fn start(engine: Arc<Engine>, listeners: Listeners) -> Arc<Self> {
        let connections = Arc::new(Self {
            engine,
            states: Mutex::default(),
        });
        for listener in [listeners.v4, listeners.v6] {
            tokio::spawn(Arc::clone(&connections).accept(listener));
        }
        connections
    }

    fn states(&self) -> MutexGuard<'_, HashMap<Ends, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the first packet of a connection, or that packet once more.
    pub(super) fn begin(self: &Arc<Self>, held: Held, packet: &Packet<'_>, sequence: u32) {
        let ends = packet.ends();
        let mut states = self.states();
        let count = states.len();
        match states.entry(ends) {
            Entry::Occupied(entry) => match entry.get() {
                // The first is held still.
                State::Opening => {}
                State::Ready(_) | State::Live => held.release(),
            },
            Entry::Vacant(_) if count >= MOST => {
                tracing::debug!("too many connections leave");
            }
            Entry::Vacant(entry) => {
                entry.insert(State::Opening);
                let quote = packet.quote().to_vec();
                tokio::spawn(Arc::clone(self).open(held, ends, sequence, quote));
            }
        }
    }

    async fn open(self: Arc<Self>, held: Held, ends: Ends, sequence: u32, quote: Vec<u8>) {
        match self.engine.open(&Request::Tcp(ends.1)).await {
            Ok(carrier) => {
                self.states().insert(ends, State::Ready(carrier));
                held.release();
                sleep(PICK_UP).await;
                let mut states = self.states();
                if let Some(State::Ready(_)) = states.get(&ends) {
                    states.remove(&ends);
                }
            }
            Err(refusal) => {
                self.states().remove(&ends);
                drop(held);
                if let Err(error) = refuse(ends, sequence, &quote, refusal) {
                    tracing::debug!("cannot refuse the connection to {}: {error}", ends.1);
                }
            }
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.join(stream, peer),
                Err(error) => {
                    tracing::warn!("a connection that leaves was not accepted: {error}");
                    // Out of files, most likely: it passes when others end.
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Joins an accepted connection with the engine's.
    fn join(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let ends = stream.local_addr().map(|local| (plain(peer), plain(local)));
        let carrier = ends.as_ref().ok().and_then(|ends| self.pick_up(*ends));
        let (Ok(ends), Some(carrier)) = (ends, carrier) else {
            // It was given up.
            stream_relay::reset_on_close(&stream);
            return;
        };
        let connections = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = relay(stream, carrier).await {
                tracing::debug!("the connection to {} broke: {error}", ends.1);
            }
            connections.states().remove(&ends);
        });
    }

    fn pick_up(&self, ends: Ends) -> Option<Carrier> {
        match self.states().entry(ends) {
            Entry::Occupied(mut entry) => match entry.insert(State::Live) {
                State::Ready(carrier) => Some(carrier),
                other => {
                    entry.insert(other);
                    None
                }
            },
            Entry::Vacant(_) => None,
        }
    }
}

async fn relay(stream: TcpStream, carrier: Carrier) -> io::Result<()> {
    stream_relay::prepare(&stream)?;
    stream_relay::relay(stream.into_std()?, carrier.into_descriptor()?).await?;
    Ok(())
}

/// An address without what is not part of its packets.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

/// Tells who wanted to connect why it is not connected.
fn refuse(ends: Ends, sequence: u32, quote: &[u8], refusal: Refusal) -> io::Result<()> {
    let (source, destination) = ends;
    let (to, from) = (source.ip(), destination.ip());
    if refusal == Refusal::Refused {
        let segment = packet::reset(source, destination, sequence);
        return sockets::send_as(sockets::TCP, from, to, &segment);
    }
    sockets::send_unreachable(from, to, quote, refusal)
}
