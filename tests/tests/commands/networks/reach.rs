//! Who reaches whom: in a network, between networks, and without one.

use super::{Network, endpoint, exec, reaches, sleeping};
use crate::shared::{Name, dctl, shared};

#[test]
fn containers_of_a_network_talk_by_name() {
    let network = Network::new(&[]);
    let options = ["--network", network.as_str()];
    let server = Name::new();
    let serve = "echo hello > /tmp/index.html; httpd -f -p 80 -h /tmp";
    let head = ["run", "-d", "--name", server.as_str()];
    let tail = [shared().busybox.as_str(), "sh", "-c", serve];
    dctl(&[&head[..], &options, &tail].concat()).success();
    let client = sleeping(&options);
    assert!(reaches(&client, server.as_str()));
    // Until it listens.
    let fetch = format!(
        "for i in 1 2 3 4 5 6 7 8 9; do wget -qO- http://{}/ && exit; sleep 0.3; done; exit 1",
        server.as_str()
    );
    assert_eq!(exec(&client, &fetch).success().text(), "hello");
}

#[test]
fn containers_of_the_default_network_talk_by_address_alone() {
    let (one, other) = (sleeping(&[]), sleeping(&[]));
    let address = endpoint(&other, "bridge", "IPAddress");
    assert!(address.starts_with("172.17."), "{address}");
    assert!(reaches(&one, &address));
    assert!(!reaches(&one, other.as_str()));
}

#[test]
fn networks_are_kept_apart() {
    let (first, second) = (Network::new(&[]), Network::new(&[]));
    let one = sleeping(&["--network", first.as_str()]);
    let other = sleeping(&["--network", second.as_str()]);
    let neighbour = sleeping(&["--network", first.as_str()]);
    let address = endpoint(&other, second.as_str(), "IPAddress");
    assert!(!reaches(&one, &address) && !reaches(&one, other.as_str()));
    assert!(reaches(&one, neighbour.as_str()));
    // In both it reaches both, and is reached from both.
    let both = sleeping(&["--network", first.as_str(), "--network", second.as_str()]);
    assert!(reaches(&both, one.as_str()) && reaches(&both, other.as_str()));
    assert!(reaches(&one, both.as_str()) && reaches(&other, both.as_str()));
    let interfaces = exec(&both, "ls /sys/class/net | grep -c eth").success();
    assert_eq!(interfaces.text(), "2");
}

#[test]
fn an_internal_network_has_no_way_out() {
    let network = Network::new(&["--internal"]);
    let options = ["--network", network.as_str()];
    let (one, other) = (sleeping(&options), sleeping(&options));
    assert!(reaches(&one, other.as_str()));
    assert!(!reaches(&one, "192.168.65.254"));
    let routes = exec(&one, "ip route").success().text();
    assert!(!routes.contains("default"), "{routes}");
    assert_eq!(endpoint(&one, network.as_str(), "Gateway"), "");
}

#[test]
fn containers_can_be_kept_from_each_other() {
    let option = "com.docker.network.bridge.enable_icc=false";
    let network = Network::new(&["-o", option]);
    let options = ["--network", network.as_str()];
    let (one, other) = (sleeping(&options), sleeping(&options));
    assert!(!reaches(
        &one,
        &endpoint(&other, network.as_str(), "IPAddress")
    ));
    assert!(reaches(&one, &endpoint(&one, network.as_str(), "Gateway")));
}

#[test]
fn a_container_comes_and_goes_while_it_runs() {
    let network = Network::new(&["--subnet", "10.93.0.0/24"]);
    let inside = sleeping(&["--network", network.as_str()]);
    let container = sleeping(&[]);
    assert!(!reaches(&inside, container.as_str()));
    dctl(&[
        "network",
        "connect",
        "--ip",
        "10.93.0.77",
        "--alias",
        "late",
        network.as_str(),
        container.as_str(),
    ])
    .success();
    assert!(reaches(&inside, "late") && reaches(&container, inside.as_str()));
    assert_eq!(
        endpoint(&container, network.as_str(), "IPAddress"),
        "10.93.0.77"
    );
    let hosts = exec(&container, "cat /etc/hosts").success().text();
    assert!(
        hosts.contains("10.93.0.77\t") && hosts.contains("172.17."),
        "{hosts}"
    );
    // It is there again after a restart.
    dctl(&["restart", "-t", "0", container.as_str()]).success();
    assert!(reaches(&inside, "late"));
    dctl(&[
        "network",
        "disconnect",
        network.as_str(),
        container.as_str(),
    ])
    .success();
    assert!(!reaches(&inside, "10.93.0.77"));
    let routes = exec(&container, "ip route").success().text();
    assert!(routes.starts_with("default via 172.17.0.1"), "{routes}");
    // Once it has ended, too.
    dctl(&["stop", "-t", "0", container.as_str()]).success();
    dctl(&["network", "connect", network.as_str(), container.as_str()]).success();
    dctl(&["start", container.as_str()]).success();
    assert!(reaches(&inside, container.as_str()));
}

#[test]
fn a_network_can_be_another_container_s_the_machine_s_or_none() {
    let network = Network::new(&[]);
    let owner = sleeping(&["--network", network.as_str(), "-h", "owner"]);
    let join = format!("--network=container:{}", owner.as_str());
    let guest = sleeping(&[&join]);
    let address = endpoint(&owner, network.as_str(), "IPAddress");
    let script = "hostname; ip -4 addr show eth0; cat /etc/hosts";
    let said = exec(&guest, script).success().text();
    assert!(said.starts_with("owner\n"), "{said}");
    assert!(
        said.contains(&format!("inet {address}/")) && said.contains(&format!("{address}\towner"))
    );
    // What it listens to, the other has.
    exec(&guest, "(echo from-guest | nc -l -p 4000 &)").success();
    let fetch = "for i in 1 2 3 4 5 6; do nc 127.0.0.1 4000 < /dev/null && exit; sleep 0.2; done";
    assert_eq!(exec(&owner, fetch).success().text(), "from-guest");

    let none = sleeping(&["--network=none"]);
    assert_eq!(exec(&none, "ls /sys/class/net").success().text(), "lo");
    assert!(reaches(&none, "127.0.0.1") && !reaches(&none, &address));
    let machine = sleeping(&["--network=host"]);
    let interfaces = exec(&machine, "ls /sys/class/net").success().text();
    let others: Vec<_> = interfaces
        .lines()
        .filter(|name| !name.starts_with("veth") && !name.starts_with("br-"))
        .collect();
    assert_eq!(others, ["docker0", "eth0", "lo"]);
    assert!(reaches(&machine, &address));
}
