//! A record of what a guest did to its disk, for tests that cut its power: with it,
//! the disk can be made as it was at any moment, with or without what was written
//! since the last flush.
//!
//! Each record is the kind, the offset and the length in bytes (8 bytes each, little
//! endian), and for a write the bytes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use super::image::Range;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Kind {
    /// These bytes were written.
    Write = 1,
    /// All before is durable.
    Flush = 2,
    /// The range reads as zeros.
    Zero = 3,
}

/// How much of the image is copied at a time.
const COPY: u64 = 1 << 20;

/// The file that records are added to.
pub(super) struct Journal(File);

impl Journal {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self(file))
    }

    /// Notes what was written to `image` just now. Nobody else writes to it.
    pub(super) fn write(&self, image: &File, range: Range) -> io::Result<()> {
        self.head(Kind::Write, range)?;
        let mut done = 0;
        while done < range.length {
            let mut bytes = vec![0; (range.length - done).min(COPY) as usize];
            image.read_exact_at(&mut bytes, range.offset + done)?;
            (&self.0).write_all(&bytes)?;
            done += bytes.len() as u64;
        }
        Ok(())
    }

    pub(super) fn zero(&self, range: Range) -> io::Result<()> {
        self.head(Kind::Zero, range)
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        let nothing = Range {
            offset: 0,
            length: 0,
        };
        self.head(Kind::Flush, nothing)
    }

    fn head(&self, kind: Kind, range: Range) -> io::Result<()> {
        let words = [kind as u64, range.offset, range.length];
        (&self.0).write_all(&words.map(u64::to_le_bytes).concat())
    }
}
