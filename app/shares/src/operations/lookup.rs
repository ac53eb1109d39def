//! Finding and forgetting files: LOOKUP, FORGET, `BATCH_FORGET`, READLINK.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::Statx;
use rustix::io::Errno;

use super::{Answer, Call, Result};
use crate::host::{self, Name};
use crate::inodes::{Found, Inode};
use crate::wire::{self, Body, Fields};

impl Call<'_> {
    pub(super) fn lookup(&mut self) -> Result<Answer> {
        let name = self.fields.text()?;
        let mut body = Body::default();
        if self.header.node == wire::ROOT {
            let export = self.server.exports.find(name).ok_or(Errno::NOENT)?;
            let root = export.root()?;
            let status = host::status(&root)?;
            let inodes = &self.server.inodes;
            let inode = inodes.know(&export, Arc::clone(&root), &status, Found::Root)?;
            self.entry(&mut body, &inode, root.as_fd(), &status);
            return Ok(body.into());
        }
        let (directory, file) = self.directory(self.header.node)?;
        self.child(&mut body, &directory, file.as_fd(), Name::new(name)?)?;
        Ok(body.into())
    }

    /// Finds a name in a directory and tells the client.
    pub(super) fn child(
        &self,
        body: &mut Body,
        directory: &Arc<Inode>,
        file: BorrowedFd<'_>,
        name: Name<'_>,
    ) -> Result<Arc<Inode>> {
        let found = self.with_access(directory, file, || host::child(file, name))?;
        let found = Arc::new(found);
        let status = host::status(&found)?;
        let at = Found::At(directory.node, name);
        let inodes = &self.server.inodes;
        let inode = inodes.know(&directory.export, Arc::clone(&found), &status, at)?;
        self.entry(body, &inode, found.as_fd(), &status);
        Ok(inode)
    }

    /// An entry for the client (`fuse_entry_out`).
    pub(super) fn entry(
        &self,
        body: &mut Body,
        inode: &Inode,
        file: BorrowedFd<'_>,
        status: &Statx,
    ) {
        let validity = self.server.limits.validity;
        body.u64(inode.node)
            .u64(0)
            .u64(validity.as_secs())
            .u64(validity.as_secs())
            .u32(validity.subsec_nanos())
            .u32(validity.subsec_nanos());
        self.attributes(body, inode, file, status);
    }

    pub(super) fn forget(&mut self) -> Answer {
        if let Ok(count) = self.fields.u64() {
            self.server.inodes.forget(self.header.node, count);
        }
        Answer::Silent
    }

    pub(super) fn batch_forget(&mut self) -> Answer {
        let read = |fields: &mut Fields<'_>| -> std::result::Result<_, wire::Short> {
            Ok((fields.u64()?, fields.u64()?))
        };
        let count = self.fields.u32().unwrap_or(0);
        let mut rest = self.fields;
        if rest.skip(4).is_ok() {
            for _ in 0..count {
                let Ok((node, count)) = read(&mut rest) else {
                    break;
                };
                self.server.inodes.forget(node, count);
            }
        }
        Answer::Silent
    }

    pub(super) fn readlink(&mut self) -> Result<Answer> {
        let (inode, file) = self.inode(self.header.node)?;
        if inode.kind != rustix::fs::FileType::Symlink {
            return Err(Errno::INVAL);
        }
        let target = rustix::fs::readlinkat(&file, "", Vec::new())?;
        Ok(Body(target.into_bytes()).into())
    }
}
