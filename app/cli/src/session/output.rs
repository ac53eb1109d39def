//! Standard output and error, written by a thread of their own: a reader that is
//! slow must not keep signals and input from being carried.

use std::{io, os::fd::BorrowedFd, thread};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::{mpsc, oneshot};

use super::demultiplex::Stream;

/// How many pieces may wait to be written.
const QUEUE: usize = 16;

/// The writing thread. It keeps the order of what goes to both streams.
#[derive(Debug)]
pub(crate) struct Output {
    sender: mpsc::Sender<(Stream, Bytes)>,
    result: oneshot::Receiver<io::Result<()>>,
}

impl Output {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, mut receiver) = mpsc::channel::<(Stream, Bytes)>(QUEUE);
        let (done, result) = oneshot::channel();
        thread::Builder::new()
            .name("output".into())
            .spawn(move || {
                let mut written = Ok(());
                while let Some((stream, bytes)) = receiver.blocking_recv() {
                    written = write(stream, &bytes);
                    if written.is_err() {
                        break;
                    }
                }
                drop(receiver);
                // Nobody waits any more when the session was cut short.
                let _ = done.send(written);
            })?;
        Ok(Self { sender, result })
    }

    /// Queues `bytes`; `false` when they can no longer be written, for a reason
    /// that [`Output::finish`] tells.
    pub(crate) async fn write(&self, stream: Stream, bytes: Bytes) -> bool {
        self.sender.send((stream, bytes)).await.is_ok()
    }

    /// Waits until all is written.
    pub(crate) async fn finish(self) -> io::Result<()> {
        drop(self.sender);
        match self.result.await {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("the writing thread ended early")),
        }
    }
}

fn write(stream: Stream, mut bytes: &[u8]) -> io::Result<()> {
    let descriptor = match stream {
        Stream::Stdout => rustix::stdio::stdout(),
        Stream::Stderr => rustix::stdio::stderr(),
    };
    while !bytes.is_empty() {
        match rustix::io::write(descriptor, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => bytes = &bytes[length..],
            Err(rustix::io::Errno::INTR) => {}
            // Whoever gave us the descriptor has made it non-blocking.
            Err(rustix::io::Errno::AGAIN) => wait_until_writable(descriptor)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wait_until_writable(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut descriptors = [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)];
    rustix::io::retry_on_intr(|| poll(&mut descriptors, None))?;
    Ok(())
}
