//! UDP flows that leave: datagrams between one socket of a container and one
//! destination. The first is held until the engine has a socket for them; then a
//! socket here has them all.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use guest_protocol::{
    datagrams::{DatagramReader, DatagramWriter},
    egress::{MAX_PAYLOAD, Message, Request},
};
use tokio::{
    io::{BufReader, split},
    net::UdpSocket,
    sync::Notify,
    time::timeout,
};

use super::{
    engine::{Carrier, Engine},
    packet::Packet,
    queue::Held,
    sockets,
};

/// Flows at most; the datagrams of further ones are lost.
const MOST: usize = 512;

/// Datagrams of one flow that are held while it opens.
const MOST_HELD: usize = 32;

/// A flow ends when nothing has passed for so long; most NATs' time.
const IDLE: Duration = Duration::from_mins(1);

/// The same for one that asks a name server.
const IDLE_DNS: Duration = Duration::from_secs(10);
const DNS: u16 = 53;

type Ends = (SocketAddr, SocketAddr);

/// The flows.
#[derive(Debug)]
pub(super) struct Flows {
    engine: Arc<Engine>,
    flows: Mutex<HashMap<Ends, State>>,
}

/// How far a flow is.
#[derive(Debug)]
enum State {
    /// The engine makes it; these wait.
    Opening(Vec<Held>),
    /// A socket has its datagrams.
    Open,
}

impl Flows {
    /// None yet.
    pub(super) fn new(engine: Arc<Engine>) -> Arc<Self> {
        Arc::new(Self {
            engine,
            flows: Mutex::default(),
        })
    }

    fn flows(&self) -> MutexGuard<'_, HashMap<Ends, State>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a datagram that no socket has.
    pub(super) fn begin(self: &Arc<Self>, held: Held, packet: &Packet<'_>) {
        let ends = packet.ends();
        let mut flows = self.flows();
        let count = flows.len();
        match flows.entry(ends) {
            Entry::Occupied(mut entry) => match entry.get_mut() {
                State::Opening(waiting) if waiting.len() < MOST_HELD => waiting.push(held),
                State::Opening(_) => {}
                // The socket has come between the packet and this.
                State::Open => held.release(),
            },
            Entry::Vacant(_) if count >= MOST => tracing::debug!("too many flows leave"),
            Entry::Vacant(entry) => {
                entry.insert(State::Opening(vec![held]));
                let flows = Arc::clone(self);
                let quote = packet.quote().to_vec();
                tokio::spawn(async move {
                    if let Err(error) = flows.serve(ends, &quote).await {
                        tracing::debug!("the flow to {} ends: {error}", ends.1);
                    }
                    // What waits is dropped with it.
                    flows.flows().remove(&ends);
                });
            }
        }
    }

    async fn serve(&self, ends: Ends, quote: &[u8]) -> io::Result<()> {
        let (source, destination) = ends;
        let carrier = match self.engine.open(&Request::Udp(destination)).await {
            Ok(carrier) => carrier,
            Err(refusal) => {
                return sockets::send_unreachable(destination.ip(), source.ip(), quote, refusal);
            }
        };
        let socket = UdpSocket::from_std(sockets::udp(destination, source)?)?;
        let waiting = self.flows().insert(ends, State::Open);
        if let Some(State::Opening(waiting)) = waiting {
            waiting.into_iter().for_each(Held::release);
        }
        pass(&socket, carrier, ends, quote).await
    }
}

/// Passes datagrams both ways until nothing does any more.
async fn pass(socket: &UdpSocket, carrier: Carrier, ends: Ends, quote: &[u8]) -> io::Result<()> {
    let (source, destination) = ends;
    let idle = if destination.port() == DNS {
        IDLE_DNS
    } else {
        IDLE
    };
    let (reader, writer) = split(carrier.into_connection());
    let passed = Notify::new();
    let out = async {
        let mut writer = DatagramWriter::new(writer);
        let (mut datagram, mut message) = (vec![0; MAX_PAYLOAD], Vec::new());
        loop {
            let length = match socket.recv(&mut datagram).await {
                Ok(length) => length,
                // The container has closed its socket and was sent something.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            let payload = datagram.get(..length).unwrap_or_default();
            Message::Payload(payload).encode(&mut message)?;
            writer.write(&message).await?;
            passed.notify_one();
        }
    };
    let back = async {
        let mut reader = DatagramReader::new(BufReader::new(reader));
        while let Some(message) = reader.next().await? {
            match Message::decode(message) {
                Some(Message::Payload(payload)) => match socket.send(payload).await {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(error) => tracing::debug!("a datagram for {source} is lost: {error}"),
                },
                Some(Message::Refusal(refusal)) => {
                    sockets::send_unreachable(destination.ip(), source.ip(), quote, refusal)?;
                }
                None => return Err(io::ErrorKind::InvalidData.into()),
            }
            passed.notify_one();
        }
        Ok(())
    };
    let quiet = async { while timeout(idle, passed.notified()).await.is_ok() {} };
    tokio::select! {
        result = out => result,
        result = back => result,
        () = quiet => Ok(()),
    }
}
