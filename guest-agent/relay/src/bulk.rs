//! A direction that moves much: through a pipe, without a copy in this process.

use std::{io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};
use tokio::{io::Interest, task::consume_budget};

use super::{Side, retry, window::Window};

/// Bytes that are on their way through the pipe at most. The kernel may allow less.
const PIPE: usize = 256 * 1024;

/// A splice that moves less is none that a pipe is needed for.
const LITTLE: usize = 16 * 1024;

/// After so many of them in a row the pipe is given up.
const PATIENCE: u32 = 64;

/// Passes bytes on until the end of `from`, which is `true`, or until so little moves
/// that it can be passed on by itself again; also when the kernel cannot splice these
/// sockets.
pub(super) async fn pass(from: &Side, to: &Side) -> io::Result<bool> {
    // No descriptors left, or no room for pipes: the other way works without.
    let Ok((exit, entry)) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK) else {
        return Ok(false);
    };
    // A smaller one does, too.
    let _ = fcntl_setpipe_size(&entry, PIPE);
    from.window
        .get_or_init(|| Window::widen(from.socket.get_ref()));
    let mut little = 0;
    while little < PATIENCE {
        consume_budget().await;
        let filled = from
            .socket
            .async_io(Interest::READABLE, |socket| {
                move_bytes(socket, &entry, PIPE)
            })
            .await;
        let mut left = match filled {
            Ok(0) => return Ok(true),
            Ok(left) => left,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(false),
            Err(error) => return Err(error),
        };
        little = if left < LITTLE { little + 1 } else { 0 };
        while left > 0 {
            let moved = to
                .socket
                .async_io(Interest::WRITABLE, |socket| move_bytes(&exit, socket, left))
                .await?;
            if moved == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            left = left.saturating_sub(moved);
        }
    }
    Ok(false)
}

fn move_bytes(from: &OwnedFd, to: &OwnedFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    match retry(|| splice(from, None, to, None, most, flags)) {
        Ok(moved) => Ok(moved),
        Err(Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error.into()),
    }
}
