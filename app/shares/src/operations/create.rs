//! Making files and names: CREATE, TMPFILE, MKNOD, MKDIR, SYMLINK, LINK.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, Statx};
use rustix::io::Errno;

use super::open::OpenRequest;
use super::{Answer, Call, Result, writable};
use crate::host::{self, Name};
use crate::inodes::{Found, Inode, lock};
use crate::ownership::{self, Seen};
use crate::wire::{self, Body};

/// The mode that something is made with before its own is set: nobody else gets in.
fn initial_mode(mode: u32, kind: FileType) -> u32 {
    ownership::real_mode(mode, kind)
}

impl Call<'_> {
    /// Owner and mode of what the caller makes in a directory.
    fn inherited(
        &self,
        directory: &Inode,
        file: BorrowedFd<'_>,
        mode: u32,
        kind: FileType,
    ) -> Result<Seen> {
        let status = host::status(file)?;
        let above = self.seen(directory, file, &status);
        let mode = mode & ownership::MODE;
        Ok(ownership::inherited(above, self.caller(), mode, kind))
    }

    /// Makes what was just made known to the client, with the owner and mode it is to
    /// have.
    fn made(
        &self,
        directory: &Arc<Inode>,
        found: Found<'_>,
        made: OwnedFd,
        seen: Seen,
    ) -> Result<(Body, Arc<Inode>, Arc<OwnedFd>)> {
        let made = Arc::new(made);
        let mut status = host::status(&made)?;
        let inodes = &self.server.inodes;
        let inode = inodes.know(&directory.export, Arc::clone(&made), &status, found)?;
        // From here on the client's reference has to reach it, or be taken back.
        if let Err(error) = self.settle(&inode, made.as_fd(), &mut status, seen) {
            inodes.forget(inode.node, 1);
            return Err(error);
        }
        let mut body = Body::default();
        self.entry(&mut body, &inode, made.as_fd(), &status);
        Ok((body, inode, made))
    }

    /// Gives something new its mode and its owner, where they are not what they should
    /// be: the process's file mode creation mask may have changed the one.
    fn settle(
        &self,
        inode: &Inode,
        file: BorrowedFd<'_>,
        status: &mut Statx,
        seen: Seen,
    ) -> Result<()> {
        self.server.recent.file(inode.key.device, inode.key.number);
        if !self.server.user.owns(status) {
            return Ok(());
        }
        let mut real = u32::from(status.stx_mode) & ownership::MODE;
        let mut seen = seen;
        let mut changed = false;
        if inode.kind == FileType::Symlink {
            seen.mode = real;
        } else {
            // A directory of the host may hand its group on.
            let wanted = ownership::real_mode(seen.mode, inode.kind) | real & !0o777;
            if wanted != real {
                self.server.descriptors.set_mode(file, wanted)?;
                real = wanted;
                changed = true;
            }
        }
        let stored = ownership::override_for(seen, real, inode.export.options.owner);
        if stored != ownership::Override::default() {
            ownership::store(file, inode.kind, stored, &mut lock(&inode.ownership))?;
            changed = true;
        }
        if changed {
            *status = host::status(file)?;
        }
        Ok(())
    }

    /// Tells the watcher that a name here is the guest's doing.
    pub(super) fn note_name(&self, directory: &Inode, name: Name<'_>) {
        let key = &directory.key;
        let recent = &self.server.recent;
        recent.name(key.device, key.number, name.bytes());
    }

    pub(super) fn create(&mut self) -> Result<Answer> {
        let flags = self.fields.u32()?;
        let mode = self.fields.u32()?;
        self.fields.skip(4)?;
        let open_flags = self.fields.u32()?;
        let name = Name::new(self.fields.text()?)?;
        let request = OpenRequest::new(flags, open_flags);
        let (directory, file) = self.changed_directory(self.header.node)?;
        self.note_name(&directory, name);
        let kind = FileType::RegularFile;
        let seen = self.inherited(&directory, file.as_fd(), mode, kind)?;
        let result = self.with_access(&directory, file.as_fd(), || {
            let mode = initial_mode(seen.mode, kind);
            host::create(file.as_fd(), name, request.host_flags(), mode)
        });
        let opened = match result {
            Ok(opened) => opened,
            Err(Errno::EXIST) if !request.exclusive() => {
                return self.open_existing(&directory, file.as_fd(), name, &request);
            }
            Err(error) => return Err(error),
        };
        let held = self
            .server
            .descriptors
            .reopen(opened.as_fd(), OFlags::PATH)?;
        let found = Found::At(directory.node, name);
        let (mut body, inode, _) = self.made(&directory, found, held, seen)?;
        self.add_opened(&mut body, &inode, opened)?;
        Ok(body.into())
    }

    /// Somebody on the host was faster.
    fn open_existing(
        &self,
        directory: &Arc<Inode>,
        file: BorrowedFd<'_>,
        name: Name<'_>,
        request: &OpenRequest,
    ) -> Result<Answer> {
        let mut body = Body::default();
        let inode = self.child(&mut body, directory, file, name)?;
        let opened = if inode.kind == FileType::RegularFile {
            self.server
                .inodes
                .file(&inode)
                .and_then(|held| self.open_file(&inode, held.as_fd(), request))
        } else {
            // The client's kernel looks again.
            Err(Errno::STALE)
        };
        let result = opened.and_then(|opened| self.add_opened(&mut body, &inode, opened));
        if let Err(error) = result {
            self.server.inodes.forget(inode.node, 1);
            return Err(error);
        }
        Ok(body.into())
    }

    /// Adds an open file to an entry (`fuse_open_out`); takes the entry's reference back
    /// when it can't be opened.
    fn add_opened(&self, body: &mut Body, inode: &Arc<Inode>, opened: OwnedFd) -> Result<()> {
        match self.opened(inode, opened) {
            Ok((handle, flags)) => {
                body.u64(handle).u32(flags).u32(0);
                Ok(())
            }
            Err(error) => {
                self.server.inodes.forget(inode.node, 1);
                Err(error)
            }
        }
    }

    pub(super) fn tmpfile(&mut self) -> Result<Answer> {
        let flags = self.fields.u32()?;
        let mode = self.fields.u32()?;
        self.fields.skip(4)?;
        let request = OpenRequest::new(flags, self.fields.u32()?);
        let (directory, file) = self.changed_directory(self.header.node)?;
        let kind = FileType::RegularFile;
        let seen = self.inherited(&directory, file.as_fd(), mode, kind)?;
        let opened = self.with_access(&directory, file.as_fd(), || {
            let mode = initial_mode(seen.mode, kind);
            host::create_nameless(file.as_fd(), request.host_flags(), mode)
        })?;
        let held = self
            .server
            .descriptors
            .reopen(opened.as_fd(), OFlags::PATH)?;
        let (mut body, inode, _) = self.made(&directory, Found::Nameless, held, seen)?;
        self.add_opened(&mut body, &inode, opened)?;
        Ok(body.into())
    }

    pub(super) fn mknod(&mut self) -> Result<Answer> {
        let mode = self.fields.u32()?;
        self.fields.skip(12)?;
        let name = Name::new(self.fields.text()?)?;
        let kind = FileType::from_raw_mode(mode);
        if !matches!(
            kind,
            FileType::RegularFile | FileType::Fifo | FileType::Socket
        ) {
            // Devices are the machine's: the host has none to give, root or not.
            return Err(Errno::PERM);
        }
        let (directory, file) = self.changed_directory(self.header.node)?;
        self.note_name(&directory, name);
        let seen = self.inherited(&directory, file.as_fd(), mode, kind)?;
        let initial = Mode::from_raw_mode(initial_mode(seen.mode, kind));
        self.with_access(&directory, file.as_fd(), || {
            rustix::fs::mknodat(&file, name.bytes(), kind, initial, 0)
        })?;
        self.found_after(&directory, file.as_fd(), name, kind, seen)
    }

    pub(super) fn mkdir(&mut self) -> Result<Answer> {
        let mode = self.fields.u32()?;
        self.fields.skip(4)?;
        let name = Name::new(self.fields.text()?)?;
        let kind = FileType::Directory;
        let (directory, file) = self.changed_directory(self.header.node)?;
        self.note_name(&directory, name);
        let seen = self.inherited(&directory, file.as_fd(), mode, kind)?;
        let initial = Mode::from_raw_mode(initial_mode(seen.mode, kind));
        self.with_access(&directory, file.as_fd(), || {
            rustix::fs::mkdirat(&file, name.bytes(), initial)
        })?;
        self.found_after(&directory, file.as_fd(), name, kind, seen)
    }

    pub(super) fn symlink(&mut self) -> Result<Answer> {
        let name = Name::new(self.fields.text()?)?;
        let target = self.fields.text()?;
        let kind = FileType::Symlink;
        let (directory, file) = self.changed_directory(self.header.node)?;
        self.note_name(&directory, name);
        let seen = self.inherited(&directory, file.as_fd(), 0o777, kind)?;
        self.with_access(&directory, file.as_fd(), || {
            rustix::fs::symlinkat(target, &file, name.bytes())
        })?;
        self.found_after(&directory, file.as_fd(), name, kind, seen)
    }

    /// What was made by name, and may have been replaced since.
    fn found_after(
        &self,
        directory: &Arc<Inode>,
        file: BorrowedFd<'_>,
        name: Name<'_>,
        kind: FileType,
        seen: Seen,
    ) -> Result<Answer> {
        let made = host::child(file, name)?;
        if host::file_type(&host::status(&made)?) != kind {
            return Err(Errno::STALE);
        }
        let found = Found::At(directory.node, name);
        let (body, _, _) = self.made(directory, found, made, seen)?;
        Ok(body.into())
    }

    pub(super) fn link(&mut self) -> Result<Answer> {
        let node = self.fields.u64()?;
        let name = Name::new(self.fields.text()?)?;
        if node == wire::ROOT {
            return Err(Errno::PERM);
        }
        let (directory, file) = self.changed_directory(self.header.node)?;
        let (inode, linked) = self.inode(node)?;
        writable(&inode)?;
        if !Arc::ptr_eq(&inode.export, &directory.export) {
            return Err(Errno::XDEV);
        }
        if inode.kind == FileType::Directory {
            return Err(Errno::PERM);
        }
        self.note_name(&directory, name);
        self.server.recent.file(inode.key.device, inode.key.number);
        self.with_access(&directory, file.as_fd(), || {
            let descriptors = &self.server.descriptors;
            descriptors.link(linked.as_fd(), file.as_fd(), name)
        })?;
        let status = host::status(&linked)?;
        let found = Found::At(directory.node, name);
        let inodes = &self.server.inodes;
        let known = inodes.know(&inode.export, Arc::clone(&linked), &status, found)?;
        let mut body = Body::default();
        self.entry(&mut body, &known, linked.as_fd(), &status);
        Ok(body.into())
    }
}
