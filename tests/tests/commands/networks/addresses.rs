//! Addresses: those that are asked for, IPv6, hardware addresses, interfaces.

use super::{Network, endpoint, exec, reaches, sleeping};
use crate::shared::dctl;

#[test]
fn addresses_are_as_asked_for() {
    let network = Network::new(&[
        "--subnet=10.94.0.0/16",
        "--ip-range=10.94.5.0/24",
        "--gateway=10.94.5.254",
        "--aux-address=router=10.94.5.0",
        "-o",
        "com.docker.network.driver.mtu=1400",
    ]);
    let long = format!(
        "--network=name={},ip=10.94.9.9,mac-address=02:00:00:00:00:99,alias=nine",
        network.as_str()
    );
    let fixed = sleeping(&[&long]);
    let next = sleeping(&["--network", network.as_str()]);
    assert_eq!(endpoint(&fixed, network.as_str(), "IPAddress"), "10.94.9.9");
    assert_eq!(
        endpoint(&fixed, network.as_str(), "MacAddress"),
        "02:00:00:00:00:99"
    );
    // The lowest of the range that nobody has.
    assert_eq!(endpoint(&next, network.as_str(), "IPAddress"), "10.94.5.1");
    assert_eq!(
        endpoint(&next, network.as_str(), "MacAddress"),
        "02:42:0a:5e:05:01"
    );
    assert!(reaches(&next, "nine"));
    let said = exec(&fixed, "ip addr show eth0; ip route").success().text();
    for part in [
        "mtu 1400",
        "02:00:00:00:00:99",
        "10.94.9.9/16",
        "default via 10.94.5.254",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // An address is free again with its container.
    dctl(&["stop", "-t", "0", next.as_str()]).success();
    assert_eq!(endpoint(&next, network.as_str(), "IPAddress"), "");
    let after = sleeping(&["--network", network.as_str()]);
    assert_eq!(endpoint(&after, network.as_str(), "IPAddress"), "10.94.5.1");
}

#[test]
fn a_network_can_have_ipv6() {
    let network = Network::new(&["--ipv6", "--subnet=10.95.0.0/24", "--subnet=fd00:95::/64"]);
    let one = sleeping(&["--network", network.as_str(), "--ip6=fd00:95::77"]);
    let other = sleeping(&["--network", network.as_str()]);
    assert_eq!(
        endpoint(&one, network.as_str(), "GlobalIPv6Address"),
        "fd00:95::77"
    );
    assert!(exec(&other, &format!("ping -6 -c 1 -W 2 {}", one.as_str())).code() == 0);
    let routes = exec(&other, "ip -6 route").success().text();
    assert!(routes.contains("default via fd00:95::1"), "{routes}");
    // Another network has none unless it is asked for.
    let plain = sleeping(&[]);
    let said = exec(&plain, "ip addr show eth0").success().text();
    assert!(!said.contains("inet6"), "{said}");
    // Without a subnet it gets one of its own.
    let local = Network::new(&["--ipv6", "--ipv4=false"]);
    let alone = sleeping(&["--network", local.as_str()]);
    assert!(endpoint(&alone, local.as_str(), "GlobalIPv6Address").starts_with("fd"));
    assert_eq!(endpoint(&alone, local.as_str(), "IPAddress"), "");
}
