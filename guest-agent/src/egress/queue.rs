//! The queue of held packets: the first of each connection and flow, and pings.

use std::{io, sync::Arc};

use tokio::io::{Interest, unix::AsyncFd};

use super::{
    connections::Connections,
    echo::Echo,
    flows::Flows,
    packet::{Content, Packet},
};
use crate::netlink::{Attributes, Message, Protocol, Socket};

/// The queue's number.
pub(super) const NUMBER: u16 = 0;

/// Packets that the kernel holds at most; further ones are lost.
const LONGEST: u32 = 4096;

/// Room for the longest packet and what is said of it, in bytes.
const BUFFER: usize = 128 * 1024;

/// Numbers of `linux/netfilter/nfnetlink_queue.h`.
mod constants {
    pub(super) const SUBSYSTEM: u16 = 3;
    pub(super) const PACKET: u16 = 0;
    pub(super) const VERDICT: u16 = 1;
    pub(super) const CONFIGURE: u16 = 2;
    pub(super) const CONFIGURE_COMMAND: u16 = 1;
    pub(super) const CONFIGURE_PARAMETERS: u16 = 2;
    pub(super) const CONFIGURE_LONGEST: u16 = 3;
    pub(super) const BIND: u8 = 1;
    pub(super) const COPY_PACKET: u8 = 2;
    pub(super) const PACKET_HEADER: u16 = 1;
    pub(super) const VERDICT_HEADER: u16 = 2;
    pub(super) const PAYLOAD: u16 = 10;
    pub(super) const DROP: u32 = 0;
    pub(super) const ACCEPT: u32 = 1;
}

use constants as c;

/// Who decides on what kind of packet.
#[derive(Debug)]
pub(super) struct Handlers {
    pub(super) connections: Arc<Connections>,
    pub(super) flows: Arc<Flows>,
    pub(super) echo: Arc<Echo>,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    socket: Arc<AsyncFd<Socket>>,
}

/// A packet that waits in the kernel. Dropped, it is dropped there.
#[derive(Debug)]
pub(super) struct Held {
    socket: Arc<AsyncFd<Socket>>,
    id: u32,
    verdict: u32,
}

impl Held {
    /// Lets the packet go on.
    pub(super) fn release(mut self) {
        self.verdict = c::ACCEPT;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut message = message(c::VERDICT);
        let mut verdict = self.verdict.to_be_bytes().to_vec();
        verdict.extend_from_slice(&self.id.to_be_bytes());
        message.bytes(c::VERDICT_HEADER, &verdict);
        if let Err(error) = self.socket.get_ref().tell(message) {
            // It went with its interface.
            tracing::debug!("a held packet is gone: {error}");
        }
    }
}

impl Queue {
    /// Takes the queue in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When another process has it.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::open(Protocol::Netfilter)?;
        let mut bind = message(c::CONFIGURE);
        bind.bytes(c::CONFIGURE_COMMAND, &[c::BIND, 0, 0, 0]);
        socket.request(bind)?;
        let mut configure = message(c::CONFIGURE);
        let mut parameters = u32::from(u16::MAX).to_be_bytes().to_vec();
        parameters.push(c::COPY_PACKET);
        configure.bytes(c::CONFIGURE_PARAMETERS, &parameters);
        configure.big(c::CONFIGURE_LONGEST, LONGEST);
        socket.request(configure)?;
        // SAFETY: a netlink socket gives the same descriptor each time it is asked, and
        // keeps it open until the `AsyncFd` that owns it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self {
            socket: Arc::new(socket),
        })
    }

    /// Gives each packet to who decides on it, for ever.
    pub(super) async fn serve(self, handlers: Handlers) {
        let mut buffer = vec![0; BUFFER];
        // Fails when the runtime ends.
        while let Ok(mut ready) = self.socket.readable().await {
            let taken = ready.try_io(|socket| {
                for answer in socket.get_ref().take(&mut buffer)? {
                    if answer.kind == c::SUBSYSTEM << 8 | c::PACKET {
                        self.decide(answer.content, &handlers);
                    }
                }
                Ok(())
            });
            if let Ok(Err(error)) = taken {
                // More came than the socket holds: what was lost is sent again, or is a
                // datagram.
                tracing::debug!("packets that leave were lost: {error}");
            }
        }
    }

    fn decide(&self, content: &[u8], handlers: &Handlers) {
        let attributes = Attributes(content.get(4..).unwrap_or_default());
        let header = attributes.clone().find(c::PACKET_HEADER);
        let Some(id) = header.and_then(|header| header.first_chunk()) else {
            return;
        };
        let held = Held {
            socket: Arc::clone(&self.socket),
            id: u32::from_be_bytes(*id),
            verdict: c::DROP,
        };
        let payload = attributes.find(c::PAYLOAD).unwrap_or_default();
        let Some(packet) = Packet::parse(payload) else {
            return;
        };
        match packet.content {
            Content::Tcp { sequence, .. } => handlers.connections.begin(held, &packet, sequence),
            Content::Udp { .. } => handlers.flows.begin(held, &packet),
            Content::Echo {
                identifier,
                sequence,
                data,
            } => handlers.echo.request(&packet, identifier, sequence, data),
        }
    }
}

fn message(kind: u16) -> Message {
    let [high, low] = NUMBER.to_be_bytes();
    Message::new(c::SUBSYSTEM << 8 | kind, 0, &[0, 0, high, low])
}
