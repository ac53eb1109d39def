//! The name server that every container asks, at 127.0.0.11 port 53 of its own network
//! namespace: UDP and TCP.
//!
//! It answers what [`Names`] knows and the names of the host, and has all else answered
//! by an [`Upstream`]. Its sockets are made in the container's namespace and used from
//! here. [`message`] reads and writes what travels. It knows nothing of networks.

pub(crate) mod message;
mod upstream;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket},
    sync::Arc,
    time::Duration,
};

use guest_protocol::network::{GATEWAY_IPV4, HOST_IPV4, HOST_IPV6};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};

use self::message::{A, AAAA, Code, Question, Record, Unanswerable};
pub(super) use self::upstream::Upstream;
use super::namespace::Namespace;
use crate::nftables::{BaseChain, Chain, ChainType, Hook, Rule, Table, TransportProtocol};

/// Where containers ask; Docker's.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

const PORT: u16 = 53;

/// How many questions of a container are answered at once; further ones are dropped,
/// and asked again by who asked.
const MOST_QUESTIONS: usize = 128;

/// How many TCP connections of a container are open at once.
const MOST_CONNECTIONS: usize = 16;

/// How long a TCP connection may be silent.
const IDLE: Duration = Duration::from_secs(10);

/// The largest question, in bytes.
const LARGEST_QUESTION: usize = 4096;

/// The largest message over UDP, in bytes: more is not said to the loopback's other
/// end either.
const LARGEST_DATAGRAM: usize = 4096;

/// What a server knows by itself.
pub(super) trait Names: std::fmt::Debug + Send + Sync {
    /// The addresses of a name, both families'; `None` when there is no such name here.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>>;

    /// The name of an address.
    fn name_of(&self, address: IpAddr) -> Option<String>;

    /// Whether names that are not known here may be asked for elsewhere.
    fn may_ask_outside(&self) -> bool;

    /// Whether the asking side can use IPv6 addresses of the host.
    fn has_ipv6(&self) -> bool;
}

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What answers, shared by all questions.
#[derive(Debug)]
struct Answering {
    namespace: Namespace,
    names: Arc<dyn Names>,
    upstream: Upstream,
    slots: Arc<Semaphore>,
}

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

impl Server {
    /// Serves in `namespace` until it is dropped. Takes a tokio runtime.
    ///
    /// # Errors
    /// When the sockets cannot be made there.
    pub(super) fn start(
        namespace: &Namespace,
        names: Arc<dyn Names>,
        upstream: Upstream,
    ) -> io::Result<Self> {
        let (udp, tcp) = namespace.run(listen)??;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let (udp, tcp) = (UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?);
        let answering = Arc::new(Answering {
            namespace: namespace.clone(),
            names,
            upstream,
            slots: Arc::new(Semaphore::new(MOST_QUESTIONS)),
        });
        Ok(Self {
            tasks: vec![
                tokio::spawn(serve_udp(Arc::new(udp), Arc::clone(&answering))),
                tokio::spawn(serve_tcp(tcp, answering)),
            ],
        })
    }
}

/// Makes the sockets, in the calling thread's namespace. They are at ports of nobody's
/// choice, to which questions are led: port 53 of all addresses is the container's own.
fn listen() -> io::Result<(StdUdpSocket, StdTcpListener)> {
    let any_port = SocketAddr::from((ADDRESS, 0));
    let (udp, tcp) = (
        StdUdpSocket::bind(any_port)?,
        StdTcpListener::bind(any_port)?,
    );
    let led = [
        (TransportProtocol::Udp, udp.local_addr()?.port()),
        (TransportProtocol::Tcp, tcp.local_addr()?.port()),
    ]
    .map(|(protocol, port)| {
        Rule::new()
            .destination(IpAddr::V4(ADDRESS))
            .destination_port(protocol, PORT)
            .destination_nat(IpAddr::V4(ADDRESS), port)
    });
    let output = BaseChain {
        kind: ChainType::Nat,
        hook: Hook::Output,
        priority: -100,
    };
    Table::new("dctl-dns")
        .chain(Chain::base("output", output).rules(led))
        .replace()
        .map_err(io::Error::other)?;
    Ok((udp, tcp))
}

async fn serve_udp(socket: Arc<UdpSocket>, answering: Arc<Answering>) {
    let mut buffer = vec![0; LARGEST_QUESTION];
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // A client that has closed its socket makes the next call fail.
                tracing::debug!("a question was lost: {error}");
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&answering.slots).try_acquire_owned() else {
            continue;
        };
        let message = buffer[..length].to_vec();
        let (socket, answering) = (Arc::clone(&socket), Arc::clone(&answering));
        tokio::spawn(async move {
            if let Some(reply) = answering.answer(&message, Transport::Udp).await
                && let Err(error) = socket.send_to(&reply, peer).await
            {
                tracing::debug!("a name server's reply was lost: {error}");
            }
            drop(slot);
        });
    }
}

async fn serve_tcp(listener: TcpListener, answering: Arc<Answering>) {
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        // Never closed, so this cannot fail.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answering = Arc::clone(&answering);
                tokio::spawn(async move {
                    if let Err(error) = serve_connection(stream, &answering).await {
                        tracing::debug!("a connection to a name server ended early: {error}");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::debug!("a connection to a name server was lost: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Questions on a connection, each after its length (RFC 1035, 4.2.2).
async fn serve_connection(mut stream: TcpStream, answering: &Answering) -> io::Result<()> {
    loop {
        let length = match timeout(IDLE, stream.read_u16()).await {
            Ok(Ok(length)) => usize::from(length),
            // Silent for too long, or at its end.
            Err(_) => return Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
        };
        if length > LARGEST_QUESTION {
            return Ok(());
        }
        let mut message = vec![0; length];
        timeout(IDLE, stream.read_exact(&mut message)).await??;
        let Some(reply) = answering.answer(&message, Transport::Tcp).await else {
            return Ok(());
        };
        let Ok(length) = u16::try_from(reply.len()) else {
            return Ok(());
        };
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(reply);
        timeout(IDLE, stream.write_all(&bytes)).await??;
    }
}

impl Answering {
    /// The reply to a message, if there is to be one.
    async fn answer(&self, message: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let question = match Question::parse(message) {
            Ok(question) => question,
            Err(Unanswerable::Ignored) => return None,
            Err(Unanswerable::Refused(reply)) => return Some(reply),
        };
        let limit = match transport {
            Transport::Udp => question.limit.min(LARGEST_DATAGRAM),
            Transport::Tcp => usize::from(u16::MAX),
        };
        if let Some(records) = self.records(&question) {
            return Some(question.answer(&records, limit));
        }
        if !self.names.may_ask_outside() {
            return Some(question.fail(Code::ServerFailure));
        }
        let reply = self
            .upstream
            .ask(&self.namespace, message, transport)
            .await
            .inspect_err(|error| tracing::debug!("a name was not resolved: {error}"));
        Some(match reply {
            Ok(reply) if !question.is_answered_by(&reply) => question.fail(Code::ServerFailure),
            Ok(reply) if reply.len() > limit => question.truncated(),
            Ok(reply) => reply,
            Err(_) => question.fail(Code::ServerFailure),
        })
    }

    /// What is known here; `None` when it is nothing.
    fn records(&self, question: &Question<'_>) -> Option<Vec<Record>> {
        if let Some(address) = question.address() {
            let name = self.names.name_of(address)?;
            return Some(vec![Record::Name(name)]);
        }
        let name = question.name.as_deref()?;
        let mut addresses = self
            .host_addresses(name)
            .or_else(|| self.names.addresses(name))?;
        addresses.retain(|address| question.asks_for(if address.is_ipv6() { AAAA } else { A }));
        // Of those who share a name, each is the first in turn.
        fastrand::shuffle(&mut addresses);
        Some(addresses.into_iter().map(Record::Address).collect())
    }

    fn host_addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        if name.eq_ignore_ascii_case("host.docker.internal") {
            let mut addresses = vec![IpAddr::V4(HOST_IPV4)];
            if self.names.has_ipv6() {
                addresses.push(IpAddr::V6(HOST_IPV6));
            }
            return Some(addresses);
        }
        name.eq_ignore_ascii_case("gateway.docker.internal")
            .then(|| vec![IpAddr::V4(GATEWAY_IPV4)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::namespace::tests::new_namespace;

    /// Two that are called `web`, and nobody else.
    #[derive(Debug)]
    struct Two;

    impl Names for Two {
        fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
            let two = ["10.1.0.2", "10.1.0.3"].map(|text| text.parse().unwrap());
            (name == "web").then(|| two.to_vec())
        }

        fn name_of(&self, address: IpAddr) -> Option<String> {
            (address == IpAddr::from([10, 1, 0, 2])).then(|| "one.net".to_owned())
        }

        fn may_ask_outside(&self) -> bool {
            true
        }

        fn has_ipv6(&self) -> bool {
            false
        }
    }

    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend(label.as_bytes());
        }
        message.push(0);
        message.extend([kind.to_be_bytes(), [0, 1]].concat());
        message
    }

    /// Code and number of answers of the reply over UDP.
    async fn ask(namespace: &Namespace, message: Vec<u8>) -> (u8, u8, Vec<u8>) {
        let reply = namespace
            .perform(move || -> io::Result<Vec<u8>> {
                let socket = StdUdpSocket::bind("127.0.0.1:0")?;
                socket.set_read_timeout(Some(Duration::from_secs(20)))?;
                socket.send_to(&message, (ADDRESS, PORT))?;
                let mut reply = [0; 2000];
                let (length, _) = socket.recv_from(&mut reply)?;
                Ok(reply[..length].to_vec())
            })
            .await
            .unwrap()
            .unwrap();
        (reply[3] & 0x0f, reply[7], reply)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn names_are_served_in_a_namespace() {
        let namespace = new_namespace();
        // Somebody's own server, which refuses.
        let other = namespace
            .run(|| StdUdpSocket::bind("127.0.0.1:53"))
            .unwrap()
            .unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = other.recv_from(&mut buffer) {
                buffer[2] |= 0x80;
                buffer[3] = 5;
                other.send_to(&buffer[..length], peer).unwrap();
            }
        });
        let upstream = Upstream::Servers(vec![Ipv4Addr::LOCALHOST.into()]);
        let server = Server::start(&namespace, Arc::new(Two), upstream).unwrap();
        let mut first = [false; 2];
        while first != [true; 2] {
            let (code, answers, reply) = ask(&namespace, question("web", A)).await;
            assert_eq!((code, answers), (0, 2));
            first[usize::from(reply[reply.len() - 17] == 3)] = true;
        }
        assert_eq!(ask(&namespace, question("web", AAAA)).await.1, 0);
        let reverse = question("2.0.1.10.in-addr.arpa", message::PTR);
        assert_eq!(ask(&namespace, reverse).await.1, 1);
        assert_eq!(
            ask(&namespace, question("Host.Docker.internal", A)).await.1,
            1
        );
        // Passed on, reply and all.
        assert_eq!(ask(&namespace, question("else", A)).await.0, 5);
        // Over TCP, twice on a connection, and nonsense in between is survived.
        let replies = namespace
            .perform(|| -> io::Result<Vec<u8>> {
                use std::io::{Read, Write};
                let nonsense = StdUdpSocket::bind("127.0.0.1:0")?;
                nonsense.send_to(&[1, 2, 3], (ADDRESS, PORT))?;
                let mut stream = std::net::TcpStream::connect((ADDRESS, PORT))?;
                stream.set_read_timeout(Some(Duration::from_secs(20)))?;
                let message = question("web", A);
                let mut answers = Vec::new();
                for _ in 0..2 {
                    stream.write_all(&u16::try_from(message.len()).unwrap().to_be_bytes())?;
                    stream.write_all(&message)?;
                    let mut length = [0; 2];
                    stream.read_exact(&mut length)?;
                    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut reply)?;
                    answers.push(reply[7]);
                }
                Ok(answers)
            })
            .await
            .unwrap()
            .unwrap();
        assert_eq!(replies, [2, 2]);
        drop(server);
    }
}
