//! Who answers what a container's name server does not know.

use std::{
    io,
    net::{
        IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdTcpStream,
        UdpSocket as StdUdpSocket,
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{PORT, Transport};
use crate::{egress, networks::namespace::Namespace};

/// How long a server is waited for before the next one is asked; Docker's.
const PATIENCE: Duration = Duration::from_secs(4);

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::networks) enum Upstream {
    /// The host's own resolver.
    Host,
    /// Servers that the user named, from the container's network: the first that
    /// answers.
    Servers(Vec<IpAddr>),
}

impl Upstream {
    /// Has `message`, a question, answered.
    ///
    /// # Errors
    /// When nobody does.
    pub(super) async fn ask(
        &self,
        namespace: &Namespace,
        message: &[u8],
        transport: Transport,
    ) -> io::Result<Vec<u8>> {
        let Self::Servers(servers) = self else {
            return egress::resolve(message).await;
        };
        let mut problem = io::Error::other("there is no name server");
        for server in servers {
            let server = SocketAddr::from((*server, PORT));
            let asked = async {
                match transport {
                    Transport::Udp => ask_over_udp(namespace, server, message).await,
                    Transport::Tcp => ask_over_tcp(namespace, server, message).await,
                }
            };
            match timeout(PATIENCE, asked).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => problem = error,
                Err(elapsed) => problem = elapsed.into(),
            }
        }
        Err(problem)
    }
}

async fn ask_over_udp(
    namespace: &Namespace,
    server: SocketAddr,
    message: &[u8],
) -> io::Result<Vec<u8>> {
    let socket = namespace
        .perform(move || -> io::Result<StdUdpSocket> {
            let any: IpAddr = if server.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
            let socket = StdUdpSocket::bind((any, 0))?;
            // Only the server's datagrams are taken from now on.
            socket.connect(server)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .await??;
    let socket = UdpSocket::from_std(socket)?;
    socket.send(message).await?;
    let mut reply = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut reply).await?;
        // Not somebody's guess.
        if reply.get(..2) == message.get(..2) && length >= 2 {
            reply.truncate(length);
            return Ok(reply);
        }
    }
}

async fn ask_over_tcp(
    namespace: &Namespace,
    server: SocketAddr,
    message: &[u8],
) -> io::Result<Vec<u8>> {
    let stream = namespace
        .perform(move || -> io::Result<StdTcpStream> {
            let stream = StdTcpStream::connect_timeout(&server, PATIENCE)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        })
        .await??;
    let mut stream = TcpStream::from_std(stream)?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_u16(length).await?;
    stream.write_all(message).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut reply = vec![0; length];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}
