//! Contents of open files: READ, WRITE, FLUSH, FSYNC, LSEEK, FALLOCATE,
//! `COPY_FILE_RANGE`.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::{Answer, Call, Result};
use crate::handles::Handle;
use crate::inodes::{Inode, lock};
use crate::transport::{ReplyBuffer, RequestBuffer, WriteAt};
use crate::wire::{self, Body, flag};

/// Bytes of WRITE's fields, behind which the data is.
const WRITE_FIELDS: usize = 40;

/// Bytes that one `COPY_FILE_RANGE` copies at most, so that none takes long.
const COPY: u64 = 64 << 20;

/// An error number for what a transport reported.
fn error_number(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

impl Call<'_> {
    fn note_contents(&self, inode: &Inode) {
        self.server.recent.file(inode.key.device, inode.key.number);
    }

    pub(super) fn read(&mut self, reply: &mut impl ReplyBuffer) -> Result<Answer> {
        let handle = self.fields.u64()?;
        let offset = self.fields.u64()?;
        let size = self.fields.u32()?.min(self.server.limits.transfer) as usize;
        let room = reply.capacity().saturating_sub(wire::REPLY_HEADER);
        let handle = self.server.handles.get(handle)?;
        let (_, file) = handle.file()?;
        let count = reply
            .read_file(wire::REPLY_HEADER, size.min(room), file.as_fd(), offset)
            .map_err(|error| error_number(&error))?;
        Ok(Answer::Data(count))
    }

    pub(super) fn write(&mut self, request: &impl RequestBuffer) -> Result<Answer> {
        const APPEND: u32 = rustix::fs::OFlags::APPEND.bits();
        let handle = self.fields.u64()?;
        let offset = self.fields.u64()?;
        let size = self.fields.u32()?;
        let write_flags = self.fields.u32()?;
        self.fields.skip(8)?;
        let flags = self.fields.u32()?;
        let at = wire::REQUEST_HEADER + WRITE_FIELDS;
        if size > self.server.limits.transfer || request.size() < at + size as usize {
            return Err(Errno::INVAL);
        }
        let handle = self.server.handles.get(handle)?;
        if matches!(*handle, Handle::Replay) {
            return Err(Errno::PERM);
        }
        let (inode, file) = handle.file()?;
        self.note_contents(inode);
        // What the client's kernel writes from mapped pages has its place.
        let append = flags & APPEND != 0 && write_flags & flag::WRITE_CACHE == 0;
        let place = if append {
            WriteAt::End(rustix::fs::fstat(file)?.st_size.cast_unsigned())
        } else {
            WriteAt::Offset(offset)
        };
        let written = request
            .write_file(at, size as usize, file.as_fd(), place)
            .map_err(|error| error_number(&error))?;
        let kill = write_flags & flag::WRITE_KILL_SUIDGID != 0;
        if kill && lock(&inode.ownership).may_be_privileged() {
            self.drop_privileges(inode, file.as_fd())?;
        }
        let mut body = Body::default();
        body.u32(u32::try_from(written).unwrap_or(size)).u32(0);
        Ok(body.into())
    }

    /// A process closes the file: its POSIX locks go.
    pub(super) fn flush(&mut self) -> Result<Answer> {
        let handle = self.fields.u64()?;
        self.fields.skip(8)?;
        let owner = self.fields.u64()?;
        let handle = self.server.handles.get(handle)?;
        if let Ok((inode, _)) = handle.file() {
            self.server.locks.release(inode.node, owner);
        }
        Ok(Answer::empty())
    }

    pub(super) fn fsync(&mut self) -> Result<Answer> {
        let handle = self.fields.u64()?;
        let flags = self.fields.u32()?;
        let handle = self.server.handles.get(handle)?;
        let (_, file) = handle.file()?;
        if flags & flag::FSYNC_DATA == 0 {
            rustix::fs::fsync(file)?;
        } else {
            rustix::fs::fdatasync(file)?;
        }
        Ok(Answer::empty())
    }

    pub(super) fn lseek(&mut self) -> Result<Answer> {
        let handle = self.fields.u64()?;
        let offset = self.fields.u64()?;
        let whence = self.fields.u32()?;
        let handle = self.server.handles.get(handle)?;
        let (_, file) = handle.file()?;
        // Everything else the client's kernel knows itself.
        let position = match whence.cast_signed() {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        let mut body = Body::default();
        body.u64(rustix::fs::seek(file, position)?);
        Ok(body.into())
    }

    pub(super) fn fallocate(&mut self) -> Result<Answer> {
        let handle = self.fields.u64()?;
        let offset = self.fields.u64()?;
        let length = self.fields.u64()?;
        let mode = FallocateFlags::from_bits(self.fields.u32()?).ok_or(Errno::OPNOTSUPP)?;
        let handle = self.server.handles.get(handle)?;
        let (inode, file) = handle.file()?;
        self.note_contents(inode);
        rustix::fs::fallocate(file, mode, offset, length)?;
        if lock(&inode.ownership).may_be_privileged() {
            self.drop_privileges(inode, file.as_fd())?;
        }
        Ok(Answer::empty())
    }

    pub(super) fn copy_file_range(&mut self) -> Result<Answer> {
        let from = self.fields.u64()?;
        let mut from_offset = self.fields.u64()?;
        self.fields.skip(8)?;
        let to = self.fields.u64()?;
        let mut to_offset = self.fields.u64()?;
        let length = self.fields.u64()?.min(COPY) as usize;
        if self.fields.u64()? != 0 {
            return Err(Errno::INVAL);
        }
        let (from, to) = (self.server.handles.get(from)?, self.server.handles.get(to)?);
        let ((_, from), (inode, to)) = (from.file()?, to.file()?);
        self.note_contents(inode);
        let (from_place, to_place) = (Some(&mut from_offset), Some(&mut to_offset));
        let copied = rustix::fs::copy_file_range(from, from_place, to, to_place, length)?;
        let mut body = Body::default();
        body.u32(u32::try_from(copied).unwrap_or(u32::MAX)).u32(0);
        Ok(body.into())
    }
}
