//! Writes images as an archive: the layout of `docker save` since Docker 25, which
//! is an OCI image layout with `manifest.json` and `repositories` beside it.
//!
//! Sources: OCI image-spec, `image-layout.md`; Docker image specification v1.2,
//! "Combined Image JSON + Filesystem Changeset Format".

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use guest_protocol::{AgentError, ErrorKind, reference::Reference};
use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::images::{
    description::{digest, local_manifest},
    store::{ImageStore, ToSave},
};

/// Size of a tar's block, in bytes.
const BLOCK: u64 = 512;

/// An archive that is about to be written.
#[derive(Debug)]
pub(crate) struct Archive {
    store: ImageStore,
    /// Texts that become files, by name.
    texts: BTreeMap<String, String>,
    /// Layers with the lengths of their tars.
    layers: BTreeMap<String, u64>,
    /// Ids of its images.
    images: Vec<String>,
}

impl ImageStore {
    /// Prepares an archive of the images that `references` name.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve); [`ErrorKind::NotFound`] when a layer's archive
    /// cannot be made again.
    pub(crate) fn save(&self, references: &[String]) -> Result<Archive, AgentError> {
        if references.is_empty() {
            return Err(AgentError::invalid("no images were named"));
        }
        let mut archive = Archive {
            store: self.clone(),
            texts: BTreeMap::new(),
            layers: BTreeMap::new(),
            images: Vec::new(),
        };
        let mut items = Vec::new();
        let mut index = Vec::new();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for image in self.to_save(references)? {
            archive.images.push(image.id.clone());
            let mut sizes = Vec::new();
            for diff_id in &image.diff_ids {
                let size = match archive.layers.get(diff_id) {
                    Some(size) => *size,
                    None => self.archive_size(diff_id)?,
                };
                archive.layers.insert(diff_id.clone(), size);
                sizes.push((diff_id.as_str(), size));
            }
            let manifest = local_manifest(&image.id, &image.configuration, &sizes);
            for name in &image.names {
                let top = image.diff_ids.last().map_or("", String::as_str);
                repositories
                    .entry(name.familiar_name())
                    .or_default()
                    .insert(name.version().to_owned(), hex_of(top).to_owned());
            }
            items.push(item(&image, &sizes));
            index.extend(descriptors(&image, &manifest));
            archive
                .texts
                .insert(blob_path(&digest(&manifest)), manifest);
            archive
                .texts
                .insert(blob_path(&image.id), image.configuration);
        }
        let text = |name: &str, value: &Value| (name.to_owned(), value.to_string());
        archive.texts.extend([
            text(
                "index.json",
                &json!({
                    "schemaVersion": 2,
                    "mediaType": "application/vnd.oci.image.index.v1+json",
                    "manifests": index,
                }),
            ),
            text("manifest.json", &Value::Array(items)),
            text("oci-layout", &json!({"imageLayoutVersion": "1.0.0"})),
        ]);
        if !repositories.is_empty() {
            archive
                .texts
                .extend([text("repositories", &json!(repositories))]);
        }
        Ok(archive)
    }
}

impl Archive {
    /// Ids of the images that are in it.
    pub(crate) fn images(&self) -> &[String] {
        &self.images
    }

    /// Writes the archive, blocking.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when `output` fails, others when a layer cannot be
    /// read.
    pub(crate) fn write(&self, output: &mut impl Write) -> Result<(), AgentError> {
        let failed = |error: io::Error| {
            AgentError::new(
                ErrorKind::Unavailable,
                format!("the archive could not be passed on: {error}"),
            )
        };
        for directory in ["blobs/", "blobs/sha256/"] {
            header(output, directory, EntryType::Directory, 0).map_err(failed)?;
        }
        let layers: BTreeSet<String> = self.layers.keys().map(|id| blob_path(id)).collect();
        // Blobs first, and each text once even when it is a layer's name.
        for (name, text) in self
            .texts
            .iter()
            .filter(|(name, _)| !layers.contains(*name))
        {
            let size = text.len() as u64;
            header(output, name, EntryType::Regular, size).map_err(failed)?;
            output.write_all(text.as_bytes()).map_err(failed)?;
            pad(output, size).map_err(failed)?;
        }
        for (diff_id, size) in &self.layers {
            header(output, &blob_path(diff_id), EntryType::Regular, *size).map_err(failed)?;
            let mut counting = Counting {
                output: &mut *output,
                count: 0,
            };
            self.store.export_layer(diff_id, &mut counting)?;
            if counting.count != *size {
                return Err(AgentError::new(
                    ErrorKind::Corrupt,
                    format!("layer {diff_id} has changed on the machine's disk"),
                ));
            }
            pad(output, *size).map_err(failed)?;
        }
        output.write_all(&[0; 2 * BLOCK as usize]).map_err(failed)?;
        output.flush().map_err(failed)
    }
}

/// An image's entry in `manifest.json`.
fn item(image: &ToSave, layers: &[(&str, u64)]) -> Value {
    let sources: BTreeMap<_, _> = layers
        .iter()
        .map(|(diff_id, size)| {
            let descriptor = json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "size": size,
                "digest": diff_id,
            });
            ((*diff_id).to_owned(), descriptor)
        })
        .collect();
    let names: Vec<String> = image.names.iter().map(ToString::to_string).collect();
    json!({
        "Config": blob_path(&image.id),
        "RepoTags": if names.is_empty() { Value::Null } else { json!(names) },
        "Layers": layers.iter().map(|(id, _)| blob_path(id)).collect::<Vec<_>>(),
        "LayerSources": sources,
    })
}

/// An image's entries in `index.json`: one for each name, or one without.
fn descriptors(image: &ToSave, manifest: &str) -> Vec<Value> {
    let mut descriptor = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest(manifest),
        "size": manifest.len(),
    });
    let configuration: Value = serde_json::from_str(&image.configuration).unwrap_or_default();
    let platform: BTreeMap<_, _> = ["architecture", "os", "variant"]
        .into_iter()
        .filter_map(|key| Some((key, configuration.get(key)?.as_str()?)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    if platform.contains_key("architecture") && platform.contains_key("os") {
        descriptor["platform"] = json!(platform);
    }
    if image.names.is_empty() {
        return vec![descriptor];
    }
    let named = |name: &Reference| {
        let mut descriptor = descriptor.clone();
        descriptor["annotations"] = json!({
            "io.containerd.image.name": name.in_full(),
            "org.opencontainers.image.ref.name": name.version(),
        });
        descriptor
    };
    image.names.iter().map(named).collect()
}

fn blob_path(digest: &str) -> String {
    format!("blobs/sha256/{}", hex_of(digest))
}

fn hex_of(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

fn header(output: &mut impl Write, name: &str, kind: EntryType, size: u64) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_path(name)?;
    header.set_entry_type(kind);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    // The same images make the same archive.
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    output.write_all(header.as_bytes())
}

fn pad(output: &mut impl Write, size: u64) -> io::Result<()> {
    let padding = (BLOCK - size % BLOCK) % BLOCK;
    output.write_all(&[0; BLOCK as usize][..padding as usize])
}

struct Counting<'output, W> {
    output: &'output mut W,
    count: u64,
}

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
