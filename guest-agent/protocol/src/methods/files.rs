//! Files in containers: archives of them, both ways, and layers made of them.

use serde::{Deserialize, Serialize};

use super::{Committed, Method, Request};
use crate::volume::PathStat;

methods! {
    /// What a path in a container is. Links in its last component are not followed.
    ContainerPathStat {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// The path, absolute or from the container's root on.
        path: String,
    } -> PathStat;

    /// A path in a container, volumes included, as a tar. After the reply: the tar in
    /// [`chunks`](crate::chunks), then a [`Reply`](crate::frame::Reply) of `()`.
    ContainerArchiveGet {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// As for [`ContainerPathStat`].
        path: String,
    } -> PathStat;

    /// Unpacks a tar into a folder of a container, volumes included. The first reply
    /// accepts; the host sends the tar in [`chunks`](crate::chunks) and reads a second
    /// [`Reply`](crate::frame::Reply) of `()`, which may come before it has sent all.
    ContainerArchivePut {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// The folder, which must exist.
        path: String,
        /// Fail rather than replace a folder by something else, or something else by
        /// a folder.
        keep_folders: bool,
        /// Give what is unpacked to the container's user.
        chown: bool,
    } -> ();

    /// A container's root file system, without its volumes, as a tar. The stream is
    /// as for [`ContainerArchiveGet`].
    ContainerExport {
        /// Name, id or unambiguous prefix of it.
        container: String,
    } -> ();

    /// Makes a layer of what a container changed in its root file system. The layer
    /// is kept for a while, for an image to be made of it
    /// ([`ImageCreate`](super::ImageCreate)).
    ContainerCommit {
        /// Name, id or unambiguous prefix of it.
        container: String,
        /// Freeze its processes meanwhile.
        pause: bool,
    } -> Committed;

    /// Makes a layer of a tar, compressed or not, whose digest nobody knows yet. The first
    /// reply accepts; then as for [`ContainerArchivePut`], with a second
    /// [`Reply`](crate::frame::Reply) of [`NewLayer`](super::NewLayer).
    LayerImportNew {} -> ();
}
