//! Destinations of what leaves a machine, as a user names them to allow or deny them:
//! a network and, if it is only about one, a port.
//!
//! The settings hold them, the engine asks [`Destination::contains`].

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Addresses of a network, on one port or on all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination {
    address: IpAddr,
    prefix: u8,
    port: Option<u16>,
}

impl Destination {
    /// Whether `address` is one of them. A port of zero, where there are no ports, is
    /// one of those that are about all ports.
    pub fn contains(&self, address: SocketAddr) -> bool {
        if self.port.is_some_and(|port| port != address.port()) {
            return false;
        }
        let (ours, theirs, length) = match (self.address, address.ip().to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => (
                u128::from(u32::from(ours)),
                u128::from(u32::from(theirs)),
                32,
            ),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (u128::from(ours), u128::from(theirs), 128),
            _ => return false,
        };
        let ignored = u32::from(length - self.prefix.min(length));
        // Shifting by all bits is what a prefix of nothing asks for.
        (ours ^ theirs).checked_shr(ignored).unwrap_or(0) == 0
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || {
            format!(
                "'{text}' is no destination: give an address or a network and perhaps a port, \
                 such as 10.0.0.0/8, 192.168.1.5:443 or [fd00::/8]:443"
            )
        };
        let (network, port) = if let Some(rest) = text.strip_prefix('[') {
            let (network, port) = rest.split_once(']').ok_or_else(invalid)?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':').ok_or_else(invalid)?),
            };
            (network, port)
        } else if text.matches(':').count() == 1 {
            let (network, port) = text.split_once(':').ok_or_else(invalid)?;
            (network, Some(port))
        } else {
            (text, None)
        };
        let (address, prefix) = match network.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (network, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| invalid())?,
            None => longest,
        };
        let port = port.map(str::parse).transpose().map_err(|_| invalid())?;
        if prefix > longest || port == Some(0) {
            return Err(invalid());
        }
        Ok(Self {
            address,
            prefix,
            port,
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            prefix,
            port,
        } = self;
        match (port, address) {
            (None, _) => write!(formatter, "{address}/{prefix}"),
            (Some(port), IpAddr::V4(_)) => write!(formatter, "{address}/{prefix}:{port}"),
            (Some(port), IpAddr::V6(_)) => write!(formatter, "[{address}/{prefix}]:{port}"),
        }
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.to_string()
    }
}

impl TryFrom<String> for Destination {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_destination_is_a_network_and_perhaps_a_port() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1:80", "11.0.0.1:80"),
            ("10.0.0.0/8", "[::ffff:10.1.1.1]:80", "[::10.1.1.1]:80"),
            (
                "192.168.65.254:5432",
                "192.168.65.254:5432",
                "192.168.65.254:5433",
            ),
            ("0.0.0.0/0", "203.0.113.1:1", "[2001:db8::1]:1"),
            ("::/0", "[2001:db8::1]:1", "203.0.113.1:1"),
            ("[fd00::/8]:443", "[fdff::1]:443", "[fdff::1]:80"),
            ("2001:db8::7", "[2001:db8::7]:1", "[2001:db8::8]:1"),
        ] {
            let destination: Destination = text.parse().unwrap();
            assert!(
                destination.contains(inside.parse().unwrap()),
                "{text} {inside}"
            );
            assert!(
                !destination.contains(outside.parse().unwrap()),
                "{text} {outside}"
            );
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "1.2.3.4:0",
            "1.2.3.4:x",
            "[::1",
            "[::1]80",
            "a",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read(address: IpAddr, prefix in 0_u8..=32, port in proptest::option::of(1_u16..)) {
            let destination = Destination { address, prefix, port };
            prop_assert_eq!(destination.to_string().parse(), Ok(destination));
        }
    }
}
