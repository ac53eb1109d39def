//! What the guest may reach, and what its addresses mean on this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dctl_machine::{Destination, Settings, paths::MachineFiles};
use guest_protocol::egress::{GATEWAY, HOST, HOST_V6, Refusal};

/// The policy of a machine.
pub(super) struct Policy {
    files: MachineFiles,
}

/// Where something goes on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// To this address.
    Address(SocketAddr),
    /// To this port of the host's loopback, by IPv4 or by IPv6.
    Loopback(u16),
}

impl Target {
    /// The addresses to try, in order.
    pub(super) fn addresses(self) -> Vec<SocketAddr> {
        match self {
            Self::Address(address) => vec![address],
            Self::Loopback(port) => vec![
                (Ipv4Addr::LOCALHOST, port).into(),
                (Ipv6Addr::LOCALHOST, port).into(),
            ],
        }
    }
}

impl Policy {
    /// The policy of the machine with these files.
    pub(super) fn of(files: MachineFiles) -> Self {
        Self { files }
    }

    /// Where what goes to `to` goes. The settings are read each time: they count at
    /// once. Settings that cannot be read allow nothing.
    pub(super) fn target(&self, to: SocketAddr) -> Result<Target, Refusal> {
        let settings = Settings::load(&self.files).map_err(|error| {
            tracing::warn!(%error, "nothing may leave the machine");
            Refusal::Prohibited
        })?;
        target(to, &settings.egress_allow, &settings.egress_deny)
    }
}

fn target(to: SocketAddr, allow: &[Destination], deny: &[Destination]) -> Result<Target, Refusal> {
    let to = SocketAddr::new(to.ip().to_canonical(), to.port());
    let is_in = |list: &[Destination]| list.iter().any(|network| network.contains(to));
    if is_in(deny) || !allow.is_empty() && !is_in(allow) {
        return Err(Refusal::Prohibited);
    }
    match to.ip() {
        IpAddr::V4(ip) if ip == HOST || ip == GATEWAY => Ok(Target::Loopback(to.port())),
        IpAddr::V6(ip) if ip == HOST_V6 => Ok(Target::Loopback(to.port())),
        // The host's own, by whatever name.
        ip if ip.is_loopback() || ip.is_unspecified() => Err(Refusal::Prohibited),
        IpAddr::V4(ip) if ip.octets()[0] == 0 => Err(Refusal::NetworkUnreachable),
        IpAddr::V4(ip) if ip.is_broadcast() => Err(Refusal::NetworkUnreachable),
        // These name nothing without an interface.
        ip if ip.is_multicast() => Err(Refusal::NetworkUnreachable),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Err(Refusal::NetworkUnreachable),
        // The first 96 bits of zero: IPv4 by an old name.
        IpAddr::V6(ip) if ip.segments()[..6] == [0; 6] => Err(Refusal::NetworkUnreachable),
        _ => Ok(Target::Address(to)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(to: &str, allow: &[&str], deny: &[&str]) -> Result<Target, Refusal> {
        let parse = |list: &[&str]| -> Vec<Destination> {
            list.iter().map(|text| text.parse().unwrap()).collect()
        };
        target(to.parse().unwrap(), &parse(allow), &parse(deny))
    }

    #[test]
    fn the_hosts_loopback_has_its_names_and_no_others() {
        for to in [
            "192.168.65.254:80",
            "192.168.65.1:80",
            "[fdc4:f303:9324::254]:80",
            "[::ffff:192.168.65.254]:80",
        ] {
            assert_eq!(decide(to, &[], &[]), Ok(Target::Loopback(80)), "{to}");
        }
        for to in [
            "127.0.0.1:80",
            "127.255.3.2:80",
            "0.0.0.0:80",
            "[::1]:80",
            "[::]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:0.0.0.0]:80",
        ] {
            assert_eq!(decide(to, &[], &[]), Err(Refusal::Prohibited), "{to}");
        }
        for to in [
            "0.1.2.3:80",
            "255.255.255.255:80",
            "224.0.0.251:5353",
            "[fe80::1]:80",
            "[::7f00:1]:80",
        ] {
            assert_eq!(
                decide(to, &[], &[]),
                Err(Refusal::NetworkUnreachable),
                "{to}"
            );
        }
    }

    #[test]
    fn what_is_denied_is_prohibited_and_so_is_what_is_not_allowed() {
        let address = Target::Address("203.0.113.1:443".parse().unwrap());
        let to = "203.0.113.1:443";
        assert_eq!(decide(to, &[], &[]), Ok(address));
        assert_eq!(decide(to, &["203.0.113.0/24"], &[]), Ok(address));
        for (allow, deny) in [
            (&[][..], &["203.0.113.0/24"][..]),
            (&[], &["203.0.113.1:443"]),
            (&["203.0.113.1:80"], &[]),
            (&["203.0.113.0/24"], &["203.0.113.1"]),
        ] {
            assert_eq!(decide(to, allow, deny), Err(Refusal::Prohibited));
        }
        let host = decide("192.168.65.254:5432", &[], &["192.168.65.254"]);
        assert_eq!(host, Err(Refusal::Prohibited));
    }
}
