//! The agent's end of an image import: takes layers, checks them, keeps what it
//! was given. It runs no containers.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex},
};

use guest_protocol::{
    AgentError, ErrorKind,
    frame::{self, Reply},
    image::{Image, LayerBlob},
    methods::{LayerImported, LayerWanted, Request},
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
    /// Images by each of their names.
    pub(super) images: HashMap<String, Image>,
}

/// A receiver at work.
pub(super) struct Receiver {
    pub(super) received: Arc<Mutex<Received>>,
    /// Layer connections that broke off.
    pub(super) broken: watch::Receiver<usize>,
}

impl Receiver {
    /// Listens on `socket`.
    pub(super) fn start(socket: &Path) -> Self {
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
            received.lock().unwrap().layers.insert(call.layer.diff_id);
            ok(&mut stream, LayerImported { size: 1 }).await;
        }
        Request::LayerBlobsKeep(call) => {
            let all_known = {
                let received = received.lock().unwrap();
                let known = |blob: &LayerBlob| received.layers.contains(&blob.diff_id);
                call.blobs.iter().all(known)
            };
            assert!(all_known, "blobs of unknown layers");
            ok(&mut stream, ()).await;
        }
        Request::ImageCreate(call) => {
            let id = format!(
                "sha256:{}",
                hex::encode(Sha256::digest(&call.configuration))
            );
            let image = Image {
                id,
                repo_tags: call.references.clone(),
                configuration: serde_json::from_str(&call.configuration).unwrap(),
                ..Default::default()
            };
            for reference in call.references {
                received
                    .lock()
                    .unwrap()
                    .images
                    .insert(reference, image.clone());
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
