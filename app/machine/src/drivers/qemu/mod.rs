//! The `qemu` driver: the same kernel, disk and agent on QEMU's software CPU,
//! for hosts whose KVM is missing or not up to it.
//!
//! `dctl qemu` is a [`supervisor`]: it serves the disk and vsock with our own
//! device code over vhost-user, runs QEMU as its child, and answers on the
//! control socket as our monitor does.

pub(crate) mod supervisor;

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

/// The hidden subcommand that is the supervisor.
pub(crate) const SUBCOMMAND: &str = "qemu";

/// The program, looked for in `PATH`.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";

/// What to do when it is missing.
pub(crate) const INSTALL: &str =
    "qemu-system-x86_64 is not in PATH: install it (Debian, Ubuntu: `apt install qemu-system-x86`)";

/// What the kernel is told.
pub(crate) const COMMAND_LINE: &[&str] = &[
    "console=hvc0",
    // Only what ends the guest.
    "loglevel=1",
    // A panic resets at once. The microvm machine has no keyboard controller; a
    // triple fault is its reset.
    "panic=-1",
    "reboot=t",
    "random.trust_cpu=on",
    "cryptomgr.notests",
    // Interfaces that these drivers would make unasked, and --network host show.
    "dummy.numdummies=0",
    "ifb.numifbs=0",
    // Timer interrupts of a software CPU come too late for the check at boot, and
    // its time-stamp counter is the host's clock: no watchdog knows better.
    "no_timer_check",
    "tsc=reliable",
    // Against what real processors guess: this one does not, and pays for each.
    "mitigations=off",
    // As with KVM: nothing waits for ticks, and an idle machine stays idle.
    "rcupdate.rcu_expedited=1",
    "sysctl.vm.compaction_proactiveness=0",
];

/// QEMU's path.
pub(crate) fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(PROGRAM))
        .find(|program| is_executable(program))
}

/// The first line of `qemu-system-x86_64 --version`.
pub(crate) async fn version(program: &Path) -> Result<String, String> {
    let output = tokio::process::Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(10), output)
        .await
        .map_err(|_| "it does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(
            crate::console::last_line(&output.stderr).unwrap_or_else(|| output.status.to_string())
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}
