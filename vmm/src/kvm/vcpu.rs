//! Runs a virtual CPU on its own thread until the machine ends, and stops it from
//! other threads.
//!
//! To stop a virtual CPU, [`Kicker::kick`] sets `immediate_exit` in the page that
//! KVM shares with user space and sends the thread a signal. Whether the thread
//! is in the guest, about to enter it, or outside, its next `KVM_RUN` returns
//! `EINTR`: no kick is lost and none has to be waited for.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::{io, mem, ptr};

use kvm_bindings::kvm_run;
use kvm_ioctls::{VcpuExit, VcpuFd};

/// What answers when a guest reads or writes an address that is not memory.
/// Called by all virtual CPUs at once.
pub(crate) trait Bus: Sync {
    /// Fills `data` from a port.
    fn read_port(&self, port: u16, data: &mut [u8]);
    /// Takes what was written to a port, or ends the machine.
    fn write_port(&self, port: u16, data: &[u8]) -> Option<End>;
    /// Fills `data` from a physical address.
    fn read(&self, address: u64, data: &mut [u8]);
    /// Takes what was written to a physical address, or ends the machine.
    fn write(&self, address: u64, data: &[u8]) -> Option<End>;
    /// Called when the virtual CPU was kicked; returns when it may go on, or says
    /// that it must end.
    fn kicked(&self) -> Next;
}

/// What a kicked virtual CPU does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It runs on as if nothing had been.
    Continue,
    /// It runs on after a pause: the guest is told, so that its watchdogs do not
    /// take the pause for a hang.
    ContinueAfterPause,
    /// Its thread ends.
    Stop,
}

/// How a virtual CPU came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Told to by [`Next::Stop`].
    Stopped,
    /// The guest said that it has powered off.
    PoweredOff,
    /// The guest asked for a reset.
    Reset,
    /// Triple fault.
    TripleFault,
    /// KVM cannot go on; with what it says about it.
    KvmInternalError(String),
    /// `KVM_RUN` or another call of KVM's failed.
    Failed(String),
}

/// Runs `vcpu` on the calling thread until it ends.
pub(crate) fn run(vcpu: &mut VcpuFd, bus: &impl Bus) -> End {
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                if let Some(end) = bus.write_port(port, data) {
                    return end;
                }
            }
            Ok(VcpuExit::IoIn(port, data)) => bus.read_port(port, data),
            Ok(VcpuExit::MmioRead(address, data)) => bus.read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => {
                if let Some(end) = bus.write(address, data) {
                    return end;
                }
            }
            Ok(VcpuExit::Shutdown) => return End::TripleFault,
            Ok(VcpuExit::SystemEvent(kind, _)) => {
                return match kind {
                    kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => End::PoweredOff,
                    kvm_bindings::KVM_SYSTEM_EVENT_RESET => End::Reset,
                    other => End::KvmInternalError(format!("system event {other}")),
                };
            }
            Ok(VcpuExit::FailEntry(reason, cpu)) => {
                return End::KvmInternalError(format!(
                    "the processor refused to enter the guest: hardware reason {reason:#x} on \
                     CPU {cpu}"
                ));
            }
            Ok(VcpuExit::InternalError) => return internal_error(vcpu),
            Ok(VcpuExit::Intr) => {}
            Ok(VcpuExit::Hlt) => {
                // The local APIC is in the kernel, and so is HLT.
                return End::KvmInternalError("it does not handle HLT".to_owned());
            }
            Ok(other) => return End::KvmInternalError(format!("unexpected exit {other:?}")),
            Err(error) if error.errno() == libc::EINTR => {
                // Cleared before the reason for the kick is looked at: a kick that
                // comes after this is seen by the next KVM_RUN.
                vcpu.set_kvm_immediate_exit(0);
                match bus.kicked() {
                    Next::Continue => {}
                    Next::ContinueAfterPause => {
                        // Fails while the guest has no clock of KVM's, and is then
                        // of no use.
                        let _ = vcpu.kvmclock_ctrl();
                    }
                    Next::Stop => return End::Stopped,
                }
            }
            // A virtual CPU that was waiting to be started.
            Err(error) if error.errno() == libc::EAGAIN => {}
            Err(error) => return End::Failed(format!("KVM_RUN failed: {error}")),
        }
    }
}

/// What KVM tells of an internal error, and where the guest was.
fn internal_error(vcpu: &mut VcpuFd) -> End {
    // SAFETY: the exit reason says that KVM has filled in this field; it is plain
    // numbers.
    let internal = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal };
    let what = match internal.suberror {
        kvm_bindings::KVM_INTERNAL_ERROR_EMULATION => "it cannot emulate an instruction",
        kvm_bindings::KVM_INTERNAL_ERROR_SIMUL_EX => "exceptions came at the same time",
        kvm_bindings::KVM_INTERNAL_ERROR_DELIVERY_EV => "an event could not be delivered",
        kvm_bindings::KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => "an exit was not expected",
        _ => "unknown",
    };
    let position = vcpu
        .get_regs()
        .map_or_else(|_| String::new(), |regs| format!(" at {:#x}", regs.rip));
    End::KvmInternalError(format!(
        "internal error, suberror {}: {what}{position}",
        internal.suberror
    ))
}

/// Stops the thread of a virtual CPU; usable from any thread.
pub(crate) struct Kicker {
    /// A mapping of our own of the page that [`VcpuFd`] maps, too.
    run: ptr::NonNull<kvm_run>,
}

// SAFETY: the page is shared with the kernel in any case, and what is accessed
// through it is one byte, atomically.
unsafe impl Send for Kicker {}
// SAFETY: as above.
unsafe impl Sync for Kicker {}

impl Kicker {
    /// For `vcpu`, before it moves to its thread.
    pub(crate) fn new(vcpu: &VcpuFd) -> io::Result<Self> {
        // SAFETY: a new mapping, at an address of the kernel's choice, of what a
        // vCPU's file descriptor is made to be mapped for.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mem::size_of::<kvm_run>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                vcpu.as_raw_fd(),
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        ptr::NonNull::new(page.cast())
            .map(|run| Self { run })
            .ok_or_else(|| io::Error::other("mapped at address zero"))
    }

    /// Makes the virtual CPU that runs on `thread` leave the guest.
    pub(crate) fn kick(&self, thread: ThreadId) {
        // SAFETY: `run` is mapped until `self` is dropped, and the field is one
        // byte, which needs no alignment.
        let immediate_exit =
            unsafe { AtomicU8::from_ptr(&raw mut (*self.run.as_ptr()).immediate_exit) };
        immediate_exit.store(1, Ordering::SeqCst);
        thread.signal();
    }
}

impl Drop for Kicker {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and used by `self` alone.
        unsafe { libc::munmap(self.run.as_ptr().cast(), mem::size_of::<kvm_run>()) };
    }
}

/// A thread of this process, as the kernel knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThreadId(libc::pid_t);

impl ThreadId {
    /// The calling thread.
    pub(crate) fn current() -> Self {
        // SAFETY: takes nothing and changes nothing.
        Self(unsafe { libc::gettid() })
    }

    /// Sends it the kick signal. A thread that has ended gets none, and no other
    /// process can: `tgkill` names ours.
    fn signal(self) {
        // SAFETY: takes numbers alone; the signal has a handler that does nothing.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.0, kick_signal()) };
    }
}

fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN()
}

/// Gives the kick signal a handler: what counts is that it interrupts. Once,
/// before any virtual CPU runs.
pub(crate) fn handle_kicks() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: all zero is an empty `sigaction`: no flags (so system calls are
    // interrupted, not restarted) and no signals masked.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    // SAFETY: the handler does nothing, which is async-signal-safe.
    match unsafe { libc::sigaction(kick_signal(), &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
