//! The unix sockets of a vsock device: the one that hosts connect to, and those that
//! the guest's connections arrive at.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::FileTypeExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, fchmod},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
};

use crate::config::host_port_socket;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the vsock socket {}: {source}", path.display())]
pub struct BindError {
    path: PathBuf,
    source: io::Error,
}

/// A bound unix socket, mode 0600, that is removed with it.
pub(super) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds `path`. A socket that nobody listens on any more is replaced.
    pub(super) fn bind(path: &Path) -> Result<Self, BindError> {
        let fail = |source| BindError {
            path: path.to_owned(),
            source,
        };
        remove_stale(path).map_err(fail)?;
        let fd = bind_private(path).map_err(|error| fail(error.into()))?;
        Ok(Self {
            listener: UnixListener::from(fd),
            path: path.to_owned(),
        })
    }

    pub(super) fn socket(&self) -> &UnixListener {
        &self.listener
    }

    /// Connects to what listens for the guest's connections to the host's `port`.
    pub(super) fn connect_host_port(&self, port: u32) -> io::Result<UnixStream> {
        let address = SocketAddrUnix::new(host_port_socket(&self.path, port))?;
        let fd = stream_socket()?;
        // Without waiting: a listener whose backlog is full refuses.
        rustix::net::connect(&fd, &address)?;
        Ok(UnixStream::from(fd))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A sandbox may not allow it; the next one to bind replaces it.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn stream_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

fn bind_private(path: &Path) -> rustix::io::Result<OwnedFd> {
    let fd = stream_socket()?;
    // Before it has a name: Linux makes the name with the mode that the socket has, so
    // it is never open to others.
    fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
    bind(&fd, &SocketAddrUnix::new(path)?)?;
    listen(&fd, BACKLOG)?;
    Ok(fd)
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => match UnixStream::connect(path) {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(_) => std::fs::remove_file(path),
        },
        // Anything else is not ours to remove: binding fails.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn is_private_and_replaces_a_stale_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vsock.sock");
        drop(UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn leaves_a_socket_in_use_and_other_files_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vsock.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let error = Listener::bind(&path).err().unwrap();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        let file = directory.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(Listener::bind(&file).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    }

    #[test]
    fn says_which_socket_it_was() {
        let path = format!("/{}", "x".repeat(200));
        let error = Listener::bind(Path::new(&path)).err().unwrap();
        assert!(error.to_string().contains(&path));
    }
}
