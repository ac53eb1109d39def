//! File systems as a whole: STATFS, SYNCFS.

use std::os::fd::AsFd;

use rustix::fs::OFlags;

use super::{Answer, Call, Result};
use crate::wire::{Body, ROOT};

impl Call<'_> {
    pub(super) fn statfs(&mut self) -> Result<Answer> {
        let mut body = Body::default();
        if self.header.node == ROOT {
            body.zeroes(40).u32(4096).u32(255).u32(4096).zeroes(28);
            return Ok(body.into());
        }
        let inode = self.server.inodes.get(self.header.node)?;
        let file = self.server.inodes.file(&inode)?;
        let status = rustix::fs::fstatvfs(&file)?;
        body.u64(status.f_blocks)
            .u64(status.f_bfree)
            .u64(status.f_bavail)
            .u64(status.f_files)
            .u64(status.f_ffree)
            .u32(status.f_bsize as u32)
            .u32(status.f_namemax as u32)
            .u32(status.f_frsize as u32)
            .zeroes(28);
        Ok(body.into())
    }

    /// Writes what the host has cached of every export's file system.
    pub(super) fn syncfs(&mut self) -> Result<Answer> {
        let mut result = Ok(Answer::empty());
        for export in self.server.exports.all() {
            // Roots are known to be directories or regular files.
            // What has gone meanwhile is nobody's any more.
            let Ok(root) = export.root() else {
                continue;
            };
            let opened = self.server.descriptors.reopen(root.as_fd(), OFlags::RDONLY);
            if let Err(error) = opened.and_then(rustix::fs::syncfs) {
                result = Err(error);
            }
        }
        result
    }
}
