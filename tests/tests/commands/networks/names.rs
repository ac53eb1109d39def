//! Names: aliases, links, hosts, and the name server.

use super::{Network, endpoint, exec, reaches, sleeping};
use crate::shared::{Name, dctl, shared};

#[test]
fn a_shared_alias_is_all_of_its_containers() {
    let network = Network::new(&[]);
    let options = ["--network", network.as_str(), "--network-alias", "pool"];
    let (one, other) = (sleeping(&options), sleeping(&options));
    let client = sleeping(&["--network", network.as_str()]);
    let mut answered = Vec::new();
    for container in [&one, &other] {
        answered.push(endpoint(container, network.as_str(), "IPAddress"));
    }
    let said = exec(&client, "nslookup pool 127.0.0.11").success().text();
    for address in &answered {
        assert!(said.contains(address), "{said}");
    }
    // In turn.
    let first = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
                 ping -c 1 -W 2 pool | head -1; done | sort -u | wc -l";
    assert_eq!(exec(&client, first).success().text(), "2");
    // The name of an address, and the name with its network's.
    let reverse = format!("nslookup {} 127.0.0.11", answered[0]);
    let said = exec(&client, &reverse).success().text();
    assert!(
        said.contains(&format!("{}.{}", one.as_str(), network.as_str())),
        "{said}"
    );
    assert!(reaches(
        &client,
        &format!("{}.{}", one.as_str(), network.as_str())
    ));
    // One that ended is no more.
    dctl(&["stop", "-t", "0", one.as_str()]).success();
    let said = exec(&client, "nslookup pool 127.0.0.11").success().text();
    assert!(
        !said.contains(&answered[0]) && said.contains(&answered[1]),
        "{said}"
    );
}

#[test]
fn the_host_has_names() {
    let container = sleeping(&[
        "--add-host=my-host:host-gateway",
        "--add-host=other:10.1.2.3",
    ]);
    let said = exec(&container, "cat /etc/hosts /etc/resolv.conf")
        .success()
        .text();
    for line in [
        "192.168.65.254\tmy-host",
        "10.1.2.3\tother",
        "nameserver 127.0.0.11",
    ] {
        assert!(said.contains(line), "{said}");
    }
    for network in ["bridge", "host"] {
        let container = sleeping(&["--network", network]);
        let lookup =
            "nslookup -type=a host.docker.internal; nslookup -type=a gateway.docker.internal";
        let said = exec(&container, lookup).text();
        assert!(
            said.contains("192.168.65.254") && said.contains("192.168.65.1"),
            "{said}"
        );
    }
}

#[test]
fn name_servers_of_the_user_s_are_asked() {
    let network = Network::new(&[]);
    // One that has the same answer to every question.
    let serve = r#"
        $socket = IO::Socket::INET->new(Proto => "udp", LocalPort => 53) or die;
        while ($socket->recv($message, 512)) {
            substr($message, 2, 2) = "\x81\x80";
            substr($message, 6, 2) = "\0\1";
            $answer = "\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x0a\4\5\6";
            $socket->send($message . $answer);
        }"#;
    let server = Name::new();
    dctl(&[
        "run",
        "-d",
        "--name",
        server.as_str(),
        "--network",
        network.as_str(),
        &shared().debian,
        "perl",
        "-MIO::Socket::INET",
        "-e",
        serve,
    ])
    .success();
    let address = endpoint(&server, network.as_str(), "IPAddress");
    let client = sleeping(&["--network", network.as_str(), "--dns", &address]);
    let lookup = "for i in 1 2 3 4 5; do nslookup -type=a example.test | grep 10.4.5.6 && exit; \
                  sleep 0.2; done; exit 1";
    exec(&client, lookup).success();
    // Its own names it knows all the same.
    assert!(reaches(&client, server.as_str()));
}

#[test]
fn links_are_names_and_variables() {
    let target = sleeping(&["--expose", "5432", "-e", "VERSION=9"]);
    let link = format!("--link={}:db", target.as_str());
    let container = sleeping(&[&link]);
    let address = endpoint(&target, "bridge", "IPAddress");
    assert!(reaches(&container, "db") && reaches(&container, target.as_str()));
    // Of the first process: an exec has its own.
    let said = exec(&container, "tr '\\0' '\\n' < /proc/1/environ")
        .success()
        .text();
    for line in [
        format!("DB_PORT=tcp://{address}:5432"),
        format!("DB_PORT_5432_TCP_ADDR={address}"),
        format!("DB_NAME=/{}/db", container.as_str()),
        "DB_ENV_VERSION=9".to_owned(),
    ] {
        assert!(said.lines().any(|found| found == line), "{line}: {said}");
    }
    let shown = shared()
        .installation
        .inspect(container.as_str(), "{{.HostConfig.Links}}");
    assert_eq!(
        shown,
        format!("[/{}:/{}/db]", target.as_str(), container.as_str())
    );
    // In a network of the user's an alias is all there is.
    let network = Network::new(&[]);
    let other = sleeping(&["--network", network.as_str()]);
    let link = format!("--link={}:db", other.as_str());
    let linked = sleeping(&["--network", network.as_str(), &link]);
    let stranger = sleeping(&["--network", network.as_str()]);
    assert!(reaches(&linked, "db") && !reaches(&stranger, "db"));
}
