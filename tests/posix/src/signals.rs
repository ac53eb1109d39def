//! A signal that does nothing but end what a thread waits for.

use anyhow::Result;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

const SIGNAL: Signal = Signal::SIGUSR1;

/// From now on the signal interrupts system calls, which are not restarted.
pub(crate) fn ignore_and_return() -> Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler = SigHandler::Handler(nothing);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(SIGNAL, &action) }?;
    Ok(())
}

/// Where a signal can be sent.
#[derive(Clone, Copy)]
pub(crate) struct Thread(libc::pthread_t);

impl Thread {
    pub(crate) fn current() -> Self {
        // SAFETY: it has no preconditions.
        Self(unsafe { libc::pthread_self() })
    }

    /// Sends it the signal. It must not have been joined.
    pub(crate) fn interrupt(self) {
        // SAFETY: the thread's number is valid until it is joined, which the caller does
        // afterwards. It may have ended.
        unsafe { libc::pthread_kill(self.0, SIGNAL as libc::c_int) };
    }
}
