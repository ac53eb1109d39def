//! The volumes of containers: made with them, mounted and filled when they start,
//! and gone with them when they have no name of their own.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use guest_protocol::{
    container::Container,
    docker::{MountPoint, MountPointTypeEnum},
    volume::Volume,
};

use super::{
    Containers, Entry,
    records::Record,
    spec::{
        rootfs::Rootfs,
        volumes::{Details, Request, mount_point},
    },
};
use crate::{
    error::{Context, Result},
    volumes::{Hold, Leaving, Mounted, Volumes, Wanted},
};

/// What is to be mounted into a new container.
#[derive(Debug, Default)]
pub(super) struct Attached {
    pub(super) points: Vec<MountPoint>,
    pub(super) details: BTreeMap<String, Details>,
    /// Nothing of it is removed before the container has it.
    pub(super) holds: Vec<Hold>,
}

impl Containers {
    /// The volumes, for calls about them.
    pub(crate) fn volumes(&self) -> &Volumes {
        &self.shared.volumes
    }

    /// Makes a volume, and tells.
    ///
    /// # Errors
    /// As [`Volumes::create`].
    pub(crate) fn create_volume(&self, wanted: &Wanted) -> Result<Volume> {
        let (mut volume, made) = self.shared.volumes.create(wanted)?;
        if made {
            self.shared.events.volume(&volume.name, "create", &[]);
        }
        volume.users = self.volume_users(&volume.name);
        Ok(volume)
    }

    /// One volume, with its users.
    ///
    /// # Errors
    /// [`guest_protocol::ErrorKind::NotFound`].
    pub(crate) fn volume(&self, name: &str) -> Result<Volume> {
        let mut volume = self.shared.volumes.get(name)?;
        volume.users = self.volume_users(name);
        Ok(volume)
    }

    /// All volumes, with their users.
    pub(crate) fn list_volumes(&self) -> Vec<Volume> {
        let mut volumes = self.shared.volumes.list();
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in self.entries() {
            for name in volume_names(&entry.record().container) {
                users.entry(name).or_default().push(entry.id.clone());
            }
        }
        for volume in &mut volumes {
            volume.users = users.remove(&volume.name).unwrap_or_default();
        }
        volumes
    }

    /// Removes a volume that no container has.
    ///
    /// # Errors
    /// As [`Volumes::remove`].
    pub(crate) fn remove_volume(&self, name: &str) -> Result<()> {
        self.shared
            .volumes
            .remove(name, &|name| self.volume_users(name))?;
        self.shared.events.volume(name, "destroy", &[]);
        Ok(())
    }

    /// Ids of the containers that have a volume.
    fn volume_users(&self, name: &str) -> Vec<String> {
        self.entries()
            .iter()
            .filter(|entry| has_volume(&entry.record().container, name))
            .map(|entry| entry.id.clone())
            .collect()
    }

    /// The mounts of a container, for `--volumes-from`.
    pub(super) fn mounts_of(&self, reference: &str) -> Result<Vec<(MountPoint, Details)>> {
        let entry = self.find(reference)?;
        let record = entry.record();
        Ok(record
            .container
            .mounts
            .iter()
            .filter(|point| {
                matches!(
                    point.typ,
                    Some(MountPointTypeEnum::VOLUME | MountPointTypeEnum::BIND)
                )
            })
            .map(|point| {
                let details = details_of(&record, point);
                (point.clone(), details)
            })
            .collect())
    }

    /// Makes the volumes that `requests` want and are not there.
    pub(super) fn attach_volumes(&self, requests: Vec<Request>) -> Result<Attached> {
        let volumes = &self.shared.volumes;
        let mut attached = Attached::default();
        for request in requests {
            let (point, details) = match request {
                Request::Plain(point) => (point, Details::default()),
                Request::Shared(point, details) => {
                    if let Some(name) = &point.name {
                        attached.holds.push(volumes.hold(name)?);
                    }
                    (point, details)
                }
                Request::Volume(request) => {
                    let (volume, hold, made) = volumes.create_held(&request.wanted)?;
                    attached.holds.push(hold);
                    if made {
                        self.shared.events.volume(&volume.name, "create", &[]);
                    }
                    let point = mount_point(&request, &volume.name, &volume.mountpoint);
                    (point, request.details)
                }
            };
            if let Some(destination) = &point.destination
                && details != Details::default()
            {
                attached.details.insert(destination.clone(), details);
            }
            attached.points.push(point);
        }
        Ok(attached)
    }

    /// Mounts the volumes of a container, in the order of its mounts.
    pub(super) fn mount_volumes(&self, container: &Container) -> Result<Vec<Mounted>> {
        volume_names(container)
            .map(|name| self.shared.volumes.mount(&name))
            .collect()
    }

    /// Fills what [`mount_volumes`](Self::mount_volumes) mounted from the image.
    /// Returns where the parts of volumes are that are mounted instead of the whole.
    pub(super) fn fill_volumes(
        &self,
        record: &Record,
        rootfs: &Rootfs,
        mounted: &mut [Mounted],
    ) -> Result<BTreeMap<String, PathBuf>> {
        let mut parts = BTreeMap::new();
        let points = record
            .container
            .mounts
            .iter()
            .filter(|point| point.name.is_some());
        for (index, (point, mounted)) in points.zip(mounted).enumerate() {
            let (Some(name), Some(destination)) = (&point.name, &point.destination) else {
                continue;
            };
            let details = details_of(record, point);
            let folder = rootfs
                .folder(Path::new(destination))
                .context(format_args!("cannot mount volume {name} at {destination}"))?;
            if !details.subpath.is_empty() {
                let part = format!("{}-{index}", record.container.id);
                let part = self.shared.paths.run.join("parts").join(part);
                mounted.bind_part(&details.subpath, part)?;
                parts.insert(destination.clone(), mounted.source());
            } else if !details.no_copy {
                mounted.fill(&folder)?;
            }
        }
        Ok(parts)
    }

    /// Of a container's volumes, those that go with it.
    pub(super) fn leaving_volumes(&self, container: &Container) -> Leaving {
        let names: Vec<String> = volume_names(container).collect();
        let others: Vec<_> = self
            .entries()
            .into_iter()
            .filter(|entry| entry.id != container.id)
            .collect();
        self.shared.volumes.leaving(&names, &|name| {
            others
                .iter()
                .any(|entry| has_volume(&entry.record().container, name))
        })
    }

    /// Tells that a container's volumes were mounted or unmounted.
    pub(super) fn tell_volumes(&self, entry: &Entry, action: &str) {
        let container = entry.container();
        for point in &container.mounts {
            let (Some(name), Some(destination)) = (&point.name, &point.destination) else {
                continue;
            };
            let mut more = vec![("container", container.id.clone())];
            if action == "mount" {
                more.push(("destination", destination.clone()));
                more.push(("propagation", String::new()));
                more.push(("read/write", (point.rw != Some(false)).to_string()));
            }
            self.shared.events.volume(name, action, &more);
        }
    }
}

fn volume_names(container: &Container) -> impl Iterator<Item = String> {
    container
        .mounts
        .iter()
        .filter_map(|mount| mount.name.clone())
}

fn has_volume(container: &Container, name: &str) -> bool {
    container
        .mounts
        .iter()
        .any(|mount| mount.name.as_deref() == Some(name))
}

fn details_of(record: &Record, point: &MountPoint) -> Details {
    point
        .destination
        .as_ref()
        .and_then(|destination| record.mount_details.get(destination))
        .cloned()
        .unwrap_or_else(|| Details {
            no_copy: point
                .mode
                .as_deref()
                .is_some_and(|mode| mode.split(',').any(|option| option == "nocopy")),
            subpath: String::new(),
        })
}
