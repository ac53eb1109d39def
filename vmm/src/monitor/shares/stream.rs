//! FUSE over vsock, for machines without a virtio-fs device: the guest connects to a
//! port of the host, and each connection is a session.

use std::{
    fs, io,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::Arc,
    thread,
};

use shares::{Server, serve_stream};

use super::{MOST_THREADS, on_own_thread};
use crate::sandbox::FileConfinement;

/// Listens where the guest's connections to the port arrive, and serves them one after
/// another: a guest mounts the file system once.
pub(super) fn serve(
    socket: &Path,
    server: Arc<Server>,
    confinement: &FileConfinement,
) -> io::Result<()> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The process's mask gives it to the user alone.
    let listener = UnixListener::bind(socket)?;
    on_own_thread("shares-stream", confinement, move || {
        loop {
            let session = listener
                .accept()
                .and_then(|(stream, _)| serve_one(&server, &stream));
            if let Err(error) = session {
                tracing::warn!(%error, "a session of shared files ended");
                // Out of descriptors, most likely: it passes when files are closed.
                thread::sleep(super::RETRY);
            }
        }
    })
}

fn serve_one(server: &Server, stream: &UnixStream) -> io::Result<()> {
    serve_stream(server, stream, stream, MOST_THREADS)
}
