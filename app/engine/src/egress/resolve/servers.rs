//! The host's name servers, for what the C library cannot be asked.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// Where they are written down.
const CONFIGURATION: &str = "/etc/resolv.conf";

/// The C library asks so many at most, and each for so long.
const MOST: usize = 3;
const PATIENCE: Duration = Duration::from_secs(5);

const PORT: u16 = 53;

/// Longest message of a server, in bytes.
const LONGEST: usize = 65_535;

/// Has them answer a question; the first that does. Who they are is looked up each
/// time: a network that changes brings others.
pub(super) async fn ask(question: &[u8]) -> io::Result<Vec<u8>> {
    let configuration = tokio::fs::read_to_string(Path::new(CONFIGURATION)).await?;
    ask_one_of(&listed(&configuration), PORT, question).await
}

async fn ask_one_of(servers: &[IpAddr], port: u16, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut problem = io::Error::from(io::ErrorKind::NotFound);
    for server in servers {
        let server = SocketAddr::new(*server, port);
        match timeout(PATIENCE, ask_server(server, question)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => problem = error,
            Err(elapsed) => problem = elapsed.into(),
        }
    }
    Err(problem)
}

/// The servers in a configuration; this host itself when it names none.
fn listed(configuration: &str) -> Vec<IpAddr> {
    let servers = configuration.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().filter(|word| *word == "nameserver");
        address.and_then(|_| words.next()?.parse().ok())
    });
    let mut servers: Vec<IpAddr> = servers.take(MOST).collect();
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    servers
}

async fn ask_server(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let answer = ask_over_udp(server, question).await?;
    let truncated = answer.get(2).is_some_and(|flags| flags & 2 != 0);
    if truncated {
        return ask_over_tcp(server, question).await;
    }
    Ok(answer)
}

async fn ask_over_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut answer).await?;
        // Of what comes, what answers this question.
        if length >= 12 && answer.get(..2) == question.get(..2) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend_from_slice(question);
    stream.write_all(&message).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn servers_are_read_as_the_c_library_does() {
        let configuration = "# nameserver 192.0.2.9\nsearch example.test\nnameserver 192.0.2.1\n\
                             nameserver  2001:db8::1\nnameserver x\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        let expected: Vec<IpAddr> = ["192.0.2.1", "2001:db8::1", "192.0.2.3"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        assert_eq!(listed(configuration), expected);
        assert_eq!(listed(""), [IpAddr::from(Ipv4Addr::LOCALHOST)]);
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_for_a_datagram_comes_over_tcp() {
        let local: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let tcp = TcpListener::bind(local).await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let long = [vec![7, 7], vec![0; 2000]].concat();
        let serve = async {
            let mut buffer = [0; 64];
            let (_, from) = udp.recv_from(&mut buffer).await.unwrap();
            // Another's answer is not taken.
            udp.send_to(&[1; 12], from).await.unwrap();
            let truncated = [7, 7, 0x82, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            udp.send_to(&truncated, from).await.unwrap();
            let (mut stream, _) = tcp.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            stream
                .read_exact(&mut buffer[..usize::from(length)])
                .await
                .unwrap();
            stream.write_u16(long.len() as u16).await.unwrap();
            stream.write_all(&long).await.unwrap();
        };
        let question = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 1];
        let servers = [IpAddr::from(Ipv4Addr::LOCALHOST)];
        let (answer, ()) = tokio::join!(ask_one_of(&servers, address.port(), &question), serve);
        assert_eq!(answer.unwrap(), long);
    }
}
