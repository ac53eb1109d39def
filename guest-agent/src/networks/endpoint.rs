//! A container's end of a network: what was asked for, and what it has.

use std::net::IpAddr;

use guest_protocol::{
    AgentError,
    docker::{EndpointSettings, NetworkContainer},
};
use ipnet::IpNet;

use super::{
    links::MacAddress,
    records::{Driver, Record},
};
use crate::error::Result;

/// A running container in a network.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// 64 hex digits.
    pub(super) id: String,
    /// The container's name, without a slash.
    pub(super) container_name: String,
    /// Its addresses, each with the length of its subnet's prefix.
    pub(super) addresses: Vec<IpNet>,
    /// Its interface's hardware address.
    pub(super) mac_address: Option<MacAddress>,
    /// Its interface in the machine.
    pub(super) near: String,
    /// Its interface in the container.
    pub(super) far: String,
    /// Further names that it has in the network, beside the container's.
    pub(super) aliases: Vec<String>,
    /// Names that it alone knows: alias, and the container that is meant.
    pub(super) links: Vec<(String, String)>,
    /// Which of a container's networks is the way out: the highest.
    pub(super) priority: i64,
}

impl Endpoint {
    /// Whether the container is known by `name` in the network.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.container_name.eq_ignore_ascii_case(name)
            || self
                .aliases
                .iter()
                .any(|alias| alias.eq_ignore_ascii_case(name))
    }

    /// As a network's description shows it.
    pub(super) fn view(&self) -> NetworkContainer {
        let address = |ipv6: bool| {
            let mut addresses = self.addresses.iter();
            let address = addresses.find(|address| address.addr().is_ipv6() == ipv6);
            Some(address.map(ToString::to_string).unwrap_or_default())
        };
        NetworkContainer {
            name: Some(self.container_name.clone()),
            endpoint_id: Some(self.id.clone()),
            mac_address: Some(self.mac_address.map(show_mac_address).unwrap_or_default()),
            ipv4_address: address(false),
            ipv6_address: address(true),
        }
    }

    /// What a container's description shows, over what was asked for.
    pub(super) fn settings(&self, record: &Record, asked: &EndpointSettings) -> EndpointSettings {
        let mut settings = EndpointSettings {
            network_id: Some(record.id.clone()),
            endpoint_id: Some(self.id.clone()),
            mac_address: self.mac_address.map(show_mac_address),
            ..asked.clone()
        };
        if is_user_defined(record) {
            let mut names = vec![self.container_name.clone()];
            names.extend(self.aliases.iter().cloned());
            settings.dns_names = Some(names);
        }
        for address in &self.addresses {
            let gateway = record
                .subnets
                .iter()
                .map(|subnet| subnet.gateway)
                .find(|gateway| gateway.is_ipv6() == address.addr().is_ipv6())
                .filter(|_| !record.internal)
                .map(|gateway| gateway.to_string());
            let (text, length) = (address.addr().to_string(), address.prefix_len().into());
            if address.addr().is_ipv6() {
                settings.global_ipv6_address = Some(text);
                settings.global_ipv6_prefix_len = Some(length);
                settings.ipv6_gateway = gateway;
            } else {
                settings.ip_address = Some(text);
                settings.ip_prefix_len = Some(length);
                settings.gateway = gateway;
            }
        }
        settings
    }
}

/// What of end point settings is a wish, and stays when the container ends.
pub(crate) fn wishes(settings: EndpointSettings) -> EndpointSettings {
    EndpointSettings {
        ipam_config: settings.ipam_config,
        network_id: settings.network_id,
        links: settings.links,
        mac_address: settings.mac_address.filter(|text| !text.is_empty()),
        aliases: settings.aliases,
        driver_opts: settings.driver_opts,
        gw_priority: settings.gw_priority,
        ..EndpointSettings::default()
    }
}

/// Whether names and certain addresses are to be had in it.
pub(super) fn is_user_defined(record: &Record) -> bool {
    record.driver == Driver::Bridge && !record.network().is_predefined()
}

/// The addresses that the settings ask for: IPv4, IPv6.
///
/// # Errors
/// When one is none.
fn asked_addresses(settings: &EndpointSettings) -> Result<[Option<IpAddr>; 2]> {
    let config = settings.ipam_config.clone().unwrap_or_default();
    let parse = |text: Option<String>, what: &str, ipv6: bool| -> Result<Option<IpAddr>> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        match text.parse::<IpAddr>() {
            Ok(address) if address.is_ipv6() == ipv6 => Ok(Some(address)),
            _ => Err(AgentError::invalid(format!(
                "invalid endpoint settings:\ninvalid {what} address: {text}"
            ))),
        }
    };
    Ok([
        parse(config.ipv4_address, "IPv4", false)?,
        parse(config.ipv6_address, "IPv6", true)?,
    ])
}

/// Checks what a container asks of a network. Gives the addresses that it wants.
///
/// # Errors
/// In Docker's words.
pub(super) fn check(record: &Record, settings: &EndpointSettings) -> Result<[Option<IpAddr>; 2]> {
    let wanted = asked_addresses(settings)?;
    mac_address(settings)?;
    let has_links = settings
        .ipam_config
        .as_ref()
        .and_then(|config| config.link_local_ips.as_ref())
        .is_some_and(|addresses| !addresses.is_empty());
    if has_links {
        return Err(AgentError::invalid(
            "link-local addresses are not supported: take them out",
        ));
    }
    if !is_user_defined(record) {
        if wanted.iter().any(Option::is_some) {
            return Err(AgentError::invalid(
                "user specified IP address is supported on user defined networks only",
            ));
        }
        if settings.aliases.iter().flatten().next().is_some() {
            return Err(AgentError::invalid(
                "network-scoped alias is supported only for containers in user defined networks",
            ));
        }
    }
    for address in wanted.iter().flatten() {
        let subnet = record
            .subnets
            .iter()
            .find(|subnet| subnet.gateway.is_ipv6() == address.is_ipv6());
        match subnet {
            Some(subnet) if !subnet.chosen => {
                return Err(AgentError::invalid(
                    "invalid endpoint settings:\nuser specified IP address is supported only when \
                     connecting to networks with user configured subnets",
                ));
            }
            Some(subnet) if subnet.net.contains(address) => {}
            _ => {
                return Err(AgentError::invalid(format!(
                    "invalid endpoint settings:\nno configured subnet or ip-range contain the IP \
                     address {address}"
                )));
            }
        }
    }
    Ok(wanted)
}

/// The links that the settings name: alias, and the container that is meant.
pub(super) fn links(settings: &EndpointSettings) -> Vec<(String, String)> {
    settings
        .links
        .iter()
        .flatten()
        .map(|link| {
            let (container, alias) = link.split_once(':').unwrap_or((link, link));
            (
                alias.to_owned(),
                container.trim_start_matches('/').to_owned(),
            )
        })
        .collect()
}

/// The hardware address that the settings ask for.
///
/// # Errors
/// When it is none, or a group's.
pub(super) fn mac_address(settings: &EndpointSettings) -> Result<Option<MacAddress>> {
    let Some(text) = settings
        .mac_address
        .as_deref()
        .filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    let octets: Option<Vec<u8>> = text
        .split([':', '-'])
        .map(|octet| {
            (octet.len() == 2 && octet.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .then(|| u8::from_str_radix(octet, 16).ok())
                .flatten()
        })
        .collect();
    match octets.map(MacAddress::try_from) {
        Some(Ok(address)) if address[0] & 1 == 0 && address != MacAddress::default() => {
            Ok(Some(address))
        }
        _ => Err(AgentError::invalid(format!("invalid MAC address: {text}"))),
    }
}

/// The hardware address of whoever has `address`. An address that goes from one
/// container to the next takes it along, so that neighbours that remember it stay
/// right.
pub(super) fn derived_mac_address(address: IpAddr) -> MacAddress {
    let [a, b, c, d] = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [a, b, c, d]
        }
    };
    // Locally administered, as Docker's.
    [0x02, 0x42, a, b, c, d]
}

fn show_mac_address(address: MacAddress) -> String {
    address.map(|octet| format!("{octet:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use guest_protocol::docker::EndpointIpamConfig;

    use super::*;
    use crate::networks::{records::Subnet, wanted::predefined};

    fn network(chosen: bool) -> Record {
        Record {
            id: "12".repeat(32),
            name: "net".into(),
            subnets: vec![Subnet {
                net: "10.1.0.0/16".parse().unwrap(),
                range: None,
                gateway: "10.1.0.1".parse().unwrap(),
                auxiliary: [].into(),
                chosen,
            }],
            ..Record::default()
        }
    }

    fn asks(address: &str) -> EndpointSettings {
        EndpointSettings {
            ipam_config: Some(EndpointIpamConfig {
                ipv4_address: Some(address.into()),
                ..EndpointIpamConfig::default()
            }),
            ..EndpointSettings::default()
        }
    }

    #[test]
    fn certain_addresses_take_a_chosen_subnet() {
        let wanted = check(&network(true), &asks("10.1.2.3")).unwrap();
        assert_eq!(wanted[0], Some("10.1.2.3".parse().unwrap()));
        for (record, address, message) in [
            (network(false), "10.1.2.3", "with user configured subnets"),
            (
                network(true),
                "10.2.2.3",
                "no configured subnet or ip-range contain",
            ),
            (network(true), "fd00::1", "invalid IPv4 address: fd00::1"),
            (
                predefined()[0].clone(),
                "172.17.0.9",
                "on user defined networks only",
            ),
        ] {
            let error = check(&record, &asks(address)).unwrap_err();
            assert!(error.message.contains(message), "{error}");
        }
        let aliases = EndpointSettings {
            aliases: Some(vec!["a".into()]),
            ..EndpointSettings::default()
        };
        check(&network(false), &aliases).unwrap();
        assert!(check(&predefined()[0], &aliases).is_err());
    }

    #[test]
    fn hardware_addresses() {
        let parse = |text: &str| {
            mac_address(&EndpointSettings {
                mac_address: Some(text.into()),
                ..EndpointSettings::default()
            })
        };
        assert_eq!(
            parse("92-D0-c6:0a:29:33")
                .unwrap()
                .map(show_mac_address)
                .unwrap(),
            "92:d0:c6:0a:29:33"
        );
        assert_eq!(parse("").unwrap(), None);
        for bad in [
            "92:d0:c6:0a:29",
            "x2:d0:c6:0a:29:33",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "+2:d0:c6:0a:29:33",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let of = derived_mac_address("172.17.0.2".parse().unwrap());
        assert_eq!(show_mac_address(of), "02:42:ac:11:00:02");
    }

    #[test]
    fn an_end_point_is_shown_over_what_was_asked_for() {
        let endpoint = Endpoint {
            id: "34".repeat(32),
            container_name: "web".into(),
            addresses: vec!["10.1.0.2/16".parse().unwrap()],
            mac_address: Some([2, 0x42, 10, 1, 0, 2]),
            near: "veth1".into(),
            far: "eth0".into(),
            aliases: vec!["www".into()],
            links: Vec::new(),
            priority: 0,
        };
        let asked = EndpointSettings {
            aliases: Some(vec!["www".into()]),
            ..EndpointSettings::default()
        };
        let shown = endpoint.settings(&network(true), &asked);
        assert_eq!(shown.ip_address.as_deref(), Some("10.1.0.2"));
        assert_eq!(shown.ip_prefix_len, Some(16));
        assert_eq!(shown.gateway.as_deref(), Some("10.1.0.1"));
        assert_eq!(shown.dns_names.clone().unwrap(), ["web", "www"]);
        let mut kept = wishes(shown);
        kept.mac_address = None;
        let network_id = Some("12".repeat(32));
        assert_eq!(
            kept,
            EndpointSettings {
                network_id,
                ..asked.clone()
            }
        );
        assert!(endpoint.is_called("WWW") && endpoint.is_called("web") && !endpoint.is_called("w"));
        let internal = Record {
            internal: true,
            ..network(true)
        };
        assert_eq!(endpoint.settings(&internal, &asked).gateway, None);
        assert_eq!(endpoint.view().ipv4_address.as_deref(), Some("10.1.0.2/16"));
    }
}
