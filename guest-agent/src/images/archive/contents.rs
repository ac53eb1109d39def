//! Which images an archive holds, by what it says itself: `manifest.json`, as
//! `docker save` writes, or the `index.json` of an OCI image layout.

use std::collections::BTreeMap;

use guest_protocol::{
    AgentError,
    reference::{Reference, is_digest},
};
use serde::Deserialize;

use super::spool::{Found, Spool, corrupt};
use crate::images::description::{self, MANIFEST, digest, local_manifest};

/// The largest document that is read, in bytes.
const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;
/// The most images that one archive may hold.
const MAX_IMAGES: usize = 1000;

/// An image in an archive.
#[derive(Debug)]
pub(super) struct ArchivedImage {
    pub(super) configuration: String,
    pub(super) manifest_media_type: String,
    pub(super) manifest: String,
    /// Its layers, bottom first.
    pub(super) layers: Vec<ArchivedLayer>,
    /// Names in familiar form.
    pub(super) names: Vec<String>,
}

/// A layer in an archive.
#[derive(Debug)]
pub(super) struct ArchivedLayer {
    pub(super) diff_id: String,
    pub(super) file: Found,
}

/// The images in `spool`; of indexes of several platforms those for `platform`.
pub(super) fn images(spool: &Spool, platform: &str) -> Result<Vec<ArchivedImage>, AgentError> {
    if let Some(manifest) = spool.text("manifest.json", MAX_DOCUMENT)? {
        let items: Vec<Item> = parse("manifest.json", &manifest)?;
        return bounded(items.len())
            .and_then(|()| items.into_iter().map(|item| docker(spool, item)).collect());
    }
    if let Some(index) = spool.text("index.json", MAX_DOCUMENT)? {
        let index: Index = parse("index.json", &index)?;
        return oci_images(spool, index, platform);
    }
    Err(corrupt("it has neither a manifest.json nor an index.json"))
}

fn bounded(images: usize) -> Result<(), AgentError> {
    match images {
        0 => Err(corrupt("it holds no images")),
        1..=MAX_IMAGES => Ok(()),
        _ => Err(corrupt("it holds too many images")),
    }
}

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

fn docker(spool: &Spool, item: Item) -> Result<ArchivedImage, AgentError> {
    let configuration = required(spool, &item.config)?;
    let id = digest(&configuration);
    let stem = item.config.rsplit('/').next().unwrap_or_default();
    let from_name = format!("sha256:{}", stem.strip_suffix(".json").unwrap_or(stem));
    if is_digest(&from_name) && from_name != id {
        return Err(corrupt(&format!(
            "the configuration {} has digest {id}",
            item.config
        )));
    }
    let files = item.layers.unwrap_or_default();
    let layers = layers(spool, &configuration, &files)?;
    let sizes: Vec<_> = layers
        .iter()
        .map(|layer| (layer.diff_id.as_str(), layer.file.size))
        .collect();
    let names = item
        .repo_tags
        .into_iter()
        .flatten()
        .map(|name| tag(&name))
        .collect::<Result<_, _>>()?;
    Ok(ArchivedImage {
        manifest_media_type: MANIFEST.to_owned(),
        manifest: local_manifest(&id, &configuration, &sizes),
        configuration,
        layers,
        names,
    })
}

/// Brings together the files of layers and what the configuration says of them.
fn layers(
    spool: &Spool,
    configuration: &str,
    files: &[String],
) -> Result<Vec<ArchivedLayer>, AgentError> {
    let diff_ids = description::diff_ids(configuration)?;
    if diff_ids.len() != files.len() {
        return Err(corrupt(&format!(
            "an image has {} layers and its configuration names {}",
            files.len(),
            diff_ids.len()
        )));
    }
    diff_ids
        .into_iter()
        .zip(files)
        .map(|(diff_id, path)| {
            let file = spool
                .find(path)
                .ok_or_else(|| corrupt(&format!("the layer {path} is missing")))?;
            Ok(ArchivedLayer { diff_id, file })
        })
        .collect()
}

/// An OCI image index.
#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Clone)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

/// An OCI manifest, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    media_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Descriptor {
    fn is_index(&self) -> bool {
        matches!(
            self.media_type.as_str(),
            "application/vnd.oci.image.index.v1+json"
                | "application/vnd.docker.distribution.manifest.list.v2+json"
        )
    }

    /// Whether what it describes is an image rather than something about one.
    fn is_image(&self) -> bool {
        let about = |key| {
            self.annotations
                .as_ref()
                .is_some_and(|annotations| annotations.contains_key(key))
        };
        !about("vnd.docker.reference.type")
    }

    /// Whether it fits `os/architecture[/variant]`; without a platform it does.
    fn fits(&self, platform: &str) -> bool {
        let Some(own) = &self.platform else {
            return true;
        };
        let mut wanted = platform.split('/');
        let (os, architecture) = (wanted.next(), wanted.next());
        let same = os == Some(&own.os) && architecture == Some(&own.architecture);
        let variants = (wanted.next(), own.variant.as_deref());
        same && !matches!(variants, (Some(wanted), Some(own)) if wanted != own)
    }

    /// The name that it gives the image, in familiar form.
    fn name(&self) -> Result<Option<String>, AgentError> {
        let annotation = |key| self.annotations.as_ref()?.get(key);
        if let Some(name) = annotation("io.containerd.image.name") {
            return tag(name).map(Some);
        }
        // By itself it may be a name or, as the specification has it, only a tag.
        match annotation("org.opencontainers.image.ref.name") {
            Some(name) if name.contains([':', '/']) => tag(name).map(Some),
            _ => Ok(None),
        }
    }
}

fn oci_images(
    spool: &Spool,
    index: Index,
    platform: &str,
) -> Result<Vec<ArchivedImage>, AgentError> {
    bounded(index.manifests.len())?;
    let mut images: Vec<ArchivedImage> = Vec::new();
    for descriptor in chosen(index.manifests, platform) {
        let name = descriptor.name()?;
        let manifests = if descriptor.is_index() {
            let index: Index = parse("an index", &blob(spool, &descriptor.digest)?)?;
            bounded(index.manifests.len())?;
            chosen(index.manifests, platform)
                .into_iter()
                .filter(|inner| !inner.is_index())
                .take(1)
                .collect()
        } else {
            vec![descriptor]
        };
        let Some(manifest) = manifests.first() else {
            continue;
        };
        let image = oci(spool, manifest, name.clone())?;
        // One image has an entry for each of its names.
        match images
            .iter_mut()
            .find(|known| known.manifest == image.manifest)
        {
            Some(known) => known.names.extend(name),
            None => images.push(image),
        }
    }
    if images.is_empty() {
        return Err(corrupt(&format!("it holds no image for {platform}")));
    }
    Ok(images)
}

/// Those that are images for `platform`, or all images when none is.
fn chosen(descriptors: Vec<Descriptor>, platform: &str) -> Vec<Descriptor> {
    let images: Vec<_> = descriptors
        .into_iter()
        .filter(Descriptor::is_image)
        .collect();
    let fitting: Vec<_> = images
        .iter()
        .filter(|descriptor| descriptor.fits(platform))
        .cloned()
        .collect();
    if fitting.is_empty() { images } else { fitting }
}

fn oci(
    spool: &Spool,
    descriptor: &Descriptor,
    name: Option<String>,
) -> Result<ArchivedImage, AgentError> {
    let text = blob(spool, &descriptor.digest)?;
    let manifest: Manifest = parse("a manifest", &text)?;
    let configuration = blob(spool, &manifest.config.digest)?;
    let files = manifest
        .layers
        .iter()
        .map(|layer| blob_path(&layer.digest))
        .collect::<Result<Vec<_>, _>>()?;
    let layers = layers(spool, &configuration, &files)?;
    Ok(ArchivedImage {
        manifest_media_type: manifest
            .media_type
            .or_else(|| Some(descriptor.media_type.clone()))
            .filter(|media_type| !media_type.is_empty())
            .unwrap_or_else(|| MANIFEST.to_owned()),
        manifest: text,
        configuration,
        layers,
        names: name.into_iter().collect(),
    })
}

/// The text of a blob; the spool has verified what lies under a digest's name.
fn blob(spool: &Spool, digest: &str) -> Result<String, AgentError> {
    required(spool, &blob_path(digest)?)
}

fn blob_path(digest: &str) -> Result<String, AgentError> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if is_digest(digest) => Ok(format!("blobs/sha256/{hex}")),
        _ => Err(corrupt(&format!("{digest:?} is no digest"))),
    }
}

fn required(spool: &Spool, path: &str) -> Result<String, AgentError> {
    spool
        .text(path, MAX_DOCUMENT)?
        .ok_or_else(|| corrupt(&format!("{path} is missing")))
}

fn parse<'a, T: Deserialize<'a>>(what: &str, text: &'a str) -> Result<T, AgentError> {
    serde_json::from_str(text).map_err(|error| corrupt(&format!("{what}: {error}")))
}

/// A name with a tag, in familiar form.
fn tag(name: &str) -> Result<String, AgentError> {
    let reference = Reference::parse(name)
        .map_err(|error| corrupt(&format!("the name {name:?}: {error}")))?
        .or_latest();
    if reference.digest().is_some() {
        return Err(corrupt(&format!("the name {name:?} is a digest")));
    }
    Ok(reference.to_string())
}
