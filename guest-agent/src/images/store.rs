//! The image store: what the agent's handlers call.

mod transfer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use guest_protocol::{
    AgentError, ErrorKind,
    image::{Image, Layer, LayerDescriptor, Removed},
    methods::LayerImported,
    reference::{Reference, ReferenceError, is_digest},
};
use redb::Database;
use tokio::io::AsyncRead;

pub(super) use self::transfer::ToSave;

use super::{
    description::{check_diff_id, check_manifest, diff_ids, digest},
    import::{self, LayerStream},
    layers::{ImportLock, Layers},
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
/// [`LayerReservation::import`] blocks for a disk write at most.
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

/// The right to bring one layer, held by one importer at a time.
#[derive(Debug)]
pub(crate) struct LayerReservation {
    inner: Arc<Inner>,
    layer: LayerDescriptor,
    lock: ImportLock,
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

    /// Of these layers' diff ids, those that are not on disk. Those that are stay
    /// for a while even when nothing uses them, so that an image can be made of
    /// them.
    ///
    /// # Errors
    /// When a diff id is none, or the database fails.
    pub(crate) fn missing(&self, diff_ids: &[String]) -> Result<Vec<String>, AgentError> {
        for diff_id in diff_ids {
            check_diff_id(diff_id)?;
        }
        let _changing = self.inner.changing();
        let present = self.inner.records.layers()?;
        let (here, missing): (Vec<_>, Vec<_>) = diff_ids
            .iter()
            .cloned()
            .partition(|diff_id| present.contains_key(diff_id));
        for diff_id in &here {
            self.inner.layers.lease(diff_id);
        }
        Ok(missing)
    }

    /// Asks for the right to bring a layer; waits while somebody else brings the
    /// same one. `None` when it is on disk.
    ///
    /// # Errors
    /// When the diff id is none, or the database fails.
    pub(crate) async fn reserve_layer(
        &self,
        layer: &LayerDescriptor,
    ) -> Result<Option<LayerReservation>, AgentError> {
        check_diff_id(&layer.diff_id)?;
        let lock = self.inner.layers.lock(&layer.diff_id).await;
        if self
            .missing(std::slice::from_ref(&layer.diff_id))?
            .is_empty()
        {
            return Ok(None);
        }
        Ok(Some(LayerReservation {
            inner: Arc::clone(&self.inner),
            layer: layer.clone(),
            lock,
        }))
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

impl LayerReservation {
    /// Reads the layer's blob (exactly its `size` bytes) from `stream`, unpacks
    /// it and checks it. Afterwards it is on disk for good, or there is no trace
    /// of it. Dropping the future aborts the import.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the layer is not what its descriptor says or
    /// tries what no layer may, [`ErrorKind::NoSpace`] when the disk is full,
    /// [`ErrorKind::Unavailable`] when `stream` fails.
    pub(crate) async fn import<R>(self, stream: &mut R) -> Result<LayerImported, AgentError>
    where
        R: AsyncRead + Unpin + Send,
    {
        let Self { inner, layer, lock } = self;
        let blob = layer.digest.clone();
        let (outgoing, incoming) = import::channel(layer.size);
        let unpacking = tokio::task::spawn_blocking(move || {
            // Kept until all is done, also when nobody waits for it any more.
            let lock = lock;
            let stream = LayerStream::new(incoming, layer.compression);
            inner.import(&layer, &lock, stream)
        });
        let fed = outgoing.feed(stream).await;
        let unpacked = unpacking
            .await
            .map_err(|error| AgentError::system(format!("layer {blob}: {error}")))?;
        if let Err(error) = fed {
            return Err(AgentError::new(
                ErrorKind::Unavailable,
                format!("layer {blob}: the connection failed: {error}"),
            ));
        }
        Ok(LayerImported { size: unpacked? })
    }
}

impl Inner {
    /// Unpacks a layer, blocking. Returns the bytes that its files hold.
    fn import(
        &self,
        layer: &LayerDescriptor,
        lock: &ImportLock,
        stream: Result<LayerStream, import::StreamError>,
    ) -> Result<u64, AgentError> {
        let size = self.layers.import(layer, stream)?;
        let _changing = self.changing();
        self.layers.lease(lock.diff_id());
        self.records.change(&Changes {
            put_layers: vec![(lock.diff_id(), size)],
            ..Changes::default()
        })?;
        Ok(size)
    }

    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image that `text` means: by full id, by name, by the beginning of an id.
    fn find(&self, text: &str) -> Result<(String, ImageRecord), AgentError> {
        let named = name(text);
        let id = if is_digest(text) {
            Some(text.to_owned())
        } else if is_digest(&format!("sha256:{text}")) {
            Some(format!("sha256:{text}"))
        } else {
            match &named {
                Ok(reference) => self.records.reference(reference)?,
                Err(_) => None,
            }
        };
        let found = match id {
            Some(id) => self.records.image(&id)?.map(|record| (id, record)),
            None => self.find_by_prefix(text)?,
        };
        found
            .filter(|(_, record)| !record.removed)
            .ok_or_else(|| match named {
                Ok(reference) => AgentError::no_such_image(&reference.to_string()),
                Err(error) if !is_id_like(text) => invalid(text, &error),
                Err(_) => AgentError::no_such_image(text),
            })
    }

    fn find_by_prefix(&self, text: &str) -> Result<Option<(String, ImageRecord)>, AgentError> {
        if !is_id_like(text) {
            return Ok(None);
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let mut matches = self.records.images()?.into_iter().filter(|(id, record)| {
            !record.removed
                && id
                    .strip_prefix("sha256:")
                    .is_some_and(|hex| hex.starts_with(prefix))
        });
        let first = matches.next();
        if matches.next().is_some() {
            return Err(AgentError::invalid(format!(
                "image id {text} is ambiguous: give more digits of it"
            )));
        }
        Ok(first)
    }
}

/// The name that `text` is of the image `id`; none when it is (the beginning of)
/// its id.
fn name_meant(text: &str, id: &str) -> Option<Reference> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if !hex.is_empty()
        && id
            .strip_prefix("sha256:")
            .is_some_and(|id| id.starts_with(hex))
    {
        return None;
    }
    name(text).ok()
}

/// Whether `text` can be the beginning of an id.
fn is_id_like(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    (1..=64).contains(&hex.len())
        && hex
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn names_of(names: &BTreeMap<Reference, String>, id: &str) -> Vec<Reference> {
    names
        .iter()
        .filter(|(_, named)| *named == id)
        .map(|(name, _)| name.clone())
        .collect()
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

/// The name that `text` is. Without tag and digest it means `latest`; with both
/// the digest counts.
fn name(text: &str) -> Result<Reference, ReferenceError> {
    let reference = Reference::parse(text)?.or_latest();
    match reference.digest().map(str::to_owned) {
        Some(digest) => reference.with_version(&digest),
        None => Ok(reference),
    }
}

fn parse(text: &str) -> Result<Reference, AgentError> {
    name(text).map_err(|error| invalid(text, &error))
}

fn invalid(text: &str, error: &ReferenceError) -> AgentError {
    AgentError::invalid(format!("{error}: {text:?}"))
}
