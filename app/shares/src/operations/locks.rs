//! Locks: GETLK, SETLK, SETLKW, INTERRUPT.
//!
//! They are taken on the host, so that containers that mount the same folder, and
//! programs of the host, respect each other's. A `flock` belongs to the open file. A POSIX
//! lock belongs to a process of the guest: each has a description of the file of its own,
//! whose locks (`F_OFD_SETLK`) are its locks.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::{Answer, Call, Result};
use crate::handles::Handle;
use crate::inodes::{Inode, lock};
use crate::transport::Pending;
use crate::wire::{Body, flag};

/// Requests that may wait at the same time.
const WAITING: usize = 4096;

/// INTERRUPTs that are remembered because nothing that waits was found. All but the last
/// few came after their requests' answers.
const EARLY: usize = 256;

/// The description of a file that holds one owner's locks of it.
#[derive(Debug)]
struct Held {
    file: Arc<OwnedFd>,
    /// What the client had open when it asked for a lock last.
    handle: u64,
}

/// Who holds POSIX locks, and who waits.
#[derive(Debug)]
pub(crate) struct Locks {
    /// By node number and owner.
    owners: Mutex<HashMap<(u64, u64), Held>>,
    waiting: Arc<Mutex<Waiting>>,
    most: usize,
}

/// Who waits for a lock, and who is to wait no more.
#[derive(Debug, Default)]
struct Waiting {
    /// By the request's number, what tells it to give up.
    requests: HashMap<u64, Arc<AtomicBool>>,
    /// Requests that INTERRUPT named before they waited: a transport may overtake, and
    /// the client says it once. Numbers are not used again.
    early: VecDeque<u64>,
}

impl Locks {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            owners: Mutex::default(),
            waiting: Arc::default(),
            most,
        }
    }

    /// A process has closed the file: POSIX takes all its locks of it.
    pub(crate) fn release(&self, node: u64, owner: u64) {
        lock(&self.owners).remove(&(node, owner));
    }

    /// The last descriptor of an open file is closed: locks that belong to the open file
    /// go. Processes have lost theirs by then.
    pub(crate) fn closed(&self, handle: u64) {
        lock(&self.owners).retain(|_, held| held.handle != handle);
    }

    pub(crate) fn clear(&self) {
        lock(&self.owners).clear();
        let mut waiting = lock(&self.waiting);
        for (_, cancelled) in waiting.requests.drain() {
            cancelled.store(true, Ordering::Release);
        }
        waiting.early.clear();
    }

    pub(crate) fn close_nodes(&self, gone: impl Fn(u64) -> bool) {
        lock(&self.owners).retain(|(node, _), _| !gone(*node));
    }
}

/// A lock as the client asks for it.
struct Wanted {
    handle: u64,
    owner: u64,
    range: libc::flock,
    process: u32,
    is_flock: bool,
}

impl Call<'_> {
    fn wanted(&mut self) -> Result<(Arc<Handle>, Wanted)> {
        let number = self.fields.u64()?;
        let owner = self.fields.u64()?;
        let start = self.fields.u64()?;
        let end = self.fields.u64()?;
        let kind = self.fields.u32()?;
        let process = self.fields.u32()?;
        let flags = self.fields.u32()?;
        let known = [libc::F_RDLCK, libc::F_WRLCK, libc::F_UNLCK];
        let l_type = known
            .into_iter()
            .find(|known| u32::try_from(*known) == Ok(kind))
            .ok_or(Errno::INVAL)?;
        let l_start = i64::try_from(start).map_err(|_| Errno::INVAL)?;
        // The last byte of all, or none, is the end of the file wherever it is.
        let l_len = match i64::try_from(end) {
            Ok(end) if end < i64::MAX => end
                .checked_sub(l_start)
                .and_then(|length| length.checked_add(1))
                .filter(|length| *length > 0)
                .ok_or(Errno::INVAL)?,
            _ => 0,
        };
        let wanted = Wanted {
            handle: number,
            owner,
            range: libc::flock {
                l_type: l_type as libc::c_short,
                l_whence: libc::SEEK_SET as libc::c_short,
                l_start,
                l_len,
                l_pid: 0,
            },
            process,
            is_flock: flags & flag::LOCK_FLOCK != 0,
        };
        Ok((self.server.handles.get(number)?, wanted))
    }

    /// The description of the file that holds a process's locks.
    fn lock_file(
        &self,
        inode: &Arc<Inode>,
        file: &OwnedFd,
        wanted: &Wanted,
    ) -> Result<Arc<OwnedFd>> {
        let locks = &self.server.locks;
        let mut owners = lock(&locks.owners);
        if let Some(held) = owners.get_mut(&(inode.node, wanted.owner)) {
            held.handle = wanted.handle;
            return Ok(Arc::clone(&held.file));
        }
        if owners.len() >= locks.most {
            return Err(Errno::NOLCK);
        }
        let open = |flags| self.server.descriptors.reopen(file.as_fd(), flags);
        let read_only = inode.export.options.read_only;
        let opened = match open(OFlags::RDWR | OFlags::NONBLOCK) {
            Ok(file) if !read_only => file,
            Ok(_) | Err(Errno::ACCESS | Errno::ROFS | Errno::TXTBSY) => {
                open(OFlags::RDONLY | OFlags::NONBLOCK)?
            }
            Err(error) => return Err(error),
        };
        let opened = Arc::new(opened);
        let held = Held {
            file: Arc::clone(&opened),
            handle: wanted.handle,
        };
        owners.insert((inode.node, wanted.owner), held);
        Ok(opened)
    }

    pub(super) fn getlk(&mut self) -> Result<Answer> {
        let (handle, wanted) = self.wanted()?;
        let (inode, file) = handle.file()?;
        let file = self.lock_file(inode, file, &wanted)?;
        let mut range = wanted.range;
        fcntl(&*file, FcntlArg::F_OFD_GETLK(&mut range)).map_err(number)?;
        let end = match range.l_len {
            0 => i64::MAX,
            length => range.l_start.saturating_add(length - 1),
        };
        let mut body = Body::default();
        body.u64(range.l_start.cast_unsigned())
            .u64(end.cast_unsigned())
            .u32(u32::from(range.l_type.cast_unsigned()))
            // Whose it is the host does not know: the one who asks has to be told one.
            .u32(if range.l_type == libc::F_UNLCK as libc::c_short {
                0
            } else {
                wanted.process.max(1)
            });
        Ok(body.into())
    }

    pub(super) fn setlk(&mut self, wait: bool) -> Result<Answer> {
        let (handle, wanted) = self.wanted()?;
        let (inode, file) = handle.file()?;
        let mut attempt: Box<dyn FnMut() -> Result<()> + Send> = if wanted.is_flock {
            let operation = match libc::c_int::from(wanted.range.l_type) {
                libc::F_RDLCK => FlockOperation::NonBlockingLockShared,
                libc::F_WRLCK => FlockOperation::NonBlockingLockExclusive,
                _ => FlockOperation::Unlock,
            };
            let handle = Arc::clone(&handle);
            Box::new(move || rustix::fs::flock(handle.file()?.1, operation))
        } else {
            let file = self.lock_file(inode, file, &wanted)?;
            let range = wanted.range;
            Box::new(move || {
                fcntl(&*file, FcntlArg::F_OFD_SETLK(&range))
                    .map(drop)
                    .map_err(number)
            })
        };
        match attempt() {
            Err(Errno::AGAIN) if wait => self.wait(attempt),
            result => result.map(|()| Answer::empty()),
        }
    }

    fn wait(&self, mut attempt: Box<dyn FnMut() -> Result<()> + Send>) -> Result<Answer> {
        let unique = self.header.unique;
        let waiting = Arc::clone(&self.server.locks.waiting);
        let cancelled = Arc::new(AtomicBool::new(false));
        {
            let mut table = lock(&waiting);
            if table.early.contains(&unique) {
                return Err(Errno::INTR);
            }
            if table.requests.len() >= WAITING {
                return Err(Errno::NOLCK);
            }
            table.requests.insert(unique, Arc::clone(&cancelled));
        }
        let attempt = move || {
            let result = if cancelled.load(Ordering::Acquire) {
                Err(Errno::INTR)
            } else {
                attempt()
            };
            if result == Err(Errno::AGAIN) {
                return None;
            }
            lock(&waiting).requests.remove(&unique);
            Some(result)
        };
        Ok(Answer::Wait(Pending {
            unique,
            attempt: Box::new(attempt),
        }))
    }

    /// Only what waits for a lock can be interrupted; all else is done by then.
    pub(super) fn interrupt(&mut self) -> Result<Answer> {
        let unique = self.fields.u64()?;
        let mut waiting = lock(&self.server.locks.waiting);
        if let Some(cancelled) = waiting.requests.get(&unique) {
            cancelled.store(true, Ordering::Release);
        } else {
            waiting.early.truncate(EARLY - 1);
            waiting.early.push_front(unique);
        }
        Ok(Answer::Silent)
    }
}

fn number(error: nix::errno::Errno) -> Errno {
    match Errno::from_raw_os_error(error as i32) {
        Errno::ACCESS => Errno::AGAIN,
        error => error,
    }
}
