//! Connections from published ports into containers.
//!
//! The host's engine listens; for each connection, and each flow of datagrams, it makes
//! one call, which comes here with the network that it leads into. The socket is made
//! in there, the connection is to the container's own address (what listens on its
//! loopback address alone is not for the world), and its bytes are the call's from then
//! on. [`listening`] tells the engine what containers listen on that share the machine's
//! network.
//!
//! Nothing here decides what is published: that is the engine's, and it is the only
//! caller.

pub(crate) mod listening;
mod udp;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::{net::TcpSocket, time::timeout};

pub(crate) use udp::carry as carry_datagrams;

use crate::networks::namespace::Namespace;

/// How long a container's listener may take to accept, its queue being full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a container's ports are.
#[derive(Debug)]
pub(crate) struct Network {
    /// Its network namespace.
    pub(crate) namespace: Namespace,
    /// It is the machine's own, in which a container has no address for itself.
    pub(crate) of_machine: bool,
}

/// A socket in a network, and what it is to be connected to.
type Candidate = (OwnedFd, SocketAddr);

impl Network {
    /// A connection to `port` of the container, ready to be relayed.
    ///
    /// # Errors
    /// As connect(2)'s: refused when nobody listens.
    pub(crate) async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let mut refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        for (socket, address) in self.candidates(port, SocketType::STREAM).await? {
            let socket = TcpSocket::from_std_stream(TcpStream::from(socket));
            let connected = timeout(CONNECT_TIMEOUT, socket.connect(address)).await;
            match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    let stream = stream.into_std()?;
                    stream_relay::prepare(&stream)?;
                    return Ok(stream);
                }
                // Its listener may be of the other family only.
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// A socket whose datagrams are those from and to `port` of the container.
    ///
    /// # Errors
    /// As connect(2)'s.
    pub(crate) async fn connect_datagrams(&self, port: u16) -> io::Result<UdpSocket> {
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for (socket, address) in self.candidates(port, SocketType::DGRAM).await? {
            let socket = UdpSocket::from(socket);
            match socket.connect(address) {
                Ok(()) => return Ok(socket),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn candidates(&self, port: u16, kind: SocketType) -> io::Result<Vec<Candidate>> {
        let of_machine = self.of_machine;
        self.namespace
            .perform(move || {
                let addresses = if of_machine {
                    loopback()
                } else {
                    own_addresses()
                };
                addresses
                    .into_iter()
                    .map(|address| Ok((socket(address, kind)?, SocketAddr::new(address, port))))
                    .collect()
            })
            .await?
    }
}

fn loopback() -> Vec<IpAddr> {
    vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
}

/// The addresses that the calling thread's network is known by to others: those that
/// datagrams for somewhere else would come from. One that leads nowhere has its
/// loopback addresses alone.
fn own_addresses() -> Vec<IpAddr> {
    // Addresses of documentation; nothing is sent.
    let elsewhere: [IpAddr; 2] = [
        Ipv4Addr::new(192, 0, 2, 1).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    ];
    let mut addresses: Vec<_> = elsewhere
        .into_iter()
        .filter_map(|elsewhere| {
            let probe = UdpSocket::from(socket(elsewhere, SocketType::DGRAM).ok()?);
            probe.connect((elsewhere, 9)).ok()?;
            Some(probe.local_addr().ok()?.ip())
        })
        .collect();
    if addresses.is_empty() {
        addresses = loopback();
    }
    addresses
}

fn socket(address: IpAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, kind, flags, None)?)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;
    use crate::networks::namespace::tests::new_namespace;

    fn network() -> Network {
        Network {
            namespace: new_namespace(),
            of_machine: false,
        }
    }

    #[tokio::test]
    async fn a_listener_in_the_network_is_reached_by_either_family() {
        for address in loopback() {
            let network = network();
            let listener = network
                .namespace
                .run(|| TcpListener::bind((address, 0)))
                .unwrap()
                .unwrap();
            let port = listener.local_addr().unwrap().port();
            let mut stream = network.connect(port).await.unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            accepted.write_all(b"x").unwrap();
            stream.set_nonblocking(false).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            assert_eq!(stream.peer_addr().unwrap().ip(), address);
        }
    }

    #[tokio::test]
    async fn nobody_that_listens_is_a_refusal() {
        let error = network().connect(9).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    }

    #[tokio::test]
    async fn datagrams_reach_the_network() {
        let network = network();
        let server = network
            .namespace
            .run(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))
            .unwrap()
            .unwrap();
        let port = server.local_addr().unwrap().port();
        let client = network.connect_datagrams(port).await.unwrap();
        client.send(b"hello").unwrap();
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"hello");
        assert_eq!(from, client.local_addr().unwrap());
    }
}
