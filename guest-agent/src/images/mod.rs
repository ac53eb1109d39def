//! Images and their layers on the data disk.
//!
//! Lives here: the [`ImageStore`] (names, images, layers and what uses what),
//! the unpacking of layers that a host sends ([`unpack`]), archives of whole images
//! ([`archive`]), and the overlay that a container's root file system is
//! ([`overlay`]). The agent's method handlers
//! call the store; the container side asks it for an image's layers and mounts
//! them. Nothing here knows of vsock, of containers' processes or of registries:
//! it is handed bytes and names, and who uses an image is asked of the caller
//! ([`ImageUser`]).
//!
//! On disk, below the data root:
//!
//! ```text
//! layers/sha256-<hex>/fs       one unpacked layer, named by the digest of its tar
//! layers/sha256-<hex>/recipe   how its tar is made of its files again
//! layers/sha256-<hex>/kept     files that the tar itself replaced
//! layers/tmp-*                 a layer that is being unpacked; emptied at start
//! loading/*                    an archive that is being loaded; emptied at start
//! trash/*                      what is being deleted; emptied at start
//! ```
//!
//! The database says what exists. A directory that it does not name is left over
//! from an interruption and goes away when the store is opened.

mod archive;
mod compression;
mod description;
mod import;
mod layers;
mod new_layer;
pub(crate) mod overlay;
pub(crate) mod pipe;
mod records;
mod removal;
mod space;
mod store;
pub(crate) mod trash;
pub(crate) mod unpack;

#[cfg(test)]
mod tests;

pub(crate) use archive::load::load;
pub(crate) use store::{ImageStore, ImageUser, name_meant};
