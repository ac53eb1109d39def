//! Datagrams: a flow for each client, one call to the agent for each flow.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use guest_protocol::{
    datagrams::{DatagramReader, DatagramWriter, MAX_DATAGRAM},
    port::Transport,
};
use tokio::{
    io::BufReader,
    net::UdpSocket,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Target, tcp::say_dropped};

/// A flow ends when nothing has come or gone for so long; Docker's proxy's time.
const IDLE: Duration = Duration::from_secs(90);

/// Datagrams of one client that wait for the guest; more are lost, as on any network.
const QUEUE: usize = 64;

/// Clients of one port at once.
const MOST_FLOWS: usize = 1024;

/// Bytes of datagrams that are read from the guest at once.
const BUFFER: usize = 16 * 1024;

/// Carries datagrams for as long as it is let; its flows end with it.
pub(super) async fn serve(socket: UdpSocket, target: Target) {
    serve_with(socket, target, IDLE).await;
}

async fn serve_with(socket: UdpSocket, target: Target, idle: Duration) {
    let socket = Arc::new(socket);
    let mut flows: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut payload = vec![0; MAX_DATAGRAM];
    loop {
        let datagram = tokio::select! {
            datagram = socket.recv_from(&mut payload) => datagram,
            Some(ended) = tasks.join_next() => {
                if let Ok(client) = ended {
                    flows.remove(&client);
                }
                continue;
            }
        };
        let (length, client) = match datagram {
            Ok(datagram) => datagram,
            // What became of a reply to a client: it is gone.
            Err(error) => {
                tracing::debug!(%error, "a datagram was not received");
                continue;
            }
        };
        let payload = payload.get(..length).unwrap_or_default().to_vec();
        let flow = match flows.get(&client) {
            Some(flow) if !flow.is_closed() => flow,
            // One that has just ended is not yet taken out.
            Some(_) => continue,
            None => {
                let slot = target.slots.clone().try_acquire_owned();
                let (Ok(slot), true) = (slot, flows.len() < MOST_FLOWS) else {
                    say_dropped();
                    continue;
                };
                let (sender, from_client) = mpsc::channel(QUEUE);
                let (socket, target) = (Arc::clone(&socket), target.clone());
                tasks.spawn(async move {
                    if let Err(error) = flow(&socket, client, from_client, &target, idle).await {
                        tracing::debug!(%error, %client, "a flow of datagrams broke off");
                    }
                    drop(slot);
                    client
                });
                flows.entry(client).or_insert(sender)
            }
        };
        // Full: lost.
        let _ = flow.try_send(payload);
    }
}

/// One client's datagrams, until nothing moves for a while.
async fn flow(
    socket: &UdpSocket,
    client: SocketAddr,
    mut from_client: mpsc::Receiver<Vec<u8>>,
    target: &Target,
    idle: Duration,
) -> io::Result<()> {
    let guest = target.open(Transport::Udp).await?;
    let (from_guest, to_guest) = guest.into_split();
    let mut from_guest = DatagramReader::new(BufReader::with_capacity(BUFFER, from_guest));
    let mut to_guest = DatagramWriter::new(to_guest);
    let moved = AtomicU64::new(0);
    let inward = async {
        while let Some(payload) = from_client.recv().await {
            moved.fetch_add(1, Ordering::Relaxed);
            to_guest.write(&payload).await?;
        }
        Ok(())
    };
    let outward = async {
        while let Some(payload) = from_guest.next().await? {
            moved.fetch_add(1, Ordering::Relaxed);
            // What cannot be sent is lost, as on any network.
            let _ = socket.send_to(payload, client).await;
        }
        Ok(())
    };
    let quiet = async {
        let (mut seen, mut since) = (0, Instant::now());
        while since.elapsed() < idle {
            sleep(idle / 8).await;
            let now = moved.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
    };
    tokio::select! {
        result = inward => result,
        result = outward => result,
        () = quiet => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use guest_protocol::{
        frame::{self, Reply},
        methods::Request,
        port::Forwarding,
    };
    use tokio::{net::UnixListener, sync::Semaphore, time::timeout};

    use super::*;
    use crate::tests::engine::agent_at;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// An agent whose containers say twice what they hear; it tells how many flows it
    /// has.
    fn agent(listener: UnixListener, flows: Arc<AtomicU64>) {
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let flows = Arc::clone(&flows);
                tokio::spawn(async move {
                    let request: Request = frame::read(&mut stream).await.unwrap();
                    assert_eq!(request.name(), "Forward");
                    let reply = Reply::Ok(Forwarding::Connected);
                    frame::write(&mut stream, &reply).await.unwrap();
                    flows.fetch_add(1, Ordering::Relaxed);
                    let (from, to) = stream.into_split();
                    let mut from = DatagramReader::new(from);
                    let mut to = DatagramWriter::new(to);
                    while let Some(payload) = from.next().await.unwrap() {
                        to.write(payload).await.unwrap();
                        to.write(payload).await.unwrap();
                    }
                    flows.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
    }

    #[tokio::test]
    async fn each_client_has_a_flow_that_ends_when_it_is_silent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent");
        let flows = Arc::new(AtomicU64::new(0));
        agent(UnixListener::bind(&path).unwrap(), Arc::clone(&flows));
        let slots = Arc::new(Semaphore::new(3));
        let target = Target {
            agent: agent_at(&path),
            container: "web".into(),
            port: 53,
            slots: Arc::clone(&slots),
            opening: Arc::new(Semaphore::new(2)),
        };
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let serving = tokio::spawn(serve_with(server, target, Duration::from_secs(3)));
        let mut clients = Vec::new();
        for number in 0..4_u8 {
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.connect(address).await.unwrap();
            client.send(&[number; 1000]).await.unwrap();
            let mut answer = [0; 2000];
            // There is room for three.
            let has_room = number < 3;
            let within = if has_room {
                PATIENCE
            } else {
                Duration::from_millis(300)
            };
            let received = timeout(within, async {
                for _ in 0..2 {
                    let length = client.recv(&mut answer).await.unwrap();
                    assert_eq!(answer[..length], [number; 1000]);
                }
            });
            assert_eq!(received.await.is_ok(), has_room);
            clients.push(client);
        }
        let ended = async {
            while flows.load(Ordering::Relaxed) > 0 || slots.available_permits() < 3 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, ended).await.unwrap();
        clients[3].send(b"again").await.unwrap();
        let mut answer = [0; 16];
        let length = timeout(PATIENCE, clients[3].recv(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&answer[..length], b"again");
        // Its flows go with the port.
        serving.abort();
        let ended = async {
            while flows.load(Ordering::Relaxed) > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, ended).await.unwrap();
    }
}
