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
    use std::{fs::File, io::ErrorKind, os::unix::fs::FileExt, thread};

    use super::*;

    #[test]
    fn who_serves_devices_opens_nothing_and_starts_threads_that_work_on_what_is_open() {
        let sockets = tempfile::tempdir().unwrap();
        let file = tempfile::tempfile().unwrap();
        let confinement = DeviceConfinement::new(sockets.path()).unwrap();
        thread::spawn(move || {
            confinement.enter().unwrap();
            let error = File::open("/proc/self/status").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            thread::scope(|scope| {
                for number in 0..8 {
                    let file = &file;
                    let work = move || {
                        file.write_all_at(&[number; 64], u64::from(number) * 64)
                            .unwrap();
                        file.sync_data().unwrap();
                        // All at once, for the allocator.
                        (0..10_000).map(|size| vec![number; size % 999].len()).sum()
                    };
                    let name = format!("vring-{number}");
                    let thread = thread::Builder::new().name(name);
                    let _: thread::ScopedJoinHandle<'_, usize> =
                        thread.spawn_scoped(scope, work).unwrap();
                }
            });
        })
        .join()
        .unwrap();
    }
}
