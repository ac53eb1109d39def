//! SIGTERM, SIGINT and SIGHUP as something to wait for.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// The signals that ask a monitor to end, blocked in this thread and those that
/// it starts from now on.
pub struct TerminationSignals(OwnedFd);

impl TerminationSignals {
    /// Blocks them. Before any other thread is started.
    pub fn block() -> io::Result<Self> {
        // SAFETY: `set` is initialised by `sigemptyset` before it is read, and the
        // calls take it, numbers and null pointers alone.
        let descriptor = unsafe {
            let mut set = mem::MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            if libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new file descriptor that nothing else has.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// Takes those that have come.
    pub fn take(&self) -> io::Result<()> {
        let mut information = [0_u8; size_of::<libc::signalfd_siginfo>() * 4];
        match rustix::io::read(&self.0, &mut information) {
            Ok(_) | Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for TerminationSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
