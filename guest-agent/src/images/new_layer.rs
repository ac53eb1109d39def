//! Layers that are made here, of tars whose digests nobody knows before they are
//! unpacked: imports and commits.

use std::{
    io::{BufRead, Read},
    sync::Arc,
};

use guest_protocol::{AgentError, methods::NewLayer};
use serde_json::Value;

use super::{ImageStore, import::LayerStream, layers::Unpacked, records::Changes};

/// A layer that was unpacked and that nothing knows yet.
#[derive(Debug)]
pub(crate) struct NewlyUnpacked {
    unpacked: Unpacked,
}

impl ImageStore {
    /// Keeps a layer that [`unpack_new`](Self::unpack_new) unpacked, for a while even
    /// when nothing uses it, so that an image can be made of it.
    ///
    /// # Errors
    /// Those of the disk and the database.
    pub(crate) async fn keep_new(&self, unpacked: NewlyUnpacked) -> Result<NewLayer, AgentError> {
        let layer = unpacked.unpacked.layer.clone();
        let lock = self.inner.layers.lock(&layer.diff_id).await;
        let inner = Arc::clone(&self.inner);
        tokio::task::block_in_place(move || {
            let lock = lock;
            let _changing = inner.changing();
            inner.layers.lease(lock.diff_id());
            if inner.records.layers()?.contains_key(lock.diff_id()) {
                inner.layers.throw_away(&unpacked.unpacked);
                return Ok(());
            }
            inner.layers.keep_new(&unpacked.unpacked)?;
            inner.records.change(&Changes {
                put_layers: vec![(lock.diff_id(), unpacked.unpacked.layer.size)],
                ..Changes::default()
            })?;
            Ok::<_, AgentError>(())
        })?;
        Ok(layer)
    }

    /// Unpacks an archive, a tar that may be compressed, for [`keep_new`](Self::keep_new).
    /// Blocks for as long as the bytes take to come. On an error nothing is left.
    ///
    /// # Errors
    /// As `LayerReservation::import`.
    pub(crate) fn unpack_new(
        &self,
        archive: impl BufRead + Send + 'static,
    ) -> Result<NewlyUnpacked, AgentError> {
        let unpacked = self.inner.layers.unpack_new(LayerStream::local(archive))?;
        Ok(NewlyUnpacked { unpacked })
    }

    /// The same of a tar that was made here and is not compressed.
    ///
    /// # Errors
    /// As [`unpack_new`](Self::unpack_new).
    pub(crate) fn unpack_made(
        &self,
        tar: impl Read + Send + 'static,
    ) -> Result<NewlyUnpacked, AgentError> {
        let unpacked = self.inner.layers.unpack_new(Ok(LayerStream::plain(tar)))?;
        Ok(NewlyUnpacked { unpacked })
    }

    /// Throws away what [`unpack_new`](Self::unpack_new) unpacked.
    pub(crate) fn throw_away(&self, unpacked: &NewlyUnpacked) {
        self.inner.layers.throw_away(&unpacked.unpacked);
    }

    /// Configuration and manifest of an image by its full id. Serves images removed by
    /// force, too.
    ///
    /// # Errors
    /// [`guest_protocol::ErrorKind::NotFound`] when there is no such image.
    pub(crate) fn description(&self, image_id: &str) -> Result<(Value, Value), AgentError> {
        let record = self
            .inner
            .records
            .image(image_id)?
            .ok_or_else(|| AgentError::no_such_image(image_id))?;
        let parse = |text: &str| {
            serde_json::from_str(text).map_err(|error| {
                AgentError::system(format!(
                    "the record of image {image_id} is damaged: {error}"
                ))
            })
        };
        Ok((parse(&record.configuration)?, parse(&record.manifest)?))
    }
}
