//! Images and their layers on the data disk.
//!
//! Lives here: the [`ImageStore`] (names, images, layers and what uses what),
//! the unpacking of layers that a host sends ([`unpack`]), and the overlay that
//! a container's root file system is ([`overlay`]). The agent's method handlers
//! call the store; the container side asks it for an image's layers and mounts
//! them. Nothing here knows of vsock, of containers' processes or of registries:
//! it is handed bytes and names, and who uses an image is asked of the caller
//! ([`ImageUser`]).
//!
//! On disk, below the data root:
//!
//! ```text
//! layers/sha256-<hex>/fs   one unpacked layer, named by the digest of its tar
//! layers/tmp-*             a layer that is being unpacked; emptied at start
//! trash/*                  what is being deleted; emptied at start
//! ```
//!
//! The database says what exists. A directory that it does not name is left over
//! from an interruption and goes away when the store is opened.

pub mod overlay;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use guest_protocol::{
    AgentError,
    image::{Image, LayerDescriptor, Removed},
    methods::LayerImported,
};
use tokio::io::AsyncRead;

/// A container that was made of an image, as the caller knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUser {
    /// The container's id.
    pub container_id: String,
    /// Whether it runs.
    pub running: bool,
}

/// The images on the data disk. Cheap to clone: clones share one store.
///
/// Every method but [`reserve_layer`](Self::reserve_layer) and
/// [`LayerReservation::import`] blocks for a disk write at most.
#[derive(Debug, Clone)]
pub struct ImageStore {}

/// The right to bring one layer, held by one importer at a time.
#[derive(Debug)]
pub struct LayerReservation {}

impl ImageStore {
    /// Opens the store below `data_root` and clears away what an interruption
    /// left there.
    pub fn open(data_root: &Path, database: Arc<redb::Database>) -> Result<Self, AgentError> {
        todo!()
    }

    /// Of these layers' diff ids, those that are not on disk. Those that are stay
    /// for a while even when nothing uses them, so that an image can be made of
    /// them.
    pub fn missing(&self, diff_ids: &[String]) -> Result<Vec<String>, AgentError> {
        todo!()
    }

    /// Asks for the right to bring a layer; waits while somebody else brings the
    /// same one. `None` when it is on disk.
    pub async fn reserve_layer(
        &self,
        layer: &LayerDescriptor,
    ) -> Result<Option<LayerReservation>, AgentError> {
        todo!()
    }

    /// Makes an image of layers that are all there, in one transaction.
    /// `configuration` and `manifest` are kept byte for byte; `references` are the
    /// names it gets, taken from other images that have them.
    pub fn create(
        &self,
        configuration: &str,
        manifest_media_type: &str,
        manifest: &str,
        references: &[String],
    ) -> Result<Image, AgentError> {
        todo!()
    }

    /// All images.
    pub fn list(&self) -> Result<Vec<Image>, AgentError> {
        todo!()
    }

    /// The image that `reference` means: a name, `name:tag`, `name@digest`, an id
    /// or an unambiguous beginning of one.
    pub fn resolve(&self, reference: &str) -> Result<Image, AgentError> {
        todo!()
    }

    /// Gives the image that `reference` means the further name `name`.
    pub fn tag(&self, reference: &str, name: &str) -> Result<(), AgentError> {
        todo!()
    }

    /// Removes what `reference` means, by Docker's rules; `users` tells which
    /// containers were made of the image with a given id.
    ///
    /// An image that stopped containers use and that is removed by `force` has no
    /// name any more and is not listed, but its layers stay until
    /// [`collect`](Self::collect) finds it unused.
    pub fn remove(
        &self,
        reference: &str,
        force: bool,
        users: &dyn Fn(&str) -> Vec<ImageUser>,
    ) -> Result<Vec<Removed>, AgentError> {
        todo!()
    }

    /// Drops images that were removed by force and that no container uses any
    /// more. To be called once at start and when a container was removed.
    pub fn collect(&self, users: &dyn Fn(&str) -> Vec<ImageUser>) -> Result<(), AgentError> {
        todo!()
    }

    /// The directories of an image's layers, topmost first, as
    /// [`overlay::mount`] takes them. Serves images removed by force, too.
    pub fn layers(&self, image_id: &str) -> Result<Vec<PathBuf>, AgentError> {
        todo!()
    }
}

impl LayerReservation {
    /// Reads the layer's blob (exactly its `size` bytes) from `stream`, unpacks
    /// it and checks it. Afterwards it is on disk for good, or there is no trace
    /// of it. Dropping the future aborts the import.
    pub async fn import<R>(self, stream: &mut R) -> Result<LayerImported, AgentError>
    where
        R: AsyncRead + Unpin + Send,
    {
        todo!()
    }
}
