//! Images, their layers, and archives of them.

use serde::{Deserialize, Serialize};

use super::{LayerArchive, LayerWanted, Method, Request};
use crate::image::{Documents, Image, ImagesUsage, LayerBlob, LayerDescriptor, Origin, Removed};

methods! {
    /// Of these layers, which are not on the data disk.
    LayersMissing {
        /// Digests of the layers' tars.
        diff_ids: Vec<String>,
    } -> Vec<String>;

    /// Brings one layer. The reply says whether the bytes are wanted. If so the
    /// host sends exactly `layer.size` bytes and reads a second reply, which is a
    /// [`Reply`](crate::frame::Reply) of [`LayerImported`](super::LayerImported), when the layer is
    /// unpacked, checked and on disk.
    LayerImport {
        /// The layer that comes.
        layer: LayerDescriptor,
    } -> LayerWanted;

    /// Makes an image of layers that are all there. One transaction: afterwards
    /// the image and its names exist, or nothing changed.
    ImageCreate {
        /// The image's configuration, byte for byte; its digest is the image's id.
        configuration: String,
        /// Media type of its manifest.
        manifest_media_type: String,
        /// Its manifest, byte for byte.
        manifest: String,
        /// Names to give it in familiar form: `busybox:latest`, `busybox@sha256:…`.
        references: Vec<String>,
        /// How it came to be.
        #[serde(default)]
        origin: Origin,
    } -> Image;

    /// All images.
    ImageList {} -> Vec<Image>;

    /// One image by name, digest, id or unambiguous prefix of its id.
    ImageInspect {
        /// How the user named it.
        reference: String,
    } -> Image;

    /// Gives an image one more name.
    ImageTag {
        /// How the user named the image.
        reference: String,
        /// The new name in familiar form.
        name: String,
    } -> ();

    /// Removes a name of an image; with its last name the image and the layers
    /// that nothing else uses.
    ImageRemove {
        /// How the user named it.
        reference: String,
        /// Also when stopped containers use it, or several names share its id.
        force: bool,
    } -> Vec<Removed>;

    /// The documents that an image is made of.
    ImageDocuments {
        /// How the user named it.
        reference: String,
    } -> Documents;

    /// Images as one archive, in the layouts of `docker save` and of OCI at once.
    /// After the reply: the archive in [`chunks`](crate::chunks), then a
    /// [`Reply`](crate::frame::Reply) of `()`.
    ImageSave {
        /// How the user named them. A name of a repository alone means all its tags.
        references: Vec<String>,
    } -> ();

    /// Makes images of an archive that [`ImageSave`], `docker save` or a tool that
    /// writes OCI layouts made. After the reply the host sends the archive in
    /// [`chunks`](crate::chunks); the agent sends a
    /// [`Reply`](crate::frame::Reply) of [`LoadStep`](crate::image::LoadStep) for
    /// each step, the last one `Done` or an error.
    ImageLoad {
        /// `os/architecture[/variant]`, normalised: what is taken of an index.
        platform: String,
    } -> ();

    /// A layer's tar, as it was before it was unpacked. After the reply: the tar in
    /// [`chunks`](crate::chunks), then a [`Reply`](crate::frame::Reply) of `()`,
    /// which is an error when the tar does not have its digest.
    LayerExport {
        /// Digest of the tar.
        diff_id: String,
    } -> LayerArchive;

    /// Remembers where layers are that are here.
    LayerBlobsKeep {
        /// The blobs.
        blobs: Vec<LayerBlob>,
    } -> ();

    /// Where these layers are known to be.
    LayerBlobs {
        /// Digests of the layers' tars.
        diff_ids: Vec<String>,
    } -> Vec<LayerBlob>;

    /// Notes that an image is in a registry. From now on it has this manifest.
    ImagePushed {
        /// How the user named it.
        reference: String,
        /// Its name with the manifest's digest: `localhost:5000/x@sha256:…`.
        name: String,
        /// Media type of the manifest.
        manifest_media_type: String,
        /// The manifest, byte for byte.
        manifest: String,
        /// Its layers as the registry has them.
        blobs: Vec<LayerBlob>,
    } -> ();

    /// What images take of the data disk.
    ImagesDiskUsage {} -> ImagesUsage;
}
