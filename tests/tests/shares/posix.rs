//! What POSIX promises, checked by a program in containers: as root, as root of a user
//! namespace, and as somebody else.

use std::{
    env,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::machine::{Folder, Image, Machine, Transport};

/// Names the program.
const PROGRAM_VARIABLE: &str = "DCTL_POSIX_CHECKS";

/// Checks for root, and those that anybody can do.
const ALL: u32 = 90;
const FOR_ANYBODY: u32 = 75;

/// Tens of thousands of requests, each of which several processes have to wake up for.
const WITHIN: Duration = Duration::from_mins(15);

/// The static program of `tests/posix`, as `cargo xtask test` builds it.
fn program() -> PathBuf {
    let path = env::var_os(PROGRAM_VARIABLE).unwrap_or_default();
    assert!(
        !path.is_empty(),
        "{PROGRAM_VARIABLE} is not set: run `cargo xtask test end-to-end`"
    );
    path.into()
}

#[track_caller]
fn check(transport: Transport, options: &[&str], expected: u32) {
    let folder = Folder::new();
    let program = format!("{}:/checks:ro", program().display());
    let share = folder.mounted("/x");
    let mounts = ["-v", program.as_str(), "-v", share.as_str()];
    let machine = Machine::with(transport);
    let image = machine.image(Image::Busybox);
    let command = [image.as_str(), "/checks", "/x"];
    let began = Instant::now();
    let checks = machine.start(&[&["run", "--rm"], options, &mounts, &command].concat());
    let said = checks.finish(WITHIN);
    eprintln!("{transport:?} {options:?}: {:?}", began.elapsed());
    let failed: Vec<_> = said
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.starts_with(b"ok: "))
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    assert_eq!(said.code(), 0, "{failed:#?}\n{said}");
    assert_eq!(failed[0], format!("{expected} checks, 0 failed"));
}

#[test]
fn root_over_virtiofs() {
    check(Transport::Virtiofs, &[], ALL);
}

#[test]
fn root_over_vsock() {
    check(Transport::Vsock, &[], ALL);
}

#[test]
fn root_of_a_user_namespace_over_virtiofs() {
    check(Transport::Virtiofs, &["--userns", "private"], ALL);
}

#[test]
fn another_user_over_virtiofs() {
    check(Transport::Virtiofs, &["--user", "1000:1001"], FOR_ANYBODY);
}
