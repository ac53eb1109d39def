//! The end of the machine.

use std::{fs::OpenOptions, os::unix::fs::FileExt, process::ExitCode};

use rustix::system::{RebootCommand, reboot};

/// The port of the monitor's exit device (QEMU's `isa-debug-exit`): a byte written
/// there ends the machine at once.
const EXIT_PORT: u64 = 0xf4;

/// Powers the machine off. When nobody takes notice, resets it.
pub(super) fn off() -> ExitCode {
    let pressed = OpenOptions::new()
        .write(true)
        .open("/dev/port")
        .and_then(|ports| ports.write_all_at(&[0], EXIT_PORT));
    // Still here: there is no such device.
    if let Err(error) = pressed {
        eprintln!("cannot power off: {error}");
    }
    if let Err(error) = reboot(RebootCommand::Restart) {
        eprintln!("cannot reset: {error}");
    }
    ExitCode::FAILURE
}
