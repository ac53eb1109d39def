//! What the database says of images, names and layers.
//!
//! Each method is one transaction, on disk when it returns. Nobody else reads or
//! writes these tables; who changes what, and whether it may, is the
//! [store](super::ImageStore)'s to decide.

use std::{collections::BTreeMap, io, sync::Arc};

use guest_protocol::{AgentError, ErrorKind, image::LayerBlob, reference::Reference};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

/// Image id to [`ImageRecord`], as JSON.
const IMAGES: TableDefinition<&str, &[u8]> = TableDefinition::new("images");
/// Name in full to image id.
const REFERENCES: TableDefinition<&str, &str> = TableDefinition::new("image_references");
/// Diff id of an unpacked layer to the bytes that its files hold.
const LAYERS: TableDefinition<&str, u64> = TableDefinition::new("layers");

/// Diff id, digest and repository of a layer's blob in a registry, to the blob's
/// length and media type.
const LAYER_BLOBS: TableDefinition<(&str, &str, &str), (u64, &str)> =
    TableDefinition::new("layer_blobs");

/// Sorts after every digest.
const LAST_DIGEST: &str = "t";

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    /// Its configuration, byte for byte.
    pub(super) configuration: String,
    pub(super) manifest_media_type: String,
    /// Its manifest, byte for byte.
    pub(super) manifest: String,
    pub(super) manifest_digest: String,
    /// Its layers, bottom first.
    pub(super) diff_ids: Vec<String>,
    /// Removed by force while containers were left that need its layers: no name,
    /// not listed.
    #[serde(default)]
    pub(super) removed: bool,
}

/// Several changes that happen together.
#[derive(Debug, Default)]
pub(super) struct Changes<'a> {
    /// Images to add or replace.
    pub(super) put_images: Vec<(&'a str, &'a ImageRecord)>,
    /// Images to drop.
    pub(super) drop_images: Vec<&'a str>,
    /// Names to give, taken from whom they belong to.
    pub(super) put_references: Vec<(&'a Reference, &'a str)>,
    /// Names to drop.
    pub(super) drop_references: Vec<&'a Reference>,
    /// Layers to add.
    pub(super) put_layers: Vec<(&'a str, u64)>,
    /// Layers to drop, with what is known of their blobs.
    pub(super) drop_layers: Vec<&'a str>,
    /// Blobs of layers to remember.
    pub(super) put_blobs: Vec<&'a LayerBlob>,
}

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// It failed.
    #[error("the image database failed: {0}")]
    Database(#[from] redb::Error),
    /// It holds something that this agent did not write.
    #[error("the image database is damaged: {0}")]
    Damaged(String),
}

impl From<RecordError> for AgentError {
    fn from(error: RecordError) -> Self {
        let no_space = matches!(&error, RecordError::Database(redb::Error::Io(cause))
            if cause.kind() == io::ErrorKind::StorageFull);
        let kind = if no_space {
            ErrorKind::NoSpace
        } else {
            ErrorKind::System
        };
        Self::new(kind, error.to_string())
    }
}

/// The tables.
#[derive(Debug)]
pub(super) struct Records {
    database: Arc<Database>,
}

impl Records {
    /// The tables in `database`, made if missing.
    pub(super) fn open(database: Arc<Database>) -> Result<Self, RecordError> {
        let records = Self { database };
        records.change(&Changes::default())?;
        Ok(records)
    }

    /// Makes `changes`, all or none.
    pub(super) fn change(&self, changes: &Changes<'_>) -> Result<(), RecordError> {
        let transaction = self.database.begin_write().map_err(redb::Error::from)?;
        {
            let mut images = transaction.open_table(IMAGES).map_err(redb::Error::from)?;
            for (id, record) in &changes.put_images {
                let json = serde_json::to_vec(record)
                    .map_err(|error| RecordError::Damaged(error.to_string()))?;
                images
                    .insert(*id, json.as_slice())
                    .map_err(redb::Error::from)?;
            }
            for id in &changes.drop_images {
                images.remove(*id).map_err(redb::Error::from)?;
            }
            let mut references = transaction
                .open_table(REFERENCES)
                .map_err(redb::Error::from)?;
            for (reference, id) in &changes.put_references {
                references
                    .insert(reference.in_full().as_str(), *id)
                    .map_err(redb::Error::from)?;
            }
            for reference in &changes.drop_references {
                references
                    .remove(reference.in_full().as_str())
                    .map_err(redb::Error::from)?;
            }
            let mut layers = transaction.open_table(LAYERS).map_err(redb::Error::from)?;
            for (diff_id, size) in &changes.put_layers {
                layers.insert(*diff_id, *size).map_err(redb::Error::from)?;
            }
            for diff_id in &changes.drop_layers {
                layers.remove(*diff_id).map_err(redb::Error::from)?;
            }
            let mut blobs = transaction
                .open_table(LAYER_BLOBS)
                .map_err(redb::Error::from)?;
            for blob in &changes.put_blobs {
                let key = (&*blob.diff_id, &*blob.digest, &*blob.repository);
                blobs
                    .insert(key, (blob.size, &*blob.media_type))
                    .map_err(redb::Error::from)?;
            }
            if !changes.drop_layers.is_empty() {
                blobs
                    .retain(|(diff_id, _, _), _| !changes.drop_layers.contains(&diff_id))
                    .map_err(redb::Error::from)?;
            }
        }
        transaction.commit().map_err(redb::Error::from)?;
        Ok(())
    }

    /// All images by id, removed ones too.
    pub(super) fn images(&self) -> Result<BTreeMap<String, ImageRecord>, RecordError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction.open_table(IMAGES).map_err(redb::Error::from)?;
        let mut images = BTreeMap::new();
        for row in table.iter().map_err(redb::Error::from)? {
            let (id, json) = row.map_err(redb::Error::from)?;
            images.insert(id.value().to_owned(), image(id.value(), json.value())?);
        }
        Ok(images)
    }

    /// The image with this id, also when it is removed.
    pub(super) fn image(&self, id: &str) -> Result<Option<ImageRecord>, RecordError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction.open_table(IMAGES).map_err(redb::Error::from)?;
        let Some(json) = table.get(id).map_err(redb::Error::from)? else {
            return Ok(None);
        };
        image(id, json.value()).map(Some)
    }

    /// All names and the ids of what they name.
    pub(super) fn references(&self) -> Result<BTreeMap<Reference, String>, RecordError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction
            .open_table(REFERENCES)
            .map_err(redb::Error::from)?;
        let mut references = BTreeMap::new();
        for row in table.iter().map_err(redb::Error::from)? {
            let (name, id) = row.map_err(redb::Error::from)?;
            let reference = Reference::parse(name.value())
                .map_err(|error| RecordError::Damaged(format!("{:?}: {error}", name.value())))?;
            references.insert(reference, id.value().to_owned());
        }
        Ok(references)
    }

    /// The id of what has this name.
    pub(super) fn reference(&self, reference: &Reference) -> Result<Option<String>, RecordError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction
            .open_table(REFERENCES)
            .map_err(redb::Error::from)?;
        let id = table
            .get(reference.in_full().as_str())
            .map_err(redb::Error::from)?;
        Ok(id.map(|id| id.value().to_owned()))
    }

    /// What is known of blobs of these layers.
    pub(super) fn blobs(&self, diff_ids: &[String]) -> Result<Vec<LayerBlob>, RecordError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction
            .open_table(LAYER_BLOBS)
            .map_err(redb::Error::from)?;
        let mut blobs = Vec::new();
        for diff_id in diff_ids {
            let all = (diff_id.as_str(), "", "")..=(diff_id.as_str(), LAST_DIGEST, "");
            for row in table.range(all).map_err(redb::Error::from)? {
                let (key, value) = row.map_err(redb::Error::from)?;
                let ((_, digest, repository), (size, media_type)) = (key.value(), value.value());
                blobs.push(LayerBlob {
                    diff_id: diff_id.clone(),
                    digest: digest.to_owned(),
                    size,
                    media_type: media_type.to_owned(),
                    repository: repository.to_owned(),
                });
            }
        }
        Ok(blobs)
    }

    /// All layers with the bytes that their files hold.
    pub(super) fn layers(&self) -> Result<BTreeMap<String, u64>, RecordError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction.open_table(LAYERS).map_err(redb::Error::from)?;
        let mut layers = BTreeMap::new();
        for row in table.iter().map_err(redb::Error::from)? {
            let (diff_id, size) = row.map_err(redb::Error::from)?;
            layers.insert(diff_id.value().to_owned(), size.value());
        }
        Ok(layers)
    }
}

fn image(id: &str, json: &[u8]) -> Result<ImageRecord, RecordError> {
    serde_json::from_slice(json)
        .map_err(|error| RecordError::Damaged(format!("image {id}: {error}")))
}
