//! What a user asks of a new network, checked and completed: its subnets, its
//! gateways, its driver's options.

use std::{collections::BTreeMap, net::IpAddr};

use guest_protocol::{
    AgentError, ErrorKind,
    docker::{IpamConfig, NetworkCreateRequest},
    network::{DEFAULT_NETWORK, is_predefined},
};
use ipnet::IpNet;

use super::{
    addresses,
    records::{Driver, Record, Subnet},
};
use crate::{clock, error::Result};

/// The bridge's name in the machine.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// Whether its containers may talk to each other.
const ICC: &str = "com.docker.network.bridge.enable_icc";
/// The largest packet, in bytes.
const MTU: &str = "com.docker.network.driver.mtu";
/// What names of interfaces in containers begin with.
const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";

/// Options that are true or false. Masquerading means nothing here, since there is
/// nothing behind the machine's own addresses, but files that people have set it.
const FLAGS: [&str; 2] = [ICC, "com.docker.network.bridge.enable_ip_masquerade"];

/// Names of interfaces have 15 bytes at most (`IFNAMSIZ`).
const LONGEST_INTERFACE: usize = 15;

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
    request: NetworkCreateRequest,
    id: String,
    others: impl Iterator<Item = &'a Record>,
) -> Result<Record> {
    check_name(&request.name)?;
    check_kind(&request)?;
    let options: BTreeMap<String, String> = request.options.into_iter().flatten().collect();
    check_options(&options)?;
    let ipam = request.ipam.unwrap_or_default();
    match ipam.driver.as_deref().unwrap_or_default() {
        "" | "default" => {}
        driver => {
            return Err(AgentError::invalid(format!(
                "plugin \"{driver}\" not found: addresses are managed by the driver \"default\""
            )));
        }
    }
    let others: Vec<&Record> = others.collect();
    if let Some(name) = options.get(BRIDGE_NAME)
        && others.iter().any(|other| bridge(other) == *name)
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
    let source = request.config_from.as_ref();
    let source = source.and_then(|source| source.network.as_deref());
    if let Some(source) = source.filter(|source| !source.is_empty()) {
        return Err(AgentError::new(
            ErrorKind::NotFound,
            format!("configuration network \"{source}\" does not exist"),
        ));
    }
    if request.config_only == Some(true) {
        return Err(AgentError::invalid(
            "networks that are only configuration are not supported",
        ));
    }
    Ok(())
}

fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    let refuse = |name: &str, value: &str, why: &str| {
        Err(AgentError::invalid(format!(
            "failed to parse {name} value: {value:?} ({why})"
        )))
    };
    for (name, value) in options {
        match name.as_str() {
            flag if FLAGS.contains(&flag) && parse_flag(value).is_none() => {
                return refuse(name, value, "it is neither true nor false");
            }
            // The smallest that IPv4 allows, and the largest of a virtual interface.
            MTU if !value
                .parse()
                .is_ok_and(|mtu: u32| (68..=65535).contains(&mtu)) =>
            {
                return refuse(name, value, "it is not from 68 to 65535");
            }
            BRIDGE_NAME | INTERFACE_PREFIX => {
                let room = if name == BRIDGE_NAME { 0 } else { 3 };
                let valid = (1..=LONGEST_INTERFACE - room).contains(&value.len())
                    && value.bytes().all(|byte| {
                        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
                    })
                    && !matches!(value.as_str(), "." | ".." | "lo");
                if !valid {
                    return refuse(name, value, "it is no interface's name");
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn parse_flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

/// The bridge's name in the machine.
pub(super) fn bridge(record: &Record) -> String {
    record
        .options
        .get(BRIDGE_NAME)
        .cloned()
        .unwrap_or_else(|| format!("br-{}", record.id.get(..12).unwrap_or_default()))
}

/// Whether containers in it are kept from each other.
pub(super) fn isolates_containers(record: &Record) -> bool {
    let icc = record.options.get(ICC).map(String::as_str);
    icc.and_then(parse_flag) == Some(false)
}

/// The largest packet, in bytes, if the kernel's default is not to be it.
pub(super) fn mtu(record: &Record) -> Option<u32> {
    record.options.get(MTU)?.parse().ok()
}

/// What the names of its interfaces in containers begin with.
pub(super) fn interface_prefix(record: &Record) -> &str {
    record
        .options
        .get(INTERFACE_PREFIX)
        .map_or("eth", String::as_str)
}

#[derive(Debug, Clone, Copy)]
struct Families {
    ipv4: bool,
    ipv6: bool,
}

/// The subnets that were chosen, and those that nobody chose.
fn subnets(
    configs: Vec<IpamConfig>,
    wanted: Families,
    id: &str,
    taken: &[IpNet],
) -> Result<Vec<Subnet>> {
    if !wanted.ipv4 && !wanted.ipv6 {
        return Err(AgentError::invalid(
            "IPv4 or IPv6 must be enabled for a network",
        ));
    }
    let mut subnets: Vec<Subnet> = Vec::new();
    for config in configs {
        // Clients send one without anything in it.
        if config == IpamConfig::default() {
            continue;
        }
        let subnet = chosen(config)?;
        let ipv6 = subnet.gateway.is_ipv6();
        let on = if ipv6 { wanted.ipv6 } else { wanted.ipv4 };
        if !on {
            let family = if ipv6 { "IPv6" } else { "IPv4" };
            return Err(AgentError::invalid(format!(
                "invalid network config:\n{family} subnet {} is configured but {family} is not \
                 enabled",
                subnet.net
            )));
        }
        if subnets.iter().any(|other| other.gateway.is_ipv6() == ipv6) {
            return Err(AgentError::invalid(
                "bridge driver doesn't support multiple subnets",
            ));
        }
        let overlaps = addresses::is_reserved(&subnet.net)
            || taken
                .iter()
                .any(|other| addresses::overlap(&subnet.net, other));
        if overlaps {
            return Err(AgentError::forbidden(
                "invalid pool request: Pool overlaps with other one on this address space",
            ));
        }
        subnets.push(subnet);
    }
    let missing = |subnets: &[Subnet], ipv6: bool| {
        !subnets
            .iter()
            .any(|subnet| subnet.gateway.is_ipv6() == ipv6)
    };
    if wanted.ipv4 && missing(&subnets, false) {
        let subnet = addresses::free_subnet(taken).ok_or_else(|| {
            AgentError::invalid("all predefined address pools have been fully subnetted")
        })?;
        subnets.insert(0, completed(subnet, None, None, BTreeMap::new(), false)?);
    }
    if wanted.ipv6 && missing(&subnets, true) {
        let subnet = addresses::local_subnet(id);
        if taken.iter().any(|other| addresses::overlap(&subnet, other)) {
            return Err(AgentError::forbidden(
                "invalid pool request: Pool overlaps with other one on this address space",
            ));
        }
        subnets.push(completed(subnet, None, None, BTreeMap::new(), false)?);
    }
    Ok(subnets)
}

/// A subnet that a user chose.
fn chosen(config: IpamConfig) -> Result<Subnet> {
    let refuse =
        |problem: String| AgentError::invalid(format!("invalid network config:\n{problem}"));
    let text = config
        .subnet
        .filter(|text| !text.is_empty())
        .ok_or_else(|| {
            refuse("an ip-range, a gateway or an auxiliary address takes a subnet".to_owned())
        })?;
    let network = |what: &str, text: &str| -> Result<IpNet> {
        let network: IpNet = text.parse().map_err(|_| {
            refuse(format!(
                "invalid {what} {text}: invalid CIDR block notation"
            ))
        })?;
        if network.trunc() != network {
            return Err(refuse(format!(
                "invalid {what} {network}: it should be {}",
                network.trunc()
            )));
        }
        Ok(network)
    };
    let subnet = network("subnet", &text)?;
    let range = match config.ip_range.filter(|text| !text.is_empty()) {
        Some(text) => {
            let range = network("ip-range", &text)?;
            if !subnet.contains(&range) {
                return Err(refuse(format!(
                    "invalid ip-range {range}: it is not in the subnet {subnet}"
                )));
            }
            Some(range)
        }
        None => None,
    };
    let address = |what: &str, text: &str| -> Result<IpAddr> {
        let address: IpAddr = text
            .parse()
            .map_err(|_| refuse(format!("invalid {what} {text}: invalid address")))?;
        if !subnet.contains(&address) {
            return Err(refuse(format!(
                "invalid {what} {address}: it is not in the subnet {subnet}"
            )));
        }
        Ok(address)
    };
    let gateway = config
        .gateway
        .filter(|text| !text.is_empty())
        .map(|text| address("gateway", &text))
        .transpose()?;
    let auxiliary = config
        .auxiliary_addresses
        .into_iter()
        .flatten()
        .map(|(name, text)| Ok((name, address("auxiliary address", &text)?)))
        .collect::<Result<_>>()?;
    completed(subnet, range, gateway, auxiliary, true)
}

fn completed(
    subnet: IpNet,
    range: Option<IpNet>,
    gateway: Option<IpAddr>,
    auxiliary: BTreeMap<String, IpAddr>,
    chosen: bool,
) -> Result<Subnet> {
    let gateway = gateway
        .or_else(|| {
            addresses::default_gateway(&subnet, range.as_ref(), auxiliary.values().copied())
        })
        .ok_or_else(|| {
            AgentError::invalid(format!("the subnet {subnet} has no address for a gateway"))
        })?;
    Ok(Subnet {
        net: subnet,
        range,
        gateway,
        auxiliary,
        chosen,
    })
}

#[cfg(test)]
mod tests {
    use guest_protocol::docker::Ipam;

    use super::*;

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
