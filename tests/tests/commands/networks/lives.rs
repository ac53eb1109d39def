//! Create, list, inspect, remove, prune; what is refused; Docker's own client.

use std::process::Command;

use serde_json::Value;
use tests::command::{LONG, run};

use super::{Network, sleeping};
use crate::shared::{Name, dctl, shared};

fn names(arguments: &[&str]) -> Vec<String> {
    let listed = dctl(&[&["network", "ls", "--format", "{{.Name}}"], arguments].concat());
    let listed = listed.success().text();
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn a_network_is_made_listed_inspected_and_removed() {
    let network = Network::name();
    let name = network.as_str();
    let create = [
        "network",
        "create",
        "--label",
        "color=red",
        "--internal",
        name,
    ];
    let id = dctl(&create).success().text();
    assert_eq!(id.len(), 64);
    dctl(&create).fails_with(1, &format!("network with name {name} already exists"));
    for filter in [
        format!("name={name}"),
        format!("id={}", &id[..12]),
        "label=color=red".to_owned(),
        "type=custom".to_owned(),
    ] {
        assert!(names(&["-f", &filter]).contains(&network.0), "{filter}");
    }
    assert!(!names(&["-f", "type=builtin"]).contains(&network.0));
    let all = names(&[]);
    for builtin in ["bridge", "host", "none"] {
        assert!(all.iter().any(|name| name == builtin), "{all:?}");
    }
    let table = dctl(&["network", "ls"]).success().text();
    assert!(table.starts_with("NETWORK ID     NAME"), "{table}");
    let inspected = dctl(&["network", "inspect", name]).success().text();
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected[0]["Id"], id.as_str());
    assert_eq!(inspected[0]["Driver"], "bridge");
    assert_eq!(inspected[0]["Internal"], true);
    assert_eq!(inspected[0]["Labels"]["color"], "red");
    assert!(inspected[0]["IPAM"]["Config"][0]["Subnet"].is_string());
    // By the beginning of its id, and of whatever kind it is.
    assert_eq!(
        dctl(&["inspect", "--format", "{{.Name}}", &id[..20]])
            .success()
            .text(),
        name
    );
    assert_eq!(dctl(&["network", "rm", name]).success().text(), name);
    dctl(&["network", "inspect", name]).fails_with(1, &format!("network {name} not found"));
    dctl(&["network", "rm", name]).fails_with(1, &format!("network {name} not found"));
    dctl(&["network", "rm", "-f", name]).success();
}

#[test]
fn what_cannot_be_is_refused() {
    let network = Network::new(&["--subnet", "10.88.0.0/24"]);
    let other = Network::name();
    let create =
        |options: &[&str]| dctl(&[&["network", "create"], options, &[other.as_str()]].concat());
    let overlap = "Pool overlaps with other one on this address space";
    for (options, message) in [
        (&["--subnet", "10.88.0.128/25"][..], overlap),
        (&["--subnet", "172.17.0.0/16"], overlap),
        // The host is there.
        (&["--subnet", "192.168.65.0/24"], overlap),
        (&["--subnet", "10.89.0.5/24"], "it should be 10.89.0.0/24"),
        (
            &["--subnet", "10.89.0.0/24", "--gateway", "10.90.0.1"],
            "no matching subnet for gateway",
        ),
        (
            &["--gateway", "10.89.0.1"],
            "no matching subnet for gateway",
        ),
        (&["-d", "macvlan"], "plugin \"macvlan\" not found"),
        (
            &["-o", "com.docker.network.driver.mtu=7"],
            "failed to parse com.docker.network.driver.mtu",
        ),
    ] {
        create(options).fails_with(1, message);
    }
    dctl(&["network", "create", "bridge"])
        .fails_with(1, "operation is not permitted on predefined bridge network");
    dctl(&["network", "rm", "bridge"])
        .fails_with(1, "bridge is a pre-defined network and cannot be removed");
    let busybox = shared().busybox.as_str();
    let start = |options: &[&str]| {
        let name = Name::new();
        let head = ["run", "--name", name.as_str()];
        dctl(&[&head[..], options, &[busybox, "true"]].concat())
    };
    start(&["--network=no-such-network"]).fails_with(125, "network no-such-network not found");
    start(&["--ip=172.17.0.9"]).fails_with(
        125,
        "user specified IP address is supported on user defined networks only",
    );
    let used = sleeping(&["--network", network.as_str(), "--ip=10.88.0.7"]);
    start(&["--network", network.as_str(), "--ip=10.88.0.7"])
        .fails_with(125, "Address already in use");
    start(&["--network", network.as_str(), "--ip=10.99.0.7"]).fails_with(
        125,
        "no configured subnet or ip-range contain the IP address 10.99.0.7",
    );
    let message = format!("network {} has active endpoints", network.as_str());
    dctl(&["network", "rm", network.as_str()]).fails_with(1, &message);
    let again = ["network", "connect", network.as_str(), used.as_str()];
    dctl(&again).fails_with(1, "already exists in network");
    dctl(&["network", "connect", "host", used.as_str()])
        .fails_with(1, "cannot connect container to host network");
    dctl(&["network", "disconnect", "bridge", used.as_str()])
        .fails_with(1, "is not connected to network bridge");
}

#[test]
fn a_subnet_has_as_many_containers_as_addresses() {
    let network = Network::new(&["--subnet", "10.91.0.0/30"]);
    let options = ["--network", network.as_str()];
    let _only = sleeping(&options);
    let name = Name::new();
    let head = ["run", "--name", name.as_str()];
    let tail = [shared().busybox.as_str(), "true"];
    dctl(&[&head[..], &options, &tail].concat()).fails_with(
        125,
        "no available IPv4 addresses on this network's address pools",
    );
}

#[test]
fn prune_takes_what_nobody_is_in() {
    let label = ["--label", "prune=these"];
    let (used, unused) = (Network::new(&label), Network::new(&label));
    let _user = sleeping(&["--network", used.as_str()]);
    let prune = ["network", "prune", "-f", "--filter", "label=prune=these"];
    let pruned = dctl(&prune).success().text();
    assert_eq!(pruned, format!("Deleted Networks:\n{}", unused.as_str()));
    assert_eq!(names(&["-f", "label=prune=these"]), [used.as_str()]);
}

#[test]
fn what_happens_is_told() {
    let network = Network::name();
    let since = shared()
        .installation
        .dctl(&["info", "--format", "{{.SystemTime}}"]);
    let since = since.success().text();
    dctl(&["network", "create", network.as_str()]).success();
    drop(sleeping(&["--network", network.as_str()]));
    dctl(&["network", "rm", network.as_str()]).success();
    let filter = format!("network={}", network.as_str());
    let until = shared()
        .installation
        .dctl(&["info", "--format", "{{.SystemTime}}"]);
    let until = until.success().text();
    let events = dctl(&[
        "events",
        "--since",
        &since,
        "--until",
        &until,
        "--filter",
        &filter,
        "--format",
        "{{.Action}} {{.Actor.Attributes.type}}",
    ]);
    assert_eq!(
        events.success().text(),
        "create bridge\nconnect bridge\ndisconnect bridge\ndestroy bridge"
    );
}

#[test]
fn docker_s_own_client_understands_all_of_it() {
    let socket = format!("unix://{}", shared().installation.socket().display());
    let docker = |arguments: &[&str]| {
        let mut command = Command::new("docker");
        command.args(arguments).env("DOCKER_HOST", &socket);
        run(&mut command, b"", LONG)
    };
    let network = Network::name();
    let name = network.as_str();
    docker(&[
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "10.92.0.0/24",
        name,
    ])
    .success();
    let container = Name::new();
    docker(&[
        "run",
        "-d",
        "--name",
        container.as_str(),
        "--network",
        name,
        "--ip",
        "10.92.0.9",
        "--network-alias",
        "www",
        &shared().busybox,
        "sleep",
        "600",
    ])
    .success();
    let template = "{{range .Containers}}{{.IPv4Address}}{{end}}";
    let inspect = ["network", "inspect", "--format", template, name];
    assert_eq!(docker(&inspect).success().text(), "10.92.0.9/24");
    let template = "{{range .NetworkSettings.Networks}}{{.Gateway}} {{.IPAddress}}{{end}}";
    let inspect = ["inspect", "--format", template, container.as_str()];
    assert_eq!(docker(&inspect).success().text(), "10.92.0.1 10.92.0.9");
    let listed = docker(&["network", "ls"]).success().text();
    assert!(
        listed
            .lines()
            .any(|line| line.contains(name) && line.contains("bridge"))
    );
    docker(&["network", "disconnect", name, container.as_str()]).success();
    docker(&["network", "connect", "bridge", container.as_str()]).success();
    let template = "{{.NetworkSettings.IPAddress}}";
    let inspect = ["inspect", "--format", template, container.as_str()];
    assert!(docker(&inspect).success().text().starts_with("172.17."));
    docker(&["network", "rm", name]).success();
}
