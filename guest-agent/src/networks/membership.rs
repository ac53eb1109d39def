//! Containers come into networks and leave them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use guest_protocol::{AgentError, docker::EndpointSettings};
use ipnet::IpNet;

use super::{
    Inner, Live, Networks, Sandbox, State, configuration,
    dns::{self, Upstream},
    endpoint::{self, Endpoint},
    links::{End, Links},
    names::ContainerNames,
    namespace::Namespace,
    options,
    records::{Driver, Record},
    set_ipv6,
};
use crate::{
    error::{Context, Result},
    identity::new_id,
};

/// How many interfaces a container may have.
const MOST_INTERFACES: usize = 64;

/// Whom a network is joined by.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// The container's id.
    pub(crate) id: String,
    /// Its name, without a slash.
    pub(crate) name: String,
    /// Its host name, if a user gave it one.
    pub(crate) hostname: Option<String>,
}

/// A network that a container joined.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    /// The network.
    pub(crate) network: Network,
    /// What the container has there.
    pub(crate) settings: EndpointSettings,
}

/// A network by id, name and driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) driver: Driver,
}

/// A network that a container left.
pub(crate) type Left = Network;

impl From<&Record> for Network {
    fn from(record: &Record) -> Self {
        Self {
            id: record.id.clone(),
            name: record.name.clone(),
            driver: record.driver,
        }
    }
}

impl Networks {
    /// Gets to know a running container's network namespace, and serves names there.
    /// `servers` are those that its user wants to be asked instead of the host.
    ///
    /// # Errors
    /// When its name server cannot be started.
    pub(crate) fn open_sandbox(
        &self,
        container: &str,
        namespace: Namespace,
        servers: Vec<IpAddr>,
    ) -> Result<()> {
        let names = ContainerNames::new(Arc::downgrade(&self.inner), container.to_owned());
        let upstream = if servers.is_empty() {
            Upstream::Host
        } else {
            Upstream::Servers(servers)
        };
        let dns = dns::Server::start(&namespace, Arc::new(names), upstream)
            .context("cannot start the container's name server")?;
        let sandbox = Sandbox {
            namespace,
            _dns: Some(dns),
        };
        self.inner
            .state()
            .sandboxes
            .insert(container.to_owned(), sandbox);
        Ok(())
    }

    /// Serves names to containers that share the machine's network.
    pub(super) fn serve_machine(&self) {
        let names = ContainerNames::of_machine();
        let start = || {
            let namespace = Namespace::of_machine()?;
            dns::Server::start(&namespace, Arc::new(names), Upstream::Host)
        };
        match start() {
            Ok(server) => {
                let mut slot = self
                    .inner
                    .machine_dns
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                *slot = Some(server);
            }
            Err(error) => tracing::error!("the machine has no name server: {error}"),
        }
    }

    /// Brings a running container into a network. Without a sandbox, as with the
    /// machine's own network, it is only counted as being there.
    ///
    /// # Errors
    /// In Docker's words.
    pub(crate) fn join(
        &self,
        member: &Member,
        reference: &str,
        settings: &EndpointSettings,
    ) -> Result<Joined> {
        let mut state = self.inner.state();
        let id = state.find_id(reference)?;
        let far = state.next_interface(&member.id, &id)?;
        let namespace = state
            .sandboxes
            .get(&member.id)
            .map(|sandbox| sandbox.namespace.clone());
        let network = state
            .networks
            .get_mut(&id)
            .ok_or_else(|| AgentError::no_such_network(reference))?;
        configuration::check_endpoint(&network.record)?;
        let endpoint = network.reserve(member, settings, far)?;
        if let Some(namespace) = &namespace
            && network.record.driver == Driver::Bridge
            && let Err(error) = plug(&network.record, &endpoint, namespace)
        {
            network.give_back(&endpoint);
            return Err(error).context(format_args!(
                "failed to set up container networking: cannot connect to network {}",
                network.record.name
            ));
        }
        let joined = Joined {
            network: Network::from(&network.record),
            settings: endpoint.settings(&network.record, settings),
        };
        network.endpoints.insert(member.id.clone(), endpoint);
        if let Err(error) = state.set_way_out(&member.id) {
            state.remove_endpoint(&id, &member.id);
            return Err(error).context("failed to set up container networking");
        }
        Ok(joined)
    }

    /// Takes a container out of one network.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn leave(&self, container: &str, reference: &str) -> Result<Left> {
        let mut state = self.inner.state();
        let id = state.find_id(reference)?;
        let Some(left) = state.remove_endpoint(&id, container) else {
            return Err(AgentError::forbidden(format!(
                "container {container} is not connected to network {reference}"
            )));
        };
        state
            .set_way_out(container)
            .context("cannot change the container's routes")?;
        Ok(left)
    }

    /// Takes a container that ended out of all of its networks.
    pub(crate) fn close_sandbox(&self, container: &str) -> Vec<Left> {
        let mut state = self.inner.state();
        let ids: Vec<String> = state.networks.keys().cloned().collect();
        let left = ids
            .iter()
            .filter_map(|id| state.remove_endpoint(id, container))
            .collect();
        let sandbox = state.sandboxes.remove(container);
        drop(state);
        // Its name server looks at the state.
        drop(sandbox);
        left
    }

    /// A container got another name.
    pub(crate) fn rename(&self, container: &str, name: &str) {
        for network in self.inner.state().networks.values_mut() {
            if let Some(endpoint) = network.endpoints.get_mut(container) {
                name.clone_into(&mut endpoint.container_name);
            }
        }
    }

    /// A running container's addresses, in the order of its interfaces.
    pub(crate) fn addresses(&self, container: &str) -> Vec<IpAddr> {
        let state = self.inner.state();
        let mut endpoints: Vec<&Endpoint> =
            state.endpoints(container).map(|(_, end)| end).collect();
        endpoints.sort_by(|one, other| one.far.cmp(&other.far));
        endpoints
            .iter()
            .flat_map(|endpoint| &endpoint.addresses)
            .map(IpNet::addr)
            .collect()
    }

    /// A running container's IPv4 address in the default network.
    pub(crate) fn default_address(&self, container: &str) -> Option<Ipv4Addr> {
        let state = self.inner.state();
        let network = state.find(guest_protocol::network::DEFAULT_NETWORK).ok()?;
        let endpoint = network.endpoints.get(container)?;
        endpoint.addresses.iter().find_map(|address| match address {
            IpNet::V4(address) => Some(address.addr()),
            IpNet::V6(_) => None,
        })
    }
}

impl Inner {
    /// Looks at the end points of a container, and at the networks that they are in.
    pub(super) fn with_endpoints<T>(
        &self,
        container: &str,
        look: impl FnMut((&Live, &Endpoint)) -> Option<T>,
    ) -> Option<T> {
        let state = self.state();
        let mut endpoints: Vec<_> = state.endpoints(container).collect();
        endpoints.sort_by(|(_, one), (_, other)| one.far.cmp(&other.far));
        endpoints.into_iter().find_map(look)
    }
}

impl State {
    fn endpoints(&self, container: &str) -> impl Iterator<Item = (&Live, &Endpoint)> {
        self.networks
            .values()
            .filter_map(move |network| Some((network, network.endpoints.get(container)?)))
    }

    /// The name of a container's next interface in a network.
    fn next_interface(&self, container: &str, network: &str) -> Result<String> {
        let record = &self
            .networks
            .get(network)
            .ok_or_else(|| AgentError::no_such_network(network))?
            .record;
        let prefix = options::interface_prefix(record);
        let used: Vec<&str> = self
            .endpoints(container)
            .map(|(_, endpoint)| endpoint.far.as_str())
            .collect();
        (0..MOST_INTERFACES)
            .map(|number| format!("{prefix}{number}"))
            .find(|name| !used.contains(&name.as_str()))
            .ok_or_else(|| {
                AgentError::forbidden(format!(
                    "container {container} is in {MOST_INTERFACES} networks already"
                ))
            })
    }

    fn remove_endpoint(&mut self, network: &str, container: &str) -> Option<Left> {
        let network = self.networks.get_mut(network)?;
        let endpoint = network.endpoints.remove(container)?;
        network.give_back(&endpoint);
        if network.record.driver == Driver::Bridge {
            let removed = Links::open().and_then(|mut links| links.remove(&endpoint.near));
            if let Err(error) = removed {
                tracing::error!("the interface {} is left over: {error}", endpoint.near);
            }
        }
        Some(Network::from(&network.record))
    }

    /// Sets a container's default routes: of the networks that have a way out, the one
    /// with the highest priority, and of those with the same the first by name.
    fn set_way_out(&self, container: &str) -> io::Result<()> {
        let Some(sandbox) = self.sandboxes.get(container) else {
            return Ok(());
        };
        let way_out = |ipv6: bool| {
            self.endpoints(container)
                .filter(|(network, _)| !network.record.internal)
                .filter_map(|(network, endpoint)| {
                    let mut subnets = network.record.subnets.iter();
                    let subnet = subnets.find(|subnet| subnet.gateway.is_ipv6() == ipv6)?;
                    Some((network, endpoint, subnet.gateway))
                })
                .min_by(|(one, first, _), (other, second, _)| {
                    second
                        .priority
                        .cmp(&first.priority)
                        .then_with(|| one.record.name.cmp(&other.record.name))
                })
                .map(|(_, endpoint, gateway)| (gateway, endpoint.far.clone()))
        };
        let ways = [(false, way_out(false)), (true, way_out(true))];
        sandbox.namespace.run(|| {
            let mut links = Links::open()?;
            for (ipv6, way) in ways {
                match way {
                    Some((gateway, interface)) => links.set_default_route(gateway, &interface)?,
                    None if ipv6 && !super::has_ipv6() => {}
                    None => links.remove_default_route(ipv6)?,
                }
            }
            Ok(())
        })?
    }
}

impl Live {
    /// Takes addresses for a container.
    fn reserve(
        &mut self,
        member: &Member,
        settings: &EndpointSettings,
        far: String,
    ) -> Result<Endpoint> {
        if self.endpoints.contains_key(&member.id) {
            return Err(AgentError::forbidden(format!(
                "endpoint with name {} already exists in network {}",
                member.name, self.record.name
            )));
        }
        let wanted = endpoint::check(&self.record, settings)?;
        let id = new_id()?;
        let mut endpoint = Endpoint {
            near: format!("veth{}", id.get(..7).unwrap_or_default()),
            id,
            container_name: member.name.clone(),
            addresses: Vec::new(),
            mac_address: None,
            far,
            aliases: Vec::new(),
            links: endpoint::links(settings),
            priority: settings.gw_priority.unwrap_or(0),
        };
        if endpoint::is_user_defined(&self.record) {
            let short = member.id.get(..12).unwrap_or_default().to_owned();
            let aliases = settings.aliases.iter().flatten().cloned();
            for alias in aliases.chain([short]).chain(member.hostname.clone()) {
                if alias != member.name && !endpoint.aliases.contains(&alias) {
                    endpoint.aliases.push(alias);
                }
            }
        }
        for (subnet, pool) in self.record.subnets.iter().zip(&mut self.pools) {
            let ipv6 = subnet.gateway.is_ipv6();
            let taken = pool
                .take(wanted[usize::from(ipv6)])
                .map_err(|error| match error {
                    super::addresses::AddressError::Exhausted => AgentError::system(format!(
                        "no available IPv{} addresses on this network's address pools: {} ({})",
                        if ipv6 { 6 } else { 4 },
                        self.record.name,
                        self.record.id
                    )),
                    error => AgentError::forbidden(format!(
                        "failed to set up container networking: {error}"
                    )),
                });
            match taken {
                Ok(address) => endpoint
                    .addresses
                    .extend(IpNet::new(address, subnet.net.prefix_len())),
                Err(error) => {
                    self.give_back(&endpoint);
                    return Err(error);
                }
            }
        }
        endpoint.mac_address = endpoint::mac_address(settings)?.or_else(|| {
            let address = endpoint.addresses.first()?.addr();
            Some(endpoint::derived_mac_address(address))
        });
        Ok(endpoint)
    }

    fn give_back(&mut self, endpoint: &Endpoint) {
        for address in &endpoint.addresses {
            for pool in &mut self.pools {
                pool.give_back(address.addr());
            }
        }
    }
}

/// Puts an interface into a container's namespace, and its other end on the bridge.
fn plug(record: &Record, endpoint: &Endpoint, namespace: &Namespace) -> io::Result<()> {
    use std::os::fd::AsFd;
    let bridge = options::bridge(record);
    let far = End {
        name: &endpoint.far,
        namespace: namespace.as_fd(),
        mac_address: endpoint.mac_address.unwrap_or_default(),
    };
    let mut links = Links::open()?;
    links.add_pair(&endpoint.near, &far, options::mtu(record))?;
    let mut set_up = || -> io::Result<()> {
        set_ipv6(&endpoint.near, false)?;
        links.join_bridge(
            &endpoint.near,
            &bridge,
            options::isolates_containers(record),
        )?;
        links.bring_up(&endpoint.near)?;
        namespace.run(|| {
            let mut links = Links::open()?;
            set_ipv6(&endpoint.far, record.has_family(true))?;
            for address in &endpoint.addresses {
                links.add_address(&endpoint.far, *address)?;
            }
            links.bring_up(&endpoint.far)
        })?
    };
    let done = set_up();
    if done.is_err()
        && let Err(error) = links.remove(&endpoint.near)
    {
        tracing::error!("the interface {} is left over: {error}", endpoint.near);
    }
    done
}
