//! Images: pulled, loaded, committed, named and removed.

use std::io::Write;

use guest_protocol::{
    image::{LayerDescriptor, LoadStep, Origin},
    methods::{
        ContainerCommit, ImageCreate, ImageLoad, ImageRemove, ImageTag, LayerImport, LayerImported,
        LayerWanted, LayersMissing,
    },
};
use serde_json::json;

use super::Worker;
use crate::agent::{
    call::{Called, receive, send_chunks},
    images::{Image, digest},
    model::Slot,
};

impl Worker<'_> {
    /// A mark for an image that no other has.
    fn label(&mut self) -> u32 {
        self.model.next() * 10 + self.model.number as u32
    }

    /// One or two names for a new image.
    fn new_tags(&mut self) -> Vec<String> {
        let mut tags = vec![self.tag_name()];
        let second = self.tag_name();
        if !tags.contains(&second) {
            tags.push(second);
        }
        tags
    }

    /// These names are about to be those of an image, all at once.
    fn tags_on_the_way(&mut self, tags: &[String], id: &str) {
        for tag in tags {
            let slot = self.model.tags.entry(tag.clone());
            slot.or_insert_with(|| Slot::new(None)).pending = Some(Some(id.to_owned()));
        }
        tags.clone_into(&mut self.model.together);
    }

    /// Layers one by one, then the image.
    pub(super) fn pull(&mut self) -> Called<()> {
        let label = self.label();
        let image = self.images.image(&mut self.random, label);
        let tags = self.new_tags();
        let layers: Vec<_> = image
            .layers
            .iter()
            .filter_map(|index| self.images.layer(*index))
            .collect();
        let missing = self.caller.call(LayersMissing {
            diff_ids: layers.iter().map(|layer| layer.diff_id.clone()).collect(),
        })?;
        for layer in layers {
            if missing.contains(&layer.diff_id) {
                self.import(&layer.bytes, &layer.diff_id)?;
            }
        }
        self.tags_on_the_way(&tags, &image.id);
        let made = self.caller.call(ImageCreate {
            configuration: image.configuration.clone(),
            manifest_media_type: Image::media_type(),
            manifest: image.manifest.clone(),
            references: tags.clone(),
            origin: Origin::default(),
        })?;
        if made.id != image.id {
            let finding = format!("image {} was made as {}", image.id, made.id);
            self.report.unexpected.push(finding);
        }
        for tag in tags {
            self.settle_tag(&tag);
        }
        Ok(())
    }

    fn import(&mut self, bytes: &[u8], diff_id: &str) -> Called<()> {
        let (wanted, mut stream) = self.caller.open(LayerImport {
            layer: LayerDescriptor {
                digest: diff_id.to_owned(),
                size: bytes.len() as u64,
                diff_id: diff_id.to_owned(),
            },
        })?;
        if wanted == LayerWanted::Send {
            stream.write_all(bytes)?;
            let _: LayerImported = receive(&mut stream)?;
        }
        Ok(())
    }

    /// The image with all its layers as one archive, as `docker save` writes it.
    pub(super) fn load(&mut self) -> Called<()> {
        let label = self.label();
        let image = self.images.image(&mut self.random, label);
        let tags = self.new_tags();
        let archive = self.images.archive(&image, &tags)?;
        let ((), mut stream) = self.caller.open(ImageLoad {
            platform: "linux/amd64".to_owned(),
        })?;
        self.tags_on_the_way(&tags, &image.id);
        send_chunks(&mut stream, &archive);
        let mut loaded = false;
        loop {
            match receive(&mut stream)? {
                LoadStep::Loaded { id, .. } => loaded |= id == image.id,
                LoadStep::Done => break,
                LoadStep::Layer { .. } | LoadStep::Renamed { .. } => {}
            }
        }
        if !loaded {
            let finding = format!("image {} was in an archive, and not loaded", image.id);
            self.report.unexpected.push(finding);
        }
        for tag in tags {
            self.settle_tag(&tag);
        }
        Ok(())
    }

    /// A layer of what a container changed, and an image with it on top.
    pub(super) fn commit(&mut self) -> Called<()> {
        let Some((container, _)) = self.some_container() else {
            return Ok(());
        };
        let committed = self.caller.call(ContainerCommit {
            container,
            pause: true,
        })?;
        let mut configuration = committed.base_configuration;
        let mut manifest = committed.base_manifest;
        if let Some(layer) = &committed.layer {
            self.model.committed.insert(layer.diff_id.clone());
            if let Some(layers) = configuration["rootfs"]["diff_ids"].as_array_mut() {
                layers.push(json!(layer.diff_id));
            }
            if let Some(layers) = manifest["layers"].as_array_mut() {
                layers.push(json!({
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": layer.diff_id,
                    "size": layer.tar_size,
                }));
            }
        }
        configuration["config"]["Labels"]["campaign"] = json!(self.label().to_string());
        let configuration = configuration.to_string();
        let id = digest(configuration.as_bytes());
        manifest["config"]["digest"] = json!(id);
        manifest["config"]["size"] = json!(configuration.len());
        let tags = self.new_tags();
        self.tags_on_the_way(&tags, &id);
        let made = self.caller.call(ImageCreate {
            configuration,
            manifest_media_type: Image::media_type(),
            manifest: manifest.to_string(),
            references: tags.clone(),
            origin: Origin::default(),
        })?;
        if made.id != id {
            let finding = format!("image {id} was made as {}", made.id);
            self.report.unexpected.push(finding);
        }
        for tag in tags {
            self.settle_tag(&tag);
        }
        Ok(())
    }

    fn settle_tag(&mut self, tag: &str) {
        if let Some(slot) = self.model.tags.get_mut(tag)
            && let Some(pending) = slot.pending.take()
        {
            slot.known = pending;
        }
    }

    pub(super) fn tag(&mut self) -> Called<()> {
        let Some((from, image)) = self.some_tag() else {
            return Ok(());
        };
        let to = self.tag_name();
        let slot = self.model.tags.entry(to.clone());
        slot.or_insert_with(|| Slot::new(None)).pending = Some(Some(image));
        self.caller.call(ImageTag {
            reference: from,
            name: to.clone(),
        })?;
        self.settle_tag(&to);
        Ok(())
    }

    pub(super) fn remove_image(&mut self) -> Called<()> {
        let Some((tag, _)) = self.some_tag() else {
            return Ok(());
        };
        if let Some(slot) = self.model.tags.get_mut(&tag) {
            slot.pending = Some(None);
        }
        self.caller.call(ImageRemove {
            reference: tag.clone(),
            force: self.random.bool(),
        })?;
        self.settle_tag(&tag);
        Ok(())
    }
}
