//! From manifest, configuration and layers to an image in the guest, wherever
//! they come from.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use guest_protocol::{
    AgentError, frame,
    image::{LayerBlob, LayerDescriptor, Origin},
    methods::{
        ImageCreate, LayerBlobsKeep, LayerImport, LayerImported, LayerWanted, LayersMissing,
    },
};
use oci_spec::image::ImageManifest;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::{Progress, progress::Gone};
use crate::{
    agent::{Agent, CallError},
    registry::{Blob, Manifest, Platform, RegistryError},
};

/// Layers on their way at once.
const LAYERS_AT_ONCE: usize = 3;

/// Why an image did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// The registry, or what it sent.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The machine, or its agent.
    #[error(transparent)]
    Agent(#[from] CallError),
    /// What came contradicts itself, or is not supported.
    #[error("{0}")]
    Invalid(String),
    /// There is no such image for the platform that was asked for.
    #[error("{0}")]
    Platform(String),
    /// There is no such image here.
    #[error("{0}")]
    Missing(String),
    /// The client does not want it any more.
    #[error(transparent)]
    Gone(#[from] Gone),
}

/// The parts of an image's configuration that matter on the way.
#[derive(Deserialize)]
pub(super) struct Configuration {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    variant: Option<String>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

impl Configuration {
    /// Reads a configuration.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ImportError> {
        serde_json::from_slice(bytes).map_err(|error| {
            ImportError::Invalid(format!(
                "the image's configuration is not understood: {error}"
            ))
        })
    }

    /// What the image was made for.
    pub(super) fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

/// The bytes of one layer, on their way.
pub(super) enum LayerBytes {
    /// From a registry.
    Remote(Box<Blob>),
    /// Here already, and verified.
    Embedded(Option<Bytes>),
}

impl LayerBytes {
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        match self {
            Self::Remote(blob) => blob.next().await,
            Self::Embedded(bytes) => Ok(bytes.take()),
        }
    }
}

/// An image about to be imported.
pub(super) struct Image {
    /// Its manifest (not an index).
    pub(super) manifest: Manifest,
    /// Its configuration, verified.
    pub(super) configuration: Bytes,
    /// Names that it gets.
    pub(super) references: Vec<String>,
    /// Registry and repository that it comes from, if that is where it comes from.
    pub(super) repository: Option<String>,
}

/// How often layers are brought that are gone again when the image is made of them.
const ATTEMPTS: u32 = 3;

/// Brings an image to the guest. `open` gives a layer's bytes by digest and size.
pub(super) async fn import(
    agent: &Arc<Agent>,
    image: Image,
    open: impl Fn(&str, u64) -> Result<LayerBytes, RegistryError>,
    progress: &Progress,
) -> Result<(), ImportError> {
    let manifest = parse_manifest(&image.manifest)?;
    let configuration = Configuration::parse(&image.configuration)?;
    let layers = describe_layers(&manifest, configuration.rootfs.diff_ids)?;
    let media_types: Vec<_> = manifest
        .layers()
        .iter()
        .map(|layer| layer.media_type().to_string())
        .collect();
    let blobs = image.repository.map(|repository| {
        let blob = |(layer, media_type): (&LayerDescriptor, String)| LayerBlob {
            diff_id: layer.diff_id.clone(),
            digest: layer.digest.clone(),
            size: layer.size,
            media_type,
            repository: repository.clone(),
        };
        layers.iter().zip(media_types).map(blob).collect()
    });
    let text = |bytes: &Bytes, what: &str| {
        String::from_utf8(bytes.to_vec())
            .map_err(|_| ImportError::Invalid(format!("the image's {what} is not UTF-8")))
    };
    let create = ImageCreate {
        configuration: text(&image.configuration, "configuration")?,
        manifest_media_type: image.manifest.media_type.clone(),
        manifest: text(&image.manifest.bytes, "manifest")?,
        references: image.references,
        origin: Origin::Pull,
    };
    for attempt in 1.. {
        bring(agent, &layers, &open, progress).await?;
        match agent.call(create.clone()).await {
            // Another image had one of the layers meanwhile, and took it along when it
            // was removed.
            Err(error) if error.is_not_found() && attempt < ATTEMPTS => {}
            created => {
                created?;
                break;
            }
        }
    }
    if let Some(blobs) = blobs {
        agent.call(LayerBlobsKeep { blobs }).await?;
    }
    Ok(())
}

/// Brings the layers that the agent does not have.
async fn bring(
    agent: &Agent,
    layers: &[LayerDescriptor],
    open: &impl Fn(&str, u64) -> Result<LayerBytes, RegistryError>,
    progress: &Progress,
) -> Result<(), ImportError> {
    let missing = agent
        .call(LayersMissing {
            diff_ids: layers.iter().map(|layer| layer.diff_id.clone()).collect(),
        })
        .await?;
    let mut wanted = Vec::new();
    for layer in layers {
        // The same layer may occur more than once.
        if wanted
            .iter()
            .any(|other: &LayerDescriptor| other.diff_id == layer.diff_id)
        {
            continue;
        }
        if missing.contains(&layer.diff_id) {
            progress
                .step(short(&layer.digest), "Pulling fs layer")
                .await?;
            wanted.push(layer.clone());
        } else {
            progress
                .step(short(&layer.digest), "Already exists")
                .await?;
        }
    }
    let mut transfers = stream::iter(wanted)
        .map(|layer| async move {
            let bytes = open(&layer.digest, layer.size)?;
            transfer(agent, layer, bytes, progress).await
        })
        .buffer_unordered(LAYERS_AT_ONCE);
    while let Some(result) = transfers.next().await {
        result?;
    }
    Ok(())
}

/// Sends one layer, unless the agent has it by now.
async fn transfer(
    agent: &Agent,
    layer: LayerDescriptor,
    mut bytes: LayerBytes,
    progress: &Progress,
) -> Result<(), ImportError> {
    let id = short(&layer.digest).to_owned();
    let total = layer.size;
    let (wanted, stream) = agent.open(LayerImport { layer }).await?;
    if wanted == LayerWanted::Present {
        progress.step(&id, "Already exists").await?;
        return Ok(());
    }
    let (mut reply, mut guest) = stream.into_split();
    // The agent may answer before it has all: when the layer is bad or the disk
    // is full.
    let answer = frame::read::<_, frame::Reply<LayerImported>>(&mut reply);
    tokio::pin!(answer);
    let sending = async {
        let mut bar = progress.bar(&id, "Downloading", total);
        let mut sent = 0;
        while let Some(piece) = bytes.next().await? {
            guest.write_all(&piece).await.map_err(|error| {
                CallError::connection("LayerImport", frame::FrameError::Io(error))
            })?;
            sent += piece.len() as u64;
            bar.set(sent).await?;
        }
        progress.step(&id, "Download complete").await?;
        progress.bar(&id, "Extracting", total).set(total).await?;
        Ok::<_, ImportError>(())
    };
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        result = sending => match result {
            Ok(()) => answer.await,
            // The write failed because the agent has hung up: it says why.
            Err(ImportError::Agent(CallError::Connection { method, source })) => {
                match answer.await {
                    Ok(reply @ frame::Reply::Error(_)) => Ok(reply),
                    _ => return Err(CallError::Connection { method, source }.into()),
                }
            }
            Err(error) => return Err(error),
        },
    };
    let answer = answer.map_err(|error| CallError::connection("LayerImport", error))?;
    Result::<LayerImported, AgentError>::from(answer).map_err(CallError::from)?;
    progress.step(&id, "Pull complete").await?;
    Ok(())
}

/// Reads a manifest of one image.
pub(super) fn parse_manifest(manifest: &Manifest) -> Result<ImageManifest, ImportError> {
    serde_json::from_slice(&manifest.bytes).map_err(|error| {
        ImportError::Invalid(format!(
            "manifest {} is not understood: {error}",
            manifest.digest
        ))
    })
}

/// Brings together what manifest and configuration say of each layer.
fn describe_layers(
    manifest: &ImageManifest,
    diff_ids: Vec<String>,
) -> Result<Vec<LayerDescriptor>, ImportError> {
    let layers = manifest.layers();
    if layers.len() != diff_ids.len() {
        return Err(ImportError::Invalid(format!(
            "the image's manifest has {} layers and its configuration {}",
            layers.len(),
            diff_ids.len()
        )));
    }
    layers
        .iter()
        .zip(diff_ids)
        .map(|(layer, diff_id)| {
            check_layer_type(layer.media_type().as_ref())?;
            Ok(LayerDescriptor {
                digest: layer.digest().to_string(),
                size: layer.size(),
                diff_id,
            })
        })
        .collect()
}

/// Refuses what is no layer of files. How it is compressed its bytes say, not its type.
fn check_layer_type(media_type: &str) -> Result<(), ImportError> {
    let is_layer = ["vnd.oci.image.layer.", "vnd.docker.image.rootfs."]
        .iter()
        .any(|kind| {
            media_type
                .strip_prefix("application/")
                .is_some_and(|rest| rest.starts_with(kind))
        });
    if is_layer && !media_type.ends_with("+encrypted") {
        return Ok(());
    }
    Err(ImportError::Invalid(format!(
        "layers of type {media_type:?} are not supported: this is no container image"
    )))
}

/// Whether a blob of known bytes has the digest that it should have.
pub(super) fn has_digest(bytes: &[u8], digest: &str) -> bool {
    digest.strip_prefix("sha256:") == Some(&hex::encode(Sha256::digest(bytes)))
}

/// The twelve digits that stand for a layer in progress messages.
pub(super) fn short(digest: &str) -> &str {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_whose_parts_disagree_is_refused() {
        let manifest: ImageManifest = serde_json::from_value(serde_json::json!({
            "schemaVersion": 2,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": format!("sha256:{:064}", 0),
                "size": 2,
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
                "digest": format!("sha256:{:064}", 1),
                "size": 3,
            }],
        }))
        .unwrap();
        assert!(describe_layers(&manifest, vec![]).is_err());
        let layers = describe_layers(&manifest, vec!["sha256:x".into()]).unwrap();
        assert_eq!(layers[0].size, 3);
    }

    #[test]
    fn layers_are_told_from_what_else_registries_keep() {
        for layer in [
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.oci.image.layer.v1.tar+xz",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ] {
            assert!(check_layer_type(layer).is_ok(), "{layer}");
        }
        for other in [
            "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/octet-stream",
            "",
        ] {
            assert!(check_layer_type(other).is_err(), "{other}");
        }
    }
}
