//! Docker's links of old: a container in the default network that knows another by an
//! alias, with variables that tell of its ports.

use std::net::Ipv4Addr;

use guest_protocol::container::Container;

/// A container that another has a link to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Linked {
    /// Its address in the default network.
    pub(crate) address: Ipv4Addr,
    /// What it is called: the alias, its host name, its name.
    pub(crate) names: Vec<String>,
    /// Variables that tell of it.
    pub(crate) environment: Vec<String>,
}

impl Linked {
    /// `other`, which has `address`, as the container named `own` sees it.
    pub(crate) fn new(alias: &str, own: &str, other: &Container, address: Ipv4Addr) -> Self {
        let mut names = vec![alias.to_owned()];
        for name in [super::hostname(other), other.name.clone()] {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Self {
            address,
            names,
            environment: environment(alias, own, other, address),
        }
    }
}

fn environment(alias: &str, own: &str, other: &Container, address: Ipv4Addr) -> Vec<String> {
    let prefix = alias.replace('-', "_").to_uppercase();
    let mut variables = Vec::new();
    let mut ports: Vec<(u16, String)> = other
        .config
        .exposed_ports
        .iter()
        .flatten()
        .filter_map(|(port, _)| {
            let (port, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
            Some((port.parse().ok()?, protocol.to_owned()))
        })
        .collect();
    ports.sort();
    if let Some((port, protocol)) = ports.first() {
        variables.push(format!("{prefix}_PORT={protocol}://{address}:{port}"));
    }
    for (port, protocol) in ports {
        let name = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        variables.extend([
            format!("{name}={protocol}://{address}:{port}"),
            format!("{name}_ADDR={address}"),
            format!("{name}_PORT={port}"),
            format!("{name}_PROTO={protocol}"),
        ]);
    }
    variables.push(format!("{prefix}_NAME=/{own}/{alias}"));
    let kept = |variable: &&String| {
        let name = variable.split('=').next().unwrap_or_default();
        !matches!(name, "HOME" | "PATH")
    };
    for variable in other.config.env.iter().flatten().filter(kept) {
        variables.push(format!("{prefix}_ENV_{variable}"));
    }
    variables
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    #[allow(clippy::zero_sized_map_values, reason = "Docker's type for a set")]
    fn a_link_tells_of_ports_and_variables() {
        let mut other = Container {
            id: "ab".repeat(32),
            name: "db".into(),
            ..Container::default()
        };
        other.config.hostname = Some("abababababab".into());
        let ports = ["5432/tcp", "53/udp"].map(|port| (port.to_owned(), HashMap::new()));
        other.config.exposed_ports = Some(ports.into());
        other.config.env = Some(vec!["PATH=/bin".into(), "VERSION=9".into()]);
        let linked = Linked::new("my-db", "web", &other, Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(linked.names, ["my-db", "abababababab", "db"]);
        assert_eq!(
            linked.environment,
            [
                "MY_DB_PORT=udp://172.17.0.2:53",
                "MY_DB_PORT_53_UDP=udp://172.17.0.2:53",
                "MY_DB_PORT_53_UDP_ADDR=172.17.0.2",
                "MY_DB_PORT_53_UDP_PORT=53",
                "MY_DB_PORT_53_UDP_PROTO=udp",
                "MY_DB_PORT_5432_TCP=tcp://172.17.0.2:5432",
                "MY_DB_PORT_5432_TCP_ADDR=172.17.0.2",
                "MY_DB_PORT_5432_TCP_PORT=5432",
                "MY_DB_PORT_5432_TCP_PROTO=tcp",
                "MY_DB_NAME=/web/my-db",
                "MY_DB_ENV_VERSION=9",
            ]
        );
    }
}
