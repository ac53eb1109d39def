//! How far ahead of its reader the writer of a vsock stream may be.
//!
//! The kernel's default is 256 KiB, which a reader takes at once: then both wait for each
//! other in turns. [`super::bulk`] gives a stream that moves much more than that. All
//! others keep the default: the kernel may have to hold as much as each was given.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::atomic::{AtomicUsize, Ordering},
};

// Of vm_sockets.h; libc has none of them.
const SO_VM_SOCKETS_BUFFER_SIZE: libc::c_int = 0;
const SO_VM_SOCKETS_BUFFER_MAX_SIZE: libc::c_int = 2;

/// In bytes.
const WIDE: u64 = 1024 * 1024;

/// So many streams have a wide window at once: 32 MiB, if none of them is read.
const MOST: usize = 32;

static WINDOWS: AtomicUsize = AtomicUsize::new(0);

/// A wide window, one of a bounded number, until its stream is closed.
pub(super) struct Window(());

impl Window {
    /// Widens the window of `socket`, if it is vsock and not too many are wide.
    pub(super) fn widen(socket: &OwnedFd) -> Option<Self> {
        let window = Self::take()?;
        // The most that it may have comes first.
        for option in [SO_VM_SOCKETS_BUFFER_MAX_SIZE, SO_VM_SOCKETS_BUFFER_SIZE] {
            // Of another family: it has windows of its own.
            set(socket, option, WIDE).ok()?;
        }
        Some(window)
    }

    fn take() -> Option<Self> {
        let taken = WINDOWS.fetch_add(1, Ordering::Relaxed);
        // Gives it back if there was none left.
        let window = Self(());
        (taken < MOST).then_some(window)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        WINDOWS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sets an option of vsock (`vm_sockets.h`) that is a number of 64 bits.
fn set(socket: &OwnedFd, option: libc::c_int, value: u64) -> io::Result<()> {
    // SAFETY: the option's value is the 8 bytes of `value`, which lives across the call
    // and is only read; the descriptor is open as long as `socket` is borrowed.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::AF_VSOCK,
            option,
            (&raw const value).cast(),
            size_of::<u64>() as libc::socklen_t,
        )
    };
    if set == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

    use super::*;

    fn get(socket: &OwnedFd, option: libc::c_int) -> u64 {
        let (mut value, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
        // SAFETY: the kernel writes at most `length` bytes, which `value` has.
        let got = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::AF_VSOCK,
                option,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        assert_eq!(got, 0, "{}", io::Error::last_os_error());
        value
    }

    #[test]
    fn so_many_streams_of_vsock_are_wide_and_no_others() {
        let (near, _far) = UnixStream::pair().unwrap();
        assert!(Window::widen(&near.into()).is_none());
        let flags = SocketFlags::CLOEXEC;
        let Ok(stream) = socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None) else {
            eprintln!("this kernel has no vsock: that the guest's has is tested in machines");
            return;
        };
        let mut windows: Vec<_> = (0..MOST).map(|_| Window::widen(&stream)).collect();
        assert!(windows.iter().all(Option::is_some));
        assert_eq!(get(&stream, SO_VM_SOCKETS_BUFFER_SIZE), WIDE);
        assert!(Window::widen(&stream).is_none());
        windows.pop();
        assert!(Window::widen(&stream).is_some());
    }
}
