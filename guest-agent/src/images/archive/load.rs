//! Makes images of an archive.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
};

use guest_protocol::{
    AgentError,
    image::{LayerDescriptor, LoadStep},
};
use tokio::sync::mpsc;

use super::{
    contents::{self, ArchivedImage, ArchivedLayer},
    spool::{Spool, disk},
};
use crate::images::{description::digest, store::ImageStore};

/// How much of a layer is read between two steps that say so, in bytes.
const STEP: u64 = 1024 * 1024;
/// How much of a layer's file is read at a time.
const BUFFER: usize = 128 * 1024;

/// Makes images of the archive that `stream` carries; of an image for several
/// platforms, the one for `platform`. Tells what it does through `steps`.
///
/// An image is there with its names or not at all; images before one that fails
/// stay.
///
/// # Errors
/// [`Corrupt`](guest_protocol::ErrorKind::Corrupt) when the archive is not what it
/// should be, [`NoSpace`](guest_protocol::ErrorKind::NoSpace) when the disk is full.
pub(crate) async fn load(
    store: &ImageStore,
    stream: impl BufRead + Send + 'static,
    platform: String,
    steps: &mpsc::Sender<LoadStep>,
) -> Result<(), AgentError> {
    let directory = store.loading_directory();
    let read = tokio::task::spawn_blocking(move || {
        let spool = Spool::fill(&directory, stream)?;
        let images = contents::images(&spool, &platform)?;
        Ok::<_, AgentError>((spool, images))
    });
    let (spool, images) = read
        .await
        .map_err(|error| AgentError::system(format!("loading failed: {error}")))??;
    for image in images {
        load_image(store, image, steps).await?;
    }
    // Deletes what may be large.
    drop(tokio::task::spawn_blocking(move || drop(spool)));
    Ok(())
}

async fn load_image(
    store: &ImageStore,
    image: ArchivedImage,
    steps: &mpsc::Sender<LoadStep>,
) -> Result<(), AgentError> {
    for layer in image.layers {
        load_layer(store, layer, steps).await?;
    }
    let id = digest(&image.configuration);
    let mut happened = Vec::new();
    for name in &image.names {
        if let Ok(before) = store.resolve(name)
            && before.id != id
        {
            happened.push(LoadStep::Renamed {
                name: name.clone(),
                id: before.id,
            });
        }
    }
    tokio::task::block_in_place(|| {
        store.create(
            &image.configuration,
            &image.manifest_media_type,
            &image.manifest,
            &image.names,
        )
    })?;
    let loaded = |name: Option<&String>| LoadStep::Loaded {
        id: id.clone(),
        name: name.cloned(),
    };
    if image.names.is_empty() {
        happened.push(loaded(None));
    }
    happened.extend(image.names.iter().map(|name| loaded(Some(name))));
    for step in happened {
        // Nobody listens any more: the images are there all the same.
        let _ = steps.send(step).await;
    }
    Ok(())
}

async fn load_layer(
    store: &ImageStore,
    layer: ArchivedLayer,
    steps: &mpsc::Sender<LoadStep>,
) -> Result<(), AgentError> {
    let descriptor = LayerDescriptor {
        // The archive may name it otherwise: this is what errors say.
        digest: layer.diff_id.clone(),
        size: layer.file.size,
        diff_id: layer.diff_id.clone(),
    };
    let Some(reservation) = store.reserve_layer(&descriptor).await? else {
        return Ok(());
    };
    let file = File::open(&layer.file.path).map_err(|error| disk(&error))?;
    let progress = Progress {
        file: BufReader::with_capacity(BUFFER, file),
        diff_id: layer.diff_id,
        current: 0,
        told: 0,
        total: layer.file.size,
        steps: steps.clone(),
    };
    reservation.import_local(progress).await
}

/// A layer's file that tells how much of it was read.
struct Progress {
    file: BufReader<File>,
    diff_id: String,
    current: u64,
    told: u64,
    total: u64,
    steps: mpsc::Sender<LoadStep>,
}

impl BufRead for Progress {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.file.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.file.consume(amount);
        self.current += amount as u64;
        if self.current - self.told >= STEP || self.current == self.total {
            self.told = self.current;
            // A step that finds no room is not worth waiting for.
            let _ = self.steps.try_send(LoadStep::Layer {
                diff_id: self.diff_id.clone(),
                current: self.current,
                total: self.total,
            });
        }
    }
}

impl Read for Progress {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}
