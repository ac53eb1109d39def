//! What a container asks for: `PortBindings`, `PublishAllPorts` and `ExposedPorts` of
//! its configuration, or what was bound for it before.

use std::{net::IpAddr, ops::RangeInclusive};

use guest_protocol::{
    container::Container,
    docker::{HostConfig, PortBinding, PortMap},
    port::{PublishedPort, Transport},
};

/// A port of a container that is to be reached from the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) container_port: u16,
    pub(super) transport: Transport,
    /// The host's address; all of them without one.
    pub(super) address: Option<IpAddr>,
    /// One of these; any that is free without them.
    pub(super) host_ports: Option<RangeInclusive<u16>>,
}

/// Refuses what makes no sense, before a container is made that asks for it.
///
/// # Errors
/// In Docker's words.
pub(crate) fn check(host: &HostConfig) -> Result<(), String> {
    let mode = host.network_mode.as_deref().unwrap_or_default();
    let bindings = host.port_bindings.as_ref();
    let publishes =
        bindings.is_some_and(|ports| !ports.is_empty()) || host.publish_all_ports == Some(true);
    if publishes && mode.starts_with("container:") {
        return Err(
            "conflicting options: port publishing and the container type network mode".to_owned(),
        );
    }
    bindings.map_or(Ok(()), |ports| asked(ports).map(drop))
}

/// What Docker says of ports that are asked for in vain.
pub(crate) fn discarded(host: &HostConfig) -> Option<&'static str> {
    let asks = host
        .port_bindings
        .as_ref()
        .is_some_and(|ports| !ports.is_empty());
    (asks && host.network_mode.as_deref() == Some("host"))
        .then_some("Published ports are discarded when using host network mode")
}

/// All that `container` asks for, by its ports. Nothing without a network of its own, and as
/// in Docker nothing for ports that it does not expose: clients expose what they publish.
///
/// # Errors
/// As [`check`].
pub(super) fn wanted(container: &Container) -> Result<Vec<Wanted>, String> {
    let host = &container.host_config;
    let mode = host.network_mode.as_deref().unwrap_or_default();
    if matches!(mode, "host" | "none") || mode.starts_with("container:") {
        return Ok(Vec::new());
    }
    let mut wanted = match &host.port_bindings {
        Some(ports) => asked(ports)?,
        None => Vec::new(),
    };
    let exposed = exposed(container);
    wanted.retain(|one| exposed.contains(&(one.container_port, one.transport)));
    if host.publish_all_ports == Some(true) {
        for (container_port, transport) in exposed {
            let published =
                |one: &Wanted| (one.container_port, one.transport) == (container_port, transport);
            if !wanted.iter().any(published) {
                wanted.push(Wanted {
                    container_port,
                    transport,
                    address: None,
                    host_ports: None,
                });
            }
        }
    }
    // A fixed port before those that may be any: they leave it free.
    wanted.sort_by_key(|one| {
        let choice = one
            .host_ports
            .as_ref()
            .map_or(usize::MAX, ExactSizeIterator::len);
        (choice, one.transport, one.container_port)
    });
    Ok(wanted)
}

/// The ports that `container` and its image say they have, in order.
pub(super) fn exposed(container: &Container) -> Vec<(u16, Transport)> {
    let ports = container.config.exposed_ports.iter().flatten();
    let mut ports: Vec<_> = ports
        .filter_map(|(port, _)| {
            let (ports, transport) = parse_port(port)?;
            Some(ports.map(move |port| (port, transport)))
        })
        .flatten()
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// What was bound before, to be bound again.
///
/// # Errors
/// When it is damaged.
pub(super) fn recorded(ports: &[PublishedPort]) -> Result<Vec<Wanted>, String> {
    ports
        .iter()
        .map(|port| {
            let address = port
                .host_ip
                .parse()
                .map_err(|_| format!("invalid IP address: {}", port.host_ip))?;
            Ok(Wanted {
                container_port: port.container_port,
                transport: port.transport,
                address: Some(address),
                host_ports: Some(port.host_port..=port.host_port),
            })
        })
        .collect()
}

fn asked(ports: &PortMap) -> Result<Vec<Wanted>, String> {
    let mut wanted = Vec::new();
    for (port, bindings) in ports {
        if port.ends_with("/sctp") {
            return Err(format!("sctp ports cannot be published: {port}"));
        }
        let invalid = |text: &str| format!("invalid port specification: {text:?}");
        let single = parse_port(port).filter(|(ports, _)| ports.start() == ports.end());
        let (container_ports, transport) = single.ok_or_else(|| invalid(port))?;
        // None at all means one, wherever.
        let any = [PortBinding::default()];
        let bindings = match bindings.as_deref() {
            None | Some([]) => &any[..],
            Some(bindings) => bindings,
        };
        for binding in bindings {
            let address = match binding.host_ip.as_deref() {
                None | Some("") => None,
                Some(text) => Some(
                    text.parse()
                        .map_err(|_| format!("invalid IP address: {text}"))?,
                ),
            };
            let host_ports = match binding.host_port.as_deref() {
                None | Some("" | "0") => None,
                Some(text) => Some(parse_range(text).ok_or_else(|| invalid(text))?),
            };
            wanted.push(Wanted {
                container_port: *container_ports.start(),
                transport,
                address,
                host_ports,
            });
        }
    }
    Ok(wanted)
}

/// `80`, `80/tcp`, `80-90/udp`.
fn parse_port(text: &str) -> Option<(RangeInclusive<u16>, Transport)> {
    let (ports, transport) = text.split_once('/').unwrap_or((text, "tcp"));
    let transport = match transport.to_ascii_lowercase().as_str() {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        _ => return None,
    };
    Some((parse_range(ports)?, transport))
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse::<u16>().ok()).flatten();
        number.filter(|number| *number != 0)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = number(first)?..=number(last)?;
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn container(host: serde_json::Value) -> Container {
        Container {
            host_config: serde_json::from_value(host).unwrap(),
            config: serde_json::from_value(json!({"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}))
                .unwrap(),
            ..Container::default()
        }
    }

    fn texts(host: serde_json::Value) -> Vec<String> {
        let wanted = wanted(&container(host)).unwrap();
        wanted
            .iter()
            .map(|one| {
                format!(
                    "{:?} {:?} -> {}/{}",
                    one.address,
                    one.host_ports,
                    one.container_port,
                    one.transport.as_str()
                )
            })
            .collect()
    }

    #[test]
    fn what_is_asked_for_is_what_is_wanted() {
        let host = json!({"PortBindings": {
            "80": [{"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostPort": "9000-9010"}],
            "53/udp": null,
            "443/tcp": [{"HostPort": "443"}],
        }});
        assert_eq!(
            texts(host),
            [
                "Some(127.0.0.1) Some(8080..=8080) -> 80/tcp",
                "None Some(9000..=9010) -> 80/tcp",
                "None None -> 53/udp",
            ]
        );
        let host =
            json!({"PublishAllPorts": true, "PortBindings": {"80/tcp": [{"HostPort": "1"}]}});
        assert_eq!(
            texts(host),
            ["None Some(1..=1) -> 80/tcp", "None None -> 53/udp"]
        );
        for mode in ["host", "none"] {
            let host = json!({"NetworkMode": mode, "PublishAllPorts": true});
            assert!(texts(host).is_empty());
        }
    }

    #[test]
    fn nonsense_is_refused_in_docker_s_words() {
        for (bindings, message) in [
            (
                json!({"x/tcp": []}),
                "invalid port specification: \"x/tcp\"",
            ),
            (
                json!({"0/tcp": []}),
                "invalid port specification: \"0/tcp\"",
            ),
            (
                json!({"80/icmp": []}),
                "invalid port specification: \"80/icmp\"",
            ),
            (
                json!({"80/tcp": [{"HostPort": "70000"}]}),
                "invalid port specification: \"70000\"",
            ),
            (
                json!({"80/tcp": [{"HostPort": "9-8"}]}),
                "invalid port specification: \"9-8\"",
            ),
            (
                json!({"80/tcp": [{"HostIp": "nowhere"}]}),
                "invalid IP address: nowhere",
            ),
            (
                json!({"80/sctp": []}),
                "sctp ports cannot be published: 80/sctp",
            ),
        ] {
            let container = container(json!({"PortBindings": bindings}));
            assert_eq!(check(&container.host_config).unwrap_err(), message);
        }
        let shared = container(json!({"NetworkMode": "container:a", "PublishAllPorts": true}));
        assert!(check(&shared.host_config).is_err());
    }

    #[test]
    fn what_was_bound_is_bound_again() {
        let port = PublishedPort {
            container_port: 80,
            transport: Transport::Udp,
            host_ip: "::".into(),
            host_port: 32_768,
        };
        let wanted = recorded(std::slice::from_ref(&port)).unwrap();
        assert_eq!(wanted[0].host_ports, Some(32_768..=32_768));
        assert_eq!(wanted[0].address, Some("::".parse().unwrap()));
        let damaged = PublishedPort {
            host_ip: String::new(),
            ..port
        };
        assert!(recorded(&[damaged]).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_understood_or_refused(port in "[0-9a-z/\\-]{0,12}", host in "[0-9a-z\\-]{0,12}") {
            let text = json!({"PortBindings": {(port.clone()): [{"HostPort": host}]}});
            let container = container(text);
            if let Ok(wanted) = wanted(&container) {
                for one in wanted {
                    prop_assert_ne!(one.container_port, 0);
                    prop_assert!(one.host_ports.is_none_or(|ports| !ports.is_empty() && *ports.start() != 0));
                }
            }
        }
    }
}
