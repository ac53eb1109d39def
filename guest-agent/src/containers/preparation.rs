//! What a container's process finds: its root file system, mounted, and its bundle,
//! written for the runtime. Before each [`start`](super::start).

use std::{
    fs,
    path::{Path, PathBuf},
};

use guest_protocol::{AgentError, ErrorKind, container::Container};

use super::{
    Containers, Entry,
    spec::{self, Joined, Sources, mounts, rootfs::Rootfs, user, user::User},
    user_namespace,
};
use crate::{
    error::{Context, Result},
    images::overlay,
    runtime::job::Confinement,
};

impl Containers {
    /// Mounts the root file system and writes the bundle.
    pub(super) fn prepare(&self, entry: &Entry) -> Result<(User, Confinement)> {
        let record = entry.record().clone();
        let container = &record.container;
        let paths = &self.shared.paths;
        let (folder, root) = (paths.container(&container.id), paths.rootfs(&container.id));
        // A power cut may have taken what was made right before it.
        fs::create_dir_all(&folder)
            .and_then(|()| spec::files::write_missing(container, &folder))
            .context("cannot write the container's files")?;
        let layers = self.shared.images.layers(&container.image_id)?;
        overlay::mount(&layers, &folder.join("upper"), &folder.join("work"), &root)
            .context("cannot mount the container's root file system")?;
        let rootfs = Rootfs::at(&root).context("cannot open the container's root file system")?;
        let host = &container.host_config;
        let user = user::resolve(
            &rootfs,
            container.config.user.as_deref().unwrap_or_default(),
            host.group_add.as_deref().unwrap_or_default(),
        )?;
        if let Some(folder) = container
            .config
            .working_dir
            .as_deref()
            .filter(|folder| !folder.is_empty())
        {
            rootfs
                .make_folder(Path::new(folder))
                .context(format_args!("cannot make the working directory {folder}"))?;
        }
        let mut volumes = self.mount_volumes(container)?;
        let mut places = self.fill_volumes(&record, &rootfs, &mut volumes)?;
        entry.live().volumes = volumes;
        self.tell_volumes(entry, "mount");
        let [uid, gid] = [user.uid, user.gid].map(|id| user_namespace::machine_id(host, id));
        places.extend(self.shared.shares.places(container, uid, gid)?);
        let bundle = paths.bundle(&container.id);
        fs::create_dir_all(&bundle).context("cannot make the container's bundle")?;
        let joined = self.joined_namespaces(container)?;
        let shared_memory = self.shared_memory(container, &joined)?;
        let network = joined.iter().find(|joined| joined.kind == "network");
        let etc = network.map_or_else(|| folder.clone(), |other| paths.container(&other.id));
        let linked = self.linked(container)?;
        let link_environment: Vec<String> = linked
            .into_iter()
            .flat_map(|linked| linked.environment)
            .collect();
        let confinement = spec::confinement(host, &bundle)?;
        let sources = Sources {
            container,
            user: &user,
            rootfs: &root,
            folder: &etc,
            link_environment: &link_environment,
            init_program: &paths.program,
            joined: &joined,
            shared_memory: shared_memory.as_deref(),
            places: &places,
        };
        let mut config = spec::container(&sources, &confinement)?;
        if user_namespace::is_wanted(host) {
            // What was looked for and made so far had the disk's ids.
            drop(rootfs);
            let place = paths.bundle(&container.id).join("disk");
            overlay::unmount(&root)
                .and_then(|()| {
                    user_namespace::mount_root(&paths.data, &layers, &folder, &root, &place)
                })
                .context("cannot mount the container's root file system for its user namespace")?;
            user_namespace::map_mounts(&mut config, &paths.data, &paths.mapped(&container.id))
                .context("cannot mount the container's files for its user namespace")?;
        }
        fs::write(bundle.join("config.json"), config.to_string())
            .context("cannot write the container's bundle")?;
        Ok((user, confinement))
    }

    fn joined_namespaces(&self, container: &Container) -> Result<Vec<Joined>> {
        let mut joined = Vec::new();
        for (kind, mode) in spec::shared_namespaces(&container.host_config) {
            let Some(reference) = mode.strip_prefix("container:") else {
                continue;
            };
            let other = self.find(reference)?;
            let pid = other.record().container.state.pid;
            if pid == 0 {
                return Err(AgentError::new(
                    ErrorKind::Conflict,
                    format!("cannot join {kind} namespace of a non running container: {reference}"),
                ));
            }
            joined.push(Joined {
                kind,
                pid,
                id: other.id.clone(),
            });
        }
        Ok(joined)
    }

    /// The `/dev/shm` that the container shares: another's, or its own for others.
    fn shared_memory(&self, container: &Container, joined: &[Joined]) -> Result<Option<PathBuf>> {
        if let Some(joined) = joined.iter().find(|joined| joined.kind == "ipc") {
            let other = self.find(&joined.id)?;
            if !spec::shares_memory(&other.record().container.host_config) {
                return Err(AgentError::invalid(format!(
                    "can't join IPC of container {}: non-shareable IPC (hint: use \
                     IpcMode:shareable for the donor container)",
                    joined.id
                )));
            }
            return Ok(Some(self.shared.paths.shared_memory(&joined.id)));
        }
        if !spec::shares_memory(&container.host_config) {
            return Ok(None);
        }
        let folder = self.shared.paths.shared_memory(&container.id);
        let size = mounts::shared_memory_size(&container.host_config);
        mounts::mount_shared_memory(&folder, size)
            .context("cannot make the container's shared memory")?;
        Ok(Some(folder))
    }
}
