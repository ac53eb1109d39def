//! The way out: what the guest asks the host to reach for its containers.
//!
//! The guest connects to [`EGRESS_PORT`], sends one frame with a [`Request`] and reads
//! one frame with an [`Answer`]. What follows depends on the request. Addresses are
//! those that containers see; the host says what they mean, see
//! [`HOST`] and [`GATEWAY`].

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use crate::datagrams::MAX_DATAGRAM;

/// The host's vsock port that the guest connects to for each thing that it reaches.
pub const EGRESS_PORT: u32 = 1029;

/// `host.docker.internal`: the host's loopback.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 65, 254);

/// `host.docker.internal` over IPv6.
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfdc4, 0xf303, 0x9324, 0, 0, 0, 0, 0x254);

/// `gateway.docker.internal`: the host's loopback, too.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 65, 1);

/// The longest payload of an echo request or of a datagram, in bytes.
pub const MAX_PAYLOAD: usize = MAX_DATAGRAM - 1;

/// The longest DNS message, in bytes.
pub const MAX_DNS_MESSAGE: usize = 65_535;

/// What the guest asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// A TCP connection, made before it is answered. Afterwards the stream carries
    /// its bytes, as the crate `stream-relay` says.
    Tcp(SocketAddr),
    /// A UDP flow. Afterwards the stream carries [`Message`]s both ways, each of which
    /// is one of [`datagrams`](crate::datagrams). It lasts until one side closes it.
    Udp(SocketAddr),
    /// ICMP echo requests. As [`Request::Udp`]; the first two bytes of a
    /// [`Message::Payload`] are the sequence number, big-endian.
    Echo(IpAddr),
    /// One DNS question. Afterwards the guest sends it, and the host the answer, each
    /// as one of [`datagrams`](crate::datagrams).
    Resolve,
}

/// What the host answers.
pub type Answer = Result<(), Refusal>;

/// Why something cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Nobody listens there.
    #[error("refused")]
    Refused,
    /// No road leads to its network.
    #[error("network unreachable")]
    NetworkUnreachable,
    /// It does not answer on its network.
    #[error("host unreachable")]
    HostUnreachable,
    /// It must not be reached.
    #[error("prohibited")]
    Prohibited,
    /// Nothing came back.
    #[error("timed out")]
    TimedOut,
    /// The host has no room for another.
    #[error("too many")]
    TooMany,
}

impl Refusal {
    const ALL: [Self; 6] = [
        Self::Refused,
        Self::NetworkUnreachable,
        Self::HostUnreachable,
        Self::Prohibited,
        Self::TimedOut,
        Self::TooMany,
    ];
}

/// What travels in a flow of datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A datagram's payload.
    Payload(&'a [u8]),
    /// Why one that was sent did not arrive; from the host only.
    Refusal(Refusal),
}

impl<'a> Message<'a> {
    /// Puts it into `buffer`, in place of what is there.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when it is longer than [`MAX_PAYLOAD`].
    pub fn encode(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        match self {
            Self::Payload(payload) if payload.len() > MAX_PAYLOAD => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            Self::Payload(payload) => {
                buffer.push(0);
                buffer.extend_from_slice(payload);
            }
            Self::Refusal(refusal) => {
                let number = Refusal::ALL.iter().position(|other| other == refusal);
                buffer.push(number.map_or(0, |number| number as u8 + 1));
            }
        }
        Ok(())
    }

    /// What `bytes` are; none for what is not understood.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        match bytes.split_first()? {
            (0, payload) => Some(Self::Payload(payload)),
            (number, []) => {
                let index = usize::from(*number).checked_sub(1)?;
                Refusal::ALL.get(index).copied().map(Self::Refusal)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_refusal_survives_the_trip() {
        let mut buffer = Vec::new();
        for refusal in Refusal::ALL {
            Message::Refusal(refusal).encode(&mut buffer).unwrap();
            assert_eq!(Message::decode(&buffer), Some(Message::Refusal(refusal)));
        }
    }

    #[test]
    fn a_payload_that_is_too_long_is_refused() {
        let long = vec![0; MAX_PAYLOAD + 1];
        assert!(Message::Payload(&long).encode(&mut Vec::new()).is_err());
        assert!(Message::Payload(&long[1..]).encode(&mut Vec::new()).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(message) = Message::decode(&bytes) {
                let mut buffer = Vec::new();
                message.encode(&mut buffer).unwrap();
                prop_assert_eq!(buffer, bytes);
            }
        }
    }
}
