//! What a container's description says of its networks.

use std::collections::HashMap;

use guest_protocol::{
    container::Container,
    docker::{EndpointSettings, NetworkSettings},
    network::DEFAULT_NETWORK,
};

/// `NetworkSettings` of `GET /containers/{id}/json`. What older clients look for is that
/// of the default network.
pub(super) fn settings(container: &Container) -> NetworkSettings {
    let first = container.networks.get(DEFAULT_NETWORK).cloned();
    let first = completed(first.unwrap_or_default());
    let running = container.state.is_running();
    let none = || Some(String::new());
    let id = if running {
        container.id.clone()
    } else {
        String::new()
    };
    NetworkSettings {
        bridge: none(),
        sandbox_key: Some(if running {
            format!("/proc/{}/ns/net", container.state.pid)
        } else {
            String::new()
        }),
        sandbox_id: Some(id),
        hairpin_mode: Some(false),
        link_local_ipv6_address: none(),
        link_local_ipv6_prefix_len: Some(0),
        ports: Some(HashMap::new()),
        endpoint_id: first.endpoint_id,
        gateway: first.gateway,
        global_ipv6_address: first.global_ipv6_address,
        global_ipv6_prefix_len: first.global_ipv6_prefix_len,
        ip_address: first.ip_address,
        ip_prefix_len: first.ip_prefix_len,
        ipv6_gateway: first.ipv6_gateway,
        mac_address: first.mac_address,
        networks: Some(shown_networks(container)),
        ..Default::default()
    }
}

/// A container's networks, with every field that clients look for.
pub(super) fn shown_networks(container: &Container) -> HashMap<String, EndpointSettings> {
    container
        .networks
        .iter()
        .map(|(name, settings)| (name.clone(), completed(settings.clone())))
        .collect()
}

/// Sets what is missing to Docker's values for it.
fn completed(settings: EndpointSettings) -> EndpointSettings {
    let text = |value: Option<String>| Some(value.unwrap_or_default());
    let number = |value: Option<i64>| Some(value.unwrap_or(0));
    EndpointSettings {
        mac_address: text(settings.mac_address),
        network_id: text(settings.network_id),
        endpoint_id: text(settings.endpoint_id),
        gateway: text(settings.gateway),
        ip_address: text(settings.ip_address),
        ip_prefix_len: number(settings.ip_prefix_len),
        ipv6_gateway: text(settings.ipv6_gateway),
        global_ipv6_address: text(settings.global_ipv6_address),
        global_ipv6_prefix_len: number(settings.global_ipv6_prefix_len),
        gw_priority: number(settings.gw_priority),
        ..settings
    }
}

/// Docker's links of old as `HostConfig` shows them: `/target:/container/alias`.
pub(super) fn links(container: &Container) -> Option<Vec<String>> {
    let links = container.host_config.links.as_ref()?;
    let shown = links.iter().map(|link| {
        let (target, alias) = link.split_once(':').unwrap_or((link, link));
        let target = target.trim_start_matches('/');
        format!("/{target}:/{}/{alias}", container.name)
    });
    let shown: Vec<String> = shown.collect();
    (!shown.is_empty()).then_some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_network_is_told_twice() {
        let mut container = Container {
            name: "web".into(),
            ..Container::default()
        };
        let end = |address: &str| EndpointSettings {
            ip_address: Some(address.into()),
            ..EndpointSettings::default()
        };
        container
            .networks
            .insert("bridge".into(), end("172.17.0.2"));
        container.networks.insert("net".into(), end("172.18.0.2"));
        let json = serde_json::to_value(settings(&container)).unwrap();
        assert_eq!(json["IPAddress"], "172.17.0.2");
        assert_eq!(json["Networks"]["net"]["IPAddress"], "172.18.0.2");
        assert_eq!(json["Networks"]["net"]["GlobalIPv6PrefixLen"], 0);
        container.networks.remove("bridge");
        let json = serde_json::to_value(settings(&container)).unwrap();
        assert_eq!(json["IPAddress"], "");
        container.host_config.links = Some(vec!["db:store".into()]);
        assert_eq!(links(&container).unwrap(), ["/db:/web/store"]);
    }
}
