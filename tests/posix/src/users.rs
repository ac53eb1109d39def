//! Acting as somebody who is not root.

use std::thread;

use anyhow::{Result, anyhow};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_res_uid};

/// Nobody in particular, and nobody's group.
pub(crate) const USER: u32 = 1234;
pub(crate) const OTHER: u32 = 4321;

/// Does something on a thread that has this user and group, and no other group.
pub(crate) fn as_user<T: Send>(user: u32, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
                set_thread_groups(&[])?;
                set_thread_gid(gid)?;
                set_thread_res_uid(uid, uid, uid)?;
                action()
            })
            .join()
            .map_err(|_| anyhow!("the check panicked"))?
    })
}
