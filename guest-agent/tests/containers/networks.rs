//! Networks under a real agent: on this machine's kernel, in a namespace of its own.

use std::collections::BTreeMap;

use guest_protocol::{
    ErrorKind,
    docker::{
        ContainerConfig, EndpointIpamConfig, EndpointSettings, HostConfig, Ipam, IpamConfig,
        NetworkCreateRequest,
    },
    methods::{
        ContainerCreate, ContainerRename, NetworkConnect, NetworkCreate, NetworkDisconnect,
        NetworkInspect, NetworkList, NetworkRemove,
    },
    network::Network,
};

use crate::{
    remove, stop,
    support::{TestAgent, command},
};

fn create(agent: &TestAgent, request: NetworkCreateRequest) -> String {
    let request = Box::new(request);
    agent.call(NetworkCreate { request }).unwrap().id
}

fn named(name: &str) -> NetworkCreateRequest {
    NetworkCreateRequest {
        name: name.into(),
        ..NetworkCreateRequest::default()
    }
}

fn with_subnet(name: &str, subnet: &str) -> NetworkCreateRequest {
    NetworkCreateRequest {
        ipam: Some(Ipam {
            config: Some(vec![IpamConfig {
                subnet: Some(subnet.into()),
                ..IpamConfig::default()
            }]),
            ..Ipam::default()
        }),
        ..named(name)
    }
}

/// Starts a container that sleeps in these networks, the first of which is its mode.
fn start(agent: &TestAgent, name: &str, networks: &[(&str, EndpointSettings)]) -> String {
    let settings: BTreeMap<String, EndpointSettings> = networks
        .iter()
        .map(|(network, settings)| ((*network).to_owned(), settings.clone()))
        .collect();
    let id = agent
        .call(ContainerCreate {
            name: Some(name.into()),
            config: Box::new(ContainerConfig {
                image: Some("busybox".into()),
                ..command(&["sleep", "1000"])
            }),
            host_config: Box::new(HostConfig {
                network_mode: networks.first().map(|(network, _)| (*network).to_owned()),
                ..HostConfig::default()
            }),
            networks: settings,
        })
        .unwrap()
        .id;
    agent.start_container(&id).unwrap();
    id
}

fn inspect(agent: &TestAgent, network: &str) -> Network {
    let network = network.to_owned();
    agent.call(NetworkInspect { network }).unwrap()
}

fn connect(
    agent: &TestAgent,
    network: &str,
    container: &str,
    settings: EndpointSettings,
) -> Result<(), guest_protocol::AgentError> {
    agent.call(NetworkConnect {
        network: network.into(),
        container: container.into(),
        settings: Box::new(settings),
    })
}

fn disconnect(agent: &TestAgent, network: &str, container: &str) {
    agent
        .call(NetworkDisconnect {
            network: network.into(),
            container: container.into(),
        })
        .unwrap();
}

fn reaches(agent: &TestAgent, from: &str, to: &str) -> bool {
    agent.exec(from, &["ping", "-c", "1", "-W", "1", to]) == 0
}

#[test]
fn containers_of_a_network_find_each_other_and_no_others() {
    let agent = TestAgent::start();
    create(&agent, named("one"));
    create(&agent, named("other"));
    let plain = EndpointSettings::default;
    let aliased = EndpointSettings {
        aliases: Some(vec!["www".into()]),
        ..plain()
    };
    let first = start(&agent, "first", &[("one", plain())]);
    let second = start(&agent, "second", &[("one", aliased)]);
    let alone = start(&agent, "alone", &[("other", plain())]);
    for name in ["second", "www", "second.one", &second[..12]] {
        assert!(reaches(&agent, "first", name), "{name}");
    }
    let address = |id: &str, network: &str| {
        let container = agent.inspect(id).unwrap();
        container.networks[network].ip_address.clone().unwrap()
    };
    assert!(!reaches(&agent, "alone", "first"));
    assert!(!reaches(&agent, "alone", &address(&first, "one")));
    // While it runs it comes in, by name, and out again.
    connect(&agent, "one", "alone", plain()).unwrap();
    assert!(reaches(&agent, "alone", "first") && reaches(&agent, "second", "alone"));
    let again = connect(&agent, "one", "alone", plain()).unwrap_err();
    assert_eq!(again.kind, ErrorKind::Forbidden);
    assert_eq!(inspect(&agent, "one").containers.len(), 3);
    disconnect(&agent, "one", "alone");
    assert!(!reaches(&agent, "alone", "first"));
    // Its name goes along.
    agent
        .call(ContainerRename {
            container: "second".into(),
            name: "renamed".into(),
        })
        .unwrap();
    assert!(reaches(&agent, "first", "renamed") && !reaches(&agent, "first", "second"));
    // One that is used stays; its end frees its address.
    let remove_network = |network: &str| {
        let network = network.to_owned();
        agent.call(NetworkRemove { network })
    };
    let error = remove_network("one").unwrap_err();
    assert!(error.message.contains("network one has active endpoints"));
    let freed = address(&first, "one");
    agent.call(stop(&first, 0)).unwrap();
    assert!(
        agent.inspect(&first).unwrap().networks["one"]
            .ip_address
            .is_none()
    );
    let next = start(&agent, "next", &[("one", plain())]);
    assert_eq!(address(&next, "one"), freed);
    for id in [&second, &next] {
        agent.call(remove(id, true)).unwrap();
    }
    remove_network("one").unwrap();
    let gone = agent.start_container(&first).unwrap_err();
    assert_eq!(
        (gone.kind, gone.message.as_str()),
        (ErrorKind::NotFound, "network one not found")
    );
    agent.call(remove(&alone, true)).unwrap();
}

#[test]
fn networks_are_there_again_after_a_kill() {
    let mut agent = TestAgent::start();
    let id = create(&agent, with_subnet("kept", "10.77.0.0/24"));
    let wanted = EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some("10.77.0.9".into()),
            ..EndpointIpamConfig::default()
        }),
        ..EndpointSettings::default()
    };
    let container = start(&agent, "fixed", &[("kept", wanted)]);
    let address = |agent: &TestAgent| {
        let container = agent.inspect(&container).unwrap();
        container.networks["kept"].ip_address.clone()
    };
    assert_eq!(address(&agent).as_deref(), Some("10.77.0.9"));
    agent.kill_and_start();
    assert_eq!(address(&agent), None);
    let network = inspect(&agent, "kept");
    assert_eq!(
        (network.id.as_str(), network.containers.len()),
        (id.as_str(), 0)
    );
    agent.start_container("fixed").unwrap();
    assert_eq!(address(&agent).as_deref(), Some("10.77.0.9"));
    assert!(reaches(&agent, "fixed", "10.77.0.1"));
    let overlapping = with_subnet("other", "10.77.0.128/25");
    let request = Box::new(overlapping);
    let error = agent.call(NetworkCreate { request }).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Forbidden);
    let names: Vec<String> = agent
        .call(NetworkList {})
        .unwrap()
        .into_iter()
        .map(|network| network.name)
        .collect();
    assert_eq!(names, ["bridge", "host", "kept", "none"]);
    agent.call(remove("fixed", true)).unwrap();
}

#[test]
fn ipv6_works_and_interfaces_are_as_asked_for() {
    let agent = TestAgent::start();
    let six = NetworkCreateRequest {
        enable_ipv6: Some(true),
        options: Some(
            [(
                "com.docker.network.driver.mtu".to_owned(),
                "1400".to_owned(),
            )]
            .into(),
        ),
        ..named("six")
    };
    create(&agent, six);
    let settings = EndpointSettings {
        mac_address: Some("02:00:00:00:00:77".into()),
        ..EndpointSettings::default()
    };
    start(&agent, "one", &[("six", settings)]);
    start(&agent, "two", &[("six", EndpointSettings::default())]);
    let two = agent.inspect("two").unwrap();
    let address = two.networks["six"].global_ipv6_address.clone().unwrap();
    assert!(reaches(&agent, "one", &address));
    let script =
        "ip link show eth0 | grep 'mtu 1400' && ip link show eth0 | grep 02:00:00:00:00:77";
    assert_eq!(agent.exec("one", &["sh", "-c", script]), 0);
    for id in ["one", "two"] {
        agent.call(remove(id, true)).unwrap();
    }
}
