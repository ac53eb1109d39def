//! What a user asks of a new network, checked and completed. Its driver's
//! [`options`] and its [`subnets`] are looked at in
//! modules of their own.

use std::collections::BTreeMap;

use guest_protocol::{
    AgentError, ErrorKind,
    docker::NetworkCreateRequest,
    network::{DEFAULT_NETWORK, is_predefined},
};
use ipnet::IpNet;

use super::{
    addresses, configuration,
    options::{self, BRIDGE_NAME, ICC, MTU},
    records::{Driver, Record, Subnet},
    subnets::{Families, subnets},
};
use crate::{clock, error::Result};

/// The longest name of a network, in bytes.
const LONGEST_NAME: usize = 255;

/// The three that are there from the beginning, but for their ids.
pub(super) fn predefined() -> [Record; 3] {
    let subnet = IpNet::V4(addresses::DEFAULT_SUBNET);
    let gateway = addresses::default_gateway(&subnet, None, std::iter::empty());
    let options = [
        ("com.docker.network.bridge.default_bridge", "true"),
        (ICC, "true"),
        ("com.docker.network.bridge.enable_ip_masquerade", "true"),
        ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
        (BRIDGE_NAME, "docker0"),
        (MTU, "1500"),
    ];
    let record = |name: &str, driver| Record {
        name: name.to_owned(),
        driver,
        ..Record::default()
    };
    [
        Record {
            subnets: gateway
                .map(|gateway| Subnet {
                    net: subnet,
                    range: None,
                    gateway,
                    auxiliary: BTreeMap::new(),
                    chosen: false,
                })
                .into_iter()
                .collect(),
            options: options
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..record(DEFAULT_NETWORK, Driver::Bridge)
        },
        record("host", Driver::Host),
        record("none", Driver::Null),
    ]
}

/// The record of a new network; `others` are those that there are.
///
/// # Errors
/// In Docker's words.
pub(super) fn record<'a>(
    mut request: NetworkCreateRequest,
    id: String,
    others: impl Iterator<Item = &'a Record>,
) -> Result<Record> {
    check_name(&request.name)?;
    let others: Vec<&Record> = others.collect();
    if request.config_only == Some(true) {
        return configuration::record(request, id);
    }
    let config_from = configuration::source(&request).unwrap_or_default();
    check_kind(&request)?;
    configuration::complete(&mut request, &others)?;
    let options: BTreeMap<String, String> = request.options.into_iter().flatten().collect();
    options::check(&options)?;
    let ipam = request.ipam.unwrap_or_default();
    match ipam.driver.as_deref().unwrap_or_default() {
        "" | "default" => {}
        driver => {
            return Err(AgentError::invalid(format!(
                "plugin \"{driver}\" not found: addresses are managed by the driver \"default\""
            )));
        }
    }
    if let Some(name) = options.get(BRIDGE_NAME)
        && others.iter().any(|other| options::bridge(other) == *name)
    {
        return Err(AgentError::forbidden(format!(
            "networks have same bridge name: {name}"
        )));
    }
    let taken: Vec<IpNet> = others
        .iter()
        .flat_map(|other| &other.subnets)
        .map(|subnet| subnet.net)
        .collect();
    let wanted = Families {
        ipv4: request.enable_ipv4 != Some(false),
        ipv6: request.enable_ipv6 == Some(true),
    };
    let subnets = subnets(ipam.config.unwrap_or_default(), wanted, &id, &taken)?;
    Ok(Record {
        id,
        name: request.name,
        created: clock::now(),
        driver: Driver::Bridge,
        subnets,
        internal: request.internal == Some(true),
        attachable: request.attachable == Some(true),
        options,
        labels: request.labels.into_iter().flatten().collect(),
        ipam_options: ipam.options.unwrap_or_default(),
        template: None,
        config_from,
    })
}

fn check_name(name: &str) -> Result<()> {
    if is_predefined(name) || name == "default" {
        return Err(AgentError::forbidden(format!(
            "operation is not permitted on predefined {name} network"
        )));
    }
    if name.trim().is_empty() {
        return Err(AgentError::invalid("invalid name: name is empty"));
    }
    let valid = name.trim() == name
        && name.len() <= LONGEST_NAME
        && !name.starts_with("container:")
        && !name.contains(['/', '=', ','])
        && !name.contains(char::is_control);
    if valid {
        return Ok(());
    }
    Err(AgentError::invalid(format!(
        "invalid network name: {name:?}"
    )))
}

/// Refuses networks of other kinds than bridges in this machine.
fn check_kind(request: &NetworkCreateRequest) -> Result<()> {
    match request.driver.as_deref().unwrap_or_default() {
        "" | "bridge" | "default" => {}
        "overlay" => {
            return Err(AgentError::forbidden(
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm \
                 join\" to connect this node to swarm and try again.",
            ));
        }
        driver @ ("host" | "null") => {
            return Err(AgentError::forbidden(format!(
                "only one instance of \"{driver}\" network is allowed"
            )));
        }
        driver => {
            return Err(AgentError::new(
                ErrorKind::NotFound,
                format!("plugin \"{driver}\" not found"),
            ));
        }
    }
    let swarm = request
        .scope
        .as_deref()
        .is_some_and(|scope| !matches!(scope, "" | "local"));
    if request.ingress == Some(true) {
        return Err(AgentError::forbidden(
            "Ingress network can only be global scope network",
        ));
    }
    if swarm {
        return Err(AgentError::forbidden(
            "cannot create a swarm scoped network when swarm is not active",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use guest_protocol::docker::{Ipam, IpamConfig};

    use super::*;
    use crate::networks::options::{INTERFACE_PREFIX, bridge};

    fn request(configs: &[(&str, &str, &str)]) -> NetworkCreateRequest {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let config = |(subnet, range, gateway): &(&str, &str, &str)| IpamConfig {
            subnet: text(subnet),
            ip_range: text(range),
            gateway: text(gateway),
            auxiliary_addresses: None,
        };
        NetworkCreateRequest {
            name: "net".into(),
            ipam: Some(Ipam {
                config: Some(configs.iter().map(config).collect()),
                ..Ipam::default()
            }),
            ..NetworkCreateRequest::default()
        }
    }

    fn made(request: NetworkCreateRequest) -> Result<Record> {
        let there = predefined();
        record(request, "0123456789".repeat(7)[..64].into(), there.iter())
    }

    #[test]
    fn a_network_without_wishes_gets_the_next_pool() {
        let record = made(request(&[])).unwrap();
        assert_eq!(record.subnets[0].net.to_string(), "172.18.0.0/16");
        assert_eq!(record.subnets[0].gateway.to_string(), "172.18.0.1");
        assert!(!record.subnets[0].chosen);
        assert_eq!(bridge(&record), "br-012345678901");
        assert_eq!(bridge(&predefined()[0]), "docker0");
    }

    #[test]
    fn pools_come_to_an_end() {
        let mut there = Vec::from(predefined());
        let before = there.len();
        let error = loop {
            assert!(there.len() < 100, "they go on for ever");
            let id = format!("{:064x}", there.len());
            match record(request(&[]), id, there.iter()) {
                Ok(record) => there.push(record),
                Err(error) => break error,
            }
        };
        // 172.18 to 172.31, and 192.168 in sixteenths but for one.
        assert_eq!(there.len() - before, 14 + 15);
        assert_eq!(
            error.message,
            "all predefined address pools have been fully subnetted"
        );
        // Others are still to be had, and what goes is free again.
        record(
            request(&[("10.7.0.0/24", "", "")]),
            "a".repeat(64),
            there.iter(),
        )
        .unwrap();
        let freed = there.remove(before + 3);
        let again = record(request(&[]), "b".repeat(64), there.iter()).unwrap();
        assert_eq!(again.subnets[0].net, freed.subnets[0].net);
    }

    #[test]
    fn ipv6_comes_with_a_local_subnet_or_the_chosen_one() {
        let mut wanted = request(&[]);
        wanted.enable_ipv6 = Some(true);
        let record = made(wanted.clone()).unwrap();
        assert_eq!(record.subnets[1].gateway.to_string(), "fd01:2345:6789::1");
        let mut chosen = request(&[("fd00:7::/64", "", "")]);
        chosen.enable_ipv6 = Some(true);
        chosen.enable_ipv4 = Some(false);
        let record = made(chosen).unwrap();
        assert_eq!(record.subnets.len(), 1);
        assert!(record.subnets[0].chosen && !record.has_family(false));
        wanted.enable_ipv6 = None;
        wanted.enable_ipv4 = Some(false);
        assert!(made(wanted).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (config, message) in [
            (
                ("1.2.3", "", ""),
                "invalid subnet 1.2.3: invalid CIDR block notation",
            ),
            (
                ("10.0.0.5/24", "", ""),
                "invalid subnet 10.0.0.5/24: it should be 10.0.0.0/24",
            ),
            (
                ("10.0.0.0/24", "10.1.0.0/25", ""),
                "invalid ip-range 10.1.0.0/25",
            ),
            (("10.0.0.0/24", "", "10.0.1.1"), "invalid gateway 10.0.1.1"),
            (
                ("10.0.0.0/24", "", "x"),
                "invalid gateway x: invalid address",
            ),
            (("", "", "10.0.1.1"), "takes a subnet"),
            (("10.0.0.0/32", "", ""), ""),
            (
                ("172.17.128.0/24", "", ""),
                "Pool overlaps with other one on this address space",
            ),
            (("192.168.0.0/16", "", ""), "Pool overlaps"),
            (("127.5.0.0/16", "", ""), "Pool overlaps"),
            (("0.0.0.0/0", "", ""), "Pool overlaps"),
            (("fd00::/64", "", ""), "IPv6 is not enabled"),
        ] {
            match made(request(&[config])) {
                Err(error) => assert!(error.message.contains(message), "{config:?}: {error}"),
                Ok(_) => assert!(message.is_empty(), "{config:?}"),
            }
        }
        let two = [("10.0.0.0/24", "", ""), ("10.1.0.0/24", "", "")];
        assert!(made(request(&two)).is_err());
    }

    #[test]
    fn names_kinds_and_options_are_checked() {
        for name in ["bridge", "host", "none", "default"] {
            let mut request = request(&[]);
            request.name = name.into();
            assert_eq!(made(request).unwrap_err().kind, ErrorKind::Forbidden);
        }
        for name in ["", " a", "container:x", "a/b", "a\nb"] {
            let mut request = request(&[]);
            request.name = name.into();
            assert_eq!(made(request).unwrap_err().kind, ErrorKind::InvalidParameter);
        }
        for driver in ["overlay", "macvlan", "host"] {
            let mut request = request(&[]);
            request.driver = Some(driver.into());
            assert!(made(request).is_err(), "{driver}");
        }
        for (name, value, good) in [
            (MTU, "9000", true),
            (MTU, "60", false),
            (ICC, "false", true),
            (ICC, "maybe", false),
            (BRIDGE_NAME, "br0", true),
            (BRIDGE_NAME, "a/b", false),
            (BRIDGE_NAME, "docker0", false),
            (BRIDGE_NAME, "sixteen-letters-", false),
            (INTERFACE_PREFIX, "net", true),
        ] {
            let mut request = request(&[]);
            request.options = Some([(name.to_owned(), value.to_owned())].into());
            assert_eq!(made(request).is_ok(), good, "{name}={value}");
        }
    }
}
