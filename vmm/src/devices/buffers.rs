//! The buffers of one descriptor chain, and moving bytes between them and files
//! without a copy in between.
//!
//! The device may not care how a driver cuts a message into descriptors (2.7.4.1):
//! a [`Buffers`] is a run of bytes in guest memory, wherever its pieces are.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use vm_memory::VolatileSlice;

/// What the driver made available at once (2.7.5): a part the device reads and a
/// part it writes.
pub struct Chain<'a> {
    /// Index of its first descriptor: how the driver recognises it again.
    pub head: u16,
    /// What the device reads.
    pub readable: Buffers<'a>,
    /// What the device writes.
    pub writable: Buffers<'a>,
}

/// A run of bytes in guest memory that is consumed from the front.
#[derive(Default)]
pub struct Buffers<'a> {
    slices: Vec<VolatileSlice<'a>>,
    /// The first slice that is not consumed.
    first: usize,
    length: usize,
}

/// The most pieces given to the kernel in one call (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;

impl<'a> Buffers<'a> {
    pub(super) fn push(&mut self, slice: VolatileSlice<'a>) {
        if !slice.is_empty() {
            self.length = self.length.saturating_add(slice.len());
            self.slices.push(slice);
        }
    }

    /// Bytes left.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether none are left.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The pieces of guest memory that it is made of.
    pub(super) fn slices(&self) -> &[VolatileSlice<'a>] {
        self.slices.get(self.first..).unwrap_or_default()
    }

    /// Drops `count` bytes from the front.
    pub fn consume(&mut self, count: usize) {
        let mut left = count.min(self.length);
        self.length -= left;
        while left > 0 {
            let Some(slice) = self.slices.get_mut(self.first) else {
                return;
            };
            if left >= slice.len() {
                left -= slice.len();
                self.first += 1;
            } else {
                // Cannot fail: `left` is less than the slice's length.
                if let Ok(rest) = slice.offset(left) {
                    *slice = rest;
                }
                return;
            }
        }
    }

    /// Keeps the first `count` bytes and returns the rest.
    #[must_use]
    pub fn split_off(&mut self, count: usize) -> Buffers<'a> {
        let mut rest = Buffers::default();
        let mut kept = Buffers::default();
        for slice in self.slices.drain(..).skip(self.first) {
            let room = count - kept.length.min(count);
            if room >= slice.len() {
                kept.push(slice);
            } else if let Ok((front, back)) = slice.split_at(room) {
                kept.push(front);
                rest.push(back);
            }
        }
        *self = kept;
        rest
    }

    /// The run of at most `count` bytes that begins at position `at`.
    #[must_use]
    pub fn part(&self, at: usize, count: usize) -> Buffers<'a> {
        let (mut skip, mut left) = (at, count);
        let mut part = Buffers::default();
        for slice in self.slices() {
            if left == 0 {
                break;
            }
            if skip >= slice.len() {
                skip -= slice.len();
                continue;
            }
            let length = (slice.len() - skip).min(left);
            // Cannot fail: it is within the slice.
            if let Ok(piece) = slice.subslice(skip, length) {
                part.push(piece);
            }
            skip = 0;
            left -= length;
        }
        part
    }

    /// Copies from the front into `data` and consumes what was copied. Returns its
    /// length, which is less than `data`'s only when nothing is left.
    pub fn read(&mut self, data: &mut [u8]) -> usize {
        let mut done = 0;
        while let (Some(slice), Some(to)) = (self.slices.get(self.first), data.get_mut(done..)) {
            if to.is_empty() {
                break;
            }
            let count = slice.copy_to(to);
            done += count;
            self.consume(count);
        }
        done
    }

    /// Copies `data` to the front and consumes what was written. Returns its
    /// length, which is less than `data`'s only when nothing is left.
    pub fn write(&mut self, data: &[u8]) -> usize {
        let mut done = 0;
        while let (Some(slice), Some(from)) = (self.slices.get(self.first), data.get(done..)) {
            if from.is_empty() {
                break;
            }
            let count = from.len().min(slice.len());
            slice.copy_from(from);
            done += count;
            self.consume(count);
        }
        done
    }

    /// Reads from a file at `offset` once (`preadv`), and consumes what came; zero
    /// at the file's end.
    pub fn read_from_file(&mut self, file: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
        let offset = file_offset(offset)?;
        self.transfer(usize::MAX, |pieces, count| {
            // SAFETY: `pieces` are valid, writable guest memory for the call (see
            // `transfer`); `file` is open.
            unsafe { libc::preadv(file.as_raw_fd(), pieces, count, offset) }
        })
    }

    /// Writes to a file at `offset` once (`pwritev`), and consumes what went.
    pub fn write_to_file(&mut self, file: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
        let offset = file_offset(offset)?;
        self.transfer(usize::MAX, |pieces, count| {
            // SAFETY: `pieces` are valid guest memory for the call (see
            // `transfer`); `file` is open.
            unsafe { libc::pwritev(file.as_raw_fd(), pieces, count, offset) }
        })
    }

    /// Appends to a file once (`pwritev2` with `RWF_APPEND`), and consumes what went.
    /// File systems that ignore the flag write at `offset`.
    pub fn append_to_file(&mut self, file: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
        let offset = file_offset(offset)?;
        self.transfer(usize::MAX, |pieces, count| {
            // SAFETY: `pieces` are valid guest memory for the call (see
            // `transfer`); `file` is open.
            unsafe { libc::pwritev2(file.as_raw_fd(), pieces, count, offset, libc::RWF_APPEND) }
        })
    }

    /// Receives at most `limit` bytes from a socket once, without waiting, and consumes
    /// what came; zero at the stream's end.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
        self.transfer(limit, |pieces, count| {
            let mut message = message(pieces, count);
            // SAFETY: the message's pieces are valid, writable guest memory for the
            // call (see `transfer`), the rest of it is empty; `socket` is open.
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) }
        })
    }

    /// Sends to a socket once, without waiting and without a signal when its peer
    /// is gone, and consumes what went.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.transfer(usize::MAX, |pieces, count| {
            let message = message(pieces, count);
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: the message's pieces are valid guest memory for the call (see
            // `transfer`), the rest of it is empty; `socket` is open.
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) }
        })
    }

    /// Gives the pieces of guest memory, at most `limit` bytes, to one system call and
    /// consumes as many bytes as it returns. They stay mapped during the call because `self` borrows
    /// the mapping, and guest memory is never Rust-borrowed, so the kernel (or the
    /// guest) changing it is no aliasing.
    fn transfer(
        &mut self,
        limit: usize,
        call: impl FnOnce(*const libc::iovec, libc::c_int) -> isize,
    ) -> io::Result<usize> {
        if self.is_empty() {
            return Ok(0);
        }
        let guards: Vec<_> = self
            .slices
            .iter()
            .skip(self.first)
            .take(MAX_PIECES)
            .map(VolatileSlice::ptr_guard_mut)
            .collect();
        let mut left = limit;
        let pieces: Vec<libc::iovec> = guards
            .iter()
            .map(|guard| {
                let length = guard.len().min(left);
                left -= length;
                libc::iovec {
                    iov_base: guard.as_ptr().cast(),
                    iov_len: length,
                }
            })
            .collect();
        let count = call(pieces.as_ptr(), pieces.len() as libc::c_int);
        drop(guards);
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        self.consume(count);
        Ok(count)
    }
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn message(pieces: *const libc::iovec, count: libc::c_int) -> libc::msghdr {
    // SAFETY: an all-zero `msghdr` is a valid one: no name, no pieces, no control.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.cast_mut();
    message.msg_iovlen = count as usize;
    message
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        os::{fd::AsFd, unix::net::UnixStream},
    };

    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress, GuestMemory as _};

    use super::*;
    use crate::devices::test_driver::memory;

    const AT: u64 = (8 << 20) - 100;
    const LENGTH: usize = 300;

    proptest! {
        /// However a message is cut, and wherever it is split, it is the same bytes.
        #[test]
        fn cuts_do_not_show(
            cuts in prop::collection::vec(0..=LENGTH, 0..10),
            split in 0..LENGTH + 50,
            steps in prop::collection::vec(0..60_usize, 0..12),
        ) {
            let memory = memory();
            let message: Vec<u8> = (0..LENGTH).map(|i| i as u8).collect();
            memory.write_slice(&message, GuestAddress(AT)).unwrap();
            let mut cuts = cuts;
            cuts.extend([0, LENGTH]);
            cuts.sort_unstable();
            let mut front = Buffers::default();
            for pair in cuts.windows(2) {
                let at = GuestAddress(AT + pair[0] as u64);
                for slice in memory.get_slices(at, pair[1] - pair[0]) {
                    front.push(slice.unwrap());
                }
            }
            let mut back = front.split_off(split);
            prop_assert_eq!(front.len(), split.min(LENGTH));
            prop_assert_eq!(front.len() + back.len(), LENGTH);

            // Read, skip and send what is in front.
            let (sender, mut receiver) = UnixStream::pair().unwrap();
            let mut at = 0;
            for (index, step) in steps.into_iter().enumerate() {
                let step = step.min(front.len());
                let mut data = vec![0; step];
                match index % 3 {
                    0 => prop_assert_eq!(front.read(&mut data), step),
                    1 => {
                        front.consume(step);
                        data.copy_from_slice(&message[at..at + step]);
                    }
                    _ => {
                        let rest = front.split_off(step);
                        let sent = front.send(sender.as_fd()).unwrap();
                        prop_assert_eq!((sent, front.len()), (step, 0));
                        front = rest;
                        std::io::Read::read_exact(&mut receiver, &mut data).unwrap();
                    }
                }
                prop_assert_eq!(&data[..], &message[at..at + step]);
                at += step;
            }

            // Fill what is behind: half by hand, half from a socket.
            let room = back.len();
            let new = vec![0xaa; LENGTH];
            prop_assert_eq!(back.write(&new[..room / 2]), room / 2);
            receiver.write_all(&new).unwrap();
            let limit = room - room / 2;
            prop_assert_eq!(back.receive(sender.as_fd(), limit).unwrap(), limit);
            prop_assert!(back.is_empty());
            prop_assert_eq!(back.write(&[1]), 0);
            let mut expected = message;
            expected[LENGTH - room..].fill(0xaa);
            let mut now = vec![0; LENGTH];
            memory.read_slice(&mut now, GuestAddress(AT)).unwrap();
            prop_assert_eq!(now, expected);
        }
    }
}
