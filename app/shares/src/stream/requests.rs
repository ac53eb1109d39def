//! Requests, cut from a stream: as many as came together are read together.

use std::io::{self, Read};

use crate::transport::may_take_long;
use crate::wire::{self, opcode};

/// Room for small requests beside one of the longest.
const ROOM: usize = 64 * 1024;

/// Where the size is that a READ asks for: behind the file's handle and the offset.
const READ_SIZE: usize = wire::REQUEST_HEADER + 16;

/// One request.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) bytes: &'a [u8],
    /// Nothing of another one has come yet.
    pub(super) is_last: bool,
}

impl Request<'_> {
    /// Whether it must be looked at before the next one is. The client does not wait for
    /// the end of a RELEASE, but its locks must be gone; an INTERRUPT is about a request
    /// before it, and a session begins and ends between requests.
    pub(super) fn is_ordered(&self) -> bool {
        matches!(
            self.field(4),
            opcode::INIT
                | opcode::DESTROY
                | opcode::RELEASE
                | opcode::SETLK
                | opcode::SETLKW
                | opcode::INTERRUPT
        )
    }

    /// Whether it may keep whoever answers it.
    pub(super) fn may_take_long(&self) -> bool {
        let opcode = self.field(4);
        let answer = match opcode {
            opcode::READ => self.field(READ_SIZE) as usize,
            _ => 0,
        };
        may_take_long(opcode, self.bytes.len().max(answer))
    }

    /// A field of 32 bits; 0 where the request is shorter.
    fn field(&self, at: usize) -> u32 {
        let field = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        field.map_or(0, |field| u32::from_ne_bytes(*field))
    }
}

/// What is read from a stream.
#[derive(Debug)]
pub(super) struct Requests<R> {
    reader: R,
    longest: usize,
    buffer: Vec<u8>,
    /// What was read and not looked at yet is between these.
    start: usize,
    end: usize,
}

impl<R: Read> Requests<R> {
    /// From a client that may send up to `longest` bytes in one request.
    pub(super) fn new(reader: R, longest: usize) -> Self {
        Self {
            reader,
            longest,
            buffer: vec![0; longest + ROOM],
            start: 0,
            end: 0,
        }
    }

    /// The next one; none at the end of the stream.
    ///
    /// # Errors
    /// When the stream fails, ends in the middle of a request, or what comes can't be one.
    pub(super) fn next(&mut self) -> io::Result<Option<Request<'_>>> {
        if !self.fill(4)? {
            return Ok(None);
        }
        let length = self.pending().first_chunk().copied().unwrap_or_default();
        let length = u32::from_ne_bytes(length) as usize;
        if length < wire::REQUEST_HEADER || length > self.longest {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a request of {length} bytes"),
            ));
        }
        if !self.fill(length)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let start = self.start;
        self.start += length;
        Ok(Some(Request {
            bytes: self.buffer.get(start..self.start).unwrap_or_default(),
            is_last: self.start == self.end,
        }))
    }

    fn pending(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Reads until `count` bytes are there; false if the stream ends before the first.
    fn fill(&mut self, count: usize) -> io::Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start + count > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        while self.end - self.start < count {
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.reader.read(room) {
                Ok(0) if self.start == self.end => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what it has in the pieces that it was given.
    struct Pieces(std::collections::VecDeque<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(mut piece) = self.0.pop_front() else {
                return Ok(0);
            };
            let count = piece.len().min(buffer.len());
            buffer[..count].copy_from_slice(&piece[..count]);
            if count < piece.len() {
                self.0.push_front(piece.split_off(count));
            }
            Ok(count)
        }
    }

    fn request(opcode: u32, length: usize) -> Vec<u8> {
        let mut bytes = vec![0xab; length];
        bytes[..4].copy_from_slice(&(length as u32).to_ne_bytes());
        bytes[4..8].copy_from_slice(&opcode.to_ne_bytes());
        bytes
    }

    #[test]
    fn requests_are_cut_however_they_come() {
        const LONGEST: usize = 200_000;
        let sent: Vec<_> = [40, 41, 4000, LONGEST, LONGEST, 40, 99_999, LONGEST]
            .into_iter()
            .map(|length| request(opcode::WRITE, length))
            .collect();
        let all = sent.concat();
        for piece in [1, 3, 41, 4096, 70_000, all.len()] {
            let pieces = Pieces(all.chunks(piece).map(<[u8]>::to_vec).collect());
            let mut requests = Requests::new(pieces, LONGEST);
            for expected in &sent {
                let request = requests.next().unwrap().unwrap();
                assert!(request.bytes == expected, "{piece}");
            }
            assert!(requests.next().unwrap().is_none());
        }
    }

    #[test]
    fn what_comes_together_is_told_from_what_comes_alone() {
        let statfs = request(opcode::STATFS, 40);
        let pieces = [statfs.repeat(2), [&statfs[..], &[40]].concat()];
        let mut requests = Requests::new(Pieces(pieces.into()), 100);
        let mut last = || requests.next().unwrap().unwrap().is_last;
        assert_eq!([last(), last(), last()], [false, true, false]);
        assert_eq!(
            requests.next().unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn large_transfers_and_the_disk_take_long() {
        let long = |bytes: &[u8]| {
            let is_last = true;
            Request { bytes, is_last }.may_take_long()
        };
        let mut read = request(opcode::READ, 80);
        read[READ_SIZE..][..4].copy_from_slice(&4096_u32.to_ne_bytes());
        assert!(!long(&read));
        // What is read ahead.
        read[READ_SIZE..][..4].copy_from_slice(&(128_u32 << 10).to_ne_bytes());
        assert!(!long(&read));
        read[READ_SIZE..][..4].copy_from_slice(&(1_u32 << 20).to_ne_bytes());
        assert!(long(&read));
        assert!(!long(&request(opcode::WRITE, 5000)));
        assert!(long(&request(opcode::WRITE, 200_000)));
        assert!(long(&request(opcode::FSYNC, 56)));
        assert!(!long(&request(opcode::READ, 40)));
    }
}
