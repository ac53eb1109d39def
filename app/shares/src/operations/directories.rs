//! Reading directories: OPENDIR, READDIR, READDIRPLUS, RELEASEDIR, FSYNCDIR.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use rustix::fs::{FileType, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use super::{Answer, Call, Result};
use crate::handles::Handle;
use crate::host::Name;
use crate::inodes::{Inode, lock};
use crate::wire::{self, Body, flag};

/// Bytes of an entry before its name (`fuse_dirent`).
const ENTRY: usize = 24;

/// Bytes of READDIRPLUS's attributes before each entry (`fuse_entry_out`).
const ATTRIBUTES: usize = 128;

/// Bytes of host entries that are read at a time.
const BUFFER: usize = 32 * 1024;

/// Entries with as much room as the client has.
struct Listing {
    body: Body,
    room: usize,
}

impl Listing {
    /// Whether an entry of this name still fits.
    fn fits(&self, plus: bool, name: &[u8]) -> bool {
        let before = if plus { ATTRIBUTES } else { 0 };
        let size = (before + ENTRY + name.len()).next_multiple_of(8);
        self.body.0.len() + size <= self.room
    }

    fn entry(&mut self, number: u64, next: u64, kind: FileType, name: &[u8]) {
        // The type as readdir tells it: the mode's upper four bits.
        let kind = kind.as_raw_mode() >> 12;
        self.body
            .u64(number)
            .u64(next)
            .u32(name.len() as u32)
            .u32(kind);
        self.body.0.extend_from_slice(name);
        let padded = self.body.0.len().next_multiple_of(8);
        self.body.0.resize(padded, 0);
    }
}

impl Call<'_> {
    pub(super) fn opendir(&mut self) -> Result<Answer> {
        let handle = if self.header.node == wire::ROOT {
            Handle::Root
        } else {
            let (inode, file) = self.directory(self.header.node)?;
            let file = self.with_access(&inode, file.as_fd(), || {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                self.server.descriptors.reopen(file.as_fd(), flags)
            })?;
            let file = Mutex::new(file);
            Handle::Directory { inode, file }
        };
        let mut body = Body::default();
        body.u64(self.server.handles.add(handle)?).u32(0).u32(0);
        Ok(body.into())
    }

    pub(super) fn releasedir(&mut self) -> Result<Answer> {
        self.server.handles.close(self.fields.u64()?);
        Ok(Answer::empty())
    }

    pub(super) fn fsyncdir(&mut self) -> Result<Answer> {
        let handle = self.fields.u64()?;
        let flags = self.fields.u32()?;
        if let Handle::Directory { file, .. } = &*self.server.handles.get(handle)? {
            let file = lock(file);
            if flags & flag::FSYNC_DATA == 0 {
                rustix::fs::fsync(&*file)?;
            } else {
                rustix::fs::fdatasync(&*file)?;
            }
        }
        Ok(Answer::empty())
    }

    pub(super) fn readdir(&mut self, plus: bool, capacity: usize) -> Result<Answer> {
        let handle = self.fields.u64()?;
        let offset = self.fields.u64()?;
        let size = self.fields.u32()?.min(self.server.limits.transfer) as usize;
        let room = size.min(capacity.saturating_sub(wire::REPLY_HEADER));
        let mut listing = Listing {
            body: Body::default(),
            room,
        };
        let handle = self.server.handles.get(handle)?;
        match &*handle {
            Handle::Root => self.list_exports(&mut listing, plus, offset)?,
            Handle::Directory { inode, file } => {
                self.check_inside(inode, self.server.inodes.file(inode)?.as_fd())?;
                let file = lock(file);
                self.list(&mut listing, plus, offset, inode, file.as_fd())?;
            }
            _ => return Err(Errno::NOTDIR),
        }
        Ok(listing.body.into())
    }

    fn list_exports(&self, listing: &mut Listing, plus: bool, offset: u64) -> Result<()> {
        let exports = self.server.exports.all();
        for (position, export) in exports.iter().enumerate() {
            let next = position as u64 + 1;
            let name = export.name.as_bytes();
            if next <= offset {
                continue;
            }
            if !listing.fits(plus, name) {
                break;
            }
            if plus {
                // No node: the client looks up what it is interested in.
                listing.body.zeroes(ATTRIBUTES);
            }
            // It may have gone since.
            let Ok(root) = export.root() else {
                continue;
            };
            let status = crate::host::status(root)?;
            let number = self.server.devices.number(&status);
            listing.entry(number, next, crate::host::file_type(&status), name);
        }
        Ok(())
    }

    fn list(
        &self,
        listing: &mut Listing,
        plus: bool,
        offset: u64,
        directory: &Arc<Inode>,
        file: BorrowedFd<'_>,
    ) -> Result<()> {
        if i64::try_from(offset).is_err() {
            return Err(Errno::INVAL);
        }
        rustix::fs::seek(file, SeekFrom::Start(offset))?;
        // As many as will fit, roughly: what does not fit is read again next time.
        let length = if plus { listing.room / 4 } else { listing.room };
        let mut buffer = vec![MaybeUninit::uninit(); length.clamp(1024, BUFFER)];
        let mut entries = RawDir::new(file, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !listing.fits(plus, name) {
                break;
            }
            let next = entry.next_entry_cookie();
            let mut number = entry.ino();
            if plus {
                let start = listing.body.0.len();
                // The client's kernel knows `.` and `..`; an entry that went away or that
                // may not be looked at has no attributes.
                let child = Name::new(name)
                    .and_then(|name| self.child(&mut listing.body, directory, file, name));
                if child.is_err() {
                    listing.body.0.truncate(start);
                    listing.body.zeroes(ATTRIBUTES);
                }
            }
            if name == b".." && directory.is_root {
                // What is above is nobody's business.
                number = directory.key.number;
            }
            listing.entry(number, next, entry.file_type(), name);
        }
        Ok(())
    }
}
