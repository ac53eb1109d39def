//! The way out in network namespaces of its own: one is the machine, another a
//! container that is joined to it by a pair of interfaces. The engine is a stand-in
//! that speaks its protocol; what it says depends on the port.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use guest_protocol::{
    datagrams::{DatagramReader, DatagramWriter},
    egress::{Answer, Message, Refusal, Request},
    frame,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::*;
use crate::networks::namespace::Namespace;

const PATIENCE: Duration = Duration::from_secs(10);

/// What the stand-in says of destinations on these ports. On others it connects, and
/// gives back what it gets.
fn refusal(port: u16) -> Option<Refusal> {
    match port {
        1 => Some(Refusal::Refused),
        2 => Some(Refusal::NetworkUnreachable),
        3 => Some(Refusal::HostUnreachable),
        4 => Some(Refusal::Prohibited),
        _ => None,
    }
}

/// The port of a destination that takes [`SLOW`] to connect.
const SLOW_PORT: u16 = 5;
const SLOW: Duration = Duration::from_millis(600);

/// The port of a destination that closes at once, with a reset.
const RESET_PORT: u16 = 6;

async fn stand_in(listener: UnixListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(answer(stream));
    }
}

async fn answer(mut stream: UnixStream) {
    let request: Request = frame::read(&mut stream).await.unwrap();
    let port = match request {
        Request::Tcp(to) => to.port(),
        _ => 0,
    };
    if port == SLOW_PORT {
        tokio::time::sleep(SLOW).await;
    }
    let answer: Answer = refusal(port).map_or(Ok(()), Err);
    frame::write(&mut stream, &answer).await.unwrap();
    match request {
        Request::Tcp(_) if port == RESET_PORT => {}
        Request::Tcp(_) if answer.is_ok() => {
            // To the end, which is answered last.
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            // Closing is for the other side.
            let _ = stream.read(&mut [0]).await;
        }
        Request::Udp(to) => {
            let (reader, writer) = stream.into_split();
            let mut reader = DatagramReader::new(reader);
            let mut writer = DatagramWriter::new(writer);
            let mut buffer = Vec::new();
            while let Some(message) = reader.next().await.unwrap() {
                match refusal(to.port()) {
                    Some(refusal) => Message::Refusal(refusal).encode(&mut buffer).unwrap(),
                    None => buffer = message.to_vec(),
                }
                writer.write(&buffer).await.unwrap();
            }
        }
        Request::Echo(_) => {
            let (mut reader, mut writer) = stream.into_split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
        _ => {}
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

fn namespace_here() -> Namespace {
    Namespace::from(OwnedFd::from(
        File::open("/proc/thread-self/ns/net").unwrap(),
    ))
}

/// A network namespace without a process.
fn new_namespace() -> Namespace {
    let thread = thread::spawn(|| {
        // SAFETY: only the network is left, by a thread that ends.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("tests need root");
        namespace_here()
    });
    thread.join().unwrap()
}

/// Runs a test with a machine around it: it is given the machine's namespace and a
/// container's.
fn with_machine<T: Future<Output = ()>>(test: impl FnOnce(Namespace, Namespace) -> T + Send) {
    thread::scope(|scope| {
        let machine = scope.spawn(|| {
            // SAFETY: only the network is left, by a thread that ends.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("tests need root");
            let container = new_namespace();
            ip("link set lo up");
            ip("link add c0 type veth peer name c1");
            let file = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&container));
            let process = std::process::id();
            ip(&format!("link set c1 netns /proc/{process}/fd/{file}"));
            ip("address add 10.9.0.1/24 dev c0");
            ip("address add fd09::1/64 dev c0 nodad");
            ip("link set c0 up");
            container
                .run(|| {
                    ip("link set lo up");
                    ip("address add 10.9.0.2/24 dev c1");
                    ip("address add fd09::2/64 dev c1 nodad");
                    ip("link set c1 up");
                    ip("route add default via 10.9.0.1");
                    ip("-6 route add default via fd09::1");
                })
                .unwrap();
            let directory = tempfile::tempdir().unwrap();
            let socket = directory.path().join("engine.sock");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::spawn(stand_in(UnixListener::bind(&socket).unwrap()));
                start_with(Settings {
                    engine: Engine::Unix(socket),
                    // What every kernel has, and behaves the same.
                    link_kind: "ifb",
                })
                .unwrap();
                test(namespace_here(), container).await;
            });
        });
        if let Err(panic) = machine.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn connect(to: &str) -> io::Result<TcpStream> {
    let to: SocketAddr = to.parse().unwrap();
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends much, ends, and gets the same back.
fn transfer(to: &str) {
    let mut stream = connect(to).unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|byte| (byte % 251) as u8).collect();
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(sent == got, "{} of {} bytes", got.len(), sent.len());
}

#[test]
fn connections_of_a_container_and_of_the_machine_are_carried_whole() {
    with_machine(|machine, container| async move {
        for namespace in [container, machine] {
            for to in ["198.51.100.7:80", "192.168.65.254:80", "[2001:db8::7]:80"] {
                namespace.perform(move || transfer(to)).await.unwrap();
            }
        }
    });
}

#[test]
fn a_connection_that_fails_fails_inside_as_outside() {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    with_machine(|machine, container| async move {
        for namespace in [container, machine] {
            for (to, expected) in [
                ("198.51.100.7:1", ConnectionRefused),
                ("198.51.100.7:2", NetworkUnreachable),
                ("198.51.100.7:3", HostUnreachable),
                ("198.51.100.7:4", HostUnreachable),
                ("[2001:db8::7]:1", ConnectionRefused),
                ("[2001:db8::7]:2", NetworkUnreachable),
                ("[2001:db8::7]:3", HostUnreachable),
                ("[2001:db8::7]:4", io::ErrorKind::PermissionDenied),
            ] {
                let begun = Instant::now();
                let result = namespace.perform(move || connect(to)).await.unwrap();
                assert_eq!(result.unwrap_err().kind(), expected, "{to}");
                assert!(begun.elapsed() < Duration::from_millis(900), "{to}");
            }
        }
    });
}

#[test]
fn a_slow_connection_is_slow_and_a_reset_a_reset() {
    with_machine(|_, container| async move {
        let begun = Instant::now();
        let slow = container
            .perform(|| connect("198.51.100.7:5"))
            .await
            .unwrap();
        slow.unwrap();
        assert!(begun.elapsed() >= SLOW);
        let reset = container.perform(|| {
            // It may come before the connection is looked at.
            connect("198.51.100.7:6")?.read(&mut [0; 16])
        });
        let error = reset.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn datagrams_go_and_come_back_and_a_refusal_is_told() {
    with_machine(|machine, container| async move {
        for namespace in [container, machine] {
            for (local, to) in [
                ("0.0.0.0:0", "198.51.100.7:80"),
                ("[::]:0", "[2001:db8::7]:80"),
            ] {
                let echo = namespace.perform(move || {
                    let socket = UdpSocket::bind(local).unwrap();
                    socket.set_read_timeout(Some(PATIENCE)).unwrap();
                    socket.connect(to).unwrap();
                    for length in [0, 1, 1400, 9000, 60_000] {
                        let sent = vec![7; length];
                        socket.send(&sent).unwrap();
                        let mut got = vec![0; 65_536];
                        let count = socket.recv(&mut got).unwrap();
                        assert_eq!(got[..count], sent);
                    }
                });
                echo.await.unwrap();
            }
            let refused = namespace.perform(|| {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.connect("198.51.100.7:1").unwrap();
                socket.send(b"?").unwrap();
                socket.recv(&mut [0; 16]).unwrap_err()
            });
            assert_eq!(
                refused.await.unwrap().kind(),
                io::ErrorKind::ConnectionRefused
            );
        }
    });
}

#[test]
fn pings_are_answered() {
    with_machine(|machine, container| async move {
        for namespace in [container, machine] {
            for (to, kind) in [("198.51.100.7", 8), ("2001:db8::7", 128)] {
                let ping = namespace.perform(move || ping(to.parse().unwrap(), kind));
                ping.await.unwrap();
            }
        }
    });
}

/// Sends echo requests of several sizes, and takes the answers.
fn ping(to: std::net::IpAddr, kind: u8) {
    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket, sockopt,
    };
    let (family, skipped) = match to {
        std::net::IpAddr::V4(_) => (AddressFamily::INET, 20),
        std::net::IpAddr::V6(_) => (AddressFamily::INET6, 0),
    };
    let socket = socket(family, SocketType::RAW, Some(sockets::icmp(to))).unwrap();
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE)).unwrap();
    for (sequence, length) in [(1, 0), (2, 56), (3, 5000)] {
        let mut request = packet::echo_reply(to.is_ipv6(), 77, sequence, &vec![9; length]);
        // A reply becomes a request, and its checksum changes by as much.
        if kind == 8 {
            let sum = u16::from_be_bytes([request[2], request[3]]);
            request[2..4].copy_from_slice(&sum.wrapping_sub(0x0800).to_be_bytes());
        }
        request[0] = kind;
        let destination = SocketAddr::new(to, 0);
        sendto(&socket, &request, SendFlags::empty(), &destination).unwrap();
        let expected = packet::echo_reply(to.is_ipv6(), 77, sequence, &vec![9; length]);
        loop {
            let mut got = vec![0; 9000];
            let (count, _) = recv(&socket, &mut got, RecvFlags::empty()).unwrap();
            let got = &got[skipped..count];
            // Others come, too: the request itself, neighbours.
            if got[0] == expected[0] {
                assert_eq!(got[4..], expected[4..]);
                break;
            }
        }
    }
}

#[test]
fn what_is_none_of_these_is_prohibited() {
    with_machine(|_, container| async move {
        let other = container.perform(|| {
            use rustix::net::{AddressFamily, SendFlags, SocketType, sendto, socket};
            let gre = rustix::net::ipproto::GRE;
            let socket = socket(AddressFamily::INET, SocketType::RAW, Some(gre)).unwrap();
            let to: SocketAddr = "198.51.100.7:0".parse().unwrap();
            rustix::net::connect(&socket, &to).unwrap();
            sendto(&socket, &[0; 8], SendFlags::empty(), &to).unwrap();
            let mut buffer = [0; 64];
            rustix::net::sockopt::set_socket_timeout(
                &socket,
                rustix::net::sockopt::Timeout::Recv,
                Some(PATIENCE),
            )
            .unwrap();
            rustix::net::recv(&socket, &mut buffer, rustix::net::RecvFlags::empty())
                .map(|_| ())
                .unwrap_err()
        });
        assert_eq!(other.await.unwrap(), rustix::io::Errno::HOSTUNREACH);
    });
}
