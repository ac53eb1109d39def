//! Tests of the image store through its interface, on the real file system.
//!
//! They make device nodes, set owners and mount overlays, so they run as root;
//! anybody else gets a panic that says so.

mod archives;
mod hostile;
mod layering;
mod store;
mod unpacking;

use std::{io::Write, path::PathBuf, sync::Arc};

use guest_protocol::{
    AgentError,
    image::{Image, LayerDescriptor},
};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::ImageStore;

/// A store in a directory of its own.
struct Fixture {
    /// The data root; also what must not be touched outside it.
    directory: TempDir,
    store: ImageStore,
    runtime: tokio::runtime::Runtime,
}

impl Fixture {
    fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests make device nodes and mount overlays: run them as root"
        );
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("data")).unwrap();
        let store = open(&directory);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        Self {
            directory,
            store,
            runtime,
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Imports `tar` as it is. Returns where its files are.
    fn import(&self, tar: &[u8]) -> Result<PathBuf, AgentError> {
        self.import_blob(tar, &descriptor(tar))
    }

    fn import_blob(&self, blob: &[u8], layer: &LayerDescriptor) -> Result<PathBuf, AgentError> {
        let mut stream = blob;
        self.runtime.block_on(async {
            if let Some(reservation) = self.store.reserve_layer(layer).await? {
                reservation.import(&mut stream).await?;
            }
            Ok::<_, AgentError>(())
        })?;
        Ok(self.files(&layer.diff_id))
    }

    fn files(&self, diff_id: &str) -> PathBuf {
        let name = diff_id.replace(':', "-");
        self.data().join("layers").join(name).join("fs")
    }

    /// Makes an image of layers, bottom first.
    fn create(&self, layers: &[&[u8]], names: &[&str]) -> Result<Image, AgentError> {
        let diff_ids: Vec<String> = layers.iter().map(|tar| digest(tar)).collect();
        let configuration = serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string();
        let manifest = manifest_of(&configuration);
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        self.store.create(
            &configuration,
            "application/vnd.oci.image.manifest.v1+json",
            &manifest,
            &names,
        )
    }

    /// The same data root, opened by another process after this one was killed.
    fn reopened(mut self) -> Self {
        let Self {
            directory, store, ..
        } = self;
        drop(store);
        self = Self {
            store: open(&directory),
            directory,
            runtime: self.runtime,
        };
        self
    }

    /// That an import left nothing: neither files nor a layer.
    fn assert_nothing_left(&self) {
        for directory in ["layers", "trash"] {
            let left: Vec<_> = std::fs::read_dir(self.data().join(directory))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

fn open(directory: &TempDir) -> ImageStore {
    let data = directory.path().join("data");
    let database = redb::Database::create(data.join("state.redb")).unwrap();
    ImageStore::open(&data, Arc::new(database)).unwrap()
}

fn manifest_of(configuration: &str) -> String {
    serde_json::json!({
        "schemaVersion": 2,
        "config": {"digest": digest(configuration.as_bytes())},
    })
    .to_string()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn descriptor(tar: &[u8]) -> LayerDescriptor {
    LayerDescriptor {
        digest: digest(tar),
        size: tar.len() as u64,
        diff_id: digest(tar),
    }
}

/// Writes tar archives that no decent tool would.
#[derive(Default)]
struct TarWriter {
    bytes: Vec<u8>,
}

impl TarWriter {
    fn header(kind: u8, path: &[u8], size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(size);
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header
    }

    fn raw(&mut self, mut header: Header, content: &[u8]) -> &mut Self {
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        let padded = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(padded, 0);
        self
    }

    fn file(&mut self, path: &str, content: &[u8]) -> &mut Self {
        let header = Self::header(b'0', path.as_bytes(), content.len() as u64);
        self.raw(header, content)
    }

    fn directory(&mut self, path: &str) -> &mut Self {
        let mut header = Self::header(b'5', path.as_bytes(), 0);
        header.set_mode(0o755);
        self.raw(header, b"")
    }

    fn link(&mut self, kind: u8, path: &str, target: &str) -> &mut Self {
        let mut header = Self::header(kind, path.as_bytes(), 0);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.raw(header, b"")
    }

    fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.link(b'2', path, target)
    }

    fn hard_link(&mut self, path: &str, target: &str) -> &mut Self {
        self.link(b'1', path, target)
    }

    /// An extended header for the next entry.
    fn pax(&mut self, records: &[(&[u8], &[u8])]) -> &mut Self {
        let mut content = Vec::new();
        for (keyword, value) in records {
            let bare = keyword.len() + value.len() + 3;
            let mut length = bare;
            while length != bare + length.to_string().len() {
                length = bare + length.to_string().len();
            }
            write!(content, "{length} ").unwrap();
            content.extend_from_slice(keyword);
            content.push(b'=');
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        let header = Self::header(b'x', b"PaxHeaders/x", content.len() as u64);
        self.raw(header, &content)
    }

    fn end(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}

fn tar() -> TarWriter {
    TarWriter::default()
}
