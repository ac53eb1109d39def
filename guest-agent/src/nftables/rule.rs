//! Rules: conditions on a packet, and what happens if all hold.

use std::net::IpAddr;

use super::{
    constants::{connection as connection_key, family, header, meta, register},
    expression::{Comparison, Expression, INTERFACE_NAME, Reject, Verdict},
};

/// Bits of a connection's state and status.
pub(crate) mod connection {
    /// State: no connection and no part of one.
    pub(crate) const INVALID: u32 = 1;
    /// State: packets were seen both ways.
    pub(crate) const ESTABLISHED: u32 = 2;
    /// State: belongs to another connection.
    pub(crate) const RELATED: u32 = 4;
    /// State: the first packet.
    pub(crate) const NEW: u32 = 8;
    /// Status: its destination was changed.
    pub(crate) const DESTINATION_CHANGED: u32 = 1 << 5;
}

/// A protocol above IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransportProtocol {
    /// ICMP for IPv4.
    Icmp = 1,
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// ICMP for IPv6.
    Icmpv6 = 58,
}

/// An address and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    /// Any address in it.
    pub(crate) address: IpAddr,
    /// How many leading bits its addresses share.
    pub(crate) prefix: u8,
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Self { address, prefix }
    }
}

/// Conditions and what happens if all hold, in the order in which they were added.
/// A rule that ends without verdict lets the next one decide.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(super) expressions: Vec<Expression>,
}

impl Rule {
    /// A rule that holds for every packet and does nothing.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn with(mut self, expression: Expression) -> Self {
        self.expressions.push(expression);
        self
    }

    fn meta_is(self, key: u32, comparison: Comparison, value: &[u8]) -> Self {
        self.with(Expression::Meta { key })
            .compare(comparison, value)
    }

    fn compare(self, comparison: Comparison, value: &[u8]) -> Self {
        self.with(Expression::Compare {
            comparison,
            value: value.to_vec(),
        })
    }

    /// It came in through this interface.
    pub(crate) fn input(self, interface: &str) -> Self {
        self.meta_is(meta::INPUT_NAME, Comparison::Equal, &padded(interface))
    }

    /// It did not come in through this interface.
    pub(crate) fn input_other_than(self, interface: &str) -> Self {
        self.meta_is(meta::INPUT_NAME, Comparison::NotEqual, &padded(interface))
    }

    /// It came in through an interface in this set.
    pub(crate) fn input_in(self, set: &str) -> Self {
        self.with(Expression::Meta {
            key: meta::INPUT_NAME,
        })
        .lookup(set, false)
    }

    /// It goes out through this interface.
    pub(crate) fn output(self, interface: &str) -> Self {
        self.meta_is(meta::OUTPUT_NAME, Comparison::Equal, &padded(interface))
    }

    /// It does not go out through this interface.
    pub(crate) fn output_other_than(self, interface: &str) -> Self {
        self.meta_is(meta::OUTPUT_NAME, Comparison::NotEqual, &padded(interface))
    }

    /// It goes out through an interface in this set.
    pub(crate) fn output_in(self, set: &str) -> Self {
        self.with(Expression::Meta {
            key: meta::OUTPUT_NAME,
        })
        .lookup(set, false)
    }

    /// The chain that this map has for the interface that it came in through. A
    /// packet of no interface in it goes on.
    pub(crate) fn verdict_by_input(self, map: &str) -> Self {
        self.with(Expression::Meta {
            key: meta::INPUT_NAME,
        })
        .with(Expression::VerdictMap { set: map.into() })
    }

    /// The chain that this map has for the interface that it goes out through.
    pub(crate) fn verdict_by_output(self, map: &str) -> Self {
        self.with(Expression::Meta {
            key: meta::OUTPUT_NAME,
        })
        .with(Expression::VerdictMap { set: map.into() })
    }

    /// The route of its destination goes through this interface. Before routing.
    pub(crate) fn route(self, interface: &str) -> Self {
        self.with(Expression::RouteInterface)
            .compare(Comparison::Equal, &padded(interface))
    }

    /// Its destination is an address of this machine, or is not.
    pub(crate) fn destination_local(self, local: bool) -> Self {
        const LOCAL: u32 = 2;
        let comparison = if local {
            Comparison::Equal
        } else {
            Comparison::NotEqual
        };
        self.with(Expression::AddressType)
            .compare(comparison, &LOCAL.to_ne_bytes())
    }

    /// It is of IPv4 or of IPv6.
    pub(crate) fn family(self, ipv6: bool) -> Self {
        let family = if ipv6 { family::IPV6 } else { family::IPV4 };
        self.meta_is(meta::FAMILY, Comparison::Equal, &[family])
    }

    /// It is of this protocol.
    pub(crate) fn protocol(self, protocol: TransportProtocol) -> Self {
        self.meta_is(meta::PROTOCOL, Comparison::Equal, &[protocol as u8])
    }

    fn address(self, network: Network, source: bool, comparison: Comparison) -> Self {
        // Where the addresses are in the headers of IPv4 and IPv6.
        let (bytes, offset) = match (network.address, source) {
            (IpAddr::V4(address), true) => (address.octets().to_vec(), 12),
            (IpAddr::V4(address), false) => (address.octets().to_vec(), 16),
            (IpAddr::V6(address), true) => (address.octets().to_vec(), 8),
            (IpAddr::V6(address), false) => (address.octets().to_vec(), 24),
        };
        let mask = mask(bytes.len(), network.prefix);
        let value: Vec<u8> = bytes.iter().zip(&mask).map(|(a, b)| a & b).collect();
        let rule = self
            .family(network.address.is_ipv6())
            .with(Expression::Payload {
                base: header::NETWORK,
                offset,
                length: bytes.len() as u32,
            });
        let rule = if mask.iter().all(|byte| *byte == 0xff) {
            rule
        } else {
            rule.with(Expression::Mask { mask })
        };
        rule.compare(comparison, &value)
    }

    /// Its source is in this network.
    pub(crate) fn source(self, network: impl Into<Network>) -> Self {
        self.address(network.into(), true, Comparison::Equal)
    }

    /// Its destination is in this network.
    pub(crate) fn destination(self, network: impl Into<Network>) -> Self {
        self.address(network.into(), false, Comparison::Equal)
    }

    /// It is of the network's family and its destination is not in this network.
    pub(crate) fn destination_outside(self, network: impl Into<Network>) -> Self {
        self.address(network.into(), false, Comparison::NotEqual)
    }

    /// It is of IPv4 or IPv6, and its destination is, or is not, in this set.
    pub(crate) fn destination_in(self, set: &str, ipv6: bool, inside: bool) -> Self {
        let (offset, length) = if ipv6 { (24, 16) } else { (16, 4) };
        self.family(ipv6)
            .with(Expression::Payload {
                base: header::NETWORK,
                offset,
                length,
            })
            .lookup(set, !inside)
    }

    /// It is of this protocol, TCP or UDP, and goes to this port.
    pub(crate) fn destination_port(self, protocol: TransportProtocol, port: u16) -> Self {
        self.protocol(protocol)
            .with(Expression::Payload {
                base: header::TRANSPORT,
                offset: 2,
                length: 2,
            })
            .compare(Comparison::Equal, &port.to_be_bytes())
    }

    /// It is of this protocol, TCP or UDP, and comes from this port.
    pub(crate) fn source_port(self, protocol: TransportProtocol, port: u16) -> Self {
        self.protocol(protocol)
            .with(Expression::Payload {
                base: header::TRANSPORT,
                offset: 0,
                length: 2,
            })
            .compare(Comparison::Equal, &port.to_be_bytes())
    }

    /// It asks for a TCP connection: SYN without ACK.
    pub(crate) fn tcp_syn(self) -> Self {
        self.protocol(TransportProtocol::Tcp)
            .with(Expression::Payload {
                base: header::TRANSPORT,
                offset: 13,
                length: 1,
            })
            .with(Expression::Mask { mask: vec![0x12] })
            .compare(Comparison::Equal, &[0x02])
    }

    /// It asks for an ICMP echo of this family.
    pub(crate) fn echo_request(self, ipv6: bool) -> Self {
        let (protocol, kind) = if ipv6 {
            (TransportProtocol::Icmpv6, 128)
        } else {
            (TransportProtocol::Icmp, 8)
        };
        self.protocol(protocol)
            .with(Expression::Payload {
                base: header::TRANSPORT,
                offset: 0,
                length: 1,
            })
            .compare(Comparison::Equal, &[kind])
    }

    /// One of these bits of [`connection`] is in its connection's state.
    pub(crate) fn state(self, bits: u32) -> Self {
        self.connection(connection_key::STATE, bits)
    }

    /// One of these bits of [`connection`] is in its connection's status.
    pub(crate) fn status(self, bits: u32) -> Self {
        self.connection(connection_key::STATUS, bits)
    }

    fn connection(self, key: u32, bits: u32) -> Self {
        self.with(Expression::Connection { key })
            .with(Expression::Mask {
                mask: bits.to_ne_bytes().to_vec(),
            })
            .compare(Comparison::NotEqual, &[0; 4])
    }

    /// Its mark is this.
    pub(crate) fn mark(self, mark: u32) -> Self {
        self.meta_is(meta::MARK, Comparison::Equal, &mark.to_ne_bytes())
    }

    /// The mark of its connection is this.
    pub(crate) fn connection_mark(self, mark: u32) -> Self {
        self.with(Expression::Connection {
            key: connection_key::MARK,
        })
        .compare(Comparison::Equal, &mark.to_ne_bytes())
    }

    /// A transparent socket has it.
    pub(crate) fn transparent_socket(self) -> Self {
        self.with(Expression::Socket)
            .compare(Comparison::Equal, &[1])
    }

    fn lookup(self, set: &str, inverted: bool) -> Self {
        self.with(Expression::Lookup {
            set: set.into(),
            inverted,
        })
    }

    fn value(self, register: u32, value: &[u8]) -> Self {
        self.with(Expression::Value {
            register,
            value: value.to_vec(),
        })
    }

    /// Counts it.
    pub(crate) fn count(self) -> Self {
        self.with(Expression::Counter)
    }

    /// Gives it this mark.
    pub(crate) fn set_mark(self, mark: u32) -> Self {
        self.value(register::FIRST, &mark.to_ne_bytes())
            .with(Expression::MetaSet { key: meta::MARK })
    }

    /// Gives its connection this mark.
    pub(crate) fn set_connection_mark(self, mark: u32) -> Self {
        self.value(register::FIRST, &mark.to_ne_bytes())
            .with(Expression::ConnectionSet {
                key: connection_key::MARK,
            })
    }

    /// Its fate.
    pub(crate) fn verdict(self, verdict: Verdict) -> Self {
        self.with(Expression::Verdict(verdict))
    }

    /// Refuses it.
    pub(crate) fn reject(self, reject: Reject) -> Self {
        self.with(Expression::Reject(reject))
    }

    /// A program that listens to this queue decides. When none does it goes on if
    /// `bypass`, else it is dropped.
    pub(crate) fn queue(self, number: u16, bypass: bool) -> Self {
        self.with(Expression::Queue { number, bypass })
    }

    /// The socket of its connection has it, or else the transparent one that listens
    /// on this port of the machine, whatever its destination. The rule must be one
    /// of TCP or UDP and of the family that is given.
    pub(crate) fn transparent_proxy(self, ipv6: bool, port: u16) -> Self {
        let family = if ipv6 { family::IPV6 } else { family::IPV4 };
        self.value(register::FIRST, &port.to_be_bytes())
            .with(Expression::TransparentProxy { family })
    }

    /// Changes its destination, and its port if one is given.
    pub(crate) fn destination_nat(self, address: IpAddr, port: Option<u16>) -> Self {
        let (family, bytes) = address_bytes(address);
        let rule = self.value(register::FIRST, &bytes);
        let rule = match port {
            Some(port) => rule.value(register::SECOND, &port.to_be_bytes()),
            None => rule,
        };
        rule.with(Expression::DestinationNat {
            family,
            port: port.is_some(),
        })
    }

    /// Changes its source.
    pub(crate) fn source_nat(self, address: IpAddr) -> Self {
        let (family, bytes) = address_bytes(address);
        self.value(register::FIRST, &bytes)
            .with(Expression::SourceNat { family })
    }

    /// Sends it to this port of the machine itself. The rule must be one of TCP or
    /// UDP.
    pub(crate) fn redirect(self, port: u16) -> Self {
        self.value(register::FIRST, &port.to_be_bytes())
            .with(Expression::Redirect)
    }

    /// Changes its source to the address of the interface that it goes out through.
    pub(crate) fn masquerade(self) -> Self {
        self.with(Expression::Masquerade)
    }
}

/// The name of an interface as the kernel compares it.
pub(super) fn padded(interface: &str) -> [u8; INTERFACE_NAME] {
    let mut name = [0; INTERFACE_NAME];
    for (to, from) in name
        .iter_mut()
        .take(INTERFACE_NAME - 1)
        .zip(interface.bytes())
    {
        *to = from;
    }
    name
}

/// So many bytes, the first `prefix` bits of which are set.
pub(super) fn mask(length: usize, prefix: u8) -> Vec<u8> {
    let prefix = usize::from(prefix);
    (0..length)
        .map(|index| match prefix.saturating_sub(index * 8) {
            0 => 0,
            bits @ 1..=7 => !(0xff >> bits),
            _ => 0xff,
        })
        .collect()
}

fn address_bytes(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (family::IPV4, address.octets().to_vec()),
        IpAddr::V6(address) => (family::IPV6, address.octets().to_vec()),
    }
}
