//! Sockets of the host: all that a container asks for, or none.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
};

use guest_protocol::port::{PublishedPort, Transport};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::task::JoinHandle;

use super::{Target, bindings::Wanted, error::PortError, tcp, udp};

/// Connections that wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 1024;

/// How many ports that the system has chosen are tried on all addresses.
const CHOICES: usize = 64;

/// A port that is bound.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) port: PublishedPort,
    pub(super) socket: Socket,
}

/// A socket that waits for clients; TCP ones queue already.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Socket {
    fn port(&self) -> io::Result<u16> {
        let address = match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        };
        address.map(|address| address.port())
    }
}

/// Binds everything. Where any port does, the one of `before` is taken if it is free.
///
/// # Errors
/// Which port it is that cannot be had: one of `held`, or what the system says. Then
/// nothing is bound.
pub(super) fn all(
    wanted: &[Wanted],
    before: &[PublishedPort],
    held: &[&PublishedPort],
) -> Result<Vec<Bound>, PortError> {
    let mut bound = Vec::new();
    for one in wanted {
        let sockets = of(one, before).map_err(|(address, source)| {
            let ours = bound.iter().map(|bound: &Bound| &bound.port);
            let is_held = source.kind() == io::ErrorKind::AddrInUse
                && held
                    .iter()
                    .copied()
                    .chain(ours)
                    .any(|held| overlaps(held, address, one.transport));
            if is_held {
                return PortError::Allocated {
                    address,
                    endpoint: None,
                };
            }
            PortError::Bind {
                address,
                transport: one.transport,
                source,
                endpoint: None,
            }
        })?;
        bound.extend(sockets.into_iter().map(|(address, socket)| Bound {
            port: PublishedPort {
                container_port: one.container_port,
                transport: one.transport,
                host_ip: address.ip().to_string(),
                host_port: address.port(),
            },
            socket,
        }));
    }
    Ok(bound)
}

/// Whether a port that is bound already is in the way of another.
fn overlaps(held: &PublishedPort, address: SocketAddr, transport: Transport) -> bool {
    let Ok(ip) = held.host_ip.parse::<IpAddr>() else {
        return false;
    };
    held.transport == transport
        && held.host_port == address.port()
        && ip.is_ipv4() == address.is_ipv4()
        && (ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified())
}

type Failed = (SocketAddr, io::Error);
type Sockets = Vec<(SocketAddr, Socket)>;

/// One port of the host, on each of the addresses.
fn of(wanted: &Wanted, before: &[PublishedPort]) -> Result<Sockets, Failed> {
    let Some(ports) = &wanted.host_ports else {
        return any(wanted, before);
    };
    let mut last = None;
    for port in ports.clone() {
        match on_all_addresses(wanted, port) {
            Err((address, error)) if error.kind() == io::ErrorKind::AddrInUse => {
                last.get_or_insert((address, error));
            }
            result => return result,
        }
    }
    Err(last.unwrap_or_else(|| no_port(wanted)))
}

/// A port that is free: the one before, or whichever the system gives.
fn any(wanted: &Wanted, before: &[PublishedPort]) -> Result<Sockets, Failed> {
    let earlier = before.iter().find(|port| {
        (port.container_port, port.transport) == (wanted.container_port, wanted.transport)
            && port.host_port >= 1024
    });
    let earlier = earlier.and_then(|port| on_all_addresses(wanted, port.host_port).ok());
    if let Some(sockets) = earlier {
        return Ok(sockets);
    }
    for _ in 0..CHOICES {
        match on_all_addresses(wanted, 0) {
            // Free on one address and taken on the other.
            Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse => {}
            result => return result,
        }
    }
    Err(no_port(wanted))
}

fn no_port(wanted: &Wanted) -> Failed {
    let address = wanted.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let error = io::Error::other("all ports are allocated");
    (SocketAddr::new(address, 0), error)
}

/// The same port on each of the addresses. Zero is one of the system's choice.
fn on_all_addresses(wanted: &Wanted, port: u16) -> Result<Sockets, Failed> {
    let everywhere: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let addresses = match &wanted.address {
        Some(address) => std::slice::from_ref(address),
        None => &everywhere,
    };
    let mut port = port;
    let mut sockets = Vec::new();
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        match socket(address, wanted.transport).and_then(|socket| Ok((socket.port()?, socket))) {
            Ok((chosen, socket)) => {
                port = chosen;
                sockets.push((SocketAddr::new(address.ip(), chosen), socket));
            }
            Err(error) if !sockets.is_empty() && has_no_ipv6(&error) => {}
            Err(error) => return Err((address, error)),
        }
    }
    Ok(sockets)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [
        rustix::io::Errno::AFNOSUPPORT,
        rustix::io::Errno::ADDRNOTAVAIL,
    ]
    .iter()
    .any(|errno| number == Some(errno.raw_os_error()))
}

/// A socket that waits at `address`.
pub(super) fn socket(address: SocketAddr, transport: Transport) -> io::Result<Socket> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let kind = match transport {
        Transport::Tcp => SocketType::STREAM,
        Transport::Udp => SocketType::DGRAM,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(family, kind, flags, None)?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if transport == Transport::Tcp {
        // Connections of a listener that is gone are not in the way of the next.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(match transport {
        Transport::Tcp => {
            listen(&socket, BACKLOG)?;
            Socket::Tcp(socket.into())
        }
        Transport::Udp => Socket::Udp(socket.into()),
    })
}

/// Starts to carry what comes to `socket`.
pub(super) fn serve(socket: Socket, target: Target) -> io::Result<JoinHandle<()>> {
    Ok(match socket {
        Socket::Tcp(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(tcp::serve(listener, target))
        }
        Socket::Udp(socket) => {
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            tokio::spawn(udp::serve(socket, target))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(address: Option<&str>, host_ports: Option<(u16, u16)>) -> Wanted {
        Wanted {
            container_port: 80,
            transport: Transport::Tcp,
            address: address.map(|address| address.parse().unwrap()),
            host_ports: host_ports.map(|(first, last)| first..=last),
        }
    }

    #[test]
    fn a_random_port_is_the_same_on_all_addresses_and_is_found_again() {
        let any = [wanted(None, None)];
        let bound = all(&any, &[], &[]).unwrap();
        let port = bound[0].port.host_port;
        assert!(port >= 32_768, "{port}");
        assert_eq!(bound[0].port.host_ip, "0.0.0.0");
        for bound in &bound[1..] {
            assert_eq!((&*bound.port.host_ip, bound.port.host_port), ("::", port));
        }
        let before: Vec<_> = bound.iter().map(|bound| bound.port.clone()).collect();
        // In use: another one.
        let other = all(&any, &before, &[]).unwrap();
        assert_ne!(other[0].port.host_port, port);
        drop(bound);
        let again = all(&any, &before, &[]).unwrap();
        assert_eq!(again[0].port.host_port, port);
    }

    #[test]
    fn a_port_that_is_taken_is_told_by_who_has_it() {
        let local = |port| [wanted(Some("127.0.0.1"), Some((port, port)))];
        let bound = all(&[wanted(Some("127.0.0.1"), None)], &[], &[]).unwrap();
        let held = &bound[0].port;
        match all(&local(held.host_port), &[], &[held]) {
            Err(PortError::Allocated { address, .. }) => assert_eq!(address.port(), held.host_port),
            other => panic!("{other:?}"),
        }
        match all(&local(held.host_port), &[], &[]) {
            Err(PortError::Bind { source, .. }) => {
                assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
            }
            other => panic!("{other:?}"),
        }
        // A range has others.
        let range = wanted(Some("127.0.0.1"), Some((held.host_port, u16::MAX)));
        let next = all(&[range], &[], &[]).unwrap();
        assert!(next[0].port.host_port > held.host_port);
        let nowhere = all(&[wanted(Some("192.0.2.1"), None)], &[], &[]).unwrap_err();
        assert!(nowhere.to_string().contains("cannot assign"), "{nowhere}");
    }

    #[test]
    fn what_is_bound_before_a_failure_is_free_again() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        let free = all(&[wanted(Some("127.0.0.1"), None)], &[], &[]).unwrap()[0]
            .port
            .host_port;
        let both = [
            wanted(Some("127.0.0.1"), Some((free, free))),
            wanted(Some("127.0.0.1"), Some((taken_port, taken_port))),
        ];
        all(&both, &[], &[]).unwrap_err();
        all(&both[..1], &[], &[]).unwrap();
    }
}
