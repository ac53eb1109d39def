//! Published ports, from the host's side: what a container listens on is reached, and
//! what is said passes as it is said.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit, setrlimit};
use tests::{
    command::{self, LONG},
    installation::{Part, wait_until},
};

use crate::shared::{Name, dctl, shared};

/// A container of `image` that runs `script`, with `options`.
fn serving(image: &str, options: &[&str], script: &str) -> Name {
    let name = Name::new();
    let arguments = [
        &["run", "-d", "--name", name.as_str()],
        options,
        &[image, "sh", "-c", script],
    ]
    .concat();
    dctl(&arguments).success();
    name
}

/// A container that echoes what comes to its port 80.
fn echoing(options: &[&str]) -> Name {
    serving(
        &shared().busybox,
        options,
        "exec busybox nc -ll -p 80 -e cat",
    )
}

/// Where a port of a container is on the host: the first address that is told.
fn address(name: &Name, port: &str) -> SocketAddr {
    let text = dctl(&["port", name.as_str(), port]).success().text();
    let line = text.lines().next().unwrap();
    line.replace("0.0.0.0", "127.0.0.1").parse().unwrap()
}

/// A connection to what listens at `address`. The host's listener is there first: a
/// connection that finds nobody behind it is reset.
fn connected(address: SocketAddr) -> TcpStream {
    let began = Instant::now();
    loop {
        let stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let alive = match stream.peek(&mut [0]) {
            Ok(length) => length > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        if alive {
            stream.set_read_timeout(Some(LONG)).unwrap();
            return stream;
        }
        assert!(began.elapsed() < LONG, "nobody listens behind {address}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Says `text`, ends, and takes what is said back.
fn echoed(address: SocketAddr, text: &str) -> String {
    let mut stream = connected(address);
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_web_server_is_on_every_address_of_the_host() {
    let script = "mkdir /www; echo it works > /www/index.html; exec busybox httpd -f -h /www";
    let name = serving(&shared().busybox, &["-p", "80"], script);
    let listed = dctl(&["port", name.as_str()]).success().text();
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 2, "{listed}");
    let port = lines[0].strip_prefix("80/tcp -> 0.0.0.0:").unwrap();
    assert_eq!(lines[1], format!("80/tcp -> [::]:{port}"));
    assert!(port.parse::<u16>().unwrap() >= 32_768);
    for host in ["127.0.0.1", "[::1]"] {
        let address = format!("{host}:{port}").parse().unwrap();
        let answer = echoed(address, "GET / HTTP/1.0\r\n\r\n");
        assert!(answer.ends_with("it works\n"), "{answer}");
    }
    let filter = format!("name={}", name.as_str());
    let column = dctl(&["ps", "--filter", &filter, "--format", "{{.Ports}}"]).success();
    assert_eq!(
        column.text(),
        format!("0.0.0.0:{port}->80/tcp, [::]:{port}->80/tcp")
    );
}

#[test]
fn a_hundred_megabytes_pass_both_ways_at_once() {
    const SIZE: usize = 100 << 20;
    let name = echoing(&["-p", "127.0.0.1::80"]);
    let mut stream = connected(address(&name, "80"));
    let bytes: Vec<u8> = (0..SIZE as u32 / 4)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        // The echo of what is on its way still comes.
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::with_capacity(SIZE);
    stream.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(
        received == bytes,
        "{} bytes came, or others",
        received.len()
    );
}

#[test]
fn datagrams_pass_to_each_client_for_itself() {
    let script = r#"exec perl -MSocket -e '
        socket(S, PF_INET, SOCK_DGRAM, 0); bind(S, sockaddr_in(53, INADDR_ANY));
        while (defined($from = recv(S, $text, 65535, 0))) { send(S, "got $text", 0, $from) }'"#;
    let name = serving(&shared().debian, &["-p", "127.0.0.1::53/udp"], script);
    let address = address(&name, "53/udp");
    let clients = [(); 3].map(|()| UdpSocket::bind(("127.0.0.1", 0)).unwrap());
    for (number, client) in clients.iter().enumerate() {
        client.connect(address).unwrap();
        client
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        // The longest that a loopback interface takes whole.
        let text = format!(
            "{number}{}",
            "x".repeat(if number == 2 { 60_000 } else { 3 })
        );
        let mut answer = vec![0; 65_536];
        let began = Instant::now();
        // What comes before the server listens is lost.
        let length = loop {
            client.send(text.as_bytes()).unwrap();
            match client.recv(&mut answer) {
                Ok(length) => break length,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            assert!(began.elapsed() < LONG, "no answer");
        };
        let answer = std::str::from_utf8(&answer[..length]).unwrap();
        assert!(
            answer == format!("got {text}"),
            "client {number}: {length} bytes"
        );
    }
}

#[test]
fn resets_pass_in_both_directions() {
    let script = r#"exec perl -MSocket -e '
        $| = 1; socket(L, PF_INET, SOCK_STREAM, 0); bind(L, sockaddr_in(80, INADDR_ANY)); listen(L, 9);
        while (accept(S, L)) {
            $got = sysread(S, $text, 100); print defined $got ? "read $got\n" : "failed: $!\n";
            if ($text eq "reset me") { setsockopt(S, SOL_SOCKET, SO_LINGER, pack("ii", 1, 0)) }
            elsif ($got) { $got = sysread(S, $text, 100); print defined $got ? "then $got\n" : "failed: $!\n" }
            close S; $text = "";
        }'"#;
    let name = serving(&shared().debian, &["-p", "127.0.0.1::80"], script);
    let address = address(&name, "80");
    let mut stream = connected(address);
    stream.write_all(b"reset me").unwrap();
    let error = stream.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let mut stream = connected(address);
    stream.write_all(b"hello").unwrap();
    let says = |text: &str| {
        let logs = dctl(&["logs", name.as_str()]).success().text();
        logs.contains(text)
    };
    wait_until("it has read", LONG, || says("read 5"));
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    wait_until("it has seen the reset", LONG, || {
        says("failed: Connection reset by peer")
    });
}

#[test]
fn ranges_and_all_exposed_ports() {
    // Two neighbours that are free, most likely also a moment later.
    let first = (40_000..60_000)
        .step_by(7)
        .find(|port| (0..2).all(|next| TcpListener::bind(("0.0.0.0", port + next)).is_ok()))
        .unwrap();
    let range = format!("127.0.0.1:{first}-{}:80-81", first + 1);
    let name = echoing(&["-p", &range]);
    assert_eq!(address(&name, "80").port(), first);
    assert_eq!(address(&name, "81").port(), first + 1);
    assert_eq!(echoed(address(&name, "80"), "hello"), "hello");
    // One of several, whichever is free.
    let range = format!("127.0.0.1:{first}-{}:80", first + 9);
    let other = echoing(&["-p", &range]);
    let port = address(&other, "80").port();
    assert!((first + 2..=first + 9).contains(&port), "{port}");
    assert_eq!(echoed(address(&other, "80"), "hello"), "hello");

    let all = echoing(&["-P", "--expose", "80", "--expose", "90-91/udp"]);
    let listed = dctl(&["port", all.as_str()]).success().text();
    assert_eq!(listed.lines().count(), 6, "{listed}");
    assert_eq!(echoed(address(&all, "80"), "hello"), "hello");
    for (publish, message) in [
        (
            "1-2:3-9",
            "invalid ranges specified for container and host Ports",
        ),
        ("80:x", "invalid containerPort: x"),
        ("x:80", "invalid hostPort: x"),
    ] {
        let busybox = &shared().busybox;
        dctl(&["run", "-p", publish, busybox, "true"]).fails_with(125, message);
    }
}

#[test]
fn a_port_that_is_taken_fails_the_start() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let publish = format!("{address}:80");
    let name = Name::new();
    let busybox = &shared().busybox;
    let run = |name: &Name| {
        dctl(&[
            "run",
            "-d",
            "--name",
            name.as_str(),
            "-p",
            &publish,
            busybox,
            "sleep",
            "600",
        ])
    };
    run(&name).fails_with(
        125,
        &format!("failed to bind host port {address}/tcp: address already in use"),
    );
    let status = shared()
        .installation
        .inspect(name.as_str(), "{{.State.Status}}");
    assert_eq!(status, "created");
    let inspect = |template: &str| shared().installation.inspect(name.as_str(), template);
    let error = inspect("{{.State.ExitCode}} {{.State.Error}}");
    assert!(
        error.starts_with("128 failed to set up container networking: ")
            && error.ends_with(": address already in use"),
        "{error}"
    );
    drop(taken);
    dctl(&["start", name.as_str()]).success();
    assert_eq!(inspect("{{.State.ExitCode}} {{.State.Error}}"), "0");
    let other = Name::new();
    run(&other).fails_with(
        125,
        &format!("Bind for {address} failed: port is already allocated"),
    );
    dctl(&["stop", "-t", "0", name.as_str()]).success();
    TcpListener::bind(address).unwrap();
    dctl(&["start", other.as_str()]).success();
    dctl(&["rm", "-f", other.as_str()]).success();
    TcpListener::bind(address).unwrap();
}

#[test]
fn a_flood_of_connections_leaves_nothing_behind() {
    // More than what is opened at once, and no more than a busy software CPU closes
    // in the time that there is.
    const MANY: usize = 500;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let name = echoing(&["-p", "127.0.0.1::80"]);
    let address = address(&name, "80");
    assert_eq!(echoed(address, "before"), "before");
    let files = || {
        let engine = shared().installation.processes(Part::Engine)[0];
        let folder = format!("/proc/{}/fd", engine.as_raw_nonzero());
        std::fs::read_dir(folder).unwrap().count()
    };
    let before = files();
    let mut streams = Vec::new();
    for _ in 0..MANY {
        streams.push(TcpStream::connect(address).unwrap());
    }
    wait_until("they are carried", LONG, || files() > before + MANY / 2);
    // However many there are, commands get through.
    dctl(&["inspect", name.as_str()]).success();
    drop(streams);
    // Other tests have connections of their own meanwhile.
    wait_until("they are gone", LONG, || files() < before + 100);
    assert_eq!(echoed(address, "after"), "after");
}

#[test]
fn what_listens_in_the_machine_s_network_is_on_the_host_s_loopback() {
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let script = format!("exec busybox nc -ll -p {port} -e cat");
    let name = serving(&shared().busybox, &["--network", "host"], &script);
    for host in ["127.0.0.1", "[::1]"] {
        let address: SocketAddr = format!("{host}:{port}").parse().unwrap();
        wait_until("the port is open", LONG, || {
            TcpStream::connect(address).is_ok()
        });
        assert_eq!(echoed(address, "hello"), "hello");
    }
    dctl(&["stop", "-t", "0", name.as_str()]).success();
    wait_until("the port is closed", LONG, || {
        TcpStream::connect(("127.0.0.1", port)).is_err()
    });
}

#[test]
fn ports_of_the_machine_s_network_are_not_published() {
    let busybox = shared().busybox.as_str();
    let publish = ["--network=host", "-p", "127.0.0.1::80"];
    let said = dctl(&[&["run", "--rm"], &publish[..], &[busybox, "true"]].concat()).success();
    assert_eq!(
        said.error(),
        "WARNING: Published ports are discarded when using host network mode"
    );
}

#[test]
fn docker_s_own_command_line_publishes() {
    let name = Name::new();
    let socket = format!("unix://{}", shared().installation.socket().display());
    let docker = |arguments: &[&str]| {
        let mut docker = Command::new("docker");
        docker.env("DOCKER_HOST", &socket).args(arguments);
        command::run(&mut docker, b"", LONG).success().text()
    };
    let busybox = &shared().busybox;
    docker(&[
        "run",
        "-d",
        "--name",
        name.as_str(),
        "-p",
        "127.0.0.1::80",
        busybox,
        "busybox",
        "nc",
        "-ll",
        "-p",
        "80",
        "-e",
        "cat",
    ]);
    let port = docker(&["port", name.as_str(), "80"]);
    assert_eq!(echoed(port.parse().unwrap(), "hello"), "hello");
    let filter = format!("name={}", name.as_str());
    let column = docker(&["ps", "--filter", &filter, "--format", "{{.Ports}}"]);
    assert_eq!(column, format!("{port}->80/tcp"));
}
