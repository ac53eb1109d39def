//! Networks of containers.
//!
//! Lives here: [`Networks`] (records, who is in which network, names), what users may
//! ask of a new one ([`wanted`], [`options`], [`subnets`], [`configuration`]), [`addresses`], interfaces ([`links`]), a
//! container's end of a network ([`endpoint`]), what keeps networks apart ([`firewall`]), getting containers in and out
//! ([`membership`]), and the name server that they ask ([`dns`]).
//! The method handlers and the containers call it. It knows a container by its id and
//! namespace only: who asked for which network is the containers' to keep.
//!
//! [`namespace`] runs code in a container's network namespace: whoever needs a socket,
//! an interface or a table of rules in there goes through it. No thread of the agent
//! but those that it makes is ever in another namespace than the agent's own.
//!
//! Records are on the data disk; bridges, addresses and rules are made of them at each
//! start of the agent, and nothing of those is kept.

mod addresses;
mod configuration;
pub(crate) mod dns;
mod endpoint;
mod firewall;
pub(crate) mod links;
mod membership;
mod names;
pub(crate) mod namespace;
mod options;
mod records;
mod subnets;
mod wanted;

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use guest_protocol::{
    AgentError, ErrorKind,
    docker::{EndpointSettings, NetworkCreateRequest},
    network::Network,
};
use ipnet::IpNet;
use redb::Database;

use self::{
    addresses::Pool,
    endpoint::Endpoint,
    links::Links,
    namespace::Namespace,
    records::{Driver, Record, Records},
};
use crate::{
    clock,
    error::{Context, Result},
    identity::new_id,
};

pub(crate) use self::{
    endpoint::wishes,
    membership::{Joined, Left, Member},
};

/// All networks. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Networks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    records: Records,
    state: Mutex<State>,
    /// Serves containers that share the machine's network.
    machine_dns: Mutex<Option<dns::Server>>,
}

#[derive(Debug, Default)]
struct State {
    /// By id.
    networks: BTreeMap<String, Live>,
    /// The network namespaces of running containers, by the container's id.
    sandboxes: HashMap<String, Sandbox>,
}

/// A network, and who is in it now.
#[derive(Debug)]
struct Live {
    record: Record,
    pools: Vec<Pool>,
    /// By the container's id.
    endpoints: BTreeMap<String, Endpoint>,
}

/// A running container's network namespace.
#[derive(Debug)]
struct Sandbox {
    namespace: Namespace,
    /// Ends with it.
    _dns: Option<dns::Server>,
}

impl Live {
    fn new(record: Record) -> Self {
        Self {
            pools: record.subnets.iter().map(Pool::new).collect(),
            record,
            endpoints: BTreeMap::new(),
        }
    }

    fn view(&self) -> Network {
        let mut network = self.record.network();
        if network.is_predefined() {
            // They were made when the machine had no clock yet. Docker makes them anew
            // each time it starts, which is as good.
            let uptime = i64::try_from(clock::uptime_ms()).unwrap_or(0);
            network.created = clock::now().saturating_sub(uptime.saturating_mul(1_000_000));
        }
        network.containers = self
            .endpoints
            .iter()
            .map(|(container, endpoint)| (container.clone(), endpoint.view()))
            .collect();
        network
    }
}

impl Networks {
    /// Opens the networks on the data disk, makes those that are there from the
    /// beginning, and the bridges of all.
    ///
    /// # Errors
    /// When the records cannot be read or written.
    pub(crate) fn open(database: Arc<Database>) -> Result<Self> {
        let records = Records::open(database)?;
        let mut networks: BTreeMap<String, Live> = records
            .load()?
            .into_iter()
            .map(|record| (record.id.clone(), Live::new(record)))
            .collect();
        for mut record in wanted::predefined() {
            if networks
                .values()
                .any(|network| network.record.name == record.name)
            {
                continue;
            }
            record.id = new_id()?;
            records.put(&record)?;
            networks.insert(record.id.clone(), Live::new(record));
        }
        for network in networks.values() {
            // What cannot be made now is missed by who wants to join it.
            if let Err(error) = make_bridge(&network.record) {
                tracing::error!("network {} has no bridge: {error}", network.record.name);
            }
        }
        if let Err(error) = firewall::replace(networks.values()) {
            tracing::error!("networks are not kept apart: {error}");
        }
        if let Err(error) = forward_packets() {
            tracing::error!("packets are not forwarded: {error}");
        }
        let networks = Self {
            inner: Arc::new(Inner {
                records,
                state: Mutex::new(State {
                    networks,
                    sandboxes: HashMap::new(),
                }),
                machine_dns: Mutex::default(),
            }),
        };
        networks.serve_machine();
        Ok(networks)
    }

    /// Makes a network.
    ///
    /// # Errors
    /// In Docker's words, when the name is taken or something that is asked for cannot
    /// be had.
    pub(crate) fn create(&self, request: NetworkCreateRequest) -> Result<Record> {
        let mut state = self.inner.state();
        let same = |network: &&Live| network.record.name == request.name;
        // Of the names that nobody may take, `wanted` tells.
        if let Some(network) = state.networks.values().find(same)
            && !network.record.network().is_predefined()
        {
            return Err(AgentError::new(
                ErrorKind::Conflict,
                format!("network with name {} already exists", request.name),
            ));
        }
        let others = state.networks.values().map(|network| &network.record);
        let record = wanted::record(request, new_id()?, others)?;
        make_bridge(&record).context("cannot make the network's bridge")?;
        let id = record.id.clone();
        state.networks.insert(id.clone(), Live::new(record.clone()));
        let kept = firewall::replace(state.networks.values())
            .and_then(|()| self.inner.records.put(&record));
        if let Err(error) = kept {
            state.networks.remove(&id);
            remove_bridge(&record);
            return Err(error);
        }
        Ok(record)
    }

    /// All networks, by name.
    pub(crate) fn list(&self) -> Vec<Network> {
        let mut networks: Vec<_> = self
            .inner
            .state()
            .networks
            .values()
            .map(Live::view)
            .collect();
        networks.sort_by(|one, other| one.name.cmp(&other.name));
        networks
    }

    /// One network.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub(crate) fn inspect(&self, reference: &str) -> Result<Network> {
        self.inner.state().find(reference).map(Live::view)
    }

    /// Removes a network that no running container is in; gives what it was.
    ///
    /// # Errors
    /// In Docker's words.
    pub(crate) fn remove(&self, reference: &str) -> Result<Record> {
        let mut state = self.inner.state();
        let network = state.find(reference)?;
        let name = &network.record.name;
        if network.record.network().is_predefined() {
            return Err(AgentError::forbidden(format!(
                "{name} is a pre-defined network and cannot be removed"
            )));
        }
        if !network.endpoints.is_empty() {
            let users: Vec<String> = network
                .endpoints
                .iter()
                .map(|(container, endpoint)| {
                    let id = container.get(..12).unwrap_or_default();
                    format!("name:\"{}\" id:\"{id}\"", endpoint.container_name)
                })
                .collect();
            return Err(AgentError::forbidden(format!(
                "error while removing network: network {name} has active endpoints ({})",
                users.join(", ")
            )));
        }
        let used = network.record.template.is_some()
            && state
                .networks
                .values()
                .any(|other| other.record.config_from == *name);
        if used {
            return Err(AgentError::forbidden(format!(
                "error while removing network: configuration network \"{name}\" is in use"
            )));
        }
        let id = network.record.id.clone();
        self.inner.records.remove(&id)?;
        let Some(network) = state.networks.remove(&id) else {
            return Err(AgentError::no_such_network(reference));
        };
        remove_bridge(&network.record);
        if let Err(error) = firewall::replace(state.networks.values()) {
            tracing::error!("rules of a network that is gone are left over: {error}");
        }
        Ok(network.record)
    }

    /// Checks what a container asks of a network. Gives the network's name, or
    /// `None` when there is no such network, of which the start of the container tells.
    ///
    /// # Errors
    /// In Docker's words.
    pub(crate) fn check(
        &self,
        reference: &str,
        settings: &EndpointSettings,
    ) -> Result<Option<String>> {
        let state = self.inner.state();
        match state.find(reference) {
            Ok(network) => {
                configuration::check_endpoint(&network.record)?;
                endpoint::check(&network.record, settings)?;
                Ok(Some(network.record.name.clone()))
            }
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The network that `reference` means: an id, a name, or the beginning of one id
    /// only.
    fn find(&self, reference: &str) -> Result<&Live> {
        let id = self.find_id(reference)?;
        self.networks
            .get(&id)
            .ok_or_else(|| AgentError::no_such_network(reference))
    }

    fn find_id(&self, reference: &str) -> Result<String> {
        let reference = if reference == "default" {
            guest_protocol::network::DEFAULT_NETWORK
        } else {
            reference
        };
        if self.networks.contains_key(reference) {
            return Ok(reference.to_owned());
        }
        let mut named = self.networks.values();
        if let Some(network) = named.find(|network| network.record.name == reference) {
            return Ok(network.record.id.clone());
        }
        let ids: Vec<&String> = self
            .networks
            .keys()
            .filter(|id| !reference.is_empty() && id.starts_with(reference))
            .collect();
        match ids.as_slice() {
            [] => Err(AgentError::no_such_network(reference)),
            [id] => Ok((*id).clone()),
            _ => Err(AgentError::invalid(format!(
                "network {reference} is ambiguous ({} matches found based on ID prefix)",
                ids.len()
            ))),
        }
    }
}

/// Makes a network's bridge, in place of one that an agent before this left.
fn make_bridge(record: &Record) -> io::Result<()> {
    if record.driver != Driver::Bridge {
        return Ok(());
    }
    let name = options::bridge(record);
    let mut links = Links::open()?;
    links.remove(&name)?;
    let id = u32::from_str_radix(record.id.get(..8).unwrap_or_default(), 16).unwrap_or_default();
    let [a, b, c, d] = id.to_be_bytes();
    links.add_bridge(&name, [0x02, 0x42, a, b, c, d], options::mtu(record))?;
    let set_up = |links: &mut Links| -> io::Result<()> {
        set_ipv6(&name, record.has_family(true))?;
        for subnet in &record.subnets {
            let address = IpNet::new(subnet.gateway, subnet.net.prefix_len());
            links.add_address(&name, address.map_err(io::Error::other)?)?;
        }
        links.bring_up(&name)
    };
    let done = set_up(&mut links);
    if done.is_err() {
        links.remove(&name)?;
    }
    done
}

fn remove_bridge(record: &Record) {
    if record.driver != Driver::Bridge {
        return;
    }
    let name = options::bridge(record);
    if let Err(error) = Links::open().and_then(|mut links| links.remove(&name)) {
        tracing::error!("the bridge {name} is left over: {error}");
    }
}

/// Lets the machine forward what containers send.
fn forward_packets() -> io::Result<()> {
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    if has_ipv6() {
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}

/// Lets an interface of the calling thread's namespace have IPv6 addresses, or none
/// at all.
fn set_ipv6(interface: &str, on: bool) -> io::Result<()> {
    if !has_ipv6() {
        return Ok(());
    }
    let set = |name: &str, value: &str| {
        fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/{name}"), value)
    };
    set("disable_ipv6", if on { "0" } else { "1" })?;
    // Nobody advertises anything here that is to be believed.
    set("accept_ra", "0")
}
