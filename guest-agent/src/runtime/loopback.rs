//! Bringing up the loopback interface of a network namespace.

use std::{fs::File, io, os::fd::AsFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::networks::links::Links;

/// Brings up `lo` in the network namespace of process `pid`, and leaves the
/// calling thread in that namespace.
///
/// # Errors
/// When the process is gone or the kernel refuses.
pub(crate) fn bring_up(pid: i32) -> io::Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    bring_up_here()
}

/// Brings up `lo` in the network namespace of the calling thread.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn bring_up_here() -> io::Result<()> {
    Links::open()?.bring_up_loopback()
}
