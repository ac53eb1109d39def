//! What a run leaves behind, taken away: control group, networks, mounts, the bundle and
//! the runtime's state.

use std::{fs, io};

use super::{Containers, Entry, cgroup, user_namespace};
use crate::images::overlay;

impl Containers {
    /// Takes away what a run leaves: cgroup, mount, the runtime's state. The mount
    /// goes in the background.
    pub(super) async fn clear(&self, entry: &Entry) {
        let (paths, id) = (&self.shared.paths, &entry.id);
        let cgroup = entry.cgroup();
        cgroup::kill(&cgroup);
        tokio::task::block_in_place(|| self.leave_networks(entry));
        if let Err(error) = cgroup::remove(&cgroup).await {
            tracing::warn!("the cgroup of container {id} is left over: {error}");
        }
        let root = paths.rootfs(id);
        let unmounting = tokio::task::spawn_blocking(move || {
            if let Err(error) = overlay::unmount(&root) {
                tracing::warn!("{} stays mounted: {error}", root.display());
            }
        });
        let volumes = {
            let mut live = entry.live();
            live.unmounting = Some(unmounting);
            std::mem::take(&mut live.volumes)
        };
        if !volumes.is_empty() {
            drop(volumes);
            self.tell_volumes(entry, "unmount");
        }
        if let Err(error) = overlay::unmount(&paths.shared_memory(id)) {
            tracing::warn!("the shared memory of container {id} stays mounted: {error}");
        }
        let bundle = match user_namespace::unmap_mounts(&paths.mapped(id)) {
            Ok(()) => Some(paths.bundle(id)),
            Err(error) => {
                // Nothing is deleted where a volume may still be mounted.
                tracing::error!("files of container {id} stay mounted: {error}");
                None
            }
        };
        let state = paths.runtime_state().join(id);
        for folder in bundle.into_iter().chain([state]) {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!("{} is left over: {error}", folder.display());
                }
                _ => {}
            }
        }
    }
}

/// Waits until the last run's root file system is unmounted.
pub(super) async fn unmounted(entry: &Entry) {
    let unmounting = entry.live().unmounting.take();
    if let Some(unmounting) = unmounting {
        // Panics are reported where they happen.
        let _ = unmounting.await;
    }
}
