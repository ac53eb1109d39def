//! A container's cgroup, from the agent's side: where it is, what it says at the end,
//! and its removal. libcontainer makes it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use guest_protocol::container::Container;

use super::spec;

/// Where the kernel's cgroup hierarchy is.
const ROOT: &str = "/sys/fs/cgroup";

/// How often, and how far apart, it is looked whether a cgroup is frozen: 10 s.
const FREEZE_LOOKS: u32 = 2000;
const FREEZE_LOOK: Duration = Duration::from_millis(5);

/// Where a container's cgroup is.
pub(super) fn path(container: &Container) -> PathBuf {
    Path::new(ROOT).join(spec::cgroup(container).trim_start_matches('/'))
}

/// Kills whatever is left in it.
pub(super) fn kill(cgroup: &Path) {
    // There may be none, if the container was not made.
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
}

/// Sets its weight for single disks: lines of its `io.weight`. A disk whose driver
/// shares by no weights is left as it is, as Docker leaves it.
///
/// # Errors
/// When the kernel refuses one.
pub(super) fn weigh(cgroup: &Path, lines: &[String]) -> io::Result<()> {
    let file = cgroup.join("io.weight");
    for line in lines {
        // Each write is one setting.
        match fs::write(&file, line) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!("{}: the disk takes no weight ({line})", cgroup.display());
            }
            result => result?,
        }
    }
    Ok(())
}

/// Freezes all its processes, and waits until they are.
///
/// # Errors
/// When there is none, or a process hangs in the kernel.
pub(super) async fn freeze(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.freeze"), "1")?;
    // Most are frozen by now; others leave the kernel first.
    for _ in 0..FREEZE_LOOKS {
        if fs::read_to_string(cgroup.join("cgroup.events"))?
            .lines()
            .any(|line| line == "frozen 1")
        {
            return Ok(());
        }
        tokio::time::sleep(FREEZE_LOOK).await;
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Lets frozen processes go on.
///
/// # Errors
/// When there is none.
pub(super) fn thaw(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.freeze"), "0")
}

/// Whether the kernel killed something in it for want of memory.
pub(super) fn was_out_of_memory(cgroup: &Path) -> bool {
    fs::read_to_string(cgroup.join("memory.events")).is_ok_and(|events| {
        events
            .lines()
            .filter_map(|line| line.strip_prefix("oom_kill "))
            .any(|count| count.trim() != "0")
    })
}

/// Removes it with those that the container made in it; not its parent, which others
/// may have, too.
///
/// # Errors
/// When a process in it does not go.
pub(super) async fn remove(cgroup: &Path) -> io::Result<()> {
    // Killed processes leave a cgroup a moment after they are gone.
    for _ in 0..100 {
        match remove_tree(cgroup) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            result => return result,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    remove_tree(cgroup)
}

fn remove_tree(cgroup: &Path) -> io::Result<()> {
    match fs::remove_dir(cgroup) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
        result => return result,
    }
    for item in fs::read_dir(cgroup)? {
        let item = item?;
        if item.file_type()?.is_dir() {
            remove_tree(&item.path())?;
        }
    }
    fs::remove_dir(cgroup)
}
