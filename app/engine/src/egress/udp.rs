//! Flows of UDP datagrams.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use guest_protocol::{
    datagrams::{DatagramReader, DatagramWriter},
    egress::{MAX_PAYLOAD, Message},
};
use tokio::{
    io::BufReader,
    net::{UdpSocket, UnixStream},
    sync::{Mutex, Notify},
    time::timeout,
};

use super::{accept, policy::Target, refusal, refuse};

/// A flow in which nothing has passed for so long is closed. The guest does so
/// earlier.
const IDLE: Duration = Duration::from_mins(5);

/// Makes a socket, answers, and passes datagrams until the guest closes.
pub(super) async fn serve(mut stream: UnixStream, target: Target) -> io::Result<()> {
    let socket = match open(target).await {
        Ok(socket) => socket,
        Err(error) => return refuse(stream, refusal(&error)).await,
    };
    accept(&mut stream).await?;
    pass(stream, &socket).await
}

async fn open(target: Target) -> io::Result<UdpSocket> {
    // Nobody tells whether something listens: the first address it is.
    let address = target.addresses().first().copied();
    let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?;
    let any: SocketAddr = if address.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}

/// Passes what a connected socket gives and takes, one message each.
pub(super) async fn pass(stream: UnixStream, socket: &UdpSocket) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let writer = Mutex::new(DatagramWriter::new(writer));
    let passed = Notify::new();
    let tell = async |message: Message<'_>, buffer: &mut Vec<u8>| {
        message.encode(buffer)?;
        writer.lock().await.write(buffer).await
    };
    let back = async {
        let (mut datagram, mut buffer) = (vec![0; MAX_PAYLOAD], Vec::new());
        loop {
            match socket.recv(&mut datagram).await {
                Ok(length) => {
                    let payload = datagram.get(..length).unwrap_or_default();
                    tell(Message::Payload(payload), &mut buffer).await?;
                    passed.notify_one();
                }
                Err(error) => tell(Message::Refusal(refusal(&error)), &mut buffer).await?,
            }
        }
    };
    let out = async {
        let mut reader = DatagramReader::new(BufReader::new(reader));
        let mut buffer = Vec::new();
        while let Some(message) = reader.next().await? {
            let Some(Message::Payload(payload)) = Message::decode(message) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            if let Err(error) = socket.send(payload).await {
                tell(Message::Refusal(refusal(&error)), &mut buffer).await?;
            }
            passed.notify_one();
        }
        Ok(())
    };
    let quiet = async { while timeout(IDLE, passed.notified()).await.is_ok() {} };
    tokio::select! {
        result = back => result,
        result = out => result,
        () = quiet => Ok(()),
    }
}
