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
    /// An image whose layers hold one file each, with these `contents`.
    pub(super) fn new(contents: &[&[u8]]) -> Self {
        let layers = contents.iter().map(|content| {
            let mut tar = tar::Builder::new(Vec::new());
            append(&mut tar, "content", content);
            tar.into_inner().unwrap()
        });
        Self::of_layers(layers.collect())
    }

    /// busybox with a few of its commands, from Debian's `busybox-static`.
    pub(super) fn busybox() -> Self {
        let program = std::fs::read("/bin/busybox").expect("Debian's package busybox-static");
        let mut tar = tar::Builder::new(Vec::new());
        append(&mut tar, "bin/busybox", &program);
        append(&mut tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n");
        for command in ["sh", "cat", "echo", "ps", "sleep", "stty", "true"] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            let path = format!("bin/{command}");
            tar.append_link(&mut header, path, "busybox").unwrap();
        }
        for directory in ["proc", "sys", "dev", "tmp"] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            header.set_mode(0o755);
            tar.append_data(&mut header, directory, &[][..]).unwrap();
        }
        Self::of_layers(vec![tar.into_inner().unwrap()])
    }

    fn of_layers(tars: Vec<Vec<u8>>) -> Self {
        let mut diff_ids = Vec::new();
        let mut layers = Vec::new();
        for tar in tars {
            diff_ids.push(digest(&tar));
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&tar).unwrap();
            layers.push(gzip.finish().unwrap());
        }
        let configuration = serde_json::to_vec(&json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
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

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(if path.starts_with("bin/") {
        0o755
    } else {
        0o644
    });
    tar.append_data(&mut header, path, content).unwrap();
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
