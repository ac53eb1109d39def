//! Removing and moving names: UNLINK, RMDIR, RENAME, RENAME2.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::{Answer, Call, Result};
use crate::host::Name;
use crate::wire::ROOT;

impl Call<'_> {
    pub(super) fn unlink(&mut self, directories: bool) -> Result<Answer> {
        let name = Name::new(self.fields.text()?)?;
        let (directory, file) = self.changed_directory(self.header.node)?;
        self.note_name(&directory, name);
        let known = self.server.inodes.at_place(directory.node, name);
        if let Some(inode) = &known {
            // While it has a name: it may have to be opened again.
            let _held = self.server.inodes.file(inode);
            self.server.recent.file(inode.key.device, inode.key.number);
        }
        let flags = if directories {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        self.with_access(&directory, file.as_fd(), || {
            rustix::fs::unlinkat(&file, name.bytes(), flags)
        })?;
        if let Some(inode) = &known {
            self.server.inodes.unnamed(inode);
        }
        Ok(Answer::empty())
    }

    pub(super) fn rename(&mut self, with_flags: bool) -> Result<Answer> {
        let target = self.fields.u64()?;
        let mut flags = RenameFlags::empty();
        if with_flags {
            // Whiteouts are devices.
            let allowed = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
            flags = RenameFlags::from_bits(self.fields.u32()?)
                .filter(|flags| allowed.contains(*flags))
                .ok_or(Errno::INVAL)?;
            self.fields.skip(4)?;
        }
        let from = Name::new(self.fields.text()?)?;
        let to = Name::new(self.fields.text()?)?;
        if (self.header.node == ROOT) != (target == ROOT) {
            return Err(Errno::XDEV);
        }
        let (old, old_file) = self.changed_directory(self.header.node)?;
        let (new, new_file) = self.changed_directory(target)?;
        if !Arc::ptr_eq(&old.export, &new.export) {
            return Err(Errno::XDEV);
        }
        self.note_name(&old, from);
        self.note_name(&new, to);
        let inodes = &self.server.inodes;
        let moved = inodes.at_place(old.node, from);
        let replaced = inodes.at_place(new.node, to);
        if let Some(inode) = &replaced {
            let _held = inodes.file(inode);
        }
        for inode in [&moved, &replaced].into_iter().flatten() {
            self.server.recent.file(inode.key.device, inode.key.number);
        }
        let rename = || {
            let (from, to) = (from.bytes(), to.bytes());
            rustix::fs::renameat_with(&old_file, from, &new_file, to, flags)
        };
        self.with_access(&old, old_file.as_fd(), || {
            self.with_access(&new, new_file.as_fd(), rename)
        })?;
        if let Some(inode) = replaced {
            if flags.contains(RenameFlags::EXCHANGE) {
                inodes.moved(&inode, old.node, from);
            } else if moved.as_ref().is_none_or(|moved| moved.node != inode.node) {
                inodes.unnamed(&inode);
            }
        }
        if let Some(inode) = moved {
            inodes.moved(&inode, new.node, to);
        }
        Ok(Answer::empty())
    }
}
