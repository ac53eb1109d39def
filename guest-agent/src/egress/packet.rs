//! Packets: what is read of those that leave, and those that are made to refuse or to
//! answer them. Any bytes may come in.

use std::net::{IpAddr, SocketAddr};

use guest_protocol::egress::Refusal;

/// Numbers of protocols above IP.
mod protocol {
    pub(super) const ICMP: u8 = 1;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const ICMPV6: u8 = 58;
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const DESTINATION: u8 = 60;
}

/// How much of a refused packet an ICMP error holds: no link is too narrow for it.
const QUOTED: usize = 512;

/// A packet that leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    /// All of it.
    pub(super) bytes: &'a [u8],
    /// Who sends it.
    pub(super) source: IpAddr,
    /// Whom to.
    pub(super) destination: IpAddr,
    /// What it is.
    pub(super) content: Content<'a>,
}

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content<'a> {
    /// Of a TCP connection.
    Tcp {
        source_port: u16,
        destination_port: u16,
        sequence: u32,
    },
    /// Of a UDP flow.
    Udp {
        source_port: u16,
        destination_port: u16,
    },
    /// An ICMP echo request.
    Echo {
        identifier: u16,
        sequence: u16,
        data: &'a [u8],
    },
}

impl<'a> Packet<'a> {
    /// Reads a packet of IPv4 or IPv6; none when it is malformed, a fragment, or none
    /// of [`Content`].
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => parse_v4(bytes),
            6 => parse_v6(bytes),
            _ => None,
        }
    }

    fn new(
        bytes: &'a [u8],
        (source, destination): (IpAddr, IpAddr),
        protocol: u8,
        payload: &'a [u8],
    ) -> Option<Self> {
        let content = match (protocol, source) {
            (protocol::TCP, _) => {
                let header = payload.first_chunk::<20>()?;
                Content::Tcp {
                    source_port: u16::from_be_bytes([header[0], header[1]]),
                    destination_port: u16::from_be_bytes([header[2], header[3]]),
                    sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
                }
            }
            (protocol::UDP, _) => {
                let header = payload.first_chunk::<8>()?;
                Content::Udp {
                    source_port: u16::from_be_bytes([header[0], header[1]]),
                    destination_port: u16::from_be_bytes([header[2], header[3]]),
                }
            }
            (protocol::ICMP, IpAddr::V4(_)) | (protocol::ICMPV6, IpAddr::V6(_)) => {
                let (header, data) = payload.split_first_chunk::<8>()?;
                let request = if source.is_ipv4() { 8 } else { 128 };
                if header[..2] != [request, 0] {
                    return None;
                }
                Content::Echo {
                    identifier: u16::from_be_bytes([header[4], header[5]]),
                    sequence: u16::from_be_bytes([header[6], header[7]]),
                    data,
                }
            }
            _ => return None,
        };
        Some(Self {
            bytes,
            source,
            destination,
            content,
        })
    }

    /// The two ends of its connection or flow: its source and its destination.
    pub(super) fn ends(&self) -> (SocketAddr, SocketAddr) {
        let (source_port, destination_port) = match self.content {
            Content::Tcp {
                source_port,
                destination_port,
                ..
            }
            | Content::Udp {
                source_port,
                destination_port,
            } => (source_port, destination_port),
            Content::Echo { identifier, .. } => (identifier, 0),
        };
        (
            SocketAddr::new(self.source, source_port),
            SocketAddr::new(self.destination, destination_port),
        )
    }

    /// As much of it as an ICMP error quotes.
    pub(super) fn quote(&self) -> &'a [u8] {
        self.bytes.get(..QUOTED).unwrap_or(self.bytes)
    }
}

fn parse_v4(bytes: &[u8]) -> Option<Packet<'_>> {
    let header = bytes.first_chunk::<20>()?;
    let header_length = usize::from(header[0] & 0xf) * 4;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // More follow, or it is not the first.
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    if header_length < 20 || fragment {
        return None;
    }
    let payload = bytes.get(header_length..length)?;
    let source = <[u8; 4]>::try_from(&header[12..16]).ok()?;
    let destination = <[u8; 4]>::try_from(&header[16..20]).ok()?;
    let ends = (source.into(), destination.into());
    Packet::new(bytes, ends, header[9], payload)
}

fn parse_v6(bytes: &[u8]) -> Option<Packet<'_>> {
    let (header, rest) = bytes.split_first_chunk::<40>()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let mut payload = rest.get(..length)?;
    let mut protocol = header[6];
    while let protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION = protocol {
        let extension = payload.first_chunk::<8>()?;
        protocol = extension[0];
        payload = payload.get((usize::from(extension[1]) + 1) * 8..)?;
    }
    let source = <[u8; 16]>::try_from(&header[8..24]).ok()?;
    let destination = <[u8; 16]>::try_from(&header[24..40]).ok()?;
    let ends = (source.into(), destination.into());
    Packet::new(bytes, ends, protocol, payload)
}

/// The TCP segment that refuses a connection, from `destination` to `source`.
pub(super) fn reset(source: SocketAddr, destination: SocketAddr, sequence: u32) -> Vec<u8> {
    const RESET_AND_ACKNOWLEDGE: u8 = 0x14;
    let mut segment = vec![0; 20];
    segment[..2].copy_from_slice(&destination.port().to_be_bytes());
    segment[2..4].copy_from_slice(&source.port().to_be_bytes());
    // A SYN counts as one byte.
    segment[8..12].copy_from_slice(&sequence.wrapping_add(1).to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = RESET_AND_ACKNOWLEDGE;
    let mut sum = Checksum::default();
    for address in [destination.ip(), source.ip()] {
        match address {
            IpAddr::V4(address) => sum.add(&address.octets()),
            IpAddr::V6(address) => sum.add(&address.octets()),
        }
    }
    sum.add(&[0, protocol::TCP]);
    sum.add(&(segment.len() as u16).to_be_bytes());
    sum.add(&segment);
    segment[16..18].copy_from_slice(&sum.finish());
    segment
}

/// The ICMP message that says of a packet, which `quoted` is the beginning of, that it
/// did not arrive; none when silence says so.
pub(super) fn unreachable(ipv6: bool, quoted: &[u8], refusal: Refusal) -> Option<Vec<u8>> {
    let (v4, v6) = match refusal {
        Refusal::Refused => (3, 4),
        Refusal::NetworkUnreachable => (0, 0),
        Refusal::HostUnreachable => (1, 3),
        Refusal::Prohibited => (13, 1),
        Refusal::TimedOut | Refusal::TooMany => return None,
    };
    let (kind, code) = if ipv6 { (1, v6) } else { (3, v4) };
    Some(icmp(ipv6, [kind, code], [0; 4], quoted))
}

/// The answer to an ICMP echo request.
pub(super) fn echo_reply(ipv6: bool, identifier: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    let kind = if ipv6 { 129 } else { 0 };
    let [i0, i1] = identifier.to_be_bytes();
    let [s0, s1] = sequence.to_be_bytes();
    icmp(ipv6, [kind, 0], [i0, i1, s0, s1], data)
}

fn icmp(ipv6: bool, [kind, code]: [u8; 2], rest: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&rest);
    message.extend_from_slice(data);
    // That of IPv6 needs the addresses; the kernel makes it.
    if !ipv6 {
        let mut sum = Checksum::default();
        sum.add(&message);
        message[2..4].copy_from_slice(&sum.finish());
    }
    message
}

/// The checksum of the Internet's protocols. Pieces but for the last have an even
/// length.
#[derive(Debug, Default)]
struct Checksum(u64);

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            self.0 += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    }

    fn finish(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        (!(sum as u16)).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A UDP packet of IPv4 with a payload of three bytes.
    fn udp() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 31, 0, 0, 0x40, 0, 64, 17, 0, 0];
        packet.extend([172, 17, 0, 2, 8, 8, 8, 8]);
        packet.extend([0x12, 0x34, 0, 53, 0, 11, 0, 0, 1, 2, 3]);
        packet
    }

    #[test]
    fn a_packet_is_read() {
        let bytes = udp();
        let packet = Packet::parse(&bytes).unwrap();
        let (source, destination) = packet.ends();
        assert_eq!(source, "172.17.0.2:4660".parse().unwrap());
        assert_eq!(destination, "8.8.8.8:53".parse().unwrap());
        for length in 0..28 {
            assert_eq!(Packet::parse(&bytes[..length]), None);
        }
        let mut fragment = bytes.clone();
        fragment[6] = 0x20;
        assert_eq!(Packet::parse(&fragment), None);
    }

    #[test]
    fn an_echo_request_is_read_behind_extension_headers() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 18, 0, 64];
        packet.extend([0xfd; 16]);
        packet.extend([0xfe; 16]);
        packet.extend([58, 0, 1, 4, 0, 0, 0, 0]);
        packet.extend([128, 0, 0, 0, 0, 7, 0, 9, 0xaa, 0xbb]);
        let content = Packet::parse(&packet).unwrap().content;
        let expected = Content::Echo {
            identifier: 7,
            sequence: 9,
            data: &[0xaa, 0xbb],
        };
        assert_eq!(content, expected);
        // An answer is none.
        packet[48] = 129;
        assert_eq!(Packet::parse(&packet), None);
    }

    #[test]
    fn an_error_quotes_the_packet_and_sums_up() {
        let bytes = udp();
        let error = unreachable(false, &bytes, Refusal::Refused).unwrap();
        assert_eq!(error[..2], [3, 3]);
        assert_eq!(error[8..], bytes);
        let mut sum = Checksum::default();
        sum.add(&error);
        assert_eq!(sum.finish(), [0, 0]);
        assert_eq!(
            unreachable(true, &bytes, Refusal::Prohibited).unwrap()[..2],
            [1, 1]
        );
        assert_eq!(unreachable(false, &bytes, Refusal::TimedOut), None);
    }

    #[test]
    fn a_reset_answers_the_sequence_number() {
        let source = "10.0.0.1:1000".parse().unwrap();
        let destination = "10.0.0.2:80".parse().unwrap();
        let segment = reset(source, destination, u32::MAX);
        assert_eq!(segment[..4], [0, 80, 0x03, 0xe8]);
        assert_eq!(segment[8..12], [0; 4]);
        let mut sum = Checksum::default();
        sum.add(&[10, 0, 0, 2, 10, 0, 0, 1, 0, 6, 0, 20]);
        sum.add(&segment);
        assert_eq!(sum.finish(), [0, 0]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(mut bytes in prop::collection::vec(any::<u8>(), 0..128), version in prop_oneof![Just(0x45_u8), Just(0x4f), Just(0x60)]) {
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            if let Some(packet) = Packet::parse(&bytes) {
                prop_assert!(packet.quote().len() <= QUOTED);
            }
        }
    }
}
