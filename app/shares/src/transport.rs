//! What a transport gives the server: where a request's bytes are, and where the answer
//! goes.
//!
//! File data moves between the file and these buffers in one system call, without a copy
//! of the server's own: a device implements the traits with `preadv2` and `pwritev2` on
//! the pieces of guest memory that a descriptor chain names.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, IoSlice, IoSliceMut, ReadWriteFlags};

use crate::wire::{self, opcode};

/// A request or answer of more bytes than this is worth a thread of its own. What Linux
/// reads ahead at once, 128 KiB and a header, is not: a file that is read from its beginning
/// to its end would wake a thread for each.
const LARGE: usize = (128 + 4) * 1024;

/// Whether a request may keep whoever answers it: it waits for the host's disk, works on
/// as much as the guest likes, or has (or wants) this many `bytes` of data.
pub fn may_take_long(opcode: u32, bytes: usize) -> bool {
    let slow = matches!(
        opcode,
        opcode::FSYNC
            | opcode::FSYNCDIR
            | opcode::FALLOCATE
            | opcode::RENAME2
            | opcode::COPY_FILE_RANGE
            | opcode::SYNCFS
    );
    slow || bytes > LARGE
}

/// Where the data of a WRITE goes in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteAt {
    /// At this offset, in bytes.
    Offset(u64),
    /// At the end, wherever that is (`RWF_APPEND`). It was at this offset just before:
    /// overlayfs of Linux before 6.6 ignores the flag and writes at the offset.
    End(u64),
}

impl WriteAt {
    /// The offset and flags for `pwritev2`.
    pub fn arguments(self) -> (u64, ReadWriteFlags) {
        match self {
            Self::Offset(offset) => (offset, ReadWriteFlags::empty()),
            Self::End(offset) => (offset, ReadWriteFlags::APPEND),
        }
    }
}

/// The bytes of one request, header first. The client may change them while they are
/// read: the server reads each byte that it decides on once.
pub trait RequestBuffer {
    /// Bytes in all.
    fn size(&self) -> usize;

    /// Copies bytes from position `at` on into `target`, and tells how many there were.
    fn copy_to(&self, at: usize, target: &mut [u8]) -> usize;

    /// Writes `count` bytes from position `at` on into `file`, and tells how many the
    /// file took. Fewer are there than `count`: fewer are written.
    fn write_file(
        &self,
        at: usize,
        count: usize,
        file: BorrowedFd<'_>,
        place: WriteAt,
    ) -> io::Result<usize>;
}

/// Room for the answer to one request.
pub trait ReplyBuffer {
    /// Bytes that fit.
    fn capacity(&self) -> usize;

    /// Puts `bytes` at position `at`; fails without room for all of them.
    fn put(&mut self, at: usize, bytes: &[u8]) -> io::Result<()>;

    /// Reads up to `count` bytes of `file` from `offset` on into the room at position
    /// `at`, and tells how many there were.
    fn read_file(
        &mut self,
        at: usize,
        count: usize,
        file: BorrowedFd<'_>,
        offset: u64,
    ) -> io::Result<usize>;
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// The answer is this many bytes of the reply buffer.
    Reply(usize),
    /// This request has no answer (FORGET, INTERRUPT).
    None,
    /// The answer has to wait for a lock that somebody holds. The transport keeps the
    /// reply buffer and asks again every few milliseconds.
    Pending(Pending),
}

/// A request that waits for a lock.
pub struct Pending {
    pub(crate) unique: u64,
    pub(crate) attempt: Box<dyn FnMut() -> Option<Result<(), Errno>> + Send>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Pending")
            .field("unique", &self.unique)
            .finish_non_exhaustive()
    }
}

impl Pending {
    /// Tries once more. Gives the whole answer to put into the reply buffer when the
    /// wait is over: the lock is had, was given up by INTERRUPT, or can't be had.
    pub fn attempt(&mut self) -> Option<[u8; wire::REPLY_HEADER]> {
        let result = (self.attempt)()?;
        let error = result.err().map_or(0, Errno::raw_os_error);
        Some(wire::reply_header(wire::REPLY_HEADER, error, self.unique))
    }
}

/// A request that lies in one piece.
impl RequestBuffer for &[u8] {
    fn size(&self) -> usize {
        self.len()
    }

    fn copy_to(&self, at: usize, target: &mut [u8]) -> usize {
        let there = self.get(at..).unwrap_or_default();
        let count = there.len().min(target.len());
        target[..count].copy_from_slice(&there[..count]);
        count
    }

    fn write_file(
        &self,
        at: usize,
        count: usize,
        file: BorrowedFd<'_>,
        place: WriteAt,
    ) -> io::Result<usize> {
        let there = self.get(at..).unwrap_or_default();
        let data = &there[..there.len().min(count)];
        let (offset, flags) = place.arguments();
        Ok(rustix::io::pwritev2(
            file,
            &[IoSlice::new(data)],
            offset,
            flags,
        )?)
    }
}

/// An answer in one piece, as long as the slice at most.
impl ReplyBuffer for &mut [u8] {
    fn capacity(&self) -> usize {
        self.len()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        at.checked_add(bytes.len())
            .and_then(|end| self.get_mut(at..end))
            .ok_or(io::ErrorKind::WriteZero)?
            .copy_from_slice(bytes);
        Ok(())
    }

    fn read_file(
        &mut self,
        at: usize,
        count: usize,
        file: BorrowedFd<'_>,
        offset: u64,
    ) -> io::Result<usize> {
        let room = self.get_mut(at..).unwrap_or_default();
        let length = room.len().min(count);
        Ok(rustix::io::preadv2(
            file,
            &mut [IoSliceMut::new(&mut room[..length])],
            offset,
            ReadWriteFlags::empty(),
        )?)
    }
}
