//! Sockets that have other machines' addresses.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use guest_protocol::egress::Refusal;
use rustix::net::{
    AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, bind, connect, ipproto, listen,
    sendto, socket_with, sockopt,
};

use super::packet;

pub(super) use ipproto::TCP;

/// Connections that wait to be accepted at most.
const BACKLOG: i32 = 4096;

/// A socket that may bind to any address.
fn transparent(ipv6: bool, kind: SocketType, protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    let family = if ipv6 {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, kind, flags, protocol)?;
    set_transparent(&socket, ipv6)?;
    if kind != SocketType::RAW {
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if ipv6 {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
    }
    Ok(socket)
}

fn set_transparent(socket: impl AsFd, ipv6: bool) -> io::Result<()> {
    let (level, name) = if ipv6 {
        (libc::SOL_IPV6, libc::IPV6_TRANSPARENT)
    } else {
        (libc::SOL_IP, libc::IP_TRANSPARENT)
    };
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one integer, which lives across the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Listens for TCP connections to any address that are handed to `address`.
pub(super) fn tcp_listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = transparent(address.is_ipv6(), SocketType::STREAM, None)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// A UDP socket that is `local` and speaks to `remote` alone.
pub(super) fn udp(local: SocketAddr, remote: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = transparent(local.is_ipv6(), SocketType::DGRAM, None)?;
    bind(&socket, &local)?;
    connect(&socket, &remote)?;
    Ok(socket.into())
}

/// Sends one packet of `protocol`, [`TCP`] or that of [`icmp`], as if
/// `source` had sent it.
pub(super) fn send_as(
    protocol: Protocol,
    source: IpAddr,
    destination: IpAddr,
    packet: &[u8],
) -> io::Result<()> {
    let socket = transparent(source.is_ipv6(), SocketType::RAW, Some(protocol))?;
    bind(&socket, &SocketAddr::new(source, 0))?;
    let destination = SocketAddr::new(destination, 0);
    sendto(&socket, packet, SendFlags::DONTWAIT, &destination)?;
    Ok(())
}

/// Says to `source` that its packet to `destination`, which `quote` is the beginning
/// of, did not arrive; nothing when silence says so.
pub(super) fn send_unreachable(
    destination: IpAddr,
    source: IpAddr,
    quote: &[u8],
    refusal: Refusal,
) -> io::Result<()> {
    match packet::unreachable(source.is_ipv6(), quote, refusal) {
        Some(message) => send_as(icmp(source), destination, source, &message),
        None => Ok(()),
    }
}

/// The ICMP of an address' family.
pub(super) fn icmp(address: IpAddr) -> Protocol {
    if address.is_ipv6() {
        ipproto::ICMPV6
    } else {
        ipproto::ICMP
    }
}
