//! Changing what a machine is given: its processors and memory from the next start
//! on, its disk at once.
//!
//! Called by [`Machine`]. What is asked for is checked against this host before
//! anything is written; `machine.toml` is replaced whole, and only then the disk's
//! image grows, so that whatever happens the next start does what was promised.

use std::{path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    Destination, Error, Machine, Result, Settings, ShareTransport, UserNamespace,
    blocking::blocking,
    boot::start_lock,
    disk,
    monitor::control::Control,
    paths::create_private,
    settings::{GIB, host_cpus, host_memory_mib},
    state::Inner,
};

/// What shall be different; what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    /// Virtual CPUs.
    pub cpus: Option<u8>,
    /// Memory in MiB.
    pub memory_mib: Option<u32>,
    /// Size of the data disk in GiB.
    pub disk_gib: Option<u32>,
    /// The user namespace of containers that ask for none.
    pub userns: Option<UserNamespace>,
    /// What containers may reach, in place of what they may now; nothing for
    /// everything.
    pub egress_allow: Option<Vec<Destination>>,
    /// What they may not reach, in place of what they may not now.
    pub egress_deny: Option<Vec<Destination>>,
    /// How requests for shared files reach the host.
    pub share_transport: Option<ShareTransport>,
}

/// What came of a [`Change`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changed {
    /// What the user should know, a sentence each.
    pub warnings: Vec<String>,
    /// The machine runs, and has some of it only after its next start.
    pub restart_needed: bool,
    /// The size in bytes that the running guest's disk has from now on, if that
    /// grew: its file system does not fill it yet.
    pub disk_grown: Option<u64>,
}

impl Change {
    /// The settings with this change, if this host can have it.
    pub(crate) fn apply(&self, settings: &Settings) -> Result<Settings> {
        let refuse = |problem: String| Err(Error::Unacceptable(problem));
        let (cpus, memory_mib) = (host_cpus(), host_memory_mib());
        if let Some(asked) = self.cpus.filter(|asked| usize::from(*asked) > cpus) {
            return refuse(format!("this host has {cpus} CPUs, not {asked}"));
        }
        if let Some(asked) = self
            .memory_mib
            .filter(|asked| u64::from(*asked) > memory_mib)
        {
            return refuse(format!(
                "this host has {memory_mib} MiB of memory, not {asked}"
            ));
        }
        let changed = Settings {
            cpus: self.cpus.or(settings.cpus),
            memory_mib: self.memory_mib.or(settings.memory_mib),
            disk_gib: self.disk_gib.or(settings.disk_gib),
            driver: settings.driver,
            userns: self.userns.or(settings.userns),
            egress_allow: self
                .egress_allow
                .clone()
                .unwrap_or_else(|| settings.egress_allow.clone()),
            egress_deny: self
                .egress_deny
                .clone()
                .unwrap_or_else(|| settings.egress_deny.clone()),
            share_transport: self.share_transport.or(settings.share_transport),
        };
        changed.check_ranges().map_err(Error::Unacceptable)?;
        Ok(changed)
    }
}

/// Carries out `change`.
pub(crate) async fn change(inner: &Arc<Inner>, change: Change) -> Result<Changed> {
    inner.require()?;
    inner.paths.create()?;
    create_private(inner.files.directory())?;
    create_private(inner.files.runtime())?;
    // Nothing boots with half of it.
    let _starting = start_lock(&inner.files).await?;
    let mut changed = Changed::default();

    let old = Settings::load(&inner.files)?;
    let new = change.apply(&old)?;
    let path = inner.files.disk();
    let usage = disk::usage(&path)?;
    if change.disk_gib.is_some() && new.disk_bytes() < usage.size {
        return Err(Error::Unacceptable(format!(
            "the disk of machine {} has {} GiB and cannot shrink to {}: `dctl machine reset` empties \
             a machine, and `dctl machine create --disk` makes a smaller one",
            inner.name,
            usage.size.div_ceil(GIB),
            new.disk_bytes() / GIB,
        )));
    }
    if change.disk_gib.is_some()
        && let Some(warning) = space_warning(inner.files.directory(), &new, usage)
    {
        changed.warnings.push(warning);
    }
    new.save(&inner.files)?;

    let Some(mut control) = Control::connect(&inner.files.control_socket()).await? else {
        return Ok(changed);
    };
    let state = control.state().await?;
    changed.restart_needed = state.cpus != new.cpus()
        || state.memory_mib != new.memory_mib()
        || old.share_transport.unwrap_or_default() != new.share_transport.unwrap_or_default();
    if new.disk_bytes() > usage.size {
        let size = new.disk_bytes();
        blocking(move || disk::prepare(&path, size)).await?;
        match control.resize_disk(0).await {
            Ok(bytes) => changed.disk_grown = Some(bytes),
            Err(error) => {
                changed.restart_needed = true;
                changed
                    .warnings
                    .push(format!("the disk grows at the next start: {error}"));
            }
        }
    }
    Ok(changed)
}

/// A sparse disk can be larger than the space there is; who fills it should know.
fn space_warning(directory: &Path, settings: &Settings, usage: disk::Usage) -> Option<String> {
    let free = disk::free_space(directory).ok()?;
    let missing = settings.disk_bytes().saturating_sub(usage.used);
    (missing > free).then(|| {
        format!(
            "the disk can take {} GiB more on this host, which has {} GiB free in {}",
            missing.div_ceil(GIB),
            free / GIB,
            directory.display()
        )
    })
}

impl Machine {
    /// Changes what the machine is given. What counts from the next start on is kept
    /// until then; the disk of a machine that runs grows at once, as far as the
    /// guest's block device: see [`Changed::disk_grown`].
    ///
    /// # Errors
    /// [`Error::Unacceptable`] when this host cannot give it or the disk would shrink.
    pub async fn change(&self, wanted: Change) -> Result<Changed> {
        change(&self.inner, wanted).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DEFAULT_MACHINE, Paths};

    fn machine(home: &Path) -> Machine {
        Machine::open(&Paths::under(home), DEFAULT_MACHINE).unwrap()
    }

    #[tokio::test]
    async fn what_is_set_counts_and_the_rest_stays() {
        let home = tempfile::tempdir().unwrap();
        let machine = machine(home.path());
        let change = |cpus, memory_mib, disk_gib| {
            machine.change(Change {
                cpus,
                memory_mib,
                disk_gib,
                ..Change::default()
            })
        };
        let changed = change(Some(1), None, Some(2)).await.unwrap();
        assert!(!changed.restart_needed && changed.disk_grown.is_none());
        change(None, Some(300), None).await.unwrap();
        let private = Change {
            userns: Some(UserNamespace::Private),
            ..Change::default()
        };
        let changed = machine.change(private).await.unwrap();
        assert!(!changed.restart_needed);
        let settings = Settings::load(machine.files()).unwrap();
        assert_eq!(
            (settings.cpus, settings.memory_mib, settings.disk_gib),
            (Some(1), Some(300), Some(2))
        );
        assert_eq!(settings.userns, Some(UserNamespace::Private));
    }

    #[tokio::test]
    async fn what_the_host_does_not_have_is_refused_and_changes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let machine = machine(home.path());
        for (change, says) in [
            (
                Change {
                    cpus: Some(255),
                    ..Change::default()
                },
                "CPUs",
            ),
            (
                Change {
                    cpus: Some(0),
                    ..Change::default()
                },
                "cpus is 0",
            ),
            (
                Change {
                    memory_mib: Some(u32::MAX),
                    ..Change::default()
                },
                "MiB of memory",
            ),
            (
                Change {
                    memory_mib: Some(1),
                    ..Change::default()
                },
                "at least 256",
            ),
            (
                Change {
                    disk_gib: Some(u32::MAX),
                    ..Change::default()
                },
                "disk-gib",
            ),
        ] {
            let error = machine.change(change).await.unwrap_err().to_string();
            let says = says.replace("at least 256", "256 to");
            assert!(error.contains(&says), "{error}");
        }
        assert_eq!(
            Settings::load(machine.files()).unwrap(),
            Settings::default()
        );
    }

    #[tokio::test]
    async fn a_disk_never_shrinks_and_too_little_space_is_told() {
        let home = tempfile::tempdir().unwrap();
        let machine = machine(home.path());
        create_private(machine.files().directory()).unwrap();
        disk::prepare(&machine.files().disk(), 3 * GIB).unwrap();
        let set = |disk_gib| {
            machine.change(Change {
                disk_gib: Some(disk_gib),
                ..Change::default()
            })
        };
        let error = set(2).await.unwrap_err().to_string();
        assert!(error.contains("cannot shrink"), "{error}");
        assert!(set(3).await.unwrap().warnings.is_empty());
        let warnings = set(16 * 1024).await.unwrap().warnings;
        assert!(warnings[0].contains("GiB free"), "{warnings:?}");
    }
}
