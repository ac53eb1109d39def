//! Standard input, without a thread that would swallow what is typed after the
//! session.
//!
//! The descriptor is shared with other processes, so it stays blocking: it is
//! read only when poll(2) says that there is something.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{Interest, unix::AsyncFd};

/// Standard input as a stream of events.
#[derive(Debug)]
pub(crate) struct StandardInput {
    /// `None` for files, which epoll(7) refuses and which never block.
    pollable: Option<AsyncFd<OwnedFd>>,
}

impl StandardInput {
    /// Standard input of this process.
    pub(crate) fn new() -> io::Result<Self> {
        let stdin = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        // SAFETY: the `AsyncFd` owns this open descriptor; nothing else knows its
        // number, so nothing closes or replaces it as long as it is registered.
        let registered = unsafe { AsyncFd::register_with_interest(stdin, Interest::READABLE) };
        match registered.map_err(io::Error::from) {
            Ok(descriptor) => Ok(Self {
                pollable: Some(descriptor),
            }),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) => {
                Ok(Self { pollable: None })
            }
            Err(error) => Err(error),
        }
    }

    /// Reads what there is; zero at the end.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(descriptor) = &self.pollable else {
            // Lets the others go first: a file is always ready.
            tokio::task::yield_now().await;
            return read_now(buffer);
        };
        loop {
            let mut ready = descriptor.readable().await?;
            let result = ready.try_io(|_| {
                if is_readable()? {
                    read_now(buffer)
                } else {
                    Err(io::ErrorKind::WouldBlock.into())
                }
            });
            if let Ok(result) = result {
                return result;
            }
        }
    }
}

fn read_now(buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::retry_on_intr(|| {
        rustix::io::read(rustix::stdio::stdin(), &mut *buffer)
    })?)
}

fn is_readable() -> io::Result<bool> {
    let stdin = rustix::stdio::stdin();
    let mut descriptors = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let count = rustix::io::retry_on_intr(|| poll(&mut descriptors, Some(&at_once)))?;
    // A hang-up or an error is there to be read, too.
    Ok(count > 0)
}
