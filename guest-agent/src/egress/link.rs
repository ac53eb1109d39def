//! The interface that the default routes lead to, and the detour of what the
//! machine's own processes send.
//!
//! Nothing is ever sent through the interface: packets of containers are taken before
//! they are routed, those of processes here are marked and go to the loopback
//! interface instead, where they are taken like the others.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketType, netdevice::name_to_index, socket},
};

use crate::{
    error::{Context, Result},
    netlink::{Message, Protocol, Socket, flags},
};

/// Its name: what programs expect of a machine.
pub(super) const NAME: &str = "eth0";

/// What packets are marked with that are taken.
pub(super) const MARK: u32 = 0x6463;

/// The routing table by which marked packets are this machine's own.
const TABLE: u32 = 0x6463;

/// Before the main table is looked at, after the local one.
const RULE_PRIORITY: u32 = 100;

/// The machine's own addresses, for processes that share its network.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 65, 3);
const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfdc4, 0xf303, 0x9324, 0, 0, 0, 0, 3);

/// As large as IP allows: it is only what processes here think of their packets.
const MTU: u32 = 65_535;

/// Numbers of `linux/rtnetlink.h`, `if_link.h`, `if_addr.h` and `fib_rules.h`.
mod constants {
    pub(super) const NEW_LINK: u16 = 16;
    pub(super) const NEW_ADDRESS: u16 = 20;
    pub(super) const NEW_ROUTE: u16 = 24;
    pub(super) const NEW_RULE: u16 = 32;
    pub(super) const LINK_NAME: u16 = 3;
    pub(super) const LINK_MTU: u16 = 4;
    pub(super) const LINK_INFORMATION: u16 = 18;
    pub(super) const LINK_KIND: u16 = 1;
    pub(super) const UP: u32 = 1;
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const ADDRESS_LOCAL: u16 = 2;
    pub(super) const ADDRESS_FLAGS: u16 = 8;
    pub(super) const NO_DUPLICATE_DETECTION: u32 = 2;
    pub(super) const ROUTE_OUTPUT: u16 = 4;
    pub(super) const ROUTE_SOURCE: u16 = 7;
    pub(super) const ROUTE_TABLE: u16 = 15;
    pub(super) const MAIN_TABLE: u32 = 254;
    pub(super) const PROTOCOL_STATIC: u8 = 4;
    pub(super) const SCOPE_LINK: u8 = 253;
    pub(super) const SCOPE_HOST: u8 = 254;
    pub(super) const UNICAST: u8 = 1;
    pub(super) const LOCAL: u8 = 2;
    pub(super) const RULE_PRIORITY: u16 = 6;
    pub(super) const RULE_MARK: u16 = 10;
    pub(super) const RULE_TABLE: u16 = 15;
    pub(super) const LOOK_UP_TABLE: u8 = 1;
}

use constants as c;

/// Makes the interface and the routes in the network namespace of the calling thread.
pub(super) fn set_up(kind: &str) -> Result<()> {
    let mut socket = Socket::open(Protocol::Route).context("cannot speak of routes")?;
    socket
        .request(new_link(kind))
        .context("cannot make the interface of the way out")?;
    let index = |name| index_of(name).context(format_args!("cannot find the interface {name}"));
    let (link, loopback) = (index(NAME)?, index("lo")?);
    for address in [IpAddr::V4(ADDRESS), IpAddr::V6(ADDRESS_V6)] {
        socket
            .request(new_address(link, address))
            .context(format_args!(
                "cannot give the machine the address {address}"
            ))?;
        socket
            .request(default_route(link, address))
            .context("cannot make the default route")?;
        socket
            .request(detour(loopback, address))
            .context("cannot make the detour of the machine's own packets")?;
        socket
            .request(detour_rule(address))
            .context("cannot make the rule of the detour")?;
    }
    Ok(())
}

fn index_of(name: &str) -> io::Result<u32> {
    let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    match name_to_index(&any, name) {
        Err(Errno::NODEV) => Err(io::ErrorKind::NotFound.into()),
        result => Ok(result?),
    }
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => AddressFamily::INET.as_raw() as u8,
        IpAddr::V6(_) => AddressFamily::INET6.as_raw() as u8,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn new_link(kind: &str) -> Message {
    let mut header = [0; 16];
    header[8..12].copy_from_slice(&c::UP.to_ne_bytes());
    header[12..].copy_from_slice(&c::UP.to_ne_bytes());
    let flags = flags::CREATE | flags::EXCLUSIVE;
    let mut message = Message::new(c::NEW_LINK, flags, &header);
    message.text(c::LINK_NAME, NAME);
    message.native(c::LINK_MTU, MTU);
    message.nest(c::LINK_INFORMATION, |message| {
        message.text(c::LINK_KIND, kind);
    });
    message
}

fn new_address(link: u32, address: IpAddr) -> Message {
    let octets = octets(address);
    let mut header = [0; 8];
    header[0] = family(address);
    header[1] = octets.len() as u8 * 8;
    header[4..].copy_from_slice(&link.to_ne_bytes());
    let mut message = Message::new(c::NEW_ADDRESS, flags::CREATE | flags::REPLACE, &header);
    message.bytes(c::ADDRESS_LOCAL, &octets);
    message.bytes(c::ADDRESS, &octets);
    if address.is_ipv6() {
        message.native(c::ADDRESS_FLAGS, c::NO_DUPLICATE_DETECTION);
    }
    message
}

/// A route for every destination of the address' family.
fn route(table: u32, scope: u8, kind: u8, address: IpAddr, output: u32) -> Message {
    let header = [
        family(address),
        0,
        0,
        0,
        0,
        c::PROTOCOL_STATIC,
        scope,
        kind,
        0,
        0,
        0,
        0,
    ];
    let mut message = Message::new(c::NEW_ROUTE, flags::CREATE | flags::REPLACE, &header);
    message.native(c::ROUTE_TABLE, table);
    message.native(c::ROUTE_OUTPUT, output);
    message
}

fn default_route(link: u32, address: IpAddr) -> Message {
    let scope = if address.is_ipv4() { c::SCOPE_LINK } else { 0 };
    let mut message = route(c::MAIN_TABLE, scope, c::UNICAST, address, link);
    message.bytes(c::ROUTE_SOURCE, &octets(address));
    message
}

/// Every destination is the machine itself.
fn detour(loopback: u32, address: IpAddr) -> Message {
    let scope = if address.is_ipv4() { c::SCOPE_HOST } else { 0 };
    route(TABLE, scope, c::LOCAL, address, loopback)
}

/// The detour's table is that of marked packets.
fn detour_rule(address: IpAddr) -> Message {
    let mut header = [0; 12];
    header[0] = family(address);
    header[7] = c::LOOK_UP_TABLE;
    let mut message = Message::new(c::NEW_RULE, flags::CREATE | flags::EXCLUSIVE, &header);
    message.native(c::RULE_PRIORITY, RULE_PRIORITY);
    message.native(c::RULE_MARK, MARK);
    message.native(c::RULE_TABLE, TABLE);
    message
}
