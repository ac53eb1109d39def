//! Which names a container's name server knows: those of its neighbours in networks
//! that users made.

use std::{net::IpAddr, sync::Weak};

use ipnet::IpNet;

use super::{Inner, Live, dns::Names, endpoint, endpoint::Endpoint};

/// The names that one container sees.
#[derive(Debug)]
pub(super) struct ContainerNames {
    /// `None` for the machine itself, which is in no network.
    networks: Option<Weak<Inner>>,
    container: String,
}

impl ContainerNames {
    pub(super) fn new(networks: Weak<Inner>, container: String) -> Self {
        Self {
            networks: Some(networks),
            container,
        }
    }

    pub(super) fn of_machine() -> Self {
        Self {
            networks: None,
            container: String::new(),
        }
    }

    /// Asks each network of the container that a user made.
    fn ask<T>(&self, mut look: impl FnMut(&Live, &Endpoint) -> Option<T>) -> Option<T> {
        let inner = self.networks.as_ref()?.upgrade()?;
        inner.with_endpoints(&self.container, |(network, endpoint)| {
            if endpoint::is_user_defined(&network.record) {
                look(network, endpoint)
            } else {
                None
            }
        })
    }
}

impl Names for ContainerNames {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.ask(|network, own| {
            in_network(network, own, name).or_else(|| {
                let suffix = format!(".{}", network.record.name);
                let start = name.len().checked_sub(suffix.len())?;
                let (front, back) = (name.get(..start)?, name.get(start..)?);
                back.eq_ignore_ascii_case(&suffix)
                    .then(|| in_network(network, own, front))
                    .flatten()
            })
        })
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        self.ask(|network, _| {
            let mut endpoints = network.endpoints.values();
            let endpoint =
                endpoints.find(|end| end.addresses.iter().any(|a| a.addr() == address))?;
            Some(format!(
                "{}.{}",
                endpoint.container_name, network.record.name
            ))
        })
    }

    fn may_ask_outside(&self) -> bool {
        let Some(networks) = &self.networks else {
            return true;
        };
        networks.upgrade().is_some_and(|inner| {
            inner
                .with_endpoints(&self.container, |(network, _)| {
                    (!network.record.internal).then_some(())
                })
                .is_some()
        })
    }

    fn has_ipv6(&self) -> bool {
        let Some(networks) = &self.networks else {
            return true;
        };
        networks.upgrade().is_some_and(|inner| {
            inner
                .with_endpoints(&self.container, |(network, _)| {
                    network.record.has_family(true).then_some(())
                })
                .is_some()
        })
    }
}

/// The addresses of everybody who is called `name` in a network, as `own` sees it.
fn in_network(network: &Live, own: &Endpoint, name: &str) -> Option<Vec<IpAddr>> {
    let linked = own
        .links
        .iter()
        .find(|(alias, _)| alias.eq_ignore_ascii_case(name))
        .map(|(_, container)| container);
    let meant = |(id, endpoint): &(&String, &Endpoint)| match linked {
        Some(container) => {
            endpoint.container_name == *container
                || (container.len() >= 12 && id.starts_with(container.as_str()))
        }
        None => endpoint.is_called(name),
    };
    let addresses: Vec<IpAddr> = network
        .endpoints
        .iter()
        .filter(meant)
        .flat_map(|(_, endpoint)| endpoint.addresses.iter().map(IpNet::addr))
        .collect();
    (!addresses.is_empty()).then_some(addresses)
}
