//! Requests and replies in guest memory, as the server wants them.

use std::{io, os::fd::BorrowedFd};

use shares::{ReplyBuffer, RequestBuffer, WriteAt};

use crate::devices::{Buffers, Chain, DetachedChain};

/// Opcodes (`linux/fuse.h`) of requests that wait for the host's disk, or work on as
/// much as the guest likes.
const SLOW: [u32; 6] = [
    20, // FSYNC
    30, // FSYNCDIR
    43, // FALLOCATE
    45, // RENAME2
    47, // COPY_FILE_RANGE
    50, // SYNCFS
];

/// A request or reply of more than this is worth a thread of its own.
const LARGE: usize = 64 * 1024;

/// Whether a request may keep whoever answers it.
pub(super) fn may_take_long(chain: &DetachedChain) -> bool {
    let Chain {
        mut readable,
        writable,
        ..
    } = chain.chain();
    if readable.len() > LARGE || writable.len() > LARGE {
        return true;
    }
    // `struct fuse_in_header` begins with the length and the opcode. One that is cut off
    // is refused at once.
    let mut header = [0; 8];
    if readable.read(&mut header) != header.len() {
        return false;
    }
    let [_, _, _, _, opcode @ ..] = header;
    SLOW.contains(&u32::from_ne_bytes(opcode))
}

/// What the device reads of a chain.
pub(super) struct Request<'a>(pub(super) Buffers<'a>);

impl RequestBuffer for Request<'_> {
    fn size(&self) -> usize {
        self.0.len()
    }

    fn copy_to(&self, at: usize, target: &mut [u8]) -> usize {
        self.0.part(at, target.len()).read(target)
    }

    fn write_file(
        &self,
        at: usize,
        count: usize,
        file: BorrowedFd<'_>,
        place: WriteAt,
    ) -> io::Result<usize> {
        let mut data = self.0.part(at, count);
        match place {
            WriteAt::Offset(offset) => data.write_to_file(file, offset),
            WriteAt::End(offset) => data.append_to_file(file, offset),
        }
    }
}

/// What the device writes of a chain.
pub(super) struct Reply<'a>(pub(super) Buffers<'a>);

impl ReplyBuffer for Reply<'_> {
    fn capacity(&self) -> usize {
        self.0.len()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        if self.0.part(at, bytes.len()).write(bytes) < bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    fn read_file(
        &mut self,
        at: usize,
        count: usize,
        file: BorrowedFd<'_>,
        offset: u64,
    ) -> io::Result<usize> {
        self.0.part(at, count).read_from_file(file, offset)
    }
}
