//! Passes bytes between a TCP connection and the stream that carries it between host
//! and guest: vsock in the guest, the unix socket in front of it on the host.
//!
//! The engine and the guest agent each run [`relay`] on their end of a forwarded
//! connection. A carrier has no frames; what TCP says beside bytes is said by how it is
//! closed: a direction that ends is shut down by itself, and a carrier that is closed
//! as a whole before its writer has shut it down means a reset, which becomes one of
//! the TCP connection at the other end.
//!
//! An idle connection holds no buffer. One that moves much goes through a pipe by
//! splice(2), so that its bytes are not copied to this process and back, and its writer
//! may send further ahead.
//!
//! Nothing here makes, names or authorises connections: callers hand over two sockets.

mod bulk;
mod window;

use std::{
    cell::RefCell,
    io,
    net::TcpStream,
    os::fd::{AsFd, OwnedFd},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, Shutdown, sockopt},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::consume_budget,
};

use window::Window;

/// Bytes that are read at once, in the buffer that a thread's connections share.
const SCRATCH: usize = 64 * 1024;

/// After so many full buffers in a row a direction goes through a pipe.
const FULL_READS: u32 = 4;

/// How long a TCP connection may be silent before its peer is asked whether it is
/// there, and how often and how many times it is asked.
const KEEP_ALIVE_IDLE: Duration = Duration::from_mins(1);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEP_ALIVE_PROBES: u32 = 5;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// How a relayed connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both directions came to their end.
    Closed,
    /// One of the two broke off, and the other was reset.
    Reset,
}

/// Sets what a relayed TCP connection needs: no delay, and keep-alive.
///
/// # Errors
/// When it is no TCP socket.
pub fn prepare(tcp: impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(&tcp, true)?;
    sockopt::set_socket_keepalive(&tcp, true)?;
    sockopt::set_tcp_keepidle(&tcp, KEEP_ALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&tcp, KEEP_ALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&tcp, KEEP_ALIVE_PROBES)?;
    Ok(())
}

/// Makes closing `tcp` a reset.
pub fn reset_on_close(tcp: impl AsFd) {
    // Fails for what is no socket; then there is nothing to reset.
    let _ = sockopt::set_socket_linger(tcp, Some(Duration::ZERO));
}

/// Passes bytes on until both directions have ended or one side breaks off; closes
/// both.
///
/// `carrier` is a stream socket whose bytes, from now on, are those of `tcp`.
///
/// # Errors
/// When the sockets cannot be waited for; both are closed, `tcp` with a reset.
pub async fn relay(tcp: TcpStream, carrier: OwnedFd) -> io::Result<End> {
    let tcp = OwnedFd::from(tcp);
    for socket in [&tcp, &carrier] {
        rustix::io::ioctl_fionbio(socket, true)?;
    }
    let tcp = Side::new(tcp)?;
    let carrier = Side::new(carrier)?;
    let towards_carrier = pass(&tcp, &carrier);
    let from_carrier = async {
        pass(&carrier, &tcp).await?;
        // Its writer closed without having shut it down: a reset there.
        if !carrier.write_ended.load(Ordering::Relaxed) && is_closed(carrier.socket.get_ref()) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        tcp.end_writing()
    };
    let towards_carrier = async {
        towards_carrier.await?;
        carrier.end_writing()
    };
    let end = tokio::try_join!(towards_carrier, from_carrier);
    if end.is_err() {
        reset_on_close(tcp.socket.get_ref());
        return Ok(End::Reset);
    }
    Ok(End::Closed)
}

/// One of the two sockets.
struct Side {
    socket: AsyncFd<OwnedFd>,
    /// It was told that there is no more for it.
    write_ended: AtomicBool,
    /// What its writer may send ahead, once that is more than usual.
    window: OnceLock<Option<Window>>,
}

impl Side {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` gives the same descriptor each time it is asked, and
        // keeps it open until the `AsyncFd` that owns it is dropped.
        let socket = unsafe {
            AsyncFd::register_with_interest(socket, Interest::READABLE | Interest::WRITABLE)
        }?;
        Ok(Self {
            socket,
            write_ended: AtomicBool::new(false),
            window: OnceLock::new(),
        })
    }

    fn end_writing(&self) -> io::Result<()> {
        self.write_ended.store(true, Ordering::Relaxed);
        match rustix::net::shutdown(self.socket.get_ref(), Shutdown::Write) {
            // Its peer is gone already, and had said all.
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self
                .socket
                .async_io(Interest::WRITABLE, |socket| send(socket, bytes))
                .await?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }
}

/// What one read brought.
struct Passed {
    /// How many bytes; none at the end.
    read: usize,
    /// Those that were not written at once.
    left: Vec<u8>,
}

/// Passes bytes on to the end of `from`.
async fn pass(from: &Side, to: &Side) -> io::Result<()> {
    let mut full = 0;
    loop {
        consume_budget().await;
        let passed = from
            .socket
            .async_io(Interest::READABLE, |socket| {
                pass_some(socket, to.socket.get_ref())
            })
            .await?;
        if passed.read == 0 {
            return Ok(());
        }
        to.write_all(&passed.left).await?;
        full = if passed.read == SCRATCH { full + 1 } else { 0 };
        if full == FULL_READS {
            if bulk::pass(from, to).await? {
                return Ok(());
            }
            full = 0;
        }
    }
}

/// Reads what there is, up to a buffer, and writes what can be written of it.
fn pass_some(from: &OwnedFd, to: &OwnedFd) -> io::Result<Passed> {
    BUFFER.with_borrow_mut(|buffer| {
        let (read, _) = retry(|| rustix::net::recv(from, &mut **buffer, RecvFlags::DONTWAIT))?;
        let bytes = buffer.get(..read).unwrap_or_default();
        let written = match send(to, bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        Ok(Passed {
            read,
            left: bytes.get(written..).unwrap_or_default().to_vec(),
        })
    })
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(retry(|| rustix::net::send(socket, bytes, flags))?)
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Whether nobody will ever read what is written to `carrier`. Sending nothing tells:
/// the kernel looks at the connection's state first.
fn is_closed(carrier: &OwnedFd) -> bool {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match rustix::net::send(carrier, &[], flags) {
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => false,
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests;
