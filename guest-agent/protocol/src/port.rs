//! Ports of containers, as they are published on the host.

use serde::{Deserialize, Serialize};

/// What a port is one of.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Streams.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

impl Transport {
    /// Docker's word: `tcp`, `udp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of a container that an address and port of the host leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishedPort {
    /// The container's port.
    pub container_port: u16,
    /// Of which kind both ports are.
    pub transport: Transport,
    /// The host's address: `0.0.0.0`, `::`, or one of its own.
    pub host_ip: String,
    /// The host's port; never zero.
    pub host_port: u16,
}

/// Reply to [`Forward`](crate::methods::Forward).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarding {
    /// The connection is made; the stream carries it.
    Connected,
    /// There is none; nothing follows.
    Refused {
        /// Linux' number of the error: 111 when nobody listens.
        errno: i32,
    },
}

/// A socket of a container in the machine's own network that waits for peers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListeningSocket {
    /// The container's id.
    pub container: String,
    /// Of which kind it is.
    pub transport: Transport,
    /// The port.
    pub port: u16,
}
