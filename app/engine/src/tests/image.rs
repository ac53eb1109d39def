//! An image for tests: its blobs and its manifest.

use std::io::Write;

use serde_json::json;
use sha2::{Digest, Sha256};

/// An image of some layers.
#[derive(Clone)]
pub(super) struct TestImage {
    pub(super) configuration: Vec<u8>,
    pub(super) layers: Vec<Vec<u8>>,
    pub(super) manifest: Vec<u8>,
}

pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// `sha256:…` of some bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl TestImage {
    /// An image whose layers hold `contents`, gzipped.
    pub(super) fn new(contents: &[&[u8]]) -> Self {
        let mut diff_ids = Vec::new();
        let mut layers = Vec::new();
        for content in contents {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, "content", *content).unwrap();
            let tar = tar.into_inner().unwrap();
            diff_ids.push(digest(&tar));
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&tar).unwrap();
            layers.push(gzip.finish().unwrap());
        }
        let configuration = serde_json::to_vec(&json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {"Cmd": ["/content"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }))
        .unwrap();
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&configuration),
                "size": configuration.len(),
            },
            "layers": layers.iter().map(|layer| json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": digest(layer),
                "size": layer.len(),
            })).collect::<Vec<_>>(),
        }))
        .unwrap();
        Self {
            configuration,
            layers,
            manifest,
        }
    }

    /// Its blobs.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.layers.iter().chain([&self.configuration])
    }

    /// Its id.
    pub(super) fn id(&self) -> String {
        digest(&self.configuration)
    }
}

/// Bytes that do not compress, so that a layer is about as long as its content.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
