//! Tells the guest what changes on the host in shared files, over one connection to a
//! vsock port of the guest: a frame for each change ([`guest_protocol::replay`]).
//!
//! It goes through the vsock device's own unix socket, as any host process would. A
//! guest that reads too slowly keeps only this thread waiting: the host then counts
//! changes no more one by one.

use std::{
    io::{self, Read, Write},
    ops::ControlFlow,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use guest_protocol::{frame, replay::Change};
use shares::{Server, watch::Watcher};

use super::on_own_thread;
use crate::{config::VsockConfig, sandbox::FileConfinement};

/// More directories than this are not watched: each takes some 1 KiB of the kernel.
const MOST_DIRECTORIES: usize = 100_000;

/// A guest that takes nothing for so long is not told any more, until the next change.
const PATIENCE: Duration = Duration::from_secs(5);

/// Before a guest that does not listen is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Watches what `server` exports, on a thread of its own, for as long as the process
/// lives.
pub(super) fn tell(
    server: Arc<Server>,
    vsock: &VsockConfig,
    port: u32,
    confinement: &FileConfinement,
) -> io::Result<()> {
    let watcher = Watcher::new(server, MOST_DIRECTORIES)?;
    let mut guest = Guest {
        socket: vsock.socket.clone(),
        port,
        connection: None,
        tried: None,
    };
    on_own_thread("shares-changes", confinement, move || {
        let outcome = watcher.run(|change| {
            guest.tell(&change);
            ControlFlow::Continue(())
        });
        if let Err(error) = outcome {
            tracing::error!(%error, "changes of shared files are not seen any more");
        }
    })
}

/// Where changes are told.
struct Guest {
    socket: PathBuf,
    port: u32,
    connection: Option<UnixStream>,
    /// When it did not listen.
    tried: Option<Instant>,
}

impl Guest {
    /// Tells a change. One that cannot be told is lost: nobody watches in a guest that
    /// does not listen.
    fn tell(&mut self, change: &Change) {
        let Ok(frame) = frame::encode(change) else {
            return;
        };
        if self.connection.is_none() {
            if self.tried.is_some_and(|tried| tried.elapsed() < RETRY) {
                return;
            }
            match self.connect() {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => {
                    tracing::debug!(%error, "the guest hears of no changes");
                    self.tried = Some(Instant::now());
                    return;
                }
            }
        }
        if let Some(connection) = &mut self.connection
            && let Err(error) = connection.write_all(&frame)
        {
            tracing::warn!(%error, "the guest hears of no changes");
            self.connection = None;
        }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let mut connection = UnixStream::connect(&self.socket)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        connection.write_all(format!("CONNECT {}\n", self.port).as_bytes())?;
        // The guest sends nothing after the answer's line.
        let mut answer = [0; 64];
        match connection.read(&mut answer)? {
            0 => Err(io::ErrorKind::ConnectionRefused.into()),
            _ => Ok(connection),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener};

    use guest_protocol::replay::ChangeKind;

    use super::*;

    #[test]
    fn the_guest_is_told_when_it_listens() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("vsock.sock");
        let change = Change {
            export: "x".to_owned(),
            path: b"file".to_vec(),
            directory: false,
            kind: ChangeKind::Modified,
        };
        let mut guest = Guest {
            socket: socket.clone(),
            port: 1028,
            connection: None,
            tried: None,
        };
        guest.tell(&change);
        assert!(guest.connection.is_none() && guest.tried.is_some());
        guest.tried = None;

        let listener = UnixListener::bind(&socket).unwrap();
        let its_end = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = [0; 13];
            connection.read_exact(&mut request).unwrap();
            assert_eq!(&request, b"CONNECT 1028\n");
            connection.write_all(b"OK 1\n").unwrap();
            let mut told = Vec::new();
            connection.read_to_end(&mut told).unwrap();
            told
        });
        guest.tell(&change);
        drop(guest);
        let told = its_end.join().unwrap();
        assert_eq!(told, frame::encode(&change).unwrap());
        let again: Change = frame::decode(&told[4..]).unwrap();
        assert_eq!(again, change);
        fs::remove_file(socket).unwrap();
    }
}
