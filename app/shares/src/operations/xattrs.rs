//! Extended attributes: SETXATTR, GETXATTR, LISTXATTR, REMOVEXATTR.
//!
//! Containers have the `user.` attributes of files. Other name spaces say something to
//! the host's kernel (capabilities, labels, access control lists) that a container must
//! not say.

use std::os::fd::AsFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::{Answer, Call, Result, writable};
use crate::host::proc_path;
use crate::ownership::stores;
use crate::wire::{Body, ROOT};

/// The longest value, and the longest list of names, in bytes (`XATTR_SIZE_MAX`).
const MOST: usize = 65_536;

/// Whether containers may use an attribute of this name.
fn usable(name: &[u8]) -> bool {
    name.starts_with(b"user.") && !name.starts_with(b"user.dctl.")
}

impl Call<'_> {
    pub(super) fn setxattr(&mut self) -> Result<Answer> {
        let size = self.fields.u32()? as usize;
        let flags = XattrFlags::from_bits(self.fields.u32()?).ok_or(Errno::INVAL)?;
        let name = self.fields.text()?;
        let value = self.fields.0.get(..size).ok_or(Errno::INVAL)?;
        if self.header.node == ROOT {
            return Err(Errno::ROFS);
        }
        if !usable(name) {
            return Err(Errno::OPNOTSUPP);
        }
        let (inode, file) = self.inode(self.header.node)?;
        writable(&inode)?;
        if !stores(inode.kind) {
            return Err(Errno::PERM);
        }
        self.server.recent.file(inode.key.device, inode.key.number);
        self.with_access(&inode, file.as_fd(), || {
            rustix::fs::setxattr(proc_path(file.as_fd()), name, value, flags)
        })?;
        Ok(Answer::empty())
    }

    pub(super) fn getxattr(&mut self) -> Result<Answer> {
        let size = self.fields.u32()? as usize;
        self.fields.skip(4)?;
        let name = self.fields.text()?;
        if !usable(name) {
            return Err(Errno::OPNOTSUPP);
        }
        if self.header.node == ROOT {
            return Err(Errno::NODATA);
        }
        let (inode, file) = self.inode(self.header.node)?;
        if !stores(inode.kind) {
            return Err(Errno::NODATA);
        }
        let mut value = vec![0; MOST];
        let length = rustix::fs::getxattr(proc_path(file.as_fd()), name, &mut value)?;
        value.truncate(length);
        answer(value, size)
    }

    pub(super) fn listxattr(&mut self) -> Result<Answer> {
        let size = self.fields.u32()? as usize;
        if self.header.node == ROOT {
            return answer(Vec::new(), size);
        }
        let (inode, file) = self.inode(self.header.node)?;
        if !stores(inode.kind) {
            return answer(Vec::new(), size);
        }
        let mut names = vec![0; MOST];
        let length = rustix::fs::listxattr(proc_path(file.as_fd()), &mut names)?;
        names.truncate(length);
        let shown: Vec<u8> = names
            .split_inclusive(|byte| *byte == 0)
            .filter(|name| usable(name))
            .flatten()
            .copied()
            .collect();
        answer(shown, size)
    }

    pub(super) fn removexattr(&mut self) -> Result<Answer> {
        let name = self.fields.text()?;
        if self.header.node == ROOT {
            return Err(Errno::ROFS);
        }
        if !usable(name) {
            return Err(Errno::OPNOTSUPP);
        }
        let (inode, file) = self.inode(self.header.node)?;
        writable(&inode)?;
        if !stores(inode.kind) {
            return Err(Errno::PERM);
        }
        self.server.recent.file(inode.key.device, inode.key.number);
        self.with_access(&inode, file.as_fd(), || {
            rustix::fs::removexattr(proc_path(file.as_fd()), name)
        })?;
        Ok(Answer::empty())
    }
}

/// A value or list, or its length when that is what is asked for.
fn answer(value: Vec<u8>, size: usize) -> Result<Answer> {
    if size == 0 {
        let mut body = Body::default();
        body.u32(value.len() as u32).u32(0);
        return Ok(body.into());
    }
    if value.len() > size {
        return Err(Errno::RANGE);
    }
    Ok(Body(value).into())
}
