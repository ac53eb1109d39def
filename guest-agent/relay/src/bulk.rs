//! A direction that moves much: through a buffer of its own, as much at a time as there is.
//!
//! Copying costs less than splice(2) through a pipe: that takes and gives back a page for
//! each 4 KiB, and packets of single pages hold 64 KiB at most.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::net::RecvFlags;
use tokio::{io::Interest, task::consume_budget};

use super::{Side, retry};

/// Bytes that are read at once.
const BUFFER: usize = 256 * 1024;

/// So many directions have a buffer at once; others share one.
const MOST: usize = 64;

/// A read that brings less is none that a large buffer is needed for.
const LITTLE: usize = 16 * 1024;

/// After so many of them in a row the buffer is given up.
const PATIENCE: u32 = 64;

/// Directions that have a buffer.
static BUFFERS: AtomicUsize = AtomicUsize::new(0);

/// One of [`MOST`] buffers.
struct Buffer(Vec<u8>);

impl Buffer {
    fn take() -> Option<Self> {
        if BUFFERS.fetch_add(1, Ordering::Relaxed) < MOST {
            return Some(Self(vec![0; BUFFER]));
        }
        BUFFERS.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        BUFFERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Passes bytes on until the end of `from`, which is `true`, or until so little moves
/// that it can be passed on by itself again; also when too many others move much.
pub(super) async fn pass(from: &Side, to: &Side) -> io::Result<bool> {
    let Some(mut buffer) = Buffer::take() else {
        return Ok(false);
    };
    let mut little = 0;
    while little < PATIENCE {
        consume_budget().await;
        let read = from
            .socket
            .async_io(Interest::READABLE, |socket| {
                let flags = RecvFlags::DONTWAIT;
                let (read, _) =
                    retry(|| rustix::net::recv(socket, buffer.0.as_mut_slice(), flags))?;
                Ok(read)
            })
            .await?;
        if read == 0 {
            return Ok(true);
        }
        to.write_all(buffer.0.get(..read).unwrap_or_default())
            .await?;
        little = if read < LITTLE { little + 1 } else { 0 };
    }
    Ok(false)
}
