//! A raw disk image: a sparse file (or a block device) and what can be done with it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsFd,
        unix::fs::{FileExt, FileTypeExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use super::{SECTOR_SHIFT, journal::Journal};
use crate::devices::Buffers;

/// The disk image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be opened.
    #[error("cannot open the disk image {}: {source}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a directory or the like.
    #[error("the disk image {} is neither a file nor a block device", path.display())]
    NoFile {
        /// Which.
        path: PathBuf,
    },
    /// It is smaller than a sector.
    #[error("the disk image {} is empty", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
}

pub(super) struct Image {
    file: File,
    sectors: u64,
    read_only: bool,
    /// What tests of power cuts read.
    journal: Option<Journal>,
}

impl Image {
    pub(super) fn open(
        path: &Path,
        read_only: bool,
        journal: Option<&Path>,
    ) -> Result<Self, OpenError> {
        let fail = |source| OpenError::Open {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .open(path)
            .map_err(fail)?;
        let length = length(&file)
            .map_err(fail)?
            .ok_or_else(|| OpenError::NoFile {
                path: path.to_owned(),
            })?;
        let sectors = length >> SECTOR_SHIFT;
        if sectors == 0 {
            return Err(OpenError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            file,
            sectors,
            read_only,
            journal: journal.map(Journal::open).transpose().map_err(fail)?,
        })
    }

    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Looks at the file's length again, and says whether the disk is larger now. It
    /// never becomes smaller: the guest counts on what it was told.
    pub(super) fn grow(&mut self) -> io::Result<bool> {
        let length = length(&self.file)?.ok_or(io::ErrorKind::InvalidInput)?;
        let sectors = length >> SECTOR_SHIFT;
        if sectors < self.sectors {
            return Err(io::Error::other(format!(
                "the image has only {length} bytes: a disk cannot shrink"
            )));
        }
        let grew = sectors > self.sectors;
        self.sectors = sectors;
        Ok(grew)
    }

    pub(super) fn read_only(&self) -> bool {
        self.read_only
    }

    /// The byte offset and length of `sectors` from `sector` on, if all of them are
    /// on the disk.
    pub(super) fn range(&self, sector: u64, sectors: u64) -> Option<Range> {
        let end = sector.checked_add(sectors)?;
        (end <= self.sectors).then_some(Range {
            offset: sector << SECTOR_SHIFT,
            length: sectors << SECTOR_SHIFT,
        })
    }

    /// Fills `data` from `offset` on.
    pub(super) fn read(&self, mut offset: u64, data: &mut Buffers<'_>) -> io::Result<()> {
        while !data.is_empty() {
            match data.read_from_file(self.file.as_fd(), offset) {
                // Somebody made the file shorter.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => offset += count as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes `data` from `offset` on.
    pub(super) fn write(&self, range: Range, data: &mut Buffers<'_>) -> io::Result<()> {
        let mut offset = range.offset;
        while !data.is_empty() {
            match data.write_to_file(self.file.as_fd(), offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => offset += count as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.note(|journal| journal.write(&self.file, range))
    }

    /// Makes all that was written durable.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.note(Journal::flush)
    }

    fn note(&self, record: impl FnOnce(&Journal) -> io::Result<()>) -> io::Result<()> {
        self.journal.as_ref().map_or(Ok(()), record)
    }

    /// Gives the range's space back. It is advice: a file system without holes keeps
    /// it.
    pub(super) fn discard(&self, range: Range) -> io::Result<()> {
        match self.punch_hole(range) {
            Err(Errno::OPNOTSUPP) => Ok(()),
            result => {
                result?;
                self.note(|journal| journal.zero(range))
            }
        }
    }

    /// Makes the range read as zeros; with `unmap` its space may be given back,
    /// without it stays reserved.
    pub(super) fn write_zeroes(&self, range: Range, unmap: bool) -> io::Result<()> {
        let result = if unmap {
            self.punch_hole(range)
        } else {
            let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            fallocate(&self.file, flags, range.offset, range.length)
        };
        match result {
            Err(Errno::OPNOTSUPP) => self.write_zero_bytes(range)?,
            result => result?,
        }
        self.note(|journal| journal.zero(range))
    }

    fn punch_hole(&self, range: Range) -> rustix::io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.file, flags, range.offset, range.length)
    }

    fn write_zero_bytes(&self, range: Range) -> io::Result<()> {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        let mut offset = range.offset;
        let mut left = range.length;
        while left > 0 {
            let count = left.min(ZEROS.len() as u64);
            let zeros = ZEROS.get(..count as usize).unwrap_or_default();
            self.file.write_all_at(zeros, offset)?;
            offset += count;
            left -= count;
        }
        Ok(())
    }
}

/// The length of a file or a block device in bytes; nothing else has one.
fn length(file: &File) -> io::Result<Option<u64>> {
    let metadata = file.metadata()?;
    if metadata.file_type().is_block_device() {
        // Its metadata has no length; its end has.
        return Ok(Some(rustix::fs::seek(file, rustix::fs::SeekFrom::End(0))?));
    }
    Ok(metadata.is_file().then_some(metadata.len()))
}

/// Bytes of the image, all of them on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) length: u64,
}
