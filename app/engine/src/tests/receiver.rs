//! The agent's end of imports and pushes: takes layers, checks them, keeps what it
//! was given and gives it back. It runs no containers.

use std::{
    collections::{HashMap, HashSet},
    io::Read,
    path::Path,
    sync::{Arc, Mutex},
};

use guest_protocol::{
    AgentError, ErrorKind, chunks,
    frame::{self, Reply},
    image::{Documents, Image, Layer, LayerBlob},
    methods::{LayerArchive, LayerImported, LayerWanted, Request},
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::{
    io::AsyncReadExt,
    net::{UnixListener, UnixStream},
    sync::watch,
};

/// What arrived.
#[derive(Default)]
pub(super) struct Received {
    /// Layers that came whole, by the digest of their tar.
    pub(super) layers: HashSet<String>,
    /// How many times a layer is gone when an image is to be made of it.
    pub(super) removals: usize,
    /// Their tars.
    tars: HashMap<String, Vec<u8>>,
    /// Where layers are.
    pub(super) blobs: Vec<LayerBlob>,
    /// Images by each of their names.
    pub(super) images: HashMap<String, Image>,
    /// What images are made of, by each of their names.
    documents: HashMap<String, Documents>,
}

impl Received {
    /// Loses a layer, as when another image with it is removed, if that is to be.
    fn remove_a_layer(&mut self) -> bool {
        let Some(left) = self.removals.checked_sub(1) else {
            return false;
        };
        self.removals = left;
        let layer = self.layers.iter().next().unwrap().clone();
        self.layers.remove(&layer)
    }
}

/// A receiver at work.
pub(crate) struct Receiver {
    pub(super) received: Arc<Mutex<Received>>,
    /// Layer connections that broke off.
    pub(super) broken: watch::Receiver<usize>,
}

impl Receiver {
    /// Listens on `socket`.
    pub(crate) fn start(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let received = Arc::new(Mutex::new(Received::default()));
        let (broken_sender, broken) = watch::channel(0);
        let shared = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared), broken_sender.clone()));
            }
        });
        Self { received, broken }
    }

    /// The image of that name.
    pub(super) fn image(&self, name: &str) -> Option<Image> {
        self.received.lock().unwrap().images.get(name).cloned()
    }

    /// How many layers came whole.
    pub(super) fn layers(&self) -> usize {
        self.received.lock().unwrap().layers.len()
    }
}

async fn ok<T: Serialize>(stream: &mut UnixStream, value: T) {
    frame::write(stream, &Reply::Ok(value)).await.unwrap();
}

async fn fail(stream: &mut UnixStream, error: AgentError) {
    frame::write(stream, &Reply::<()>::Error(error))
        .await
        .unwrap();
}

async fn serve(
    mut stream: UnixStream,
    received: Arc<Mutex<Received>>,
    broken: watch::Sender<usize>,
) {
    let Ok(request) = frame::read::<_, Request>(&mut stream).await else {
        return;
    };
    match request {
        Request::LayersMissing(call) => {
            let missing: Vec<_> = {
                let received = received.lock().unwrap();
                let is_missing = |id: &String| !received.layers.contains(id);
                call.diff_ids.into_iter().filter(is_missing).collect()
            };
            ok(&mut stream, missing).await;
        }
        Request::LayerImport(call) => {
            ok(&mut stream, LayerWanted::Send).await;
            let mut bytes = Vec::new();
            let mut limited = (&mut stream).take(call.layer.size);
            limited.read_to_end(&mut bytes).await.unwrap();
            if (bytes.len() as u64) < call.layer.size {
                broken.send_modify(|count| *count += 1);
                return;
            }
            let actual = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
            assert_eq!(actual, call.layer.digest, "a damaged layer was completed");
            let mut tar = Vec::new();
            // Images whose layers are no gzip are not pushed.
            let _ = flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut tar);
            {
                let mut received = received.lock().unwrap();
                received.layers.insert(call.layer.diff_id.clone());
                received.tars.insert(call.layer.diff_id, tar);
            }
            ok(&mut stream, LayerImported { size: 1 }).await;
        }
        Request::LayerBlobsKeep(call) => {
            let all_known = {
                let mut received = received.lock().unwrap();
                let known = |blob: &LayerBlob| received.layers.contains(&blob.diff_id);
                let all_known = call.blobs.iter().all(known);
                received.blobs.extend(call.blobs);
                all_known
            };
            assert!(all_known, "blobs of unknown layers");
            ok(&mut stream, ()).await;
        }
        Request::LayerBlobs(call) => {
            let mut blobs = received.lock().unwrap().blobs.clone();
            blobs.retain(|blob| call.diff_ids.contains(&blob.diff_id));
            ok(&mut stream, blobs).await;
        }
        Request::LayerExport(call) => {
            let tar = received.lock().unwrap().tars[&call.diff_id].clone();
            let size = tar.len() as u64;
            ok(&mut stream, LayerArchive { size }).await;
            chunks::write(&mut stream, &tar).await.unwrap();
            chunks::end(&mut stream).await.unwrap();
            ok(&mut stream, ()).await;
        }
        Request::ImageDocuments(call) => {
            let documents = received.lock().unwrap().documents[&call.reference].clone();
            ok(&mut stream, documents).await;
        }
        Request::ImageTag(call) => {
            {
                let mut received = received.lock().unwrap();
                let image = received.images[&call.reference].clone();
                let documents = received.documents[&call.reference].clone();
                received.images.insert(call.name.clone(), image);
                received.documents.insert(call.name, documents);
            }
            ok(&mut stream, ()).await;
        }
        Request::ImagePushed(call) => {
            {
                let mut received = received.lock().unwrap();
                let image = received.images[&call.reference].clone();
                received.images.insert(call.name, image);
                received.blobs.extend(call.blobs);
            }
            ok(&mut stream, ()).await;
        }
        Request::ImageCreate(call) => {
            if received.lock().unwrap().remove_a_layer() {
                let gone = "a layer is not on disk: pull the image again";
                fail(&mut stream, AgentError::new(ErrorKind::NotFound, gone)).await;
                return;
            }
            let id = format!(
                "sha256:{}",
                hex::encode(Sha256::digest(&call.configuration))
            );
            let configuration: serde_json::Value =
                serde_json::from_str(&call.configuration).unwrap();
            let diff_ids = configuration["rootfs"]["diff_ids"].as_array();
            let layer = |diff_id: &serde_json::Value| Layer {
                diff_id: diff_id.as_str().unwrap().to_owned(),
                size: 1,
            };
            let image = Image {
                id,
                repo_tags: call.references.clone(),
                layers: diff_ids.into_iter().flatten().map(layer).collect(),
                configuration,
                ..Default::default()
            };
            let documents = Documents {
                configuration: call.configuration,
                manifest_media_type: call.manifest_media_type,
                manifest: call.manifest,
            };
            for reference in call.references {
                let mut received = received.lock().unwrap();
                received.images.insert(reference.clone(), image.clone());
                received.documents.insert(reference, documents.clone());
            }
            ok(&mut stream, image).await;
        }
        Request::ImageInspect(call) => {
            let found = received
                .lock()
                .unwrap()
                .images
                .get(&call.reference)
                .cloned();
            match found {
                Some(image) => ok(&mut stream, image).await,
                None => fail(&mut stream, AgentError::no_such_image(&call.reference)).await,
            }
        }
        Request::ContainerList(_) => ok(&mut stream, Vec::<()>::new()).await,
        Request::ContainerCreate(call) => {
            let image = call.config.image.unwrap_or_default();
            let known = received.lock().unwrap().images.contains_key(&image);
            if known {
                let created = guest_protocol::methods::ContainerCreated {
                    id: "ab".repeat(32),
                    warnings: Vec::new(),
                    platform: "linux/amd64".to_owned(),
                };
                ok(&mut stream, created).await;
            } else {
                fail(&mut stream, AgentError::no_such_image(&image)).await;
            }
        }
        other => {
            let message = format!("{} is not received here", other.name());
            fail(&mut stream, AgentError::new(ErrorKind::System, message)).await;
        }
    }
}
