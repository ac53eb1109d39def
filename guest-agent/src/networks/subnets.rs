//! The subnets of a new network: those that its user chose, checked, and for the other
//! families that it is to have one that is free.

use std::{collections::BTreeMap, net::IpAddr};

use guest_protocol::{AgentError, docker::IpamConfig};
use ipnet::IpNet;

use super::{addresses, records::Subnet};
use crate::error::Result;

/// The families of addresses that a network is to have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Families {
    pub(super) ipv4: bool,
    pub(super) ipv6: bool,
}

/// The subnets that were chosen, and those that nobody chose.
pub(super) fn subnets(
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
pub(super) fn chosen(config: IpamConfig) -> Result<Subnet> {
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
