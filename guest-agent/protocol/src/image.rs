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
}

/// How a layer blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// A layer as a manifest and a configuration describe it together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerDescriptor {
    /// Digest of the blob as it travels: `sha256:…`.
    pub digest: String,
    /// Length of the blob as it travels, in bytes.
    pub size: u64,
    /// Digest of the tar inside, from the configuration's `rootfs.diff_ids`.
    pub diff_id: String,
    /// How the blob is compressed.
    pub compression: Compression,
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
