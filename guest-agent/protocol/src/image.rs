//! Images as the agent keeps them, and how layers reach it.

use serde::{Deserialize, Serialize};

/// An image on the data disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    /// Digest of its configuration: `sha256:` and 64 hex digits.
    pub id: String,
    /// Tags in familiar form, such as `busybox:latest`.
    pub repo_tags: Vec<String>,
    /// Digests it was pulled by, such as `busybox@sha256:…`.
    pub repo_digests: Vec<String>,
    /// Its OCI image configuration, as it came.
    pub configuration: serde_json::Value,
    /// Media type of its manifest.
    pub manifest_media_type: String,
    /// Digest of its manifest.
    pub manifest_digest: String,
    /// Bytes that its layers take, unpacked.
    pub size: u64,
    /// Its layers, bottom first.
    pub layers: Vec<Layer>,
}

/// A layer of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Layer {
    /// Digest of its tar.
    pub diff_id: String,
    /// Bytes that its files hold.
    pub size: u64,
}

/// The documents that make an image, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Documents {
    /// Its configuration.
    pub configuration: String,
    /// Media type of its manifest.
    pub manifest_media_type: String,
    /// Its manifest.
    pub manifest: String,
}

/// A layer as a registry has it: what it need not be sent again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LayerBlob {
    /// Digest of the tar.
    pub diff_id: String,
    /// Digest of the blob, compressed as it is there.
    pub digest: String,
    /// Length of the blob, in bytes.
    pub size: u64,
    /// What the blob is.
    pub media_type: String,
    /// Registry and repository: `docker.io/library/busybox`.
    pub repository: String,
}

/// What happens while an archive of images is loaded; in frames of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadStep {
    /// A layer is being unpacked.
    Layer {
        /// Digest of its tar.
        diff_id: String,
        /// Bytes of it that were read.
        current: u64,
        /// Bytes of it in all.
        total: u64,
    },
    /// A name went from one image to another.
    Renamed {
        /// The name.
        name: String,
        /// The image that had it.
        id: String,
    },
    /// An image is there.
    Loaded {
        /// Its id.
        id: String,
        /// The name it got, if the archive has one for it.
        name: Option<String>,
    },
    /// That was all.
    Done,
}

/// What images take of the data disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImagesUsage {
    /// Bytes of all layers, each counted once.
    pub layers_size: u64,
    /// Of each image by id, the bytes of those layers that other images have, too.
    pub shared: std::collections::BTreeMap<String, u64>,
}

/// How an image came to be, for those who listen to events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// It was pulled from a registry.
    #[default]
    Pull,
    /// It was made of an archive.
    Import,
    /// It was made of a container's changes.
    Commit {
        /// The container's id.
        container: String,
        /// What the user said of it.
        comment: String,
    },
}

/// A layer as a manifest and a configuration describe it together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerDescriptor {
    /// Digest of the blob as it travels, compressed or not: `sha256:…`.
    pub digest: String,
    /// Length of the blob as it travels, in bytes.
    pub size: u64,
    /// Digest of the tar inside, from the configuration's `rootfs.diff_ids`.
    pub diff_id: String,
}

/// What removing an image did, in order; Docker's two verbs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Removed {
    /// A tag or digest no longer names it.
    Untagged(String),
    /// An image or layer is gone.
    Deleted(String),
}
