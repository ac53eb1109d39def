//! Bringing layers: one importer of each at a time, and afterwards the layer is on disk
//! for good, or there is no trace of it.

use std::{io::BufRead, sync::Arc};

use guest_protocol::{AgentError, ErrorKind, image::LayerDescriptor, methods::LayerImported};
use tokio::io::AsyncRead;

use super::{ImageStore, Inner};
use crate::images::{
    description::check_diff_id,
    import::{self, LayerStream},
    layers::ImportLock,
    records::Changes,
};

/// The right to bring one layer, held by one importer at a time.
#[derive(Debug)]
pub(crate) struct LayerReservation {
    inner: Arc<Inner>,
    layer: LayerDescriptor,
    lock: ImportLock,
}

impl ImageStore {
    /// Of these layers' diff ids, those that are not on disk. Those that are stay
    /// for a while even when nothing uses them, so that an image can be made of
    /// them.
    ///
    /// # Errors
    /// When a diff id is none, or the database fails.
    pub(crate) fn missing(&self, diff_ids: &[String]) -> Result<Vec<String>, AgentError> {
        for diff_id in diff_ids {
            check_diff_id(diff_id)?;
        }
        let _changing = self.inner.changing();
        let present = self.inner.records.layers()?;
        let (here, missing): (Vec<_>, Vec<_>) = diff_ids
            .iter()
            .cloned()
            .partition(|diff_id| present.contains_key(diff_id));
        for diff_id in &here {
            self.inner.layers.lease(diff_id);
        }
        Ok(missing)
    }

    /// Asks for the right to bring a layer; waits while somebody else brings the
    /// same one. `None` when it is on disk.
    ///
    /// # Errors
    /// When the diff id is none, or the database fails.
    pub(crate) async fn reserve_layer(
        &self,
        layer: &LayerDescriptor,
    ) -> Result<Option<LayerReservation>, AgentError> {
        check_diff_id(&layer.diff_id)?;
        let lock = self.inner.layers.lock(&layer.diff_id).await;
        if self
            .missing(std::slice::from_ref(&layer.diff_id))?
            .is_empty()
        {
            return Ok(None);
        }
        Ok(Some(LayerReservation {
            inner: Arc::clone(&self.inner),
            layer: layer.clone(),
            lock,
        }))
    }
}

impl LayerReservation {
    /// Reads the layer's blob (exactly its `size` bytes) from `stream`, unpacks
    /// it and checks it. Afterwards it is on disk for good, or there is no trace
    /// of it. Dropping the future aborts the import.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the layer is not what its descriptor says or
    /// tries what no layer may, [`ErrorKind::NoSpace`] when the disk is full,
    /// [`ErrorKind::Unavailable`] when `stream` fails.
    pub(crate) async fn import<R>(self, stream: &mut R) -> Result<LayerImported, AgentError>
    where
        R: AsyncRead + Unpin + Send,
    {
        let Self { inner, layer, lock } = self;
        let blob = layer.digest.clone();
        let (outgoing, incoming) = import::channel(layer.size);
        let unpacking = tokio::task::spawn_blocking(move || {
            // Kept until all is done, also when nobody waits for it any more.
            let lock = lock;
            let stream = LayerStream::new(incoming);
            inner.import(&layer, &lock, stream)
        });
        let fed = outgoing.feed(stream).await;
        let unpacked = unpacking
            .await
            .map_err(|error| AgentError::system(format!("layer {blob}: {error}")))?;
        if let Err(error) = fed {
            return Err(AgentError::new(
                ErrorKind::Unavailable,
                format!("layer {blob}: the connection failed: {error}"),
            ));
        }
        Ok(LayerImported { size: unpacked? })
    }

    /// As [`import`](Self::import), of a blob that is here already.
    pub(in crate::images) async fn import_local(
        self,
        blob: impl BufRead + Send + 'static,
    ) -> Result<(), AgentError> {
        let Self { inner, layer, lock } = self;
        let digest = layer.digest.clone();
        tokio::task::spawn_blocking(move || {
            let stream = LayerStream::local(blob);
            inner.import(&layer, &lock, stream).map(drop)
        })
        .await
        .map_err(|error| AgentError::system(format!("layer {digest}: {error}")))?
    }
}

impl Inner {
    /// Unpacks a layer, blocking. Returns the bytes that its files hold.
    fn import(
        &self,
        layer: &LayerDescriptor,
        lock: &ImportLock,
        stream: Result<LayerStream, import::StreamError>,
    ) -> Result<u64, AgentError> {
        let size = self.layers.import(layer, stream)?;
        let _changing = self.changing();
        self.layers.lease(lock.diff_id());
        self.records.change(&Changes {
            put_layers: vec![(lock.diff_id(), size)],
            ..Changes::default()
        })?;
        Ok(size)
    }
}
