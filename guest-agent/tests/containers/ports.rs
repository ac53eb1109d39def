//! Connections into containers, and what is kept of published ports.

use std::{
    io::{ErrorKind as IoErrorKind, Read, Write},
    net::Shutdown,
    time::Instant,
};

use guest_protocol::{
    ErrorKind,
    docker::HostConfig,
    methods::*,
    port::{Forwarding, ListeningSocket, PublishedPort, Transport},
};

use crate::{
    remove, stop,
    support::{Call, PATIENCE, TestAgent, command},
};

fn forward(container: &str, port: u16) -> Forward {
    Forward {
        container: container.into(),
        transport: Transport::Tcp,
        port,
    }
}

/// A connection to what listens at `port`, as soon as something does.
fn connected(agent: &TestAgent, container: &str, port: u16) -> Call {
    let began = Instant::now();
    loop {
        let (forwarding, call) = agent.open(forward(container, port)).unwrap();
        if forwarding == Forwarding::Connected {
            return call;
        }
        assert_eq!(forwarding, Forwarding::Refused { errno: 111 });
        assert!(began.elapsed() < PATIENCE, "nobody listens");
    }
}

fn serving(agent: &TestAgent, program: &str, host: HostConfig) -> String {
    let words = [
        "busybox", "nc", "-ll", "-p", "8000", "-e", "sh", "-c", program,
    ];
    let id = agent.create(command(&words), host).unwrap();
    agent.start_container(&id).unwrap();
    id
}

#[test]
fn a_connection_has_two_directions_and_ends_each_by_itself() {
    let agent = TestAgent::start();
    let id = serving(&agent, "cat; echo done", HostConfig::default());
    let mut call = connected(&agent, &id, 8000);
    call.stream.write_all(b"hello ").unwrap();
    call.stream.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    call.stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello done\n");
    // What the host breaks off is broken off inside.
    drop(connected(&agent, &id, 8000));
    let (refused, _) = agent.open(forward(&id, 9)).unwrap();
    assert_eq!(refused, Forwarding::Refused { errno: 111 });
    agent.call(stop(&id, 0)).unwrap();
    let error = agent.open(forward(&id, 8000)).map(|_| ()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    let nobody = agent.open(forward("nobody", 8000)).map(|_| ()).unwrap_err();
    assert_eq!(nobody.kind, ErrorKind::NotFound);
}

#[test]
fn a_container_that_is_killed_ends_its_connections() {
    let agent = TestAgent::start();
    let id = serving(&agent, "cat", HostConfig::default());
    let mut call = connected(&agent, &id, 8000);
    call.stream.write_all(b"x").unwrap();
    call.stream.read_exact(&mut [0]).unwrap();
    agent.call(remove(&id, true)).unwrap();
    match call.stream.read(&mut [0; 8]) {
        Ok(0) => {}
        Err(error) => assert_eq!(error.kind(), IoErrorKind::ConnectionReset),
        Ok(_) => panic!("there is nothing to say"),
    }
}

#[test]
fn many_connections_leave_calls_alone_and_nothing_behind() {
    let agent = TestAgent::start();
    let id = serving(&agent, "cat", HostConfig::default());
    drop(connected(&agent, &id, 8000));
    let files = agent.open_files();
    let calls: Vec<_> = (0..300).map(|_| connected(&agent, &id, 8000)).collect();
    agent.inspect(&id).unwrap();
    drop(calls);
    let began = Instant::now();
    while agent.open_files() > files {
        assert!(began.elapsed() < PATIENCE, "descriptors are left over");
    }
}

#[test]
fn published_ports_are_kept_with_the_container() {
    let mut agent = TestAgent::start();
    let id = agent
        .create(command(&["true"]), HostConfig::default())
        .unwrap();
    let ports = vec![PublishedPort {
        container_port: 80,
        transport: Transport::Tcp,
        host_ip: "::".into(),
        host_port: 32_768,
    }];
    agent
        .call(ContainerPorts {
            container: id.clone(),
            ports: ports.clone(),
        })
        .unwrap();
    agent.kill_and_start();
    assert_eq!(agent.inspect(&id).unwrap().ports, ports);
}

#[test]
fn sockets_in_the_machine_s_network_are_told_of_and_reached() {
    let agent = TestAgent::start();
    let ((), mut told) = agent.open(ListeningSockets {}).unwrap();
    assert!(told.receive::<Vec<ListeningSocket>>().is_empty());
    let port = 34_157;
    let words = ["busybox", "nc", "-ll", "-p", "34157", "-e", "cat"];
    let host = HostConfig {
        network_mode: Some("host".into()),
        ..HostConfig::default()
    };
    let id = agent.create(command(&words), host).unwrap();
    agent.start_container(&id).unwrap();
    let sockets: Vec<ListeningSocket> = told.receive();
    let wanted = ListeningSocket {
        container: id.clone(),
        transport: Transport::Tcp,
        port,
    };
    assert_eq!(sockets, [wanted]);
    let mut call = connected(&agent, &id, port);
    call.stream.write_all(b"x").unwrap();
    call.stream.read_exact(&mut [0]).unwrap();
    agent.call(stop(&id, 0)).unwrap();
    assert!(told.receive::<Vec<ListeningSocket>>().is_empty());
}
