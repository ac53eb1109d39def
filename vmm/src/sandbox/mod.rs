//! What a monitor gives up before its guest runs: the file system (landlock), all
//! system calls but those that a thread needs (seccomp), new privileges, core
//! files.
//!
//! Always on. A kernel without landlock is lived with and reported; without
//! seccomp filters nothing runs. The monitor stays "dumpable": other processes of
//! the same user can read the machine's disk anyway, and its memory use can be
//! measured.
//!
//! Called by `monitor` once everything is open, and by the QEMU driver in `app/machine`
//! for the threads that serve our devices beside it. It knows nothing of what the threads
//! do but their system calls.

mod confinement;
mod filesystem;
mod seccomp;

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::set_no_new_privs;

pub use confinement::{DeviceConfinement, FileConfinement};
pub(crate) use filesystem::restrict_file_system;
pub(crate) use seccomp::{Filter, Filters, handle_violations};

/// Open files that a guest can make a monitor hold (its vsock connections) are
/// bounded by the device; the kernel's common default of 1024 is less than that.
///
/// Shared files are open for as long as the guest wants: the server bounds them by what
/// this limit leaves.
const MAX_OPEN_FILES: u64 = 1 << 20;

/// Limits of the whole process; before anything is opened.
pub(crate) fn limit_process() -> io::Result<()> {
    set_no_new_privs(true)?;
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    let files = getrlimit(Resource::Nofile);
    let most = files.maximum.unwrap_or(MAX_OPEN_FILES).min(MAX_OPEN_FILES);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(most),
            maximum: Some(most),
        },
    )?;
    Ok(())
}
