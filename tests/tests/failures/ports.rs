//! Published ports when what is in between ends: the engine, the container, the
//! machine.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use tests::{
    command::LONG,
    installation::{Part, wait_until},
};

use crate::Alone;

/// Whether what listens at `address` echoes.
fn echoes(address: SocketAddr) -> bool {
    let talk = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"hello")?;
        stream.shutdown(Shutdown::Write)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    talk().is_ok_and(|text| text == "hello")
}

#[test]
fn a_port_outlives_the_engine_its_container_s_end_and_the_machine_s() {
    let alone = Alone::new();
    let installation = &alone.installation;
    let dctl = |arguments: &[&str]| installation.dctl(arguments).success().text();
    let mut run = vec!["run", "-d", "--name", "web", "--restart", "always"];
    run.extend(["-p", "127.0.0.1::80", &alone.busybox]);
    run.extend(["busybox", "nc", "-ll", "-p", "80", "-e", "cat"]);
    dctl(&run);
    let port = dctl(&["port", "web", "80"]);
    let address: SocketAddr = port.parse().unwrap();
    wait_until("it echoes", LONG, || echoes(address));

    installation.kill(Part::Engine);
    TcpStream::connect(address).unwrap_err();
    assert_eq!(dctl(&["port", "web", "80"]), port);
    wait_until("it echoes with a new engine", LONG, || echoes(address));

    dctl(&["restart", "-t", "0", "web"]);
    wait_until("it echoes after a new start", LONG, || echoes(address));
    assert_eq!(dctl(&["port", "web", "80"]), port);

    dctl(&["machine", "stop"]);
    TcpStream::connect(address).unwrap_err();
    dctl(&["machine", "start"]);
    wait_until("it echoes in the machine booted again", LONG, || {
        echoes(address)
    });
    assert_eq!(dctl(&["port", "web", "80"]), port);
}
