//! The host's name server gone, silent, and back: containers are told so in time, and
//! what needs no server is resolved all the while.

use std::{
    fs,
    net::UdpSocket,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use tests::{
    command::{LONG, run},
    installation::Part,
};

use crate::Alone;

/// The name server that the engine is told to ask.
const SERVER: &str = "127.9.9.9:53";

/// Runs a command with another `resolv.conf`: `$1`.
const WITH_RESOLVER: &str = r#"mount --bind "$1" /etc/resolv.conf; shift; exec "$@""#;

/// Has the engine ask [`SERVER`] from here on.
fn restart_engine_with_resolver(alone: &Alone) {
    let file = alone.installation.home().join("resolv.conf");
    let server = SERVER.split(':').next().unwrap();
    let text = format!("nameserver {server}\noptions timeout:1 attempts:1\n");
    fs::write(&file, text).unwrap();
    alone.installation.kill(Part::Engine);
    let version = alone.installation.command(&["version"]);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec", WITH_RESOLVER, "sh"])
        .arg(&file)
        .arg(version.get_program())
        .args(version.get_args());
    for (name, value) in version.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    run(&mut command, b"", LONG).success();
}

/// A name server that knows one address of every name.
fn answer(socket: &UdpSocket) {
    let mut message = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut message) {
        let message = &message[..length];
        let labels = 12 + message[12..].iter().position(|byte| *byte == 0).unwrap();
        let question = &message[12..labels + 5];
        let is_a = message[labels + 1..labels + 3] == [0, 1];
        // Its id, "an answer", one question, one record or none.
        let mut reply = message[..2].to_vec();
        reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
        reply.extend(question);
        if is_a {
            // The question's name, type, class, time to live, 192.0.2.7.
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
        }
        // Who asked may have gone.
        let _ = socket.send_to(&reply, from);
    }
}

#[test]
fn a_name_server_that_is_down_is_an_error_and_no_more() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root gives the engine another resolv.conf");
        return;
    }
    let alone = Alone::new();
    restart_engine_with_resolver(&alone);
    let dctl = |arguments: &[&str]| alone.installation.dctl(arguments);
    dctl(&["network", "create", "names"]).success();
    let tail = [alone.busybox.as_str(), "sleep", "600"];
    let head = ["run", "-d", "--network", "names", "--name"];
    dctl(&[&head[..], &["one"], &tail].concat()).success();
    dctl(&[&head[..], &["other"], &tail].concat()).success();
    let look_up = |name: &str| {
        let began = Instant::now();
        let said = dctl(&["exec", "one", "nslookup", "-type=a", name]);
        (format!("{}{}", said.text(), said.error()), began.elapsed())
    };
    let fails = |what: &str| {
        let (said, took) = look_up("down.example.com.");
        assert!(said.contains("SERVFAIL"), "{what}: {said}");
        assert!(took < Duration::from_secs(30), "{what}: {took:?}");
        for (name, expected) in [
            ("host.docker.internal.", "192.168.65.254"),
            ("other.", "172."),
        ] {
            let (said, took) = look_up(name);
            assert!(said.contains(expected), "{what}: {said}");
            assert!(took < Duration::from_secs(10), "{what}: {took:?}");
        }
    };
    fails("nobody listens");
    let socket = UdpSocket::bind(SERVER).unwrap();
    fails("nobody answers");
    thread::spawn(move || answer(&socket));
    let (said, _) = look_up("up.example.com.");
    assert!(said.contains("192.0.2.7"), "{said}");
}
