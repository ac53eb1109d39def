//! What each request does.
//!
//! A [`Call`] is one request with its fields still to be read. It answers with an error
//! number, or with what the client gets.

mod attributes;
mod create;
mod directories;
mod files;
mod locks;
mod lookup;
mod open;
mod remove;
mod replay;
mod space;
mod xattrs;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use guest_protocol::replay::marker;
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::exports::Owner;
use crate::inodes::{Inode, lock};
use crate::ownership::{self, Seen};
use crate::server::Server;
use crate::transport::{Pending, ReplyBuffer, RequestBuffer};
use crate::wire::{Body, Fields, RequestHeader, Short, opcode};

pub(crate) use locks::Locks;
pub(crate) use open::Opened;

/// What the client gets.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A body, which may be empty.
    Body(Body),
    /// This many bytes that are in the reply buffer already, behind the header.
    Data(usize),
    /// Nothing at all.
    Silent,
    /// Nothing yet.
    Wait(Pending),
}

impl Answer {
    fn empty() -> Self {
        Self::Body(Body::default())
    }
}

impl From<Body> for Answer {
    fn from(body: Body) -> Self {
        Self::Body(body)
    }
}

impl From<Short> for Errno {
    fn from(_: Short) -> Self {
        Self::INVAL
    }
}

type Result<T> = std::result::Result<T, Errno>;

/// One request.
pub(crate) struct Call<'a> {
    pub(crate) server: &'a Server,
    pub(crate) header: RequestHeader,
    pub(crate) fields: Fields<'a>,
}

impl Call<'_> {
    /// Does what is asked for.
    pub(crate) fn answer(
        &mut self,
        request: &impl RequestBuffer,
        reply: &mut impl ReplyBuffer,
    ) -> Result<Answer> {
        if (marker::FIRST..=marker::LAST).contains(&self.header.uid)
            && let Some(answer) = self.replay()?
        {
            return Ok(answer);
        }
        match self.header.opcode {
            opcode::LOOKUP => self.lookup(),
            opcode::FORGET => Ok(self.forget()),
            opcode::BATCH_FORGET => Ok(self.batch_forget()),
            opcode::GETATTR => self.getattr(),
            opcode::STATX => self.statx(),
            opcode::SETATTR => self.setattr(),
            opcode::ACCESS => self.access(),
            opcode::READLINK => self.readlink(),
            opcode::SYMLINK => self.symlink(),
            opcode::MKNOD => self.mknod(),
            opcode::MKDIR => self.mkdir(),
            opcode::CREATE => self.create(),
            opcode::TMPFILE => self.tmpfile(),
            opcode::LINK => self.link(),
            opcode::UNLINK => self.unlink(false),
            opcode::RMDIR => self.unlink(true),
            opcode::RENAME => self.rename(false),
            opcode::RENAME2 => self.rename(true),
            opcode::OPEN => self.open(),
            opcode::RELEASE => self.release(),
            opcode::READ => self.read(reply),
            opcode::WRITE => self.write(request),
            opcode::FLUSH => self.flush(),
            opcode::FSYNC => self.fsync(),
            opcode::LSEEK => self.lseek(),
            opcode::FALLOCATE => self.fallocate(),
            opcode::COPY_FILE_RANGE => self.copy_file_range(),
            opcode::OPENDIR => self.opendir(),
            opcode::READDIR => self.readdir(false, reply.capacity()),
            opcode::READDIRPLUS => self.readdir(true, reply.capacity()),
            opcode::RELEASEDIR => self.releasedir(),
            opcode::FSYNCDIR => self.fsyncdir(),
            opcode::SETXATTR => self.setxattr(),
            opcode::GETXATTR => self.getxattr(),
            opcode::LISTXATTR => self.listxattr(),
            opcode::REMOVEXATTR => self.removexattr(),
            opcode::GETLK => self.getlk(),
            opcode::SETLK => self.setlk(false),
            opcode::SETLKW => self.setlk(true),
            opcode::INTERRUPT => self.interrupt(),
            opcode::STATFS => self.statfs(),
            opcode::SYNCFS => self.syncfs(),
            _ => Err(Errno::NOSYS),
        }
    }

    /// Who asks.
    fn caller(&self) -> Owner {
        Owner {
            uid: self.header.uid,
            gid: self.header.gid,
        }
    }

    /// A file of an export and its descriptor, still inside the export.
    fn inode(&self, node: u64) -> Result<(Arc<Inode>, Arc<OwnedFd>)> {
        let inode = self.server.inodes.get(node)?;
        let file = self.server.inodes.file(&inode)?;
        self.check_inside(&inode, file.as_fd())?;
        Ok((inode, file))
    }

    /// A directory of an export.
    fn directory(&self, node: u64) -> Result<(Arc<Inode>, Arc<OwnedFd>)> {
        let (inode, file) = self.inode(node)?;
        if inode.kind != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        Ok((inode, file))
    }

    /// A directory of an export that may be changed.
    fn changed_directory(&self, node: u64) -> Result<(Arc<Inode>, Arc<OwnedFd>)> {
        if node == crate::wire::ROOT {
            return Err(Errno::ROFS);
        }
        let (inode, file) = self.directory(node)?;
        writable(&inode)?;
        Ok((inode, file))
    }

    /// Fails when somebody on the host has moved the file out of the export. The client
    /// could otherwise go on to reach it, and what is put below it.
    fn check_inside(&self, inode: &Inode, file: BorrowedFd<'_>) -> Result<()> {
        if inode.is_root {
            return Ok(());
        }
        let root = inode.export.root()?;
        for _ in 0..2 {
            let path = match self.server.descriptors.path(file) {
                Ok(path) => path,
                Err(Errno::NAMETOOLONG) => return climbs_to(inode, file, root.as_fd()),
                Err(error) => return Err(error),
            };
            let root = self.server.descriptors.path(root.as_fd())?;
            let rest = path.strip_prefix(root.as_slice());
            if root == b"/" || rest.is_some_and(|rest| rest.first() == Some(&b'/')) {
                return Ok(());
            }
            // The export's root may itself have been moved in between.
        }
        Err(Errno::STALE)
    }

    /// Does what the host may refuse because the user has taken the right to write from
    /// himself: containers' kernel has allowed it, and it is the user's own file.
    fn with_access<T>(
        &self,
        inode: &Inode,
        file: BorrowedFd<'_>,
        mut action: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        match action() {
            Err(Errno::ACCESS) if self.give_access(inode, file)? => action(),
            result => result,
        }
    }

    /// Gives the user access to what is his own; containers see the mode as it was.
    fn give_access(&self, inode: &Inode, file: BorrowedFd<'_>) -> Result<bool> {
        let status = crate::host::status(file)?;
        let real = u32::from(status.stx_mode) & ownership::MODE;
        let wanted = ownership::real_mode(real, inode.kind) | real & !0o777;
        let possible = self.server.user.owns(&status) && !inode.export.options.read_only;
        if !possible || wanted == real {
            return Ok(false);
        }
        let seen = self.seen(inode, file, &status);
        self.server.recent.file(inode.key.device, inode.key.number);
        self.server.descriptors.set_mode(file, wanted)?;
        let stored = ownership::override_for(seen, wanted, inode.export.options.owner);
        ownership::store(file, inode.kind, stored, &mut lock(&inode.ownership))?;
        Ok(true)
    }

    /// Owner and mode of a file as containers see them.
    fn seen(&self, inode: &Inode, file: BorrowedFd<'_>, status: &rustix::fs::Statx) -> Seen {
        let user = &self.server.user;
        let mut known = lock(&inode.ownership);
        let stored = user.read(file, status, &mut known);
        let seen = user.see(status, &stored, inode.export.options.owner);
        known.note(seen);
        seen
    }
}

/// Fails for what is exported read-only.
fn writable(inode: &Inode) -> Result<()> {
    if inode.export.options.read_only {
        return Err(Errno::ROFS);
    }
    Ok(())
}

/// For paths that are too long to be told: goes up from a directory until the root.
fn climbs_to(inode: &Inode, file: BorrowedFd<'_>, root: BorrowedFd<'_>) -> Result<()> {
    use rustix::fs::{Mode, OFlags, openat};

    /// Deeper trees than `PATH_MAX` allows in one path, but not endless ones.
    const DEPTH: usize = 20_000;
    if inode.kind != FileType::Directory {
        // Its directory was looked at when it was found.
        return Ok(());
    }
    let same = |one: &rustix::fs::Statx, other: &rustix::fs::Statx| {
        one.stx_ino == other.stx_ino
            && crate::inodes::device(one) == crate::inodes::device(other)
            && one.stx_mnt_id == other.stx_mnt_id
    };
    let root = crate::host::status(root)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut above = openat(file, "..", flags, Mode::empty())?;
    let mut before = crate::host::status(file)?;
    for _ in 0..DEPTH {
        let status = crate::host::status(&above)?;
        if same(&status, &root) {
            return Ok(());
        }
        if same(&status, &before) {
            break;
        }
        before = status;
        above = openat(&above, "..", flags, Mode::empty())?;
    }
    Err(Errno::STALE)
}
