//! Joining the user namespace of a running container, for a command in it.
//!
//! Called by [`super::server`] in the child that makes the command, before libcontainer,
//! which joins the other namespaces but not this one. From here on the child has
//! capabilities over what belongs to the container and none over the machine, whatever
//! the container does to it.
//!
//! Until libcontainer gives it the command's user it stays the machine's user 0, without
//! whose ownership it could neither enter the container's cgroup nor read the bundle.
//! Meanwhile the container cannot trace it: it is not dumpable.
//!
//! Source: `user_namespaces(7)`, `setns(2)`, `PR_SET_DUMPABLE(2const)`.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
};

use rustix::{
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::{LinkNameSpaceType, move_into_link_name_space, set_thread_groups},
};

/// Joins the user namespace of process `pid`, for a command with `oom_score_adj`.
/// The calling process has one thread.
///
/// # Errors
/// When the process is gone, is in the machine's user namespace, or the kernel refuses.
pub(super) fn join(pid: u32, oom_score_adj: i64) -> io::Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/user"))?;
    // The machine's capabilities lower it; to set the same again takes none.
    fs::write("/proc/self/oom_score_adj", oom_score_adj.to_string())?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Refused for the namespace that this process is in already.
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User))?;
    // The machine's groups have no place in the container.
    set_thread_groups(&[])?;
    Ok(())
}
