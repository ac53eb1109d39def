//! The image store: what the agent's handlers call.
//!
//! Here: making, listing, naming and removing images. [`lookup`] tells which image a
//! text means, [`incoming`] brings layers, [`transfer`] serves archives and registries.

mod incoming;
mod lookup;
mod transfer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use guest_protocol::{
    AgentError, ErrorKind,
    image::{Image, Layer, Removed},
    reference::Reference,
};
use redb::Database;

pub(crate) use self::lookup::name_meant;
use self::lookup::{names_of, parse};
pub(super) use self::transfer::ToSave;
use super::{
    description::{check_manifest, diff_ids, digest},
    layers::Layers,
    overlay,
    records::{Changes, ImageRecord, Records},
    removal::Removal,
};

/// A container that was made of an image, as the caller knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageUser {
    /// The container's id.
    pub(crate) container_id: String,
    /// Whether it runs.
    pub(crate) running: bool,
}

/// The images on the data disk. Cheap to clone: clones share one store.
///
/// Every method but [`reserve_layer`](Self::reserve_layer) and
/// [`LayerReservation::import`](incoming::LayerReservation::import) blocks for a disk write at most.
#[derive(Debug, Clone)]
pub(crate) struct ImageStore {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) records: Records,
    pub(super) layers: Layers,
    /// Held while something is looked at and then changed.
    changing: Mutex<()>,
}

impl ImageStore {
    /// Opens the store below `data_root` and clears away what an interruption
    /// left there.
    ///
    /// # Errors
    /// When the database or the directories below `data_root` cannot be read and
    /// written.
    pub(crate) fn open(data_root: &Path, database: Arc<Database>) -> Result<Self, AgentError> {
        let records = Records::open(database)?;
        let known = records.layers()?;
        let (layers, lost) = Layers::open(data_root, &known).map_err(|error| {
            AgentError::system(format!(
                "cannot open the image layers below {}: {error}",
                data_root.display()
            ))
        })?;
        if !lost.is_empty() {
            tracing::warn!(
                ?lost,
                "layers are gone from the disk; a pull brings them back"
            );
            records.change(&Changes {
                drop_layers: lost.iter().map(String::as_str).collect(),
                ..Changes::default()
            })?;
        }
        let store = Self {
            inner: Arc::new(Inner {
                records,
                layers,
                changing: Mutex::new(()),
            }),
        };
        // Layers of pulls that never came to an image.
        let images = store.inner.records.images()?;
        store.drop_unused(images, &[])?;
        Ok(store)
    }

    /// Makes an image of layers that are all there, in one transaction.
    /// `configuration` and `manifest` are kept byte for byte; `references` are the
    /// names it gets, taken from other images that have them. An image that is there
    /// keeps the manifest that it was pulled with, unless it is pulled again: what
    /// is pushed of it then has the digest that it came with.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when configuration and manifest are not what they
    /// should be, [`ErrorKind::NotFound`] when a layer is missing,
    /// [`ErrorKind::InvalidParameter`] when a name is none.
    pub(crate) fn create(
        &self,
        configuration: &str,
        manifest_media_type: &str,
        manifest: &str,
        references: &[String],
    ) -> Result<Image, AgentError> {
        let id = digest(configuration);
        let references = references
            .iter()
            .map(|text| parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        let diff_ids = diff_ids(configuration)?;
        check_manifest(manifest, &id)?;
        let mut record = ImageRecord {
            configuration: configuration.to_owned(),
            manifest_media_type: manifest_media_type.to_owned(),
            manifest: manifest.to_owned(),
            manifest_digest: digest(manifest),
            diff_ids,
            removed: false,
        };

        let _changing = self.inner.changing();
        let pulled = references.iter().any(|name| name.digest().is_some());
        if !pulled && let Some(known) = self.inner.records.image(&id)?.filter(|it| !it.removed) {
            record.manifest_media_type = known.manifest_media_type;
            record.manifest = known.manifest;
            record.manifest_digest = known.manifest_digest;
        }
        let present = self.inner.records.layers()?;
        if let Some(missing) = record.diff_ids.iter().find(|id| !present.contains_key(*id)) {
            return Err(AgentError::new(
                ErrorKind::NotFound,
                format!("layer {missing} of image {id} is not on disk: pull the image again"),
            ));
        }
        self.inner.records.change(&Changes {
            put_images: vec![(&id, &record)],
            put_references: references.iter().map(|name| (name, id.as_str())).collect(),
            ..Changes::default()
        })?;
        self.inner.layers.end_leases(&record.diff_ids);
        let names = self.inner.records.references()?;
        image(&id, &record, &names_of(&names, &id), &present)
    }

    /// All images.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) fn list(&self) -> Result<Vec<Image>, AgentError> {
        let names = self.inner.records.references()?;
        let sizes = self.inner.records.layers()?;
        self.inner
            .records
            .images()?
            .iter()
            .filter(|(_, record)| !record.removed)
            .map(|(id, record)| image(id, record, &names_of(&names, id), &sizes))
            .collect()
    }

    /// The image that `reference` means: a name, `name:tag`, `name@digest`, an id
    /// or an unambiguous beginning of one.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none, [`ErrorKind::InvalidParameter`]
    /// when there are several or it is no reference at all.
    pub(crate) fn resolve(&self, reference: &str) -> Result<Image, AgentError> {
        let (id, record) = self.inner.find(reference)?;
        let names = self.inner.records.references()?;
        let sizes = self.inner.records.layers()?;
        image(&id, &record, &names_of(&names, &id), &sizes)
    }

    /// Gives the image that `reference` means the further name `name`.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve); [`ErrorKind::InvalidParameter`] when `name`
    /// is none or names a digest.
    pub(crate) fn tag(&self, reference: &str, name: &str) -> Result<(), AgentError> {
        let name = parse(name)?;
        if name.digest().is_some() {
            return Err(AgentError::invalid(
                "refusing to create a tag with a digest reference",
            ));
        }
        let _changing = self.inner.changing();
        let (id, _) = self.inner.find(reference)?;
        self.inner.records.change(&Changes {
            put_references: vec![(&name, &id)],
            ..Changes::default()
        })?;
        Ok(())
    }

    /// Removes what `reference` means, by Docker's rules; `users` tells which
    /// containers were made of the image with a given id.
    ///
    /// An image that stopped containers use and that is removed by `force` has no
    /// name any more and is not listed, but its layers stay until
    /// [`collect`](Self::collect) finds it unused.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve); [`ErrorKind::Conflict`] when containers or
    /// other names object.
    pub(crate) fn remove(
        &self,
        reference: &str,
        force: bool,
        users: &dyn Fn(&str) -> Vec<ImageUser>,
    ) -> Result<Vec<Removed>, AgentError> {
        let _changing = self.inner.changing();
        let (id, record) = self.inner.find(reference)?;
        let names = names_of(&self.inner.records.references()?, &id);
        let users = users(&id);
        let name = name_meant(reference, &id);
        let plan = Removal {
            text: reference,
            reference: name.as_ref(),
            id: &id,
            names: &names,
            users: &users,
            force,
        }
        .plan()?;

        let mut removed: Vec<Removed> = plan
            .untag
            .iter()
            .map(|name| Removed::Untagged(name.to_string()))
            .collect();
        let mut changes = Changes {
            drop_references: plan.untag,
            ..Changes::default()
        };
        if !plan.delete {
            self.inner.records.change(&changes)?;
            return Ok(removed);
        }
        removed.push(Removed::Deleted(id.clone()));
        let kept = ImageRecord {
            removed: true,
            ..record
        };
        if users.is_empty() {
            changes.drop_images.push(&id);
        } else {
            changes.put_images.push((&id, &kept));
        }
        self.inner.records.change(&changes)?;
        let layers = self.drop_unused(self.inner.records.images()?, &[])?;
        removed.extend(layers.into_iter().map(Removed::Deleted));
        Ok(removed)
    }

    /// Drops images that were removed by force and that no container uses any
    /// more. To be called once at start and when a container was removed.
    ///
    /// # Errors
    /// When the database fails or files cannot be moved away.
    pub(crate) fn collect(&self, users: &dyn Fn(&str) -> Vec<ImageUser>) -> Result<(), AgentError> {
        let _changing = self.inner.changing();
        let images = self.inner.records.images()?;
        let unused: Vec<String> = images
            .iter()
            .filter(|(id, record)| record.removed && users(id).is_empty())
            .map(|(id, _)| id.clone())
            .collect();
        if !unused.is_empty() {
            self.drop_unused(images, &unused)?;
        }
        Ok(())
    }

    /// The directories of an image's layers, topmost first, as
    /// [`overlay::mount`] takes them. Serves images removed by force, too.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such image or a layer is gone.
    pub(crate) fn layers(&self, image_id: &str) -> Result<Vec<PathBuf>, AgentError> {
        let record = self
            .inner
            .records
            .image(image_id)?
            .ok_or_else(|| AgentError::no_such_image(image_id))?;
        let present = self.inner.records.layers()?;
        let mut paths = Vec::with_capacity(record.diff_ids.len());
        for diff_id in record.diff_ids.iter().rev() {
            if !present.contains_key(diff_id) {
                return Err(AgentError::new(
                    ErrorKind::NotFound,
                    format!("layer {diff_id} of image {image_id} is gone: pull the image again"),
                ));
            }
            // OverlayFS refuses a layer twice; the upper one does what both would.
            let path = self.inner.layers.files(diff_id);
            let hides_the_rest = overlay::is_opaque(&path);
            if !paths.contains(&path) {
                paths.push(path);
            }
            if hides_the_rest {
                break;
            }
        }
        Ok(paths)
    }

    /// Drops the images `drop` and the layers that then no image uses and that
    /// nobody is about to use. Returns these layers.
    fn drop_unused(
        &self,
        mut images: BTreeMap<String, ImageRecord>,
        drop: &[String],
    ) -> Result<Vec<String>, AgentError> {
        images.retain(|id, _| !drop.contains(id));
        let unused: Vec<String> = self
            .inner
            .records
            .layers()?
            .into_keys()
            .filter(|diff_id| {
                !images
                    .values()
                    .any(|image| image.diff_ids.contains(diff_id))
            })
            .filter(|diff_id| !self.inner.layers.is_leased(diff_id))
            .collect();
        if drop.is_empty() && unused.is_empty() {
            return Ok(unused);
        }
        self.inner.records.change(&Changes {
            drop_images: drop.iter().map(String::as_str).collect(),
            drop_layers: unused.iter().map(String::as_str).collect(),
            ..Changes::default()
        })?;
        self.inner.layers.delete(&unused).map_err(|error| {
            AgentError::system(format!("cannot move away the layers' files: {error}"))
        })?;
        Ok(unused)
    }
}

impl Inner {
    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn image(
    id: &str,
    record: &ImageRecord,
    names: &[Reference],
    sizes: &BTreeMap<String, u64>,
) -> Result<Image, AgentError> {
    let configuration = serde_json::from_str(&record.configuration).map_err(|error| {
        AgentError::system(format!(
            "the configuration of image {id} is damaged: {error}"
        ))
    })?;
    let layers = record
        .diff_ids
        .iter()
        .map(|diff_id| Layer {
            diff_id: diff_id.clone(),
            size: sizes.get(diff_id).copied().unwrap_or(0),
        })
        .collect();
    let mut diff_ids: Vec<&String> = record.diff_ids.iter().collect();
    diff_ids.sort();
    diff_ids.dedup();
    let (digests, tags): (Vec<&Reference>, Vec<&Reference>) =
        names.iter().partition(|name| name.digest().is_some());
    Ok(Image {
        id: id.to_owned(),
        repo_tags: tags.into_iter().map(ToString::to_string).collect(),
        repo_digests: digests.into_iter().map(ToString::to_string).collect(),
        configuration,
        manifest_media_type: record.manifest_media_type.clone(),
        manifest_digest: record.manifest_digest.clone(),
        size: diff_ids
            .into_iter()
            .filter_map(|diff_id| sizes.get(diff_id))
            .fold(0, |sum, size| sum.saturating_add(*size)),
        layers,
    })
}
