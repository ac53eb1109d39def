use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown as StdShutdown, TcpListener},
    os::unix::net::UnixStream,
    thread,
};

use tokio::{task::JoinHandle, time::timeout};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A client, the guest's end of the carrier, and the relay between them.
struct Ends {
    client: TcpStream,
    far: UnixStream,
    relayed: JoinHandle<io::Result<End>>,
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn ends() -> Ends {
    let (client, server) = tcp_pair();
    prepare(&server).unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    for socket in [client.as_fd(), far.as_fd()] {
        sockopt::set_socket_timeout(socket, sockopt::Timeout::Recv, Some(PATIENCE)).unwrap();
    }
    let relayed = tokio::spawn(async move { relay(server, near.into()).await });
    Ends {
        client,
        far,
        relayed,
    }
}

impl Ends {
    async fn end(self) -> End {
        timeout(PATIENCE, self.relayed)
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_direction_ends_by_itself() {
    let mut ends = ends();
    let (mut client, mut far) = (
        ends.client.try_clone().unwrap(),
        ends.far.try_clone().unwrap(),
    );
    blocking(move || {
        client.write_all(b"request").unwrap();
        client.shutdown(StdShutdown::Write).unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        assert_eq!(text, "request");
        far.write_all(b"answer").unwrap();
        far.shutdown(StdShutdown::Write).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
    })
    .await;
    assert_eq!((&mut ends.relayed).await.unwrap().unwrap(), End::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_the_client_closes_the_carrier_as_a_whole() {
    let ends = ends();
    let mut client = ends.client.try_clone().unwrap();
    let mut far = ends.far.try_clone().unwrap();
    blocking(move || {
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        far.read_exact(&mut byte).unwrap();
        reset_on_close(&client);
    })
    .await;
    let Ends {
        client,
        mut far,
        relayed,
    } = ends;
    drop(client);
    assert_eq!(
        timeout(PATIENCE, relayed).await.unwrap().unwrap().unwrap(),
        End::Reset
    );
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    assert!(is_closed(&far.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_carrier_that_breaks_off_resets_the_client() {
    let ends = ends();
    let mut client = ends.client.try_clone().unwrap();
    let Ends { far, relayed, .. } = ends;
    drop(far);
    let error = blocking(move || client.read(&mut [0; 16]).unwrap_err()).await;
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(relayed.await.unwrap().unwrap(), End::Reset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn megabytes_pass_whole_both_ways_at_once() {
    const SIZE: usize = 32 << 20;
    // No period that a buffer could hide a loss in.
    let bytes: Vec<u8> = (0..SIZE as u32 / 4)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let ends = ends();
    let mut pumps = Vec::new();
    let mut pump = |mut write: Box<dyn Write + Send>, end: Box<dyn FnOnce() + Send>| {
        let bytes = bytes.clone();
        pumps.push(thread::spawn(move || {
            write.write_all(&bytes).unwrap();
            end();
        }));
    };
    let (client, far) = (&ends.client, &ends.far);
    let (one, other) = (client.try_clone().unwrap(), client.try_clone().unwrap());
    pump(
        Box::new(one),
        Box::new(move || other.shutdown(StdShutdown::Write).unwrap()),
    );
    let (one, other) = (far.try_clone().unwrap(), far.try_clone().unwrap());
    pump(
        Box::new(one),
        Box::new(move || other.shutdown(StdShutdown::Write).unwrap()),
    );
    let readers: [Box<dyn Read + Send>; 2] = [
        Box::new(client.try_clone().unwrap()),
        Box::new(far.try_clone().unwrap()),
    ];
    for mut reader in readers {
        let bytes = bytes.clone();
        pumps.push(thread::spawn(move || {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).unwrap();
            assert!(
                received == bytes,
                "{} bytes came, or others",
                received.len()
            );
        }));
    }
    blocking(move || pumps.into_iter().for_each(|pump| pump.join().unwrap())).await;
    assert_eq!(ends.end().await, End::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_slow_holds_its_writer_back() {
    let ends = ends();
    let client = ends.client.try_clone().unwrap();
    client.set_nonblocking(true).unwrap();
    let mut written = 0_usize;
    let block = vec![7; 64 * 1024];
    let mut quiet = 0;
    // Full when nothing went in for a while.
    while quiet < 10 {
        match (&client).write(&block) {
            Ok(count) => {
                written += count;
                quiet = 0;
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                quiet += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        assert!(written < 64 << 20, "nothing holds the writer back");
    }
    client.shutdown(StdShutdown::Write).unwrap();
    let mut far = ends.far.try_clone().unwrap();
    let received = blocking(move || {
        let mut received = Vec::new();
        far.read_to_end(&mut received).unwrap();
        received.len()
    })
    .await;
    assert_eq!(received, written);
    ends.far.shutdown(StdShutdown::Write).unwrap();
    assert_eq!(ends.end().await, End::Closed);
}
