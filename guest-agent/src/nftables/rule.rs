//! Rules: conditions on a packet, and what happens if all hold.

use std::net::IpAddr;

use super::{
    constants::{family, header, meta, register},
    expression::{Comparison, Expression, INTERFACE_NAME, Verdict},
};

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

    /// It goes out through this interface.
    pub(crate) fn output(self, interface: &str) -> Self {
        self.meta_is(meta::OUTPUT_NAME, Comparison::Equal, &padded(interface))
    }

    /// The chain that this map has for the interface that it came in through. A
    /// packet of no interface in it goes on.
    pub(crate) fn verdict_by_input(self, map: &str) -> Self {
        self.with(Expression::Meta {
            key: meta::INPUT_NAME,
        })
        .with(Expression::VerdictMap { set: map.into() })
    }

    /// The route of its destination goes through this interface. Before routing.
    pub(crate) fn route(self, interface: &str) -> Self {
        self.with(Expression::RouteInterface)
            .compare(Comparison::Equal, &padded(interface))
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

    fn destination_address(self, ipv6: bool) -> Self {
        // Where it is in the headers of IPv6 and IPv4.
        let (offset, length) = if ipv6 { (24, 16) } else { (16, 4) };
        self.family(ipv6).with(Expression::Payload {
            base: header::NETWORK,
            offset,
            length,
        })
    }

    /// Its destination is in this network.
    pub(crate) fn destination(self, network: impl Into<Network>) -> Self {
        let network = network.into();
        let (_, bytes) = address_bytes(network.address);
        let mask = mask(bytes.len(), network.prefix);
        let value: Vec<u8> = bytes.iter().zip(&mask).map(|(a, b)| a & b).collect();
        let rule = self.destination_address(network.address.is_ipv6());
        let rule = if mask.iter().all(|byte| *byte == 0xff) {
            rule
        } else {
            rule.with(Expression::Mask { mask })
        };
        rule.compare(Comparison::Equal, &value)
    }

    /// It is of IPv4 or IPv6, and its destination is in this set.
    pub(crate) fn destination_in(self, set: &str, ipv6: bool) -> Self {
        self.destination_address(ipv6)
            .with(Expression::Lookup { set: set.into() })
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

    /// Its mark is this.
    pub(crate) fn mark(self, mark: u32) -> Self {
        self.meta_is(meta::MARK, Comparison::Equal, &mark.to_ne_bytes())
    }

    /// A transparent socket has it.
    pub(crate) fn transparent_socket(self) -> Self {
        self.with(Expression::Socket)
            .compare(Comparison::Equal, &[1])
    }

    fn value(self, register: u32, value: &[u8]) -> Self {
        self.with(Expression::Value {
            register,
            value: value.to_vec(),
        })
    }

    /// Gives it this mark.
    pub(crate) fn set_mark(self, mark: u32) -> Self {
        self.value(register::FIRST, &mark.to_ne_bytes())
            .with(Expression::MetaSet { key: meta::MARK })
    }

    /// Its fate.
    pub(crate) fn verdict(self, verdict: Verdict) -> Self {
        self.with(Expression::Verdict(verdict))
    }

    /// Refuses it: who sent it is told by ICMP that it is administratively prohibited.
    pub(crate) fn prohibit(self) -> Self {
        self.with(Expression::Prohibit)
    }

    /// A program that listens to this queue decides. When none does it is dropped.
    pub(crate) fn queue(self, number: u16) -> Self {
        self.with(Expression::Queue { number })
    }

    /// The socket of its connection has it, or else the transparent one that listens
    /// on this port of the machine, whatever its destination. The rule must be one
    /// of TCP or UDP and of the family that is given.
    pub(crate) fn transparent_proxy(self, ipv6: bool, port: u16) -> Self {
        let family = if ipv6 { family::IPV6 } else { family::IPV4 };
        self.value(register::FIRST, &port.to_be_bytes())
            .with(Expression::TransparentProxy { family })
    }

    /// Changes its destination. The rule must be one of TCP or UDP and of the
    /// address's family.
    pub(crate) fn destination_nat(self, address: IpAddr, port: u16) -> Self {
        let (family, bytes) = address_bytes(address);
        self.value(register::FIRST, &bytes)
            .value(register::SECOND, &port.to_be_bytes())
            .with(Expression::DestinationNat { family })
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
