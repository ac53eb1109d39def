//! Attributes of files: GETATTR, STATX, SETATTR, ACCESS.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags, Statx, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use super::{Answer, Call, Result, writable};
use crate::exports::Owner;
use crate::host;
use crate::inodes::{Inode, lock};
use crate::ownership::{self, Seen};
use crate::wire::{self, Body, flag, setattr};

/// Type and mode of the session's root.
const ROOT_MODE: u32 = 0o040_555;

/// Fields of SETATTR.
struct Changes {
    valid: u32,
    handle: u64,
    size: u64,
    accessed: (u64, u32),
    modified: (u64, u32),
    mode: u32,
    owner: Owner,
}

impl Call<'_> {
    pub(super) fn getattr(&mut self) -> Result<Answer> {
        let flags = self.fields.u32()?;
        self.fields.skip(4)?;
        let handle = self.fields.u64()?;
        if self.header.node == wire::ROOT {
            return Ok(root_attributes().into());
        }
        if flags & flag::GETATTR_FH != 0
            && let Ok(handle) = self.server.handles.get(handle)
            && let Ok((inode, file)) = handle.file()
        {
            return self.attributes_answer(inode, file.as_fd());
        }
        let (inode, file) = self.known(self.header.node)?;
        self.attributes_answer(&inode, file.as_fd())
    }

    /// A file and its descriptor, wherever it is now: to tell what it is like.
    fn known(&self, node: u64) -> Result<(Arc<Inode>, Arc<OwnedFd>)> {
        let inode = self.server.inodes.get(node)?;
        let file = self.server.inodes.file(&inode)?;
        Ok((inode, file))
    }

    pub(super) fn attributes_answer(&self, inode: &Inode, file: BorrowedFd<'_>) -> Result<Answer> {
        let status = host::status(file)?;
        let mut body = self.attributes_head();
        self.attributes(&mut body, inode, file, &status);
        Ok(body.into())
    }

    fn attributes_head(&self) -> Body {
        let validity = self.server.limits.validity;
        let mut body = Body::default();
        body.u64(validity.as_secs())
            .u32(validity.subsec_nanos())
            .u32(0);
        body
    }

    /// Attributes (`fuse_attr`) of a file.
    pub(super) fn attributes(
        &self,
        body: &mut Body,
        inode: &Inode,
        file: BorrowedFd<'_>,
        status: &Statx,
    ) {
        let seen = self.seen(inode, file, status);
        let mode = u32::from(status.stx_mode) & !ownership::MODE | seen.mode;
        let times = [status.stx_atime, status.stx_mtime, status.stx_ctime];
        body.u64(self.server.devices.number(status))
            .u64(status.stx_size)
            .u64(status.stx_blocks);
        for time in times {
            body.u64(time.tv_sec.cast_unsigned());
        }
        for time in times {
            body.u32(time.tv_nsec);
        }
        body.u32(mode)
            .u32(status.stx_nlink)
            .u32(seen.owner.uid)
            .u32(seen.owner.gid)
            .u32(device_number(status))
            .u32(status.stx_blksize)
            .u32(0);
    }

    pub(super) fn statx(&mut self) -> Result<Answer> {
        let mut body = Body::default();
        if self.header.node == wire::ROOT {
            body.zeroes(32);
            // The basic fields.
            body.u32(0x7ff).u32(4096).u64(0).u32(2).zeroes(8);
            body.u16(ROOT_MODE as u16).u16(0).u64(wire::ROOT);
            body.zeroes(256 - 40);
            return Ok(body.into());
        }
        let (inode, file) = self.known(self.header.node)?;
        let status = host::status(&file)?;
        let seen = self.seen(&inode, file.as_fd(), &status);
        let validity = self.server.limits.validity;
        body.u64(validity.as_secs())
            .u32(validity.subsec_nanos())
            .zeroes(20);
        body.u32(status.stx_mask & 0xfff)
            .u32(status.stx_blksize)
            .u64(0)
            .u32(status.stx_nlink)
            .u32(seen.owner.uid)
            .u32(seen.owner.gid)
            .u16(status.stx_mode & !(ownership::MODE as u16) | seen.mode as u16)
            .u16(0)
            .u64(self.server.devices.number(&status))
            .u64(status.stx_size)
            .u64(status.stx_blocks)
            .u64(0);
        let times = [
            status.stx_atime,
            status.stx_btime,
            status.stx_ctime,
            status.stx_mtime,
        ];
        for time in times {
            body.u64(time.tv_sec.cast_unsigned())
                .u32(time.tv_nsec)
                .u32(0);
        }
        body.u32(status.stx_rdev_major)
            .u32(status.stx_rdev_minor)
            .zeroes(8 + 14 * 8);
        Ok(body.into())
    }

    /// The client's kernel decides by mode and owner itself (`default_permissions`).
    pub(super) fn access(&mut self) -> Result<Answer> {
        const WRITE: u32 = 2;
        let mask = self.fields.u32()?;
        if self.header.node != wire::ROOT {
            let (inode, _) = self.known(self.header.node)?;
            if mask & WRITE != 0 {
                writable(&inode)?;
            }
        }
        Ok(Answer::empty())
    }

    pub(super) fn setattr(&mut self) -> Result<Answer> {
        let changes = self.changes()?;
        if self.header.node == wire::ROOT {
            return Err(Errno::ROFS);
        }
        let (inode, file) = self.inode(self.header.node)?;
        writable(&inode)?;
        self.server.recent.file(inode.key.device, inode.key.number);
        let ownership = setattr::MODE | setattr::UID | setattr::GID | setattr::KILL_SUIDGID;
        if changes.valid & ownership != 0 {
            self.change_ownership(&inode, file.as_fd(), &changes)?;
        }
        if changes.valid & setattr::SIZE != 0 {
            self.change_size(&inode, file.as_fd(), &changes)?;
        }
        if changes.valid & (setattr::ATIME | setattr::MTIME) != 0 {
            self.change_times(file.as_fd(), &changes)?;
        }
        self.attributes_answer(&inode, file.as_fd())
    }

    fn changes(&mut self) -> Result<Changes> {
        let fields = &mut self.fields;
        let valid = fields.u32()?;
        fields.skip(4)?;
        let handle = fields.u64()?;
        let size = fields.u64()?;
        fields.skip(8)?;
        let accessed = fields.u64()?;
        let modified = fields.u64()?;
        fields.skip(8)?;
        let accessed = (accessed, fields.u32()?);
        let modified = (modified, fields.u32()?);
        fields.skip(4)?;
        let mode = fields.u32()?;
        fields.skip(4)?;
        Ok(Changes {
            valid,
            handle,
            size,
            accessed,
            modified,
            mode,
            owner: Owner {
                uid: fields.u32()?,
                gid: fields.u32()?,
            },
        })
    }

    fn change_ownership(
        &self,
        inode: &Inode,
        file: BorrowedFd<'_>,
        changes: &Changes,
    ) -> Result<()> {
        let status = host::status(file)?;
        let mut seen = self.seen(inode, file, &status);
        let before = seen;
        if changes.valid & setattr::KILL_SUIDGID != 0 && inode.kind == FileType::RegularFile {
            seen.mode = ownership::without_privileges(seen.mode);
        }
        if changes.valid & setattr::UID != 0 {
            seen.owner.uid = changes.owner.uid;
        }
        if changes.valid & setattr::GID != 0 {
            seen.owner.gid = changes.owner.gid;
        }
        if changes.valid & setattr::MODE != 0 && inode.kind != FileType::Symlink {
            seen.mode = changes.mode & ownership::MODE;
        }
        if seen == before {
            return Ok(());
        }
        self.set_seen(inode, file, &status, seen)
    }

    /// Makes containers see this owner and mode from now on.
    pub(super) fn set_seen(
        &self,
        inode: &Inode,
        file: BorrowedFd<'_>,
        status: &Statx,
        seen: Seen,
    ) -> Result<()> {
        if !self.server.user.owns(status) {
            return Err(Errno::PERM);
        }
        let before = u32::from(status.stx_mode) & ownership::MODE;
        let shown = self.seen(inode, file, status).mode;
        let real = if seen.mode == shown || inode.kind == FileType::Symlink {
            before
        } else {
            ownership::real_mode(seen.mode, inode.kind)
        };
        let stored = ownership::override_for(seen, real, inode.export.options.owner);
        let store = || ownership::store(file, inode.kind, stored, &mut lock(&inode.ownership));
        self.server.recent.file(inode.key.device, inode.key.number);
        // First what counts only with the new mode, then the mode.
        let result = store();
        if real != before {
            self.server.descriptors.set_mode(file, real)?;
        }
        match result {
            // The user had taken the right to write from himself.
            Err(Errno::ACCESS) if real != before => store(),
            Err(Errno::ACCESS) if self.give_access(inode, file)? => {
                let status = host::status(file)?;
                self.set_seen(inode, file, &status, seen)
            }
            result => result,
        }
    }

    fn change_size(&self, inode: &Inode, file: BorrowedFd<'_>, changes: &Changes) -> Result<()> {
        if changes.valid & setattr::FH != 0
            && let Ok(handle) = self.server.handles.get(changes.handle)
            && let Ok((_, open)) = handle.file()
        {
            return rustix::fs::ftruncate(open, changes.size);
        }
        match inode.kind {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::INVAL),
        }
        let open = self.with_access(inode, file, || {
            let flags = OFlags::WRONLY | OFlags::NONBLOCK;
            self.server.descriptors.reopen(file, flags)
        })?;
        rustix::fs::ftruncate(open, changes.size)
    }

    fn change_times(&self, file: BorrowedFd<'_>, changes: &Changes) -> Result<()> {
        let time = |given: u32, now: u32, (seconds, nanoseconds): (u64, u32)| Timespec {
            tv_sec: seconds.cast_signed(),
            tv_nsec: if changes.valid & now != 0 {
                UTIME_NOW
            } else if changes.valid & given != 0 {
                // Beyond a second are the two special values, which are not the client's.
                i64::from(nanoseconds.min(999_999_999))
            } else {
                UTIME_OMIT
            },
        };
        let times = Timestamps {
            last_access: time(setattr::ATIME, setattr::ATIME_NOW, changes.accessed),
            last_modification: time(setattr::MTIME, setattr::MTIME_NOW, changes.modified),
        };
        self.server.descriptors.set_times(file, &times)
    }

    /// Takes set-user-ID and set-group-ID bits away after a write.
    pub(super) fn drop_privileges(&self, inode: &Inode, file: BorrowedFd<'_>) -> Result<()> {
        let status = host::status(file)?;
        let mut seen = self.seen(inode, file, &status);
        if ownership::has_privileges(seen.mode) {
            seen.mode = ownership::without_privileges(seen.mode);
            self.set_seen(inode, file, &status, seen)?;
        }
        Ok(())
    }
}

/// A device number as the protocol has it.
fn device_number(status: &Statx) -> u32 {
    let (major, minor) = (status.stx_rdev_major, status.stx_rdev_minor);
    minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12
}

fn root_attributes() -> Body {
    let mut body = Body::default();
    // Exports come and go: nothing is valid for any time.
    body.u64(0).u32(0).u32(0);
    body.u64(wire::ROOT).zeroes(40).zeroes(12);
    body.u32(ROOT_MODE).u32(2).zeroes(12).u32(4096).u32(0);
    body
}
