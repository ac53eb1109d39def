//! Volumes that somebody has mounted: a tmpfs comes with the first and goes with the
//! last, and what an image has is copied into an empty one.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use guest_protocol::{AgentError, ErrorKind};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
};

use super::{Inner, Volumes, options};
use crate::error::{Context, Result};

/// A volume that somebody has mounted. A tmpfs goes with the last.
#[derive(Debug)]
pub(crate) struct Mounted {
    inner: Arc<Inner>,
    name: String,
    /// Where a folder in it is mounted, for who may have no more.
    part: Option<PathBuf>,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            let unmounted = rustix::mount::unmount(part, UnmountFlags::DETACH)
                .map_err(io::Error::from)
                .and_then(|()| fs::remove_dir(part));
            if let Err(error) = unmounted {
                tracing::warn!("{} is left over: {error}", part.display());
            }
        }
        let mut state = self.inner.state();
        let Some(count) = state.mounted.get_mut(&self.name) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        state.mounted.remove(&self.name);
        let is_tmpfs = state
            .volumes
            .get(&self.name)
            .is_some_and(|record| options::tmpfs(&record.options).is_some());
        if is_tmpfs {
            self.inner.unmount(&self.name);
        }
    }
}

impl Volumes {
    /// Makes a volume ready for somebody who mounts it: its folder is there, a tmpfs
    /// mounted.
    ///
    /// # Errors
    /// When it is gone or being restored, or the mount fails.
    pub(crate) fn mount(&self, name: &str) -> Result<Mounted> {
        let mut state = self.inner.state();
        let record = match state.volumes.get(name) {
            Some(record) if !record.removed => record.clone(),
            _ => return Err(AgentError::no_such_volume(name)),
        };
        if state.replaced.contains(name) {
            return Err(AgentError::new(
                ErrorKind::Conflict,
                format!("volume {name} is being restored"),
            ));
        }
        let files = self.inner.files(name);
        // A folder that was made right before a power cut is not on the disk.
        files
            .make()
            .context(format_args!("cannot make the folder of volume {name}"))?;
        if let Some(options) = options::tmpfs(&record.options)
            && !state.mounted.contains_key(name)
        {
            mount_tmpfs(&files.data(), &options)
                .context(format_args!("failed to mount local volume {name}"))?;
        }
        *state.mounted.entry(name.to_owned()).or_default() += 1;
        Ok(Mounted {
            inner: Arc::clone(&self.inner),
            name: name.to_owned(),
            part: None,
        })
    }
}

impl Mounted {
    /// Fills the volume, if it is empty, with what the folder `source` of an image
    /// has.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub(crate) fn fill(&self, source: &OwnedFd) -> Result<()> {
        let _one_at_a_time = self
            .inner
            .filling
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let in_place = {
            let state = self.inner.state();
            let others = state
                .mounted
                .get(&self.name)
                .is_some_and(|count| *count > 1);
            let is_tmpfs = state
                .volumes
                .get(&self.name)
                .is_some_and(|record| options::tmpfs(&record.options).is_some());
            others || is_tmpfs
        };
        self.inner
            .files(&self.name)
            .fill(source, in_place, &self.inner.trash)
            .context(format_args!("failed to populate volume {}", self.name))
    }

    /// Mounts the folder `subpath` of the volume at `target`, which is made. Whatever
    /// who else has the volume does to it, that folder and no other is mounted.
    ///
    /// # Errors
    /// When there is no such folder, or a link is on the way to it.
    pub(crate) fn bind_part(&mut self, subpath: &str, target: PathBuf) -> Result<()> {
        let what = format!("cannot mount {subpath:?} of volume {}", self.name);
        let files = self.inner.files(&self.name).open().context(&what)?;
        let folder = rustix::fs::openat2(
            &files,
            subpath,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
        .context(&what)?;
        let stat = rustix::fs::fstat(&folder).context(&what)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            fs::create_dir_all(&target).context(&what)?;
        } else {
            return Err(AgentError::invalid(format!("{what}: it is no folder")));
        }
        let tree = rustix::mount::open_tree(
            &folder,
            "",
            OpenTreeFlags::AT_EMPTY_PATH
                | OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC,
        )
        .context(&what)?;
        rustix::mount::move_mount(
            &tree,
            "",
            CWD,
            &target,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .context(&what)?;
        self.part = Some(target);
        Ok(())
    }

    /// Where what is to be mounted is.
    pub(crate) fn source(&self) -> PathBuf {
        match &self.part {
            Some(part) => part.clone(),
            None => self.inner.files(&self.name).data(),
        }
    }
}

impl Inner {
    pub(super) fn unmount(&self, name: &str) {
        let data = self.files(name).data();
        match rustix::mount::unmount(&data, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Nothing is mounted there, or it is not there at all.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => tracing::warn!("volume {name} stays mounted: {error}"),
        }
    }
}

fn mount_tmpfs(target: &Path, options: &[&str]) -> io::Result<()> {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options {
        flags |= match *option {
            "ro" => MountFlags::RDONLY,
            "nosuid" => MountFlags::NOSUID,
            "nodev" => MountFlags::NODEV,
            "noexec" => MountFlags::NOEXEC,
            "noatime" => MountFlags::NOATIME,
            "rw" | "suid" | "dev" | "exec" | "defaults" => MountFlags::empty(),
            other => {
                data.push(other);
                MountFlags::empty()
            }
        };
    }
    let data = std::ffi::CString::new(data.join(","))?;
    Ok(rustix::mount::mount(
        "tmpfs",
        target,
        "tmpfs",
        flags,
        Some(data.as_c_str()),
    )?)
}
