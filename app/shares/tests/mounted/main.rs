//! The server behind a real mount, made by this machine's kernel: what POSIX promises, on
//! each road that requests can take, what the host sees, and what a guest can't reach.
//!
//! Needs root and `/dev/fuse`. All mounts are in a mount namespace of the test's own.

// Helpers are not tests to the linter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;
mod many;
mod mount;
mod watchers;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use mount::{Mounted, Road};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    if !arguments.list
        && let Err(error) = isolate()
    {
        eprintln!("This test needs root: no mount namespace of its own: {error}");
        return ExitCode::FAILURE;
    }
    posix(&mut trials);
    trials.extend(host::trials());
    trials.extend(many::trials());
    trials.extend(watchers::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn isolate() -> rustix::io::Result<()> {
    // SAFETY: there is one thread yet, and no descriptors are unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
}

/// Every check on the host's own file system, which tells that the check is right, and on
/// both roads.
fn posix(trials: &mut Vec<Trial>) {
    let plain = Arc::new(tempfile::tempdir().expect("a folder for tests"));
    let checks = posix_checks::all();
    for check in checks.clone() {
        let plain = Arc::clone(&plain);
        trials.push(Trial::test(format!("host: {}", check.name), move || {
            Ok(posix_checks::run(&check, plain.path()).map_err(|error| format!("{error:#}"))?)
        }));
    }
    for road in [Road::Device, Road::User, Road::Stream] {
        let mounted = Arc::new(std::sync::OnceLock::new());
        for check in checks.clone() {
            let mounted = Arc::clone(&mounted);
            let name = format!("{road:?}: {}", check.name).to_lowercase();
            trials.push(Trial::test(name, move || {
                let mounted = mounted.get_or_init(|| Mounted::new(road));
                let place = mounted.path();
                Ok(posix_checks::run(&check, &place).map_err(|error| format!("{error:#}"))?)
            }));
        }
    }
}

/// A test with a mount of its own.
fn trial(name: &str, test: fn(&Mounted) -> Result<(), Failed>) -> Trial {
    Trial::test(name.to_owned(), move || test(&Mounted::new(Road::Device)))
}
