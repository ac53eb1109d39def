//! The way out with a guest that speaks the protocol by hand, and real sockets of
//! this host.

use std::net::{Ipv4Addr, Ipv6Addr};

use dctl_machine::{Paths, Settings};
use guest_protocol::{
    datagrams::{DatagramReader, DatagramWriter},
    egress::{Answer, GATEWAY, HOST, HOST_V6, Message},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// A stream of a machine's guest that has asked for something, and the answer.
async fn ask(settings: &Settings, request: &Request) -> (UnixStream, Answer) {
    let home = tempfile::tempdir().unwrap();
    let files = Paths::under(home.path()).machine("default").unwrap();
    settings.save(&files).unwrap();
    let policy = Arc::new(Policy::of(files));
    let (mut guest, host) = UnixStream::pair().unwrap();
    serve(host, &Arc::new(Semaphore::new(1)), &policy);
    frame::write(&mut guest, request).await.unwrap();
    let answer = timeout(PATIENCE, frame::read(&mut guest)).await;
    (guest, answer.unwrap().unwrap())
}

async fn refused(request: &Request) -> Refusal {
    ask(&Settings::default(), request).await.1.unwrap_err()
}

#[tokio::test]
async fn a_connection_reaches_the_hosts_loopback_by_its_names_alone() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in [HOST.into(), GATEWAY.into(), HOST_V6.into()] {
        let host: std::net::IpAddr = host;
        let (mut guest, answer) =
            ask(&Settings::default(), &Request::Tcp((host, port).into())).await;
        assert_eq!(answer, Ok(()));
        let (mut server, _) = listener.accept().await.unwrap();
        guest.write_all(b"question").await.unwrap();
        guest.shutdown().await.unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "question");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        text.clear();
        guest.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");
    }
    let direct = Request::Tcp((Ipv4Addr::LOCALHOST, port).into());
    assert_eq!(refused(&direct).await, Refusal::Prohibited);
    let denied = Settings {
        egress_deny: vec![format!("{HOST}:{port}").parse().unwrap()],
        ..Settings::default()
    };
    let (_, answer) = ask(&denied, &Request::Tcp((HOST, port).into())).await;
    assert_eq!(answer, Err(Refusal::Prohibited));
}

#[tokio::test]
async fn a_server_on_ipv6_alone_is_reached_and_a_closed_port_refused() {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let request = Request::Tcp((HOST, port).into());
    let (_guest, answer) = ask(&Settings::default(), &request).await;
    assert_eq!(answer, Ok(()));
    drop(listener);
    assert_eq!(refused(&request).await, Refusal::Refused);
}

#[tokio::test]
async fn datagrams_go_both_ways_and_a_refusal_comes_back() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let request = Request::Udp((HOST, port).into());
    let (guest, answer) = ask(&Settings::default(), &request).await;
    assert_eq!(answer, Ok(()));
    let (reader, writer) = guest.into_split();
    let (mut reader, mut writer) = (DatagramReader::new(reader), DatagramWriter::new(writer));
    let mut message = Vec::new();
    let mut buffer = vec![0; 65_536];
    for payload in [vec![], vec![1], vec![2; 9000]] {
        Message::Payload(&payload).encode(&mut message).unwrap();
        writer.write(&message).await.unwrap();
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!(buffer[..length], payload);
        socket.send_to(&buffer[..length], from).await.unwrap();
        let back = timeout(PATIENCE, reader.next()).await.unwrap().unwrap();
        assert_eq!(
            Message::decode(back.unwrap()),
            Some(Message::Payload(&payload))
        );
    }
    drop(socket);
    writer.write(&message).await.unwrap();
    let back = timeout(PATIENCE, reader.next()).await.unwrap().unwrap();
    let expected = Some(Message::Refusal(Refusal::Refused));
    assert_eq!(Message::decode(back.unwrap()), expected);
}

#[tokio::test]
async fn names_are_resolved_as_the_host_does() {
    let (guest, answer) = ask(&Settings::default(), &Request::Resolve).await;
    assert_eq!(answer, Ok(()));
    let (reader, writer) = guest.into_split();
    let mut question = vec![9, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    question.extend(b"\x09localhost\0\0\x01\0\x01");
    DatagramWriter::new(writer).write(&question).await.unwrap();
    let mut reader = DatagramReader::new(reader);
    let back = timeout(PATIENCE, reader.next()).await.unwrap().unwrap();
    let back = back.unwrap();
    assert_eq!(back[..4], [9, 9, 0x81, 0x80]);
    // The host's loopback is not the container's.
    assert_eq!(back[back.len() - 4..], HOST.octets());
}

#[tokio::test]
async fn a_guest_with_too_many_streams_is_told() {
    let home = tempfile::tempdir().unwrap();
    let files = Paths::under(home.path()).machine("default").unwrap();
    let (mut guest, host) = UnixStream::pair().unwrap();
    serve(
        host,
        &Arc::new(Semaphore::new(0)),
        &Arc::new(Policy::of(files)),
    );
    let answer: Answer = frame::read(&mut guest).await.unwrap();
    assert_eq!(answer, Err(Refusal::TooMany));
}
