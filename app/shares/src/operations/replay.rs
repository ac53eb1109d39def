//! Requests by which the guest's agent repeats what happened on the host, so that
//! watchers in containers hear of it: they are answered as if they were carried out, and
//! change nothing. See [`guest_protocol::replay`].
//!
//! What is looked up to be created is missing, what is looked up to be removed is there.
//! A name of which the client knows no file any more is given a made-up node, which
//! nothing but the change itself can be done to.

use std::sync::atomic::{AtomicU64, Ordering};

use guest_protocol::replay::marker;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::{Answer, Call, Result};
use crate::handles::Handle;
use crate::host::{self, Name};
use crate::inodes::Inode;
use crate::wire::{Body, ROOT, opcode};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Made-up nodes have this bit. Others are counted from 2 and never get there.
const MADE_UP: u64 = 1 << 63;

/// Of those, directories have this one.
const DIRECTORY: u64 = 1 << 62;

/// Tells one made-up node from the next.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Call<'_> {
    /// Answers what the agent repeats; none for what is done as for everybody.
    pub(super) fn replay(&mut self) -> Result<Option<Answer>> {
        let changed = self.header.uid == marker::CHANGED;
        let made_up = self.header.node & MADE_UP != 0;
        match self.header.opcode {
            opcode::LOOKUP if self.header.node != ROOT && !changed => {
                self.replay_lookup().map(Some)
            }
            opcode::GETATTR | opcode::SETATTR if made_up => {
                let mut body = Body::default();
                body.zeroes(16);
                made_up_attributes(&mut body, self.header.node);
                Ok(Some(body.into()))
            }
            opcode::SETATTR => {
                let (inode, file) = self.inode(self.header.node)?;
                self.attributes_answer(&inode, file.as_fd()).map(Some)
            }
            opcode::MKNOD => self.replay_made(16, FileType::RegularFile).map(Some),
            opcode::MKDIR => self.replay_made(8, FileType::Directory).map(Some),
            opcode::UNLINK | opcode::RMDIR | opcode::RENAME | opcode::RENAME2 => {
                Ok(Some(Answer::empty()))
            }
            opcode::OPEN => {
                let mut body = Body::default();
                body.u64(self.server.handles.add(Handle::Replay)?);
                body.u32(crate::wire::flag::OPEN_KEEP_CACHE).u32(0);
                Ok(Some(body.into()))
            }
            opcode::LOOKUP
            | opcode::FORGET
            | opcode::BATCH_FORGET
            | opcode::GETATTR
            | opcode::STATX
            | opcode::ACCESS
            | opcode::RELEASE
            | opcode::FLUSH
            | opcode::INTERRUPT
            | opcode::STATFS => Ok(None),
            // Nothing else fires an event that could be wanted.
            _ => Err(Errno::PERM),
        }
    }

    fn replay_lookup(&mut self) -> Result<Answer> {
        let name = Name::new(self.fields.text()?)?;
        let (directory, file) = self.directory(self.header.node)?;
        let there = match host::child(file.as_fd(), name) {
            Ok(there) => Some(there),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error),
        };
        let moves = matches!(
            self.header.uid,
            marker::MOVED_FILE | marker::MOVED_DIRECTORY
        );
        if self.header.uid == marker::CREATED {
            return Err(Errno::NOENT);
        }
        let known = self.server.inodes.at_place(directory.node, name);
        let mut body = Body::default();
        if let Some(there) = there {
            let status = host::status(&there)?;
            let current = known
                .as_ref()
                .is_some_and(|known| known.key.number == status.stx_ino);
            match known {
                // It was replaced: the one that the client knows is what goes.
                Some(known) if !current => {
                    if self.known_entry(&mut body, &known).is_err() {
                        return Err(Errno::NOENT);
                    }
                }
                _ if moves => return Err(Errno::NOENT),
                // It was removed and is there again.
                _ => {
                    self.child(&mut body, &directory, file.as_fd(), name)?;
                }
            }
            return Ok(body.into());
        }
        let kind = match self.header.uid {
            marker::REMOVED_DIRECTORY | marker::MOVED_DIRECTORY => FileType::Directory,
            _ => FileType::RegularFile,
        };
        let matching = known
            .filter(|known| (known.kind == FileType::Directory) == (kind == FileType::Directory));
        let told = matching.is_some_and(|known| self.known_entry(&mut body, &known).is_ok());
        if !told {
            body = Body::default();
            made_up_entry(&mut body, kind);
        }
        Ok(body.into())
    }

    /// An entry for a file whose name is gone, if it can still be told what it is like.
    fn known_entry(&self, body: &mut Body, known: &Arc<Inode>) -> Result<()> {
        let file: Arc<OwnedFd> = self.server.inodes.file(known)?;
        let status = host::status(&file)?;
        let again = self.server.inodes.again(known)?;
        self.entry(body, &again, file.as_fd(), &status);
        Ok(())
    }

    /// Answers as if something had been made. If it is there, and of the kind that the
    /// client's kernel insists on, it is what is there; else it is made up.
    fn replay_made(&mut self, before_name: usize, kind: FileType) -> Result<Answer> {
        if kind == FileType::RegularFile {
            let mode = self.fields.u32()?;
            if FileType::from_raw_mode(mode) != kind {
                return Err(Errno::PERM);
            }
            self.fields.skip(before_name - 4)?;
        } else {
            self.fields.skip(before_name)?;
        }
        let name = Name::new(self.fields.text()?)?;
        let (directory, file) = self.directory(self.header.node)?;
        let there = host::child(file.as_fd(), name)?;
        let mut body = Body::default();
        if host::file_type(&host::status(&there)?) == kind {
            self.child(&mut body, &directory, file.as_fd(), name)?;
        } else {
            made_up_entry(&mut body, kind);
        }
        Ok(body.into())
    }
}

/// An entry that is valid for no time.
fn made_up_entry(body: &mut Body, kind: FileType) {
    let number = NEXT.fetch_add(1, Ordering::Relaxed) & (DIRECTORY - 1);
    let node = if kind == FileType::Directory {
        MADE_UP | DIRECTORY | number
    } else {
        MADE_UP | number
    };
    body.u64(node).zeroes(32);
    made_up_attributes(body, node);
}

fn made_up_attributes(body: &mut Body, node: u64) {
    let mode = if node & DIRECTORY != 0 {
        0o040_755
    } else {
        0o100_644
    };
    body.u64(node).zeroes(40).zeroes(12);
    body.u32(mode).u32(2).zeroes(12).u32(4096).u32(0);
}
