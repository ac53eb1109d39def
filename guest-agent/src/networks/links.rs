//! Interfaces, addresses and routes, by rtnetlink.
//!
//! A [`Links`] works on the network namespace that the thread was in which opened it.
//! Nothing here knows of containers or remembers anything.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{
        InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
        LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    },
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::io::Errno;

/// The most bytes of a TCP connection that go through the guest as one packet, by either
/// protocol ("BIG TCP", Documentation/networking/segmentation-offloads.rst): nothing here is
/// bound by the length field of an IP header, since nothing leaves as a packet.
const LARGEST_PACKET: u32 = 256 * 1024;

/// What lets an interface take and make such packets.
fn large_packets() -> [LinkAttribute; 4] {
    [
        LinkAttribute::GsoMaxSize(LARGEST_PACKET),
        LinkAttribute::GroMaxSize(LARGEST_PACKET),
        LinkAttribute::GsoIpv4MaxSize(LARGEST_PACKET),
        LinkAttribute::GroIpv4MaxSize(LARGEST_PACKET),
    ]
}

/// A hardware address.
pub(crate) type MacAddress = [u8; 6];

/// One end of a pair of virtual Ethernet interfaces, and where it is.
#[derive(Debug)]
pub(crate) struct End<'a> {
    /// The interface's name.
    pub(crate) name: &'a str,
    /// The namespace that it is made in.
    pub(crate) namespace: BorrowedFd<'a>,
    /// Its hardware address.
    pub(crate) mac_address: MacAddress,
}

/// A netlink socket for the interfaces of a namespace.
pub(crate) struct Links {
    socket: Socket,
    sequence: u32,
}

impl Links {
    /// For the calling thread's namespace.
    ///
    /// # Errors
    /// When there is no such socket.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// The index of an interface, if there is one of that name.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn index(&mut self, name: &str) -> io::Result<Option<u32>> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        match self.request(RouteNetlinkMessage::GetLink(message), 0) {
            Ok(Some(RouteNetlinkMessage::NewLink(link))) => Ok(Some(link.header.index)),
            Ok(_) => Err(io::Error::other("the kernel answered something else")),
            Err(error) if is(&error, Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn existing(&mut self, name: &str) -> io::Result<u32> {
        self.index(name)?.ok_or_else(|| Errno::NODEV.into())
    }

    /// Makes a bridge, with no addresses and down.
    ///
    /// # Errors
    /// Also when there is an interface of that name.
    pub(crate) fn add_bridge(
        &mut self,
        name: &str,
        mac_address: MacAddress,
        mtu: Option<u32>,
    ) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.extend([
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac_address.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                // A port forwards as soon as it is up.
                LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::ForwardDelay(0)])),
            ]),
        ]);
        message.attributes.extend(mtu.map(LinkAttribute::Mtu));
        self.create(RouteNetlinkMessage::NewLink(message))
    }

    /// Makes a pair: `near` in the socket's namespace, `far` in its own.
    ///
    /// # Errors
    /// Also when there is an interface of one of the names.
    pub(crate) fn add_pair(
        &mut self,
        near: &str,
        far: &End<'_>,
        mtu: Option<u32>,
    ) -> io::Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes.extend([
            LinkAttribute::IfName(far.name.to_owned()),
            LinkAttribute::NetNsFd(far.namespace.as_raw_fd()),
            LinkAttribute::Address(far.mac_address.to_vec()),
        ]);
        peer.attributes.extend(mtu.map(LinkAttribute::Mtu));
        peer.attributes.extend(large_packets());
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(near.to_owned()));
        message.attributes.extend(mtu.map(LinkAttribute::Mtu));
        message.attributes.extend(large_packets());
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.create(RouteNetlinkMessage::NewLink(message))
    }

    /// Makes `name` a port of `bridge`. An isolated port reaches the bridge alone, not
    /// its other isolated ports.
    ///
    /// # Errors
    /// When there are no such interfaces.
    pub(crate) fn join_bridge(
        &mut self,
        name: &str,
        bridge: &str,
        isolated: bool,
    ) -> io::Result<()> {
        let bridge = self.existing(bridge)?;
        let port = self.existing(name)?;
        self.set(port, |message| {
            message.attributes.push(LinkAttribute::Controller(bridge));
        })?;
        // It takes what its ports can; without any that is little.
        self.set(bridge, |message| {
            message.attributes.extend(large_packets());
        })?;
        if !isolated {
            return Ok(());
        }
        let mut message = LinkMessage::default();
        message.header.index = port;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(
                true,
            )])),
        ]));
        self.request(RouteNetlinkMessage::NewLink(message), 0)
            .map(drop)
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn bring_up(&mut self, name: &str) -> io::Result<()> {
        self.change(name, |message| {
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
        })
    }

    /// Brings up `lo`: what is published goes over it.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn bring_up_loopback(&mut self) -> io::Result<()> {
        self.change("lo", |message| {
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
            message.attributes.extend(large_packets());
        })
    }

    /// Removes an interface; none is as good.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn remove(&mut self, name: &str) -> io::Result<()> {
        let Some(index) = self.index(name)? else {
            return Ok(());
        };
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.request(RouteNetlinkMessage::DelLink(message), 0) {
            // Its namespace went meanwhile.
            Err(error) if is(&error, Errno::NODEV) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Gives an interface an address; one that it has is as good.
    ///
    /// # Errors
    /// When there is no such interface.
    pub(crate) fn add_address(&mut self, name: &str, address: IpNet) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = self.existing(name)?;
        message.header.prefix_len = address.prefix_len();
        message.header.family = family(address.addr());
        message.attributes.extend([
            AddressAttribute::Local(address.addr()),
            AddressAttribute::Address(address.addr()),
        ]);
        match address {
            IpNet::V4(address) if address.prefix_len() < 31 => {
                let broadcast = AddressAttribute::Broadcast(address.broadcast());
                message.attributes.push(broadcast);
            }
            IpNet::V4(_) => {}
            // Addresses are given once: no need to wait for others to object.
            IpNet::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
        }
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewAddress(message), flags)
            .map(drop)
    }

    /// Sets the way out by `gateway`, instead of the one there was.
    ///
    /// # Errors
    /// When the gateway cannot be reached.
    pub(crate) fn set_default_route(&mut self, gateway: IpAddr, name: &str) -> io::Result<()> {
        let mut message = default_route(gateway.is_ipv6());
        message.attributes.extend([
            RouteAttribute::Gateway(match gateway {
                IpAddr::V4(address) => RouteAddress::Inet(address),
                IpAddr::V6(address) => RouteAddress::Inet6(address),
            }),
            RouteAttribute::Oif(self.existing(name)?),
        ]);
        // An IPv6 route by another gateway would be added, not replaced.
        self.remove_default_route(gateway.is_ipv6())?;
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewRoute(message), flags)
            .map(drop)
    }

    /// Removes the way out of one family; none is as good.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn remove_default_route(&mut self, ipv6: bool) -> io::Result<()> {
        match self.request(RouteNetlinkMessage::DelRoute(default_route(ipv6)), 0) {
            Err(error) if is(&error, Errno::SRCH) => Ok(()),
            result => result.map(drop),
        }
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut LinkMessage)) -> io::Result<()> {
        let index = self.existing(name)?;
        self.set(index, change)
    }

    fn set(&mut self, index: u32, change: impl FnOnce(&mut LinkMessage)) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        change(&mut message);
        self.request(RouteNetlinkMessage::SetLink(message), 0)
            .map(drop)
    }

    fn create(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.request(message, NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Sends one request, and gives what the kernel answers besides that it is done.
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answer = None;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                let length = message.header.length as usize;
                let ours = message.header.sequence_number == self.sequence;
                match message.payload {
                    NetlinkPayload::Error(error) if ours => {
                        return match error.code {
                            None => Ok(answer),
                            Some(_) => Err(error.to_io()),
                        };
                    }
                    NetlinkPayload::InnerMessage(message) if ours => answer = Some(message),
                    _ => {}
                }
                // Messages begin at multiples of four bytes.
                let next = length.next_multiple_of(4).max(4);
                rest = rest.get(next..).unwrap_or_default();
            }
        }
    }
}

fn default_route(ipv6: bool) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = if ipv6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;
    use crate::networks::namespace::tests::new_namespace;

    /// The most that an interface takes as one packet: by IPv6, by IPv4.
    fn largest(links: &mut Links, name: &str) -> (u32, u32) {
        let mut message = LinkMessage::default();
        message.header.index = links.existing(name).unwrap();
        let answer = links
            .request(RouteNetlinkMessage::GetLink(message), 0)
            .unwrap();
        let Some(RouteNetlinkMessage::NewLink(link)) = answer else {
            panic!("{answer:?} is no interface");
        };
        let mut largest = (0, 0);
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::GsoMaxSize(size) => largest.0 = size,
                LinkAttribute::GsoIpv4MaxSize(size) => largest.1 = size,
                _ => {}
            }
        }
        largest
    }

    #[test]
    fn every_interface_on_the_way_takes_large_packets() {
        let namespace = new_namespace();
        namespace
            .run(|| {
                let mut links = Links::open().unwrap();
                links.add_bridge("br", [2, 0, 0, 0, 0, 1], None).unwrap();
                let here = File::open("/proc/thread-self/ns/net").unwrap();
                let far = End {
                    name: "far",
                    namespace: here.as_fd(),
                    mac_address: [2, 0, 0, 0, 0, 2],
                };
                links.add_pair("near", &far, None).unwrap();
                links.join_bridge("near", "br", false).unwrap();
                for name in ["lo", "br", "near", "far"] {
                    let largest = largest(&mut links, name);
                    assert_eq!(largest, (LARGEST_PACKET, LARGEST_PACKET), "{name}");
                }
            })
            .unwrap();
    }
}
