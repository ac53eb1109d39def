//! Pings that leave: ICMP echo requests. The engine sends each as one of its own, and
//! what comes back is made the answer to the container's.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use guest_protocol::{
    datagrams::{DatagramReader, DatagramWriter},
    egress::{MAX_PAYLOAD, Message, Request},
};
use tokio::{
    io::{BufReader, split},
    sync::mpsc,
    time::timeout,
};

use super::{
    engine::Engine,
    packet::{self, Packet},
    sockets,
};

/// Programs that ping at once, at most; the requests of further ones are lost.
const MOST: usize = 256;

/// Requests of one that wait for the engine; further ones are lost.
const WAITING: usize = 64;

/// A program that has not pinged for so long has ended.
const IDLE: Duration = Duration::from_secs(30);

/// Who pings whom, and by which identifier.
type Key = (IpAddr, IpAddr, u16);

/// A request: its sequence number and data as they go to the engine, and what an error
/// quotes of it.
#[derive(Debug)]
struct EchoRequest {
    payload: Vec<u8>,
    quote: Vec<u8>,
}

/// The pings.
#[derive(Debug)]
pub(super) struct Echo {
    engine: Arc<Engine>,
    programs: Mutex<HashMap<Key, mpsc::Sender<EchoRequest>>>,
}

impl Echo {
    /// None yet.
    pub(super) fn new(engine: Arc<Engine>) -> Arc<Self> {
        Arc::new(Self {
            engine,
            programs: Mutex::default(),
        })
    }

    fn programs(&self) -> MutexGuard<'_, HashMap<Key, mpsc::Sender<EchoRequest>>> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request.
    pub(super) fn request(
        self: &Arc<Self>,
        packet: &Packet<'_>,
        identifier: u16,
        sequence: u16,
        data: &[u8],
    ) {
        let mut payload = sequence.to_be_bytes().to_vec();
        payload.extend_from_slice(data);
        if payload.len() > MAX_PAYLOAD {
            return;
        }
        let request = EchoRequest {
            payload,
            quote: packet.quote().to_vec(),
        };
        let key = (packet.source, packet.destination, identifier);
        let mut programs = self.programs();
        let count = programs.len();
        let sender = match programs.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if count >= MOST => return,
            Entry::Vacant(entry) => {
                let (sender, requests) = mpsc::channel(WAITING);
                tokio::spawn(Arc::clone(self).serve(key, requests));
                entry.insert(sender)
            }
        };
        // A full queue loses it, as a full road would.
        let _ = sender.try_send(request);
    }

    async fn serve(self: Arc<Self>, key: Key, requests: mpsc::Receiver<EchoRequest>) {
        if let Err(error) = self.pass(key, requests).await {
            tracing::debug!("the pings of {} end: {error}", key.1);
        }
        self.programs().remove(&key);
    }

    async fn pass(&self, key: Key, mut requests: mpsc::Receiver<EchoRequest>) -> io::Result<()> {
        let (source, destination, identifier) = key;
        let refused =
            |quote: &[u8], refusal| sockets::send_unreachable(destination, source, quote, refusal);
        let carrier = match self.engine.open(&Request::Echo(destination)).await {
            Ok(carrier) => carrier,
            Err(refusal) => {
                while let Ok(request) = requests.try_recv() {
                    refused(&request.quote, refusal)?;
                }
                return Ok(());
            }
        };
        let (reader, writer) = split(carrier.into_connection());
        let last = Mutex::new(Vec::new());
        let out = async {
            let mut writer = DatagramWriter::new(writer);
            let mut message = Vec::new();
            while let Ok(Some(request)) = timeout(IDLE, requests.recv()).await {
                Message::Payload(&request.payload).encode(&mut message)?;
                *last.lock().unwrap_or_else(PoisonError::into_inner) = request.quote;
                writer.write(&message).await?;
            }
            Ok(())
        };
        let back = async {
            let mut reader = DatagramReader::new(BufReader::new(reader));
            while let Some(message) = reader.next().await? {
                match Message::decode(message) {
                    Some(Message::Payload(payload)) => {
                        let Some((sequence, data)) = payload.split_first_chunk() else {
                            return Err(io::ErrorKind::InvalidData.into());
                        };
                        let sequence = u16::from_be_bytes(*sequence);
                        let reply =
                            packet::echo_reply(source.is_ipv6(), identifier, sequence, data);
                        sockets::send_as(sockets::icmp(source), destination, source, &reply)?;
                    }
                    Some(Message::Refusal(refusal)) => {
                        let quote = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
                        refused(&quote, refusal)?;
                    }
                    None => return Err(io::ErrorKind::InvalidData.into()),
                }
            }
            Ok(())
        };
        tokio::select! {
            result = out => result,
            result = back => result,
        }
    }
}
