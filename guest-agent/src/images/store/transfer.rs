//! What saving, loading and pushing need of the store: documents, layers' archives,
//! and where in registries layers are.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::PathBuf,
};

use guest_protocol::{
    AgentError, ErrorKind,
    image::{Documents, ImagesUsage, LayerBlob},
    methods::ImagePushed,
    reference::Reference,
};

use super::{
    ImageStore,
    lookup::{invalid, name_meant, names_of, parse},
};
use crate::images::{
    description::{check_diff_id, check_manifest, digest},
    records::{Changes, ImageRecord},
};

/// An image that is to be saved.
#[derive(Debug)]
pub(in crate::images) struct ToSave {
    pub(in crate::images) id: String,
    pub(in crate::images) configuration: String,
    pub(in crate::images) diff_ids: Vec<String>,
    /// The tags that were asked for.
    pub(in crate::images) names: Vec<Reference>,
}

impl ImageStore {
    /// The documents that the image `reference` is made of.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub(crate) fn documents(&self, reference: &str) -> Result<Documents, AgentError> {
        let (_, record) = self.inner.find(reference)?;
        Ok(Documents {
            configuration: record.configuration,
            manifest_media_type: record.manifest_media_type,
            manifest: record.manifest,
        })
    }

    /// The images that `references` name, each once, in this order. The name of a
    /// repository means all of its tags. Their layers stay for a while.
    pub(in crate::images) fn to_save(
        &self,
        references: &[String],
    ) -> Result<Vec<ToSave>, AgentError> {
        let _changing = self.inner.changing();
        let names = self.inner.records.references()?;
        let mut images: Vec<ToSave> = Vec::new();
        let mut add = |id: &str, name: Option<&Reference>| -> Result<(), AgentError> {
            let known = images.iter().position(|image| image.id == id);
            let index = if let Some(index) = known {
                index
            } else {
                let record = self
                    .inner
                    .records
                    .image(id)?
                    .ok_or_else(|| AgentError::no_such_image(id))?;
                images.push(ToSave {
                    id: id.to_owned(),
                    configuration: record.configuration,
                    diff_ids: record.diff_ids,
                    names: Vec::new(),
                });
                images.len() - 1
            };
            let known = &mut images[index].names;
            known.extend(name.filter(|name| !known.contains(name)).cloned());
            Ok(())
        };
        for text in references {
            let repository = Reference::parse(text)
                .ok()
                .filter(|name| name.tag().is_none() && name.digest().is_none());
            let tags: Vec<_> = names
                .iter()
                .filter(|(name, _)| {
                    name.tag().is_some()
                        && repository
                            .as_ref()
                            .is_some_and(|wanted| wanted.repository() == name.repository())
                })
                .collect();
            if !tags.is_empty() {
                for (name, id) in tags {
                    add(id, Some(name))?;
                }
                continue;
            }
            let (id, _) = self.inner.find(text)?;
            let name = name_meant(text, &id)
                .filter(|name| name.digest().is_none() && names_of(&names, &id).contains(name));
            add(&id, name.as_ref())?;
        }
        for image in &images {
            for diff_id in &image.diff_ids {
                self.inner.layers.lease(diff_id);
            }
        }
        Ok(images)
    }

    /// The length of a layer's tar, in bytes. The layer stays for a while.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is not here, or how its tar was is not known.
    pub(crate) fn archive_size(&self, diff_id: &str) -> Result<u64, AgentError> {
        if !self.missing(&[diff_id.to_owned()])?.is_empty() {
            return Err(AgentError::new(
                ErrorKind::NotFound,
                format!("layer {diff_id} is not on disk: pull the image again"),
            ));
        }
        self.inner.layers.archive_size(diff_id)
    }

    /// Writes a layer's tar, blocking.
    ///
    /// # Errors
    /// When it cannot be read or `output` fails; [`ErrorKind::Corrupt`] when what
    /// was written turns out not to have its digest.
    pub(crate) fn export_layer(
        &self,
        diff_id: &str,
        output: &mut impl Write,
    ) -> Result<(), AgentError> {
        check_diff_id(diff_id)?;
        self.inner.layers.export(diff_id, output)
    }

    /// Remembers where layers are that are here.
    ///
    /// # Errors
    /// When the database fails, or a digest or repository is none.
    pub(crate) fn keep_blobs(&self, blobs: &[LayerBlob]) -> Result<(), AgentError> {
        check_blobs(blobs)?;
        let _changing = self.inner.changing();
        let layers = self.inner.records.layers()?;
        self.inner.records.change(&Changes {
            put_blobs: present(blobs, &layers),
            ..Changes::default()
        })?;
        Ok(())
    }

    /// Notes that an image is in a registry, with this manifest and these blobs, under
    /// the name `call.name`. Returns the image's id.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve); [`ErrorKind::Corrupt`] when the manifest is not
    /// the image's, [`ErrorKind::InvalidParameter`] when the name does not have its
    /// digest.
    pub(crate) fn pushed(&self, call: &ImagePushed) -> Result<String, AgentError> {
        check_blobs(&call.blobs)?;
        let name = parse(&call.name)?;
        let manifest_digest = digest(&call.manifest);
        if name.digest() != Some(&manifest_digest) {
            return Err(AgentError::invalid(format!(
                "{:?} is not the name of manifest {manifest_digest}",
                call.name
            )));
        }
        let _changing = self.inner.changing();
        let (id, record) = self.inner.find(&call.reference)?;
        check_manifest(&call.manifest, &id)?;
        let record = ImageRecord {
            manifest_media_type: call.manifest_media_type.clone(),
            manifest: call.manifest.clone(),
            manifest_digest,
            ..record
        };
        let layers = self.inner.records.layers()?;
        self.inner.records.change(&Changes {
            put_images: vec![(&id, &record)],
            put_references: vec![(&name, &id)],
            put_blobs: present(&call.blobs, &layers),
            ..Changes::default()
        })?;
        Ok(id)
    }

    /// Where these layers are known to be.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) fn blobs(&self, diff_ids: &[String]) -> Result<Vec<LayerBlob>, AgentError> {
        Ok(self.inner.records.blobs(diff_ids)?)
    }

    /// What images take of the disk.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) fn usage(&self) -> Result<ImagesUsage, AgentError> {
        let sizes = self.inner.records.layers()?;
        let images = self.inner.records.images()?;
        let mut users: BTreeMap<&str, u32> = BTreeMap::new();
        for record in images.values() {
            let layers: BTreeSet<&str> = record.diff_ids.iter().map(String::as_str).collect();
            for diff_id in layers {
                *users.entry(diff_id).or_default() += 1;
            }
        }
        let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0, u64::saturating_add);
        let shared = images
            .iter()
            .filter(|(_, record)| !record.removed)
            .map(|(id, record)| {
                let layers: BTreeSet<&str> = record.diff_ids.iter().map(String::as_str).collect();
                let mut shared = layers
                    .into_iter()
                    .filter(|diff_id| users.get(diff_id).is_some_and(|users| *users > 1))
                    .filter_map(|diff_id| sizes.get(diff_id).copied());
                (id.clone(), sum(&mut shared))
            })
            .collect();
        Ok(ImagesUsage {
            layers_size: sum(&mut sizes.values().copied()),
            shared,
        })
    }

    /// Where archives lie while they are loaded.
    pub(in crate::images) fn loading_directory(&self) -> PathBuf {
        self.inner.layers.loading_directory()
    }
}

fn check_blobs(blobs: &[LayerBlob]) -> Result<(), AgentError> {
    for blob in blobs {
        check_diff_id(&blob.diff_id)?;
        check_diff_id(&blob.digest)?;
        Reference::parse(&blob.repository).map_err(|error| invalid(&blob.repository, &error))?;
    }
    Ok(())
}

/// The blobs of layers that are here.
fn present<'a>(blobs: &'a [LayerBlob], layers: &BTreeMap<String, u64>) -> Vec<&'a LayerBlob> {
    blobs
        .iter()
        .filter(|blob| layers.contains_key(&blob.diff_id))
        .collect()
}
