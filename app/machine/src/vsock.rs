//! The host's end of a machine's vsock: unix sockets that the monitor's vsock
//! device serves.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::Instant,
};

use crate::{Error, Result};

/// `OK 4294967295\n` and room to spare.
const MAX_ANSWER: usize = 32;

/// How long the device's queue of connections may be full, and how often it is tried.
const QUEUE_WITHIN: Duration = Duration::from_secs(10);
const QUEUE_LOOK: Duration = Duration::from_millis(5);

/// Connects to `port` in the guest behind the device at `socket`.
///
/// `Ok(None)` when nobody serves the socket: the machine does not run.
pub(crate) async fn connect(socket: &Path, port: u32) -> Result<Option<UnixStream>> {
    let failed = |error| Error::io("reach the guest through", socket, error);
    let mut stream = match connect_in_turn(socket).await {
        Ok(stream) => stream,
        Err(error) if nobody_listens(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await
        .map_err(failed)?;
    // Byte by byte: what follows the line is the guest's, for whoever called.
    let mut answer = Vec::with_capacity(MAX_ANSWER);
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => break,
            Ok(byte) if answer.len() < MAX_ANSWER => answer.push(byte),
            Ok(_) => return Err(not_agreed()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                return Err(Error::Refused { port });
            }
            Err(error) => return Err(failed(error)),
        }
    }
    if answer.starts_with(b"OK ") {
        Ok(Some(stream))
    } else {
        Err(not_agreed())
    }
}

/// Connects; when many do so at once, as soon as the queue has room.
async fn connect_in_turn(socket: &Path) -> io::Result<UnixStream> {
    let deadline = Instant::now() + QUEUE_WITHIN;
    loop {
        match UnixStream::connect(socket).await {
            // A unix socket tells nobody when its queue has room.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() > deadline {
                    return Err(error);
                }
                tokio::time::sleep(QUEUE_LOOK).await;
            }
            result => return result,
        }
    }
}

/// Listens where the guest's connections to one host port arrive.
pub(crate) fn listen(socket: &Path) -> Result<UnixListener> {
    let failed = |error| Error::io("listen on", socket, error);
    let listener = UnixListener::bind(socket).map_err(failed)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Whether a connect failed because no process serves the socket.
pub(crate) fn nobody_listens(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn not_agreed() -> Error {
    Error::Monitor("its vsock device gave an answer that was not understood".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that answers the first connection with `answer`.
    async fn device(answer: &'static [u8]) -> Result<Option<UnixStream>> {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("vsock.sock");
        let listener = listen(&socket).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 13];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"CONNECT 1024\n");
            stream.write_all(answer).await.unwrap();
        };
        tokio::join!(connect(&socket, 1024), serve).0
    }

    #[tokio::test]
    async fn the_stream_begins_after_the_answer() {
        let mut stream = device(b"OK 1073741824\nguest").await.unwrap().unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "guest");
    }

    #[tokio::test]
    async fn a_closed_connection_is_a_refusal_and_nonsense_an_error() {
        assert!(matches!(
            device(b"").await,
            Err(Error::Refused { port: 1024 })
        ));
        assert!(matches!(device(b"NO\n").await, Err(Error::Monitor(_))));
        assert!(matches!(device(&[b'x'; 100]).await, Err(Error::Monitor(_))));
    }

    #[tokio::test]
    async fn a_queue_that_is_full_is_waited_for() {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vsock.sock");
        let device = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&device, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&device, 0).unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            queued.push(stream);
            assert!(queued.len() < 10, "there is no end to the queue");
        }
        let take = async {
            tokio::time::sleep(QUEUE_LOOK * 3).await;
            rustix::net::accept(&device).unwrap()
        };
        let (connected, _) = tokio::join!(connect_in_turn(&path), take);
        connected.unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_nobody_serves_is_a_machine_that_does_not_run() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("vsock.sock");
        assert!(connect(&socket, 1).await.unwrap().is_none());
        drop(listen(&socket).unwrap());
        assert!(connect(&socket, 1).await.unwrap().is_none());
    }
}
