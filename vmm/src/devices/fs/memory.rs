//! Requests and replies in guest memory, as the server wants them.

use std::{io, os::fd::BorrowedFd};

use shares::{ReplyBuffer, RequestBuffer, WriteAt};

use crate::devices::{Buffers, Chain, DetachedChain};

/// Whether a request may keep whoever answers it.
pub(super) fn may_take_long(chain: &DetachedChain) -> bool {
    let Chain {
        mut readable,
        writable,
        ..
    } = chain.chain();
    let bytes = readable.len().max(writable.len());
    // `struct fuse_in_header` begins with the length and the opcode. One that is cut off
    // is refused at once.
    let mut header = [0; 8];
    let opcode = match readable.read(&mut header) {
        8 => {
            let [_, _, _, _, opcode @ ..] = header;
            u32::from_ne_bytes(opcode)
        }
        _ => 0,
    };
    shares::may_take_long(opcode, bytes)
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
