//! The networks of containers: what each asks of them, joining them at its start,
//! leaving them at its end, and in between as users say.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use guest_protocol::{
    AgentError,
    container::{Container, Status},
    docker::{EndpointSettings, HostConfig, NetworkCreateRequest},
    methods::NetworkCreated,
    network::DEFAULT_NETWORK,
};

use super::{
    Containers, Entry,
    spec::{self, files, links::Linked},
};
use crate::{
    error::{Context, Result},
    networks::{Joined, Left, Member, Networks, namespace::Namespace, wishes},
};

/// Settings of end points, by network.
type Settings = BTreeMap<String, EndpointSettings>;

/// How a container is connected, by its network mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode<'a> {
    /// It has what another container has.
    Container,
    /// It has what the machine has.
    Host,
    /// It has a loopback interface.
    None,
    /// It is in networks; the first of them.
    Networks(&'a str),
}

fn mode(host: &HostConfig) -> Mode<'_> {
    match host.network_mode.as_deref().unwrap_or_default() {
        "host" => Mode::Host,
        "none" => Mode::None,
        "" | "default" => Mode::Networks(DEFAULT_NETWORK),
        mode if mode.starts_with("container:") => Mode::Container,
        network => Mode::Networks(network),
    }
}

impl Containers {
    /// The networks, for calls about them.
    pub(crate) fn networks(&self) -> &Networks {
        &self.shared.networks
    }

    /// Makes a network, and tells.
    ///
    /// # Errors
    /// As [`Networks::create`].
    pub(crate) fn create_network(&self, request: NetworkCreateRequest) -> Result<NetworkCreated> {
        let record = self.shared.networks.create(request)?;
        let network = record.network();
        self.shared
            .events
            .network(&network.id, &network.name, &network.driver, "create", None);
        Ok(NetworkCreated {
            id: network.id,
            warning: String::new(),
        })
    }

    /// Removes a network, and tells.
    ///
    /// # Errors
    /// As [`Networks::remove`].
    pub(crate) fn remove_network(&self, reference: &str) -> Result<()> {
        let network = self.shared.networks.remove(reference)?.network();
        self.shared
            .events
            .network(&network.id, &network.name, &network.driver, "destroy", None);
        Ok(())
    }

    /// What a new container asks of its networks, by their names; those that there are
    /// not yet by what they were called.
    pub(super) fn asked_networks(&self, host: &HostConfig, given: Settings) -> Result<Settings> {
        let first = match mode(host) {
            Mode::Container => return Ok(Settings::new()),
            Mode::Host => "host",
            Mode::None => "none",
            Mode::Networks(first) => first,
        };
        let networks = &self.shared.networks;
        let name = |reference: &str, settings: &EndpointSettings| -> Result<String> {
            let found = networks.check(reference, settings)?;
            Ok(found.unwrap_or_else(|| reference.to_owned()))
        };
        let first = name(first, &EndpointSettings::default())?;
        let mut asked = Settings::new();
        for (reference, settings) in given {
            let settings = wishes(settings);
            asked.insert(name(&reference, &settings)?, settings);
        }
        let links = host.links.iter().flatten().cloned();
        let settings = asked.entry(first.clone()).or_default();
        if !matches!(first.as_str(), DEFAULT_NETWORK | "host" | "none") {
            settings.links.get_or_insert_default().extend(links);
        }
        if settings.links.as_ref().is_some_and(Vec::is_empty) {
            settings.links = None;
        }
        let alone = |name: &String| matches!(name.as_str(), "host" | "none");
        if asked.len() > 1 && asked.keys().any(alone) {
            return Err(AgentError::invalid(
                "conflicting options: cannot attach both user-defined and non-user-defined \
                 network-modes",
            ));
        }
        Ok(asked)
    }

    /// Brings a container whose process is made into its networks, before it is let go.
    pub(super) fn join_networks(&self, entry: &Entry, pid: i32) -> Result<Settings> {
        let (container, asked) = {
            let record = entry.record();
            (record.container.clone(), record.networks.clone())
        };
        let networks = &self.shared.networks;
        let first = match mode(&container.host_config) {
            Mode::Container => return Ok(Settings::new()),
            Mode::Host | Mode::None => None,
            Mode::Networks(first) => {
                let namespace = Namespace::of_process(pid.unsigned_abs())
                    .context("the container's process is gone")?;
                let servers = name_servers(&container.host_config);
                networks.open_sandbox(&container.id, namespace, servers)?;
                networks.check(first, &EndpointSettings::default())?
            }
        };
        let member = member(&container);
        let mut order: Vec<_> = asked.iter().collect();
        // The first network's interface is the first; the sort is stable.
        order.sort_by_key(|(name, _)| Some(*name) != first.as_ref());
        let mut joined = Settings::new();
        for (name, settings) in order {
            let Joined { network, settings } = networks.join(&member, name, settings)?;
            self.tell_network(&network, &container.id, "connect");
            joined.insert(network.name, settings);
        }
        self.write_hosts(&container)
            .context("cannot write the container's /etc/hosts")?;
        Ok(joined)
    }

    /// Takes a container that ended out of its networks.
    pub(super) fn leave_networks(&self, entry: &Entry) {
        for left in self.shared.networks.close_sandbox(&entry.id) {
            self.tell_network(&left, &entry.id, "disconnect");
        }
        let mut record = entry.record();
        record.container.networks = record.networks.clone();
    }

    /// Those who have a link to a container learn its address.
    pub(super) fn tell_linking(&self, entry: &Entry) {
        let (id, name) = {
            let record = entry.record();
            (entry.id.clone(), record.container.name.clone())
        };
        for other in self.entries() {
            let container = other.container();
            let links = container.host_config.links.iter().flatten();
            let linked = links
                .map(|link| link.split(':').next().unwrap_or_default())
                .any(|target| target.trim_start_matches('/') == name || id == target);
            if linked
                && container.state.is_running()
                && let Err(error) = self.write_hosts(&container)
            {
                tracing::warn!("container {} has an old /etc/hosts: {error}", other.id);
            }
        }
    }

    /// Brings a container into a network: now if it runs, else when it starts.
    ///
    /// # Errors
    /// In Docker's words.
    pub(crate) async fn connect(
        &self,
        network: &str,
        reference: &str,
        settings: EndpointSettings,
    ) -> Result<()> {
        let entry = self.find(reference)?;
        let _lifecycle = entry.lifecycle.lock().await;
        let networks = &self.shared.networks;
        let container = entry.container();
        let settings = wishes(settings);
        let Some(name) = networks.check(network, &settings)? else {
            return Err(AgentError::no_such_network(network));
        };
        check_change(&container, &name)?;
        let alone = entry.record().networks.contains_key("none") || name == "none";
        if alone {
            return Err(AgentError::forbidden(
                "container cannot be connected to multiple networks with one of the networks in \
                 private (none) mode",
            ));
        }
        let running = matches!(container.state.status, Status::Running | Status::Paused);
        let shown = if running {
            let joined = tokio::task::block_in_place(|| {
                networks.join(&member(&container), &name, &settings)
            })?;
            self.tell_network(&joined.network, &entry.id, "connect");
            joined.settings
        } else {
            settings.clone()
        };
        self.change(&entry, |record| {
            record.networks.insert(name.clone(), settings);
            record.container.networks.insert(name, shown);
        })?;
        self.write_hosts(&container)
            .context("cannot write the container's /etc/hosts")
    }

    /// Takes a container out of a network.
    ///
    /// # Errors
    /// In Docker's words.
    pub(crate) async fn disconnect(&self, network: &str, reference: &str) -> Result<()> {
        let entry = self.find(reference)?;
        let _lifecycle = entry.lifecycle.lock().await;
        let networks = &self.shared.networks;
        let container = entry.container();
        let found = networks.check(network, &EndpointSettings::default())?;
        // A network that is gone can be taken out all the same.
        let name = match found {
            Some(name) => name,
            None if entry.record().networks.contains_key(network) => network.to_owned(),
            None => return Err(AgentError::no_such_network(network)),
        };
        check_change(&container, &name)?;
        if !entry.record().networks.contains_key(&name) {
            return Err(AgentError::forbidden(format!(
                "container {} is not connected to network {name}",
                entry.id
            )));
        }
        let running = matches!(container.state.status, Status::Running | Status::Paused);
        if running && name != "none" {
            let left = tokio::task::block_in_place(|| networks.leave(&entry.id, &name))?;
            self.tell_network(&left, &entry.id, "disconnect");
        }
        self.change(&entry, |record| {
            record.networks.remove(&name);
            record.container.networks.remove(&name);
        })?;
        self.write_hosts(&container)
            .context("cannot write the container's /etc/hosts")
    }

    /// Writes a container's `/etc/hosts` anew, with the addresses that it has now.
    fn write_hosts(&self, container: &Container) -> Result<()> {
        if mode(&container.host_config) == Mode::Container {
            return Ok(());
        }
        let addresses = self.shared.networks.addresses(&container.id);
        let linked = self.linked(container).unwrap_or_default();
        let folder = self.shared.paths.container(&container.id);
        files::write_hosts(container, &folder, &addresses, &linked)
            .context("cannot write a container's /etc/hosts")
    }

    /// The containers that a new one in the default network is to have links to must be
    /// there.
    pub(super) fn check_links(&self, host: &HostConfig) -> Result<()> {
        for link in host.links.iter().flatten() {
            let target = link.split(':').next().unwrap_or_default();
            self.find(target).map_err(|error| {
                AgentError::invalid(format!("could not get container for {target}: {error}"))
            })?;
        }
        Ok(())
    }

    /// The containers that one in the default network has links to, as they are now.
    pub(super) fn linked(&self, container: &Container) -> Result<Vec<Linked>> {
        if mode(&container.host_config) != Mode::Networks(DEFAULT_NETWORK) {
            return Ok(Vec::new());
        }
        let mut linked = Vec::new();
        for link in container.host_config.links.iter().flatten() {
            let (target, alias) = link.split_once(':').unwrap_or((link, link));
            let target: Arc<Entry> = self.find(target)?;
            let other = target.container();
            let Some(address) = self.shared.networks.default_address(&target.id) else {
                return Err(AgentError::invalid(format!(
                    "Cannot link to a non running container: /{} AS /{}/{alias}",
                    other.name, container.name
                )));
            };
            linked.push(Linked::new(alias, &container.name, &other, address));
        }
        Ok(linked)
    }

    fn tell_network(&self, network: &Left, container: &str, action: &str) {
        self.shared.events.network(
            &network.id,
            &network.name,
            network.driver.as_str(),
            action,
            Some(container),
        );
    }
}

fn member(container: &Container) -> Member {
    let own = spec::hostname(container);
    Member {
        id: container.id.clone(),
        name: container.name.clone(),
        hostname: (!container.id.starts_with(&own)).then_some(own),
    }
}

/// Refuses to change the networks of those that have no interfaces of their own.
fn check_change(container: &Container, network: &str) -> Result<()> {
    let mode = mode(&container.host_config);
    match mode {
        _ if network == "host" && mode != Mode::Host => {
            return Err(AgentError::invalid(
                "cannot connect container to host network - container must be created in host \
                 network mode",
            ));
        }
        Mode::Host => {}
        Mode::Container => {
            return Err(AgentError::forbidden(
                "container sharing network namespace with another container or host cannot be \
                 connected to any other network",
            ));
        }
        Mode::None | Mode::Networks(_) => return Ok(()),
    }
    Err(AgentError::forbidden(
        "container cannot be disconnected from host network or connected to host network",
    ))
}

/// The name servers that a user gave.
fn name_servers(host: &HostConfig) -> Vec<IpAddr> {
    let servers = host.dns.iter().flatten();
    servers
        .filter_map(|server| server.parse().ok())
        // It would ask itself.
        .filter(|server| *server != IpAddr::V4(crate::networks::dns::ADDRESS))
        .collect()
}

/// Refuses name servers that are none.
///
/// # Errors
/// In Docker's words.
pub(super) fn check_name_servers(host: &HostConfig) -> Result<()> {
    let mut servers = host.dns.iter().flatten();
    match servers.find(|server| server.parse::<IpAddr>().is_err()) {
        Some(server) => Err(AgentError::invalid(format!(
            "bad nameserver address: {server}"
        ))),
        None => Ok(()),
    }
}
