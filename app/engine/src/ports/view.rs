//! Ports as `inspect` and `ps` tell them.

use std::collections::BTreeMap;

use guest_protocol::{
    container::Container,
    docker::{Port, PortBinding, PortMap, PortTypeEnum},
    port::{PublishedPort, Transport},
};

use super::bindings::exposed;

/// Those that are bound for a container: none when it does not run.
fn bound(container: &Container) -> &[PublishedPort] {
    if container.state.is_running() {
        &container.ports
    } else {
        &[]
    }
}

/// `NetworkSettings.Ports`: where each port of a running container is on the host.
pub(crate) fn port_map(container: &Container) -> PortMap {
    let mut map = PortMap::new();
    if !container.state.is_running() {
        return map;
    }
    for (port, transport) in exposed(container) {
        map.insert(format!("{port}/{}", transport.as_str()), None);
    }
    for port in bound(container) {
        let key = format!("{}/{}", port.container_port, port.transport.as_str());
        let bindings = map.entry(key).or_default().get_or_insert_default();
        bindings.push(PortBinding {
            host_ip: Some(port.host_ip.clone()),
            host_port: Some(port.host_port.to_string()),
        });
    }
    map
}

/// `Ports` of `GET /containers/json`, by the container's port.
pub(crate) fn port_list(container: &Container) -> Vec<Port> {
    let kind = |transport| match transport {
        Transport::Tcp => PortTypeEnum::TCP,
        Transport::Udp => PortTypeEnum::UDP,
    };
    if !container.state.is_running() {
        return Vec::new();
    }
    let mut ports: BTreeMap<(u16, Transport), Vec<Port>> = exposed(container)
        .into_iter()
        .map(|port| (port, Vec::new()))
        .collect();
    for port in bound(container) {
        let published = Port {
            ip: Some(port.host_ip.clone()),
            private_port: port.container_port,
            public_port: Some(port.host_port),
            typ: Some(kind(port.transport)),
        };
        let key = (port.container_port, port.transport);
        ports.entry(key).or_default().push(published);
    }
    let ports = ports
        .into_iter()
        .flat_map(|((port, transport), published)| {
            if published.is_empty() {
                vec![Port {
                    ip: None,
                    private_port: port,
                    public_port: None,
                    typ: Some(kind(transport)),
                }]
            } else {
                published
            }
        });
    ports.collect()
}

#[cfg(test)]
mod tests {
    use guest_protocol::container::Status;
    use serde_json::json;

    use super::*;

    #[test]
    fn published_and_exposed_ports_are_told_while_it_runs() {
        let mut container = Container {
            config: serde_json::from_value(json!({"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}))
                .unwrap(),
            ports: vec![PublishedPort {
                container_port: 80,
                transport: Transport::Tcp,
                host_ip: "::".into(),
                host_port: 8080,
            }],
            ..Container::default()
        };
        assert!(port_map(&container).is_empty());
        assert!(port_list(&container).is_empty());
        container.state.status = Status::Running;
        assert_eq!(
            serde_json::to_value(port_map(&container)).unwrap(),
            json!({"80/tcp": [{"HostIp": "::", "HostPort": "8080"}], "53/udp": null})
        );
        assert_eq!(
            serde_json::to_value(port_list(&container)).unwrap(),
            json!([
                {"PrivatePort": 53, "Type": "udp"},
                {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            ])
        );
    }
}
