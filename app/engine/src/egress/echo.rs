//! Pings, by the sockets that the kernel has for programs without privileges. A user
//! who may not have them, but may have raw ones, pings by those.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket as StdUdpSocket},
    os::fd::OwnedFd,
    time::Duration,
};

use guest_protocol::{
    datagrams::{DatagramReader, DatagramWriter},
    egress::{MAX_PAYLOAD, Message, Refusal},
};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with},
};
use tokio::{
    io::BufReader,
    net::{UdpSocket, UnixStream},
    sync::Mutex,
    time::timeout,
};

use super::{accept, policy::Target, refusal, refuse};

/// A program that has not pinged for so long is forgotten. The guest does so earlier.
const IDLE: Duration = Duration::from_mins(2);

/// Types of ICMP messages: request and answer.
const V4: [u8; 2] = [8, 0];
const V6: [u8; 2] = [128, 129];

/// A socket that pings one address.
struct Pinger {
    socket: UdpSocket,
    types: [u8; 2],
    /// What marks its own requests, if the kernel does not do it.
    identifier: Option<u16>,
}

/// Makes a socket, answers, and passes pings until the guest closes.
pub(super) async fn serve(mut stream: UnixStream, target: Target) -> io::Result<()> {
    let address = target.addresses().first().copied();
    let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?;
    let pinger = match Pinger::open(address.ip()) {
        Ok(pinger) => pinger,
        Err(error) => {
            let refusal = refusal(&error);
            if refusal == Refusal::Prohibited {
                tracing::warn!(
                    %error,
                    "containers cannot ping: this host forbids it to the user. \
                     sysctl net.ipv4.ping_group_range=\"0 2147483647\" allows it"
                );
            }
            return refuse(stream, refusal).await;
        }
    };
    accept(&mut stream).await?;
    pinger.pass(stream).await
}

impl Pinger {
    fn open(address: IpAddr) -> io::Result<Self> {
        let (family, protocol, types) = match address {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, V4),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, V6),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let open = |kind| socket_with(family, kind, flags, Some(protocol));
        let (socket, identifier): (OwnedFd, _) = match open(SocketType::DGRAM) {
            Err(Errno::ACCESS | Errno::PERM) => {
                // The first error says what to do about it.
                let socket = open(SocketType::RAW).map_err(|_| Errno::ACCESS)?;
                (socket, Some(fresh_identifier()))
            }
            socket => (socket?, None),
        };
        connect(&socket, &SocketAddr::new(address, 0))?;
        Ok(Self {
            socket: UdpSocket::from_std(StdUdpSocket::from(socket))?,
            types,
            identifier,
        })
    }

    /// The message that asks for an echo.
    fn request(&self, sequence: [u8; 2], data: &[u8]) -> Vec<u8> {
        let [i0, i1] = self.identifier.unwrap_or_default().to_be_bytes();
        let mut message = vec![self.types[0], 0, 0, 0, i0, i1, sequence[0], sequence[1]];
        message.extend_from_slice(data);
        // Elsewhere the kernel makes it.
        if self.identifier.is_some() && self.types == V4 {
            let sum = checksum(&message).to_be_bytes();
            message[2..4].copy_from_slice(&sum);
        }
        message
    }

    /// Of what was received, the sequence number and data of an answer to a request
    /// of its own.
    fn answer<'a>(&self, received: &'a [u8]) -> Option<&'a [u8]> {
        let raw_v4 = self.identifier.is_some() && self.types == V4;
        let message = if raw_v4 {
            // Raw sockets of IPv4 give its header, too.
            received.get(usize::from(received.first()? & 0xf) * 4..)?
        } else {
            received
        };
        let (header, _) = message.split_first_chunk::<6>()?;
        let other = self
            .identifier
            .is_some_and(|identifier| header[4..6] != identifier.to_be_bytes());
        (header[0] == self.types[1] && !other).then_some(message.get(6..)?)
    }

    async fn pass(self, stream: UnixStream) -> io::Result<()> {
        let (reader, writer) = stream.into_split();
        let writer = Mutex::new(DatagramWriter::new(writer));
        let tell = async |message: Message<'_>| {
            let mut buffer = Vec::new();
            message.encode(&mut buffer)?;
            writer.lock().await.write(&buffer).await
        };
        let back = async {
            let mut datagram = vec![0; MAX_PAYLOAD];
            loop {
                match self.socket.recv(&mut datagram).await {
                    Ok(length) => {
                        let received = datagram.get(..length).unwrap_or_default();
                        if let Some(answer) = self.answer(received) {
                            tell(Message::Payload(answer)).await?;
                        }
                    }
                    Err(error) => tell(Message::Refusal(refusal(&error))).await?,
                }
            }
        };
        let out = async {
            let mut reader = DatagramReader::new(BufReader::new(reader));
            while let Ok(next) = timeout(IDLE, reader.next()).await {
                let Some(message) = next? else { break };
                let Some(Message::Payload(payload)) = Message::decode(message) else {
                    return Err(io::ErrorKind::InvalidData.into());
                };
                let Some((sequence, data)) = payload.split_first_chunk() else {
                    return Err(io::ErrorKind::InvalidData.into());
                };
                if let Err(error) = self.socket.send(&self.request(*sequence, data)).await {
                    tell(Message::Refusal(refusal(&error))).await?;
                }
            }
            Ok(())
        };
        tokio::select! {
            result = back => result,
            result = out => result,
        }
    }
}

/// One that no other socket of this process has had lately.
fn fresh_identifier() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = std::process::id() as u16;
    process.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The Internet's checksum.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u64::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}
