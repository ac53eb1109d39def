//! Names, addresses, networks and ports of a container.

use std::collections::HashMap;

use bollard_stubs::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, NetworkingConfig,
    PortMap,
};
use clap::Args;

use super::list;
use crate::{
    failure::Failure,
    options::{
        network::{self, Network},
        ports::{self, Exposed, Published},
    },
};

/// Networks of a new container.
#[derive(Debug, Args)]
pub(super) struct NetworkOptions {
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = network::extra_host)]
    add_host: Vec<String>,
    /// Set name servers
    #[arg(long, value_name = "ADDRESS", value_parser = network::address)]
    dns: Vec<String>,
    /// Set options of the resolver
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Set domains in which names are looked up
    #[arg(long, value_name = "DOMAIN", value_parser = network::search_domain)]
    dns_search: Vec<String>,
    /// Container NIS domain name
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Expose a port or a range of ports
    #[arg(long, value_name = "PORT", value_parser = ports::expose)]
    expose: Vec<Exposed>,
    /// Container host name
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// IPv4 address
    #[arg(long, value_name = "ADDRESS", value_parser = network::address)]
    ip: Option<String>,
    /// IPv6 address
    #[arg(long, value_name = "ADDRESS", value_parser = network::address)]
    ip6: Option<String>,
    /// Add a link to another container
    #[arg(long, value_name = "CONTAINER[:ALIAS]", value_parser = network::link)]
    link: Vec<String>,
    /// IPv4 or IPv6 link-local addresses
    #[arg(long, value_name = "ADDRESS", value_parser = network::address)]
    link_local_ip: Vec<String>,
    /// MAC address
    #[arg(long, value_name = "ADDRESS", value_parser = network::mac_address)]
    mac_address: Option<String>,
    /// Connect to a network, or share one: host, none, container:<name|id>
    #[arg(long, visible_alias = "net", value_name = "NETWORK", value_parser = network::network)]
    network: Vec<Network>,
    /// Add a name of the container in its network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// Publish a port or a range of ports to the host
    #[arg(short, long, value_name = "[PORT:]PORT", value_parser = ports::publish)]
    publish: Vec<Published>,
    /// Publish all exposed ports, each to a free one of the host
    #[arg(short = 'P', long)]
    publish_all: bool,
}

impl NetworkOptions {
    /// Puts them into the request and into what is asked of the host.
    ///
    /// # Errors
    /// When options contradict each other.
    pub(super) fn put(
        &self,
        body: &mut ContainerCreateBody,
        host: &mut HostConfig,
    ) -> Result<(), Failure> {
        body.hostname.clone_from(&self.hostname);
        body.domainname.clone_from(&self.domainname);
        let published = self.publish.iter().flat_map(|published| &published.0);
        let mut bindings = PortMap::new();
        let mut exposed: Vec<String> = self
            .expose
            .iter()
            .flat_map(|exposed| exposed.0.iter().cloned())
            .collect();
        for (port, binding) in published {
            exposed.push(port.clone());
            bindings
                .entry(port.clone())
                .or_default()
                .get_or_insert_default()
                .push(binding.clone());
        }
        body.exposed_ports = (!exposed.is_empty()).then(|| exposed_ports(exposed));
        host.port_bindings = (!bindings.is_empty()).then_some(bindings);
        host.publish_all_ports = Some(self.publish_all);
        host.extra_hosts = list(&self.add_host);
        host.dns = list(&self.dns);
        host.dns_options = list(&self.dns_option);
        host.dns_search = list(&self.dns_search);

        let networks = self.networks()?;
        let mode = networks.first().map(|network| network.name.as_str());
        host.network_mode = Some(mode.unwrap_or("default").to_owned());
        // In a network of the user's a link is a name; elsewhere it is Docker's old kind.
        let user_defined = mode.is_some_and(is_user_defined);
        if !user_defined {
            host.links = list(&self.link);
        }
        let endpoints: HashMap<String, EndpointSettings> = networks
            .iter()
            .map(|network| {
                let links = user_defined.then(|| list(&self.link)).flatten();
                (network.name.clone(), endpoint(network, links))
            })
            .collect();
        let plain = endpoints
            .values()
            .all(|endpoint| *endpoint == EndpointSettings::default());
        if networks.len() > 1 || !plain {
            body.networking_config = Some(NetworkingConfig {
                endpoints_config: Some(endpoints),
            });
        }
        Ok(())
    }

    /// The networks, with the options that are about the first of them in it.
    fn networks(&self) -> Result<Vec<Network>, Failure> {
        let mut networks = self.network.clone();
        let said = !self.network_alias.is_empty()
            || self.ip.is_some()
            || self.ip6.is_some()
            || !self.link_local_ip.is_empty()
            || self.mac_address.is_some();
        if networks.is_empty() && said {
            networks.push(Network {
                name: "default".to_owned(),
                ..Network::default()
            });
        }
        let modes = networks
            .iter()
            .filter(|network| is_exclusive(&network.name))
            .count();
        if modes > 0 && networks.len() > 1 {
            return Err(Failure::new(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            ));
        }
        let Some(first) = networks.first_mut() else {
            return Ok(networks);
        };
        let twice = |name: &str| {
            Failure::new(format!(
                "conflicting options: cannot specify both --{name} and per-network {name}"
            ))
        };
        if !self.network_alias.is_empty() {
            if !first.aliases.is_empty() {
                return Err(Failure::new(
                    "conflicting options: cannot specify both --network-alias and per-network alias",
                ));
            }
            first.aliases.clone_from(&self.network_alias);
        }
        for (name, given, slot) in [
            ("ip", &self.ip, &mut first.ipv4),
            ("ip6", &self.ip6, &mut first.ipv6),
            ("mac-address", &self.mac_address, &mut first.mac_address),
        ] {
            if given.is_some() {
                if slot.is_some() {
                    return Err(twice(name));
                }
                slot.clone_from(given);
            }
        }
        if !self.link_local_ip.is_empty() {
            if !first.link_local.is_empty() {
                return Err(twice("link-local-ip"));
            }
            first.link_local.clone_from(&self.link_local_ip);
        }
        Ok(networks)
    }
}

#[allow(clippy::zero_sized_map_values, reason = "Docker's type for a set")]
fn exposed_ports(ports: Vec<String>) -> HashMap<String, HashMap<(), ()>> {
    ports
        .into_iter()
        .map(|port| (port, HashMap::new()))
        .collect()
}

/// Whether `mode` is no network that could be one of several.
fn is_exclusive(mode: &str) -> bool {
    matches!(mode, "host" | "none") || mode.starts_with("container:")
}

fn is_user_defined(mode: &str) -> bool {
    !is_exclusive(mode) && !matches!(mode, "" | "default" | "bridge")
}

fn endpoint(network: &Network, links: Option<Vec<String>>) -> EndpointSettings {
    let addresses = EndpointIpamConfig {
        ipv4_address: network.ipv4.clone(),
        ipv6_address: network.ipv6.clone(),
        link_local_ips: list(&network.link_local),
    };
    EndpointSettings {
        ipam_config: (addresses != EndpointIpamConfig::default()).then_some(addresses),
        links,
        mac_address: network.mac_address.clone(),
        aliases: list(&network.aliases),
        driver_opts: (!network.driver_options.is_empty()).then(|| network.driver_options.clone()),
        gw_priority: network.gateway_priority,
        ..EndpointSettings::default()
    }
}
