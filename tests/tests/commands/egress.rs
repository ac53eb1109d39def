//! The way out: containers reach what this host reaches, and learn why not when they
//! do not.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use tests::{Finished, Installation};

use crate::shared::{dctl, shared};

const HOST: &str = "192.168.65.254";

/// Runs `script` in a container on the default network.
fn run(script: &str) -> Finished {
    run_on("bridge", script)
}

fn run_on(network: &str, script: &str) -> Finished {
    let busybox = shared().busybox.as_str();
    let run = ["run", "--rm", "--network", network, busybox, "sh", "-c"];
    dctl(&[&run[..], &[script]].concat())
}

/// A listener on one of this host's addresses that serves each connection by `serve`,
/// for as long as the tests run.
fn server(address: IpAddr, serve: impl Fn(TcpStream) + Send + Copy + 'static) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || serve(stream));
        }
    });
    port
}

fn localhost() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

/// An address of this host that is not its loopback: that from which it would send.
fn address_of_this_host() -> IpAddr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    // Nothing is sent.
    socket.connect("192.0.2.1:9").unwrap();
    socket.local_addr().unwrap().ip()
}

fn greet(mut stream: TcpStream) {
    // Who has gone does not want it.
    let _ = stream.write_all(b"greetings\n");
}

#[test]
fn the_host_is_reached_by_its_name_and_by_its_own_address() {
    let port = server(localhost(), greet);
    for network in ["bridge", "host"] {
        for host in [HOST, "192.168.65.1", "host.docker.internal"] {
            let said = run_on(network, &format!("nc {host} {port} </dev/null")).success();
            assert_eq!(said.text(), "greetings", "{network} {host}");
        }
    }
    let address = address_of_this_host();
    let port = server(address, greet);
    let said = run(&format!("nc {address} {port} </dev/null")).success();
    assert_eq!(said.text(), "greetings");
}

#[test]
fn the_hosts_loopback_is_reached_by_no_other_address() {
    let port = server(localhost(), greet);
    // The machine's own.
    let said = run(&format!("nc 127.0.0.1 {port} </dev/null"));
    assert_eq!(said.text(), "", "{said}");
}

#[test]
fn what_is_refused_is_refused_at_once() {
    let closed = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap().port()
    };
    let begun = Instant::now();
    let said = run(&format!("time nc {HOST} {closed} </dev/null"));
    assert!(said.error().contains("refused"), "{said}");
    assert!(said.error().contains("real\t0m 0"), "{said}");
    assert!(begun.elapsed() < Duration::from_mins(1));
}

#[test]
fn much_is_carried_whole_both_ways_and_ends_are_told_apart() {
    const LENGTH: usize = 32 << 20;
    // Takes all to its end, and only then says what it was.
    let port = server(localhost(), |mut stream| {
        let mut taken = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => break,
                length => taken.update(&buffer[..length]),
            }
        }
        writeln!(stream, "{}", hex::encode(taken.finalize())).unwrap();
    });
    let script = format!(
        "dd if=/dev/urandom of=/tmp/sent bs=1M count=32 2>/dev/null; \
         sha256sum </tmp/sent | cut -d' ' -f1; nc {HOST} {port} </tmp/sent"
    );
    let said = run(&script).success().text();
    let sums: Vec<&str> = said.lines().collect();
    assert_eq!(sums.len(), 2, "{said}");
    assert_eq!(sums[0], sums[1]);

    let content: Vec<u8> = (0..LENGTH).map(|index| (index % 251) as u8).collect();
    let expected = hex::encode(Sha256::digest(&content));
    let port = server(localhost(), |mut stream| {
        let content: Vec<u8> = (0..LENGTH).map(|index| (index % 251) as u8).collect();
        stream.write_all(&content).unwrap();
    });
    let said = run(&format!("nc {HOST} {port} </dev/null | sha256sum")).success();
    assert!(said.text().starts_with(&expected), "{said}");
}

#[test]
fn datagrams_go_out_and_come_back() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            let answer = buffer[..length].to_ascii_uppercase();
            socket.send_to(&answer, from).unwrap();
        }
    });
    // Busybox speaks no UDP; bash does.
    let script =
        format!("exec 3<>/dev/udp/{HOST}/{port}; echo datagram >&3; timeout 30 head -c 9 <&3");
    let debian = shared().debian.as_str();
    let said = dctl(&["run", "--rm", debian, "bash", "-c", &script]);
    assert_eq!(said.text(), "DATAGRAM", "{said}");
}

#[test]
fn the_host_is_pinged() {
    run(&format!("ping -c 2 -W 10 {HOST}")).success();
    let address = address_of_this_host();
    run(&format!("ping -c 1 -s 4000 -W 10 {address}")).success();
}

#[test]
fn names_are_those_of_this_host() {
    // This host's loopback is not the container's.
    let said = run("nslookup -type=a localhost.").success();
    assert!(said.text().contains(HOST), "{said}");
    let unknown = run("nslookup -type=a name.invalid");
    assert!(
        unknown.text().contains("NXDOMAIN") || unknown.error().contains("NXDOMAIN"),
        "{unknown}"
    );
}

#[test]
fn a_policy_counts_at_once() {
    let installation = Installation::new();
    let port = server(localhost(), greet);
    let other = server(localhost(), greet);
    let create = [
        "machine", "create", "policy", "--cpus", "1", "--memory", "512m",
    ];
    let deny = ["--egress-deny", &format!("{HOST}:{port}")];
    installation
        .dctl(&[&create[..], &["--disk", "1g"], &deny].concat())
        .success();
    let dctl =
        |arguments: &[&str]| installation.dctl(&[&["--machine", "policy"], arguments].concat());
    let busybox = shared().busybox.as_str();
    dctl(&["pull", busybox]).success();
    let reach = |port: u16| {
        let script = format!("nc {HOST} {port} </dev/null");
        dctl(&[
            "run",
            "--rm",
            "--network",
            "host",
            busybox,
            "sh",
            "-c",
            &script,
        ])
    };
    assert!(!reach(port).text().contains("greetings"));
    assert_eq!(reach(other).success().text(), "greetings");
    let status = dctl(&["machine", "status"]).success();
    assert!(
        status.text().contains(&format!("{HOST}/32:{port}")),
        "{status}"
    );

    let allow = format!("{HOST}:{port}");
    dctl(&[
        "machine",
        "set",
        "--egress-deny",
        "none",
        "--egress-allow",
        &allow,
    ])
    .success();
    assert_eq!(reach(port).success().text(), "greetings");
    assert!(!reach(other).text().contains("greetings"));
    dctl(&["machine", "set", "--egress-allow", "all"]).success();
    assert_eq!(reach(other).success().text(), "greetings");

    let refused = dctl(&["machine", "set", "--egress-allow", "somewhere"]);
    assert!(refused.error().contains("no destination"), "{refused}");
}
