//! Networks: records, and who is in them.
//!
//! A container's side of it, its end points, is kept in the Docker Engine API's own
//! type (`EndpointSettings`) in [`Container`](crate::container::Container).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::docker::{Ipam, NetworkContainer};

/// Name of the network that containers are in unless they say otherwise.
pub const DEFAULT_NETWORK: &str = "bridge";

/// Addresses of the host, as containers see it: `host.docker.internal` and
/// `host-gateway`.
pub const HOST_IPV4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 168, 65, 254);

/// The same in IPv6.
pub const HOST_IPV6: std::net::Ipv6Addr =
    std::net::Ipv6Addr::new(0xfdc4, 0xf303, 0x9324, 0, 0, 0, 0, 0x254);

/// `gateway.docker.internal`: the host's loopback, too.
pub const GATEWAY_IPV4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 168, 65, 1);

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// 64 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was created; Unix nanoseconds.
    pub created: i64,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    /// Whether its containers have IPv4 addresses.
    pub ipv4: bool,
    /// Whether its containers have IPv6 addresses.
    pub ipv6: bool,
    /// Its subnets.
    pub ipam: Ipam,
    /// No way out of it.
    pub internal: bool,
    /// Kept for clients; means nothing to a bridge.
    pub attachable: bool,
    /// Options of its driver.
    pub options: BTreeMap<String, String>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// The running containers in it, by id.
    pub containers: BTreeMap<String, NetworkContainer>,
    /// It is only configuration for others, and no container can be in it.
    pub config_only: bool,
    /// Name of the network whose configuration it was made of; may be empty.
    pub config_from: String,
}

impl Network {
    /// Whether it was there from the beginning, and cannot be removed.
    pub fn is_predefined(&self) -> bool {
        is_predefined(&self.name)
    }
}

/// Whether a network of this name is there from the beginning.
pub fn is_predefined(name: &str) -> bool {
    matches!(name, DEFAULT_NETWORK | "host" | "none")
}
