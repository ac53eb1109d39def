//! Pushing to a registry.
//!
//! A layer that the registry has is not sent: it is in the repository already, or is
//! mounted from another one. An image of which all layers are there as they were
//! pulled keeps its manifest and so its digest; another one gets a new manifest of
//! the same kind. Layers stream from the agent through the compressor to the
//! registry.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    sync::Arc,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::{StreamExt, stream};
use guest_protocol::{
    AgentError,
    chunks::ChunkReader,
    frame::{self, Reply},
    image::{Documents, LayerBlob},
    methods::{ImageDocuments, ImageInspect, ImageList, ImagePushed, LayerBlobs, LayerExport},
    reference::Reference,
};
use oci_spec::image::ImageManifest;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{io::AsyncReadExt, sync::mpsc};

use super::{ImportError, Progress, import::short, progress::Bar};
use crate::{
    agent::{Agent, CallError},
    registry::{Backoff, Client, Credentials, Location, RegistryError, Upload},
};

/// Layers on their way at once.
const LAYERS_AT_ONCE: usize = 3;
/// How many of the places where a layer is known to be are tried.
const MOST_SOURCES: usize = 5;
/// The size of a piece on its way, in bytes.
const PIECE: usize = 256 * 1024;
/// How many pieces wait between two steps.
const PIECES: usize = 4;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Pushes what `reference` names: one tag, or all of a repository.
pub(crate) async fn push(
    agent: &Arc<Agent>,
    reference: &Reference,
    credentials: Credentials,
    progress: &Progress,
) -> Result<(), ImportError> {
    let tags = tags(agent, reference).await?;
    progress
        .status(format!(
            "The push refers to repository [{}]",
            reference.repository()
        ))
        .await?;
    for tag in tags {
        push_tag(agent, &tag, credentials.clone(), progress).await?;
    }
    Ok(())
}

/// The tags to push.
async fn tags(agent: &Agent, reference: &Reference) -> Result<Vec<Reference>, ImportError> {
    if reference.digest().is_some() {
        return Err(ImportError::Invalid(
            "cannot push a digest reference".to_owned(),
        ));
    }
    if reference.tag().is_some() {
        let name = reference.to_string();
        return match agent.call(ImageInspect { reference: name }).await {
            Ok(_) => Ok(vec![reference.clone()]),
            Err(error) if error.is_not_found() => Err(ImportError::Missing(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_name()
            ))),
            Err(error) => Err(error.into()),
        };
    }
    let tags: Vec<_> = agent
        .call(ImageList {})
        .await?
        .iter()
        .flat_map(|image| &image.repo_tags)
        .filter_map(|tag| Reference::parse(tag).ok())
        .filter(|tag| tag.repository() == reference.repository())
        .collect();
    if tags.is_empty() {
        return Err(ImportError::Missing(format!(
            "An image does not exist locally with the tag: {}",
            reference.familiar_name()
        )));
    }
    Ok(tags)
}

/// One push.
struct Push<'a> {
    agent: &'a Agent,
    client: Client,
    reference: &'a Reference,
    progress: &'a Progress,
    /// Media type of the layers that are compressed here.
    layer_type: &'static str,
}

async fn push_tag(
    agent: &Arc<Agent>,
    reference: &Reference,
    credentials: Credentials,
    progress: &Progress,
) -> Result<(), ImportError> {
    let name = reference.to_string();
    let image = agent
        .call(ImageInspect {
            reference: name.clone(),
        })
        .await?;
    let documents = agent
        .call(ImageDocuments {
            reference: name.clone(),
        })
        .await?;
    let diff_ids: Vec<String> = image
        .layers
        .into_iter()
        .map(|layer| layer.diff_id)
        .collect();
    let mut known = agent
        .call(LayerBlobs {
            diff_ids: diff_ids.clone(),
        })
        .await?;
    // Only what this registry has is of use; first what the manifest names.
    known.retain(|blob| domain_of(&blob.repository) == reference.domain());
    known.sort_by_key(|blob| !documents.manifest.contains(&blob.digest));
    let is_docker = documents.manifest_media_type == DOCKER_MANIFEST;
    let sources: BTreeSet<String> = known
        .iter()
        .filter_map(|blob| Some(blob.repository.split_once('/')?.1.to_owned()))
        .filter(|path| path != reference.path())
        .take(MOST_SOURCES)
        .collect();
    let sources: Vec<String> = sources.into_iter().collect();
    let push = Push {
        agent,
        client: Client::for_push(reference, credentials, &sources)?,
        reference,
        progress,
        layer_type: if is_docker { DOCKER_LAYER } else { OCI_LAYER },
    };
    let blobs = push.layers(&diff_ids, &known).await?;
    let manifest = push.manifest(&documents, &image.id, &blobs).await?;
    agent
        .call(ImagePushed {
            reference: name,
            name: reference.familiar_with_digest(&digest(manifest.1.as_bytes())),
            manifest_media_type: manifest.0,
            manifest: manifest.1,
            blobs,
        })
        .await?;
    Ok(())
}

impl Push<'_> {
    /// Brings all layers to the registry; what they are there, in their order.
    async fn layers(
        &self,
        diff_ids: &[String],
        known: &[LayerBlob],
    ) -> Result<Vec<LayerBlob>, ImportError> {
        let unique: BTreeSet<String> = diff_ids.iter().cloned().collect();
        for diff_id in &unique {
            self.progress.step(short(diff_id), "Preparing").await?;
        }
        let mut transfers = stream::iter(unique)
            .map(|diff_id| async move {
                let known: Vec<_> = known
                    .iter()
                    .filter(|blob| blob.diff_id == diff_id)
                    .take(MOST_SOURCES)
                    .collect();
                self.layer(&diff_id, &known).await
            })
            .buffer_unordered(LAYERS_AT_ONCE);
        let mut blobs = Vec::new();
        while let Some(blob) = transfers.next().await {
            blobs.push(blob?);
        }
        let in_order = diff_ids
            .iter()
            .filter_map(|diff_id| blobs.iter().find(|blob| blob.diff_id == *diff_id))
            .cloned()
            .collect();
        Ok(in_order)
    }

    async fn layer(&self, diff_id: &str, known: &[&LayerBlob]) -> Result<LayerBlob, ImportError> {
        let id = short(diff_id);
        let here = |blob: &LayerBlob| LayerBlob {
            repository: self.reference.repository(),
            ..blob.clone()
        };
        let mut tried = BTreeSet::new();
        for blob in known {
            if tried.insert(&blob.digest) && self.client.has_blob(&blob.digest).await?.is_some() {
                self.progress.step(id, "Layer already exists").await?;
                return Ok(here(blob));
            }
        }
        let mut started = None;
        for blob in known {
            let Some((_, path)) = blob.repository.split_once('/') else {
                continue;
            };
            if path == self.reference.path() {
                continue;
            }
            match self.client.begin_upload(Some((&blob.digest, path))).await {
                Ok(Upload::Mounted) => {
                    self.progress
                        .step(id, &format!("Mounted from {path}"))
                        .await?;
                    return Ok(here(blob));
                }
                Ok(Upload::Started(location)) => started = Some(location),
                // Not to be allowed to read it there is no reason not to send it.
                Err(RegistryError::PushDenied { .. } | RegistryError::Status { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.send(diff_id, started).await
    }

    /// Sends a layer, again from its beginning while that may help.
    async fn send(
        &self,
        diff_id: &str,
        mut started: Option<Location>,
    ) -> Result<LayerBlob, ImportError> {
        let id = short(diff_id);
        let mut backoff = Backoff::default();
        loop {
            let result = self.send_once(diff_id, started.take()).await;
            match result {
                Ok((digest, size)) => {
                    self.progress.step(id, "Pushed").await?;
                    return Ok(LayerBlob {
                        diff_id: diff_id.to_owned(),
                        digest,
                        size,
                        media_type: self.layer_type.to_owned(),
                        repository: self.reference.repository(),
                    });
                }
                Err(ImportError::Registry(error)) if error.is_temporary() => {
                    let Some(wait) = backoff.after_failure(None) else {
                        return Err(error.into());
                    };
                    tracing::info!(%diff_id, %error, ?wait, "sending a layer again");
                    let seconds = wait.as_secs().max(1);
                    self.progress
                        .step(id, &format!("Retrying in {seconds} seconds"))
                        .await?;
                    tokio::time::sleep(wait).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn send_once(
        &self,
        diff_id: &str,
        started: Option<Location>,
    ) -> Result<(String, u64), ImportError> {
        let location = match started {
            Some(location) => location,
            None => match self.client.begin_upload(None).await? {
                Upload::Started(location) => location,
                Upload::Mounted => {
                    return Err(ImportError::Invalid(
                        "the registry answered an upload as if it were a mount".to_owned(),
                    ));
                }
            },
        };
        let call = LayerExport {
            diff_id: diff_id.to_owned(),
        };
        let (archive, guest) = self.agent.open(call).await?;
        let (plain, for_compressor) = mpsc::channel(PIECES);
        let (compressed, body) = mpsc::channel(PIECES);
        let compressing = tokio::task::spawn_blocking(move || compress(for_compressor, compressed));
        let mut bar = self.progress.bar(short(diff_id), "Pushing", archive.size);
        let reading = read_layer(guest, plain, &mut bar);
        let body = stream::unfold(body, |mut body| async move {
            body.recv().await.map(|piece| (piece, body))
        });
        let uploading = self
            .client
            .upload(location, reqwest::Body::wrap_stream(body));
        let (read, uploaded) = tokio::join!(reading, uploading);
        // When reading fails, so does the upload; the reason is the reading's. When
        // only the upload fails, reading just finds nobody who takes what it reads.
        match (read, uploaded) {
            (Err(error), _) => Err(error),
            (Ok(()), Err(error)) => Err(error.into()),
            (Ok(()), Ok(location)) => {
                let (digest, size) = compressing
                    .await
                    .map_err(io::Error::other)
                    .and_then(|result| result)
                    .map_err(|error| {
                        ImportError::Invalid(format!("layer {diff_id}: compression: {error}"))
                    })?;
                self.client
                    .complete_upload(location, &digest, Bytes::new())
                    .await?;
                Ok((digest, size))
            }
        }
    }

    /// Puts the configuration and the manifest; what the latter is.
    async fn manifest(
        &self,
        documents: &Documents,
        id: &str,
        blobs: &[LayerBlob],
    ) -> Result<(String, String), ImportError> {
        let configuration = Bytes::from(documents.configuration.clone());
        self.client.put_blob(id, configuration).await?;
        let (media_type, manifest) = if is_unchanged(&documents.manifest, blobs) {
            (
                documents.manifest_media_type.clone(),
                documents.manifest.clone(),
            )
        } else {
            new_manifest(self.layer_type, documents, id, blobs)
        };
        let version = self.reference.version();
        let bytes = Bytes::from(manifest.clone());
        self.client
            .put_manifest(version, &media_type, bytes)
            .await?;
        let digest = digest(manifest.as_bytes());
        let size = manifest.len();
        self.progress
            .status(format!("{version}: digest: {digest} size: {size}"))
            .await?;
        self.progress
            .aux(&json!({"Tag": version, "Digest": digest, "Size": size}))
            .await?;
        Ok((media_type, manifest))
    }
}

/// Passes a layer's tar from the agent on, and checks that it is whole. It is
/// nobody's fault here when `plain` is no longer read.
async fn read_layer(
    guest: tokio::net::UnixStream,
    plain: mpsc::Sender<io::Result<Bytes>>,
    bar: &mut Bar<'_>,
) -> Result<(), ImportError> {
    let broken = |error| CallError::connection("LayerExport", frame::FrameError::Io(error));
    let mut tar = ChunkReader::new(guest);
    let mut sent = 0;
    loop {
        let mut piece = bytes::BytesMut::with_capacity(PIECE);
        match tar.read_buf(&mut piece).await {
            Ok(0) => break,
            Ok(length) => sent += length as u64,
            Err(error) => {
                let _ = plain.send(Err(io::ErrorKind::UnexpectedEof.into())).await;
                return Err(broken(error).into());
            }
        }
        bar.set(sent).await?;
        if plain.send(Ok(piece.freeze())).await.is_err() {
            return Ok(());
        }
    }
    let reply: Reply<()> = frame::read(&mut tar.into_inner())
        .await
        .map_err(|error| CallError::connection("LayerExport", error))?;
    if let Err(error) = Result::<(), AgentError>::from(reply) {
        let _ = plain.send(Err(io::ErrorKind::InvalidData.into())).await;
        return Err(CallError::from(error).into());
    }
    Ok(())
}

/// Compresses, blocking; the digest and length of what comes out.
fn compress(
    plain: mpsc::Receiver<io::Result<Bytes>>,
    compressed: mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<(String, u64)> {
    let failing = compressed.clone();
    let result = compress_all(plain, compressed);
    if let Err(error) = &result {
        // Ends the upload, too, if it has not ended itself.
        let _ = failing.blocking_send(Err(error.kind().into()));
    }
    result
}

fn compress_all(
    mut plain: mpsc::Receiver<io::Result<Bytes>>,
    compressed: mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<(String, u64)> {
    let sink = Sink {
        compressed,
        piece: Vec::with_capacity(PIECE),
        hasher: Sha256::new(),
        size: 0,
    };
    let mut encoder = GzEncoder::new(sink, Compression::default());
    while let Some(piece) = plain.blocking_recv() {
        encoder.write_all(&piece?)?;
    }
    let mut sink = encoder.finish()?;
    sink.flush()?;
    Ok((
        format!("sha256:{}", hex::encode(sink.hasher.finalize())),
        sink.size,
    ))
}

/// Where compressed bytes go.
struct Sink {
    compressed: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
    hasher: Sha256,
    size: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.compressed
            .blocking_send(Ok(piece.into()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Whether a manifest names just these blobs.
fn is_unchanged(manifest: &str, blobs: &[LayerBlob]) -> bool {
    serde_json::from_str::<ImageManifest>(manifest).is_ok_and(|manifest| {
        let layers = manifest.layers();
        layers.len() == blobs.len()
            && layers
                .iter()
                .zip(blobs)
                .all(|(layer, blob)| layer.digest().as_ref() == blob.digest)
    })
}

/// A manifest of these blobs, and its media type.
fn new_manifest(
    layer_type: &str,
    documents: &Documents,
    id: &str,
    blobs: &[LayerBlob],
) -> (String, String) {
    let (media_type, configuration_type) = if layer_type == DOCKER_LAYER {
        (
            DOCKER_MANIFEST,
            "application/vnd.docker.container.image.v1+json",
        )
    } else {
        (OCI_MANIFEST, "application/vnd.oci.image.config.v1+json")
    };
    let layers: Vec<_> = blobs
        .iter()
        .map(|blob| json!({"mediaType": blob.media_type, "size": blob.size, "digest": blob.digest}))
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {
            "mediaType": configuration_type,
            "size": documents.configuration.len(),
            "digest": id,
        },
        "layers": layers,
    });
    (media_type.to_owned(), manifest.to_string())
}

fn domain_of(repository: &str) -> &str {
    repository.split('/').next().unwrap_or_default()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
