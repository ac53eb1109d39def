//! What single threads give up, in a monitor and beside QEMU: those that answer for
//! shared files, and those that serve devices over vhost-user.
//!
//! Each is entered by the first thread of a kind; the threads that it starts have it too.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::thread::UnshareFlags;

use super::{Filter, handle_violations, restrict_file_system};

/// Of threads that answer requests for shared files: a seccomp filter, and a file mode
/// creation mask of their own.
#[derive(Clone)]
pub struct FileConfinement(Filter);

impl FileConfinement {
    /// Compiles the filter.
    ///
    /// # Errors
    /// When it cannot be compiled.
    pub fn new() -> io::Result<Self> {
        Filter::shares().map(Self)
    }

    /// Confines the calling thread, and those that it starts from now on, for good.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> io::Result<()> {
        // SAFETY: the thread gets its own working directory and mask, which no memory
        // safety hangs on.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        rustix::process::umask(Mode::empty());
        self.0.apply()
    }
}

/// Of threads that serve disks and vsock to QEMU: landlock, where the kernel has it, and a
/// seccomp filter whose violation ends the process with a line that names the call.
#[derive(Clone)]
pub struct DeviceConfinement {
    filter: Filter,
    /// Where sockets of the guest's ports are, which are removed there.
    sockets: PathBuf,
}

impl DeviceConfinement {
    /// Compiles the filter, and handles its violations from now on. `sockets` is the
    /// directory of vsock's sockets, all that is left of the file system.
    ///
    /// # Errors
    /// When it cannot be compiled, or the signal not be handled.
    pub fn new(sockets: &Path) -> io::Result<Self> {
        handle_violations()?;
        Ok(Self {
            filter: Filter::device_server()?,
            sockets: sockets.to_owned(),
        })
    }

    /// Confines the calling thread, and those that it starts from now on, for good.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> io::Result<()> {
        restrict_file_system(std::iter::once(self.sockets.as_path())).map_err(io::Error::other)?;
        self.filter.apply()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn who_serves_devices_opens_no_file_and_starts_threads() {
        let sockets = tempfile::tempdir().unwrap();
        let file = tempfile::tempfile().unwrap();
        let confinement = DeviceConfinement::new(sockets.path()).unwrap();
        thread::spawn(move || {
            confinement.enter().unwrap();
            // The next thread has it too, and works on what is open.
            thread::Builder::new()
                .name("vring".to_owned())
                .spawn(move || {
                    file.set_len(1 << 20).unwrap();
                    file.sync_data().unwrap();
                })
                .unwrap()
                .join()
                .unwrap();
        })
        .join()
        .unwrap();
    }
}
