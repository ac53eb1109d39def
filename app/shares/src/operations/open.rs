//! Opening and closing regular files: OPEN, RELEASE.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FileType, OFlags, Statx};
use rustix::io::Errno;

use super::{Answer, Call, Result, writable};
use crate::handles::Handle;
use crate::host;
use crate::inodes::{Inode, lock};
use crate::wire::{Body, ROOT, flag};

/// The coarsest step in which file systems tell a change's time: within it, one change
/// can't be told from the next.
const TICK: Duration = Duration::from_millis(20);

/// What a file was like when it was opened last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    changed: (i64, u32),
    modified: (i64, u32),
    size: u64,
    /// Whether a later change must have another time.
    settled: bool,
}

impl Opened {
    fn new(status: &Statx) -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let age = |seconds: i64, nanoseconds: u32| {
            let seconds = i128::from(now.tv_sec) - i128::from(seconds);
            seconds * 1_000_000_000 + i128::from(now.tv_nsec) - i128::from(nanoseconds)
        };
        let changed = (status.stx_ctime.tv_sec, status.stx_ctime.tv_nsec);
        Self {
            changed,
            modified: (status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec),
            size: status.stx_size,
            settled: age(changed.0, changed.1) > TICK.as_nanos() as i128,
        }
    }
}

/// How the client wants a file opened.
pub(super) struct OpenRequest {
    flags: OFlags,
    kill_privileges: bool,
}

impl OpenRequest {
    pub(super) fn new(flags: u32, open_flags: u32) -> Self {
        Self {
            flags: OFlags::from_bits_retain(flags),
            kill_privileges: open_flags & flag::OPEN_KILL_SUIDGID != 0,
        }
    }

    /// What of it the host is asked for. Appending is said with each WRITE; `O_DIRECT` is
    /// between the client and its cache.
    pub(super) fn host_flags(&self) -> OFlags {
        let kept = OFlags::RWMODE | OFlags::TRUNC | OFlags::SYNC | OFlags::DSYNC;
        self.flags & kept
    }

    pub(super) fn exclusive(&self) -> bool {
        self.flags.contains(OFlags::EXCL)
    }

    fn changes(&self) -> bool {
        self.flags & OFlags::RWMODE != OFlags::RDONLY || self.flags.contains(OFlags::TRUNC)
    }
}

impl Call<'_> {
    pub(super) fn open(&mut self) -> Result<Answer> {
        let request = OpenRequest::new(self.fields.u32()?, self.fields.u32()?);
        if self.header.node == ROOT {
            return Err(Errno::ISDIR);
        }
        let (inode, file) = self.inode(self.header.node)?;
        let opened = self.open_file(&inode, file.as_fd(), &request)?;
        let (handle, flags) = self.opened(&inode, opened)?;
        let mut body = Body::default();
        body.u64(handle).u32(flags).u32(0);
        Ok(body.into())
    }

    /// Opens a regular file, and nothing else.
    pub(super) fn open_file(
        &self,
        inode: &Inode,
        file: BorrowedFd<'_>,
        request: &OpenRequest,
    ) -> Result<OwnedFd> {
        match inode.kind {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            FileType::Symlink => return Err(Errno::LOOP),
            // Guests have FIFOs, sockets and devices of their own by these names.
            _ => return Err(Errno::ACCESS),
        }
        if request.changes() {
            writable(inode)?;
        }
        let truncates = request.flags.contains(OFlags::TRUNC);
        if truncates {
            self.server.recent.file(inode.key.device, inode.key.number);
        }
        // A lease on the host must not make the server wait.
        let flags = request.host_flags() | OFlags::NONBLOCK;
        let opened =
            self.with_access(inode, file, || self.server.descriptors.reopen(file, flags))?;
        if truncates && request.kill_privileges {
            self.drop_privileges(inode, file)?;
        }
        Ok(opened)
    }

    /// Makes an open file the client's, and tells how it may be cached: what it read
    /// before is kept only if the file is certain to be what it was then.
    pub(super) fn opened(&self, inode: &Arc<Inode>, file: OwnedFd) -> Result<(u64, u32)> {
        let now = Opened::new(&host::status(&file)?);
        let before = lock(&inode.opened).replace(now);
        let same = before.is_some_and(|before| {
            before.settled
                && before.changed == now.changed
                && before.modified == now.modified
                && before.size == now.size
        });
        let mut flags = flag::OPEN_PARALLEL_DIRECT_WRITES;
        if same {
            flags |= flag::OPEN_KEEP_CACHE;
        }
        let inode = Arc::clone(inode);
        let handle = self.server.handles.add(Handle::File { inode, file })?;
        Ok((handle, flags))
    }

    pub(super) fn release(&mut self) -> Result<Answer> {
        let handle = self.fields.u64()?;
        self.fields.skip(4)?;
        let flags = self.fields.u32()?;
        let owner = self.fields.u64()?;
        if let Some(closed) = self.server.handles.close(handle)
            && let Ok((inode, file)) = closed.file()
        {
            if flags & flag::RELEASE_FLOCK_UNLOCK != 0 {
                let unlock = rustix::fs::FlockOperation::Unlock;
                rustix::fs::flock(file, unlock)?;
            }
            self.server.locks.release(inode.node, owner);
            self.server.locks.closed(handle);
        }
        Ok(Answer::empty())
    }
}
