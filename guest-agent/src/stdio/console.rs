//! Receiving a terminal's master from the process that made it.
//!
//! The OCI runtime opens the terminal in the container's own devpts and sends
//! the master over a unix socket that the agent listens on.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    pty::{OpenptFlags, ioctl_tiocgptpeer},
};
use tokio::{io::Interest, net::UnixListener};

/// A socket that waits for one terminal. Its file goes with it.
#[derive(Debug)]
pub(crate) struct ConsoleSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ConsoleSocket {
    /// Listens at `path`.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        Ok(Self {
            listener: UnixListener::bind(path)?,
            path: path.to_owned(),
        })
    }

    /// Waits for the terminal's master.
    ///
    /// # Errors
    /// When the sender goes away without having sent it.
    pub(crate) async fn receive(&self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept().await?;
        stream
            .async_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = RecvAncillaryBuffer::new(&mut space);
                let mut name = [0; 128];
                recvmsg(
                    &stream,
                    &mut [io::IoSliceMut::new(&mut name)],
                    &mut ancillary,
                    RecvFlags::CMSG_CLOEXEC,
                )?;
                ancillary
                    .drain()
                    .find_map(|message| match message {
                        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
                        _ => None,
                    })
                    .ok_or_else(|| io::Error::other("no terminal was sent"))
            })
            .await
    }
}

/// Opens the other side of a terminal, wherever its devpts is.
///
/// # Errors
/// When there are no more files.
pub(super) fn open_peer(master: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    Ok(ioctl_tiocgptpeer(master, flags)?)
}

/// Makes the user `uid` the owner of a terminal, so that its processes can open it
/// by name.
///
/// # Errors
/// When there are no more files.
pub(super) fn give_terminal(master: &OwnedFd, uid: u32) -> io::Result<()> {
    let owner = rustix::fs::Uid::from_raw(uid);
    Ok(rustix::fs::fchown(open_peer(master)?, Some(owner), None)?)
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // Left over it would only take a name in a tmpfs.
        let _ = std::fs::remove_file(&self.path);
    }
}
