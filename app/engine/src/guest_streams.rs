//! Streams that the guest opens: where they arrive, boot after boot.
//!
//! Who calls [`accept`] knows what a port's streams are for and bounds how many it
//! serves; the guest is not trusted with either.

use std::{os::unix::fs::MetadataExt, path::PathBuf, time::Duration};

use dctl_machine::{Machine, Stage};
use tokio::net::{UnixListener, UnixStream};

/// How long to wait when the process has no descriptor left for a stream.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Gives each stream that the guest opens to `port` to `serve`, for as long as the
/// machine exists.
pub(crate) async fn accept(machine: &Machine, port: u32, mut serve: impl FnMut(UnixStream)) {
    let mut stages = machine.stages();
    loop {
        let listener = match Listener::bind(machine, port) {
            Ok(listener) => Some(listener),
            Err(error) => {
                tracing::debug!(%error, port, "the machine reaches nothing here yet");
                None
            }
        };
        // A machine that boots clears its directory of sockets first.
        loop {
            let accept = async {
                match &listener {
                    Some(listener) => listener.socket.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                accepted = accept => match accepted {
                    Ok((stream, _)) => serve(stream),
                    Err(error) => {
                        tracing::warn!(%error, port, "a stream of the guest was not accepted");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                },
                changed = stages.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let boots = matches!(*stages.borrow(), Stage::Booting(_) | Stage::Running);
                    if boots && !listener.as_ref().is_some_and(Listener::is_in_place) {
                        break;
                    }
                }
            }
        }
    }
}

/// The socket on which a port's streams arrive.
struct Listener {
    socket: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Listener {
    fn bind(machine: &Machine, port: u32) -> Result<Self, dctl_machine::Error> {
        let (socket, path) = machine.listen(port)?;
        let inode = std::fs::metadata(&path).map_or(0, |metadata| metadata.ino());
        Ok(Self {
            socket,
            path,
            inode,
        })
    }

    fn is_in_place(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode)
    }
}
