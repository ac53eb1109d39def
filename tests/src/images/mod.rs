//! Images made from this system's packages, as OCI image layouts.

pub mod debian;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

pub use self::debian::{debian, debian_with};
use crate::command::run;

/// Writes a busybox image's layout to `directory`: the shell and its applets,
/// users, and little else.
///
/// # Panics
/// If busybox (Debian's `busybox-static`) is not there.
pub fn write_busybox(directory: &Path) {
    let configuration = json!({
        "Cmd": ["sh"],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Labels": {"origin": "test"},
    });
    write_layout(directory, &[busybox_layer()], &configuration);
}

/// Writes the layout of an image that has Debian's directories and no programs: their
/// folder ([`Programs`](crate::programs::Programs)) is mounted at `/usr`.
///
/// # Panics
/// If it cannot be written.
pub fn write_skeleton(directory: &Path) {
    let mut layer = Layer::new();
    for name in ["bin", "lib", "lib64", "sbin"] {
        layer.symlink(name, &format!("usr/{name}"));
    }
    for name in ["etc", "usr", "var", "var/lib"] {
        layer.directory(name, 0o755);
    }
    layer.directory("root", 0o700);
    layer.directory("tmp", 0o1777);
    layer.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999:postgres:/tmp:/bin/sh\n",
    );
    layer.file("etc/group", 0o644, b"root:x:0:\npostgres:x:999:\n");
    let configuration = json!({
        "Cmd": ["bash"],
        "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin", "LANG=C.UTF-8"],
    });
    write_layout(directory, &[layer.finish()], &configuration);
}

/// The one layer of the busybox image.
pub(crate) fn busybox_layer() -> Vec<u8> {
    let program = fs::read("/bin/busybox").expect("busybox-static is installed");
    let applets = run(
        Command::new("/bin/busybox").arg("--list"),
        b"",
        Duration::from_secs(10),
    )
    .success()
    .text();
    let mut layer = Layer::new();
    layer.directory("bin", 0o755);
    layer.file("bin/busybox", 0o755, &program);
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer.directory("etc", 0o755);
    layer.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    );
    layer.file(
        "etc/group",
        0o644,
        b"root:x:0:\nuser:x:1000:\nwheel:x:10:user\nnogroup:x:65534:\n",
    );
    layer.directory("home/user", 0o755);
    layer.directory("root", 0o700);
    layer.directory("tmp", 0o1777);
    // What the kernel refuses to execute.
    layer.file("bin/not-executable", 0o644, b"#!/bin/sh\n");
    layer.finish()
}

/// Writes the layout of an image of `size` bytes, unpacked, in so many `layers`:
/// files of this system, so that they compress as files do.
///
/// # Panics
/// If it cannot be written, or this system has too few files.
pub fn write_system_files(directory: &Path, size: u64, layers: usize) {
    let share = size / layers as u64;
    let mut archives = Vec::new();
    let (mut layer, mut bytes) = (Layer::new(), 0);
    let mut folders = vec![PathBuf::from("/usr")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let path = entry.path();
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.to_string_lossy();
            let name = name.trim_start_matches('/');
            // Longer ones need more than one header.
            if !kind.is_file() || name.len() > 99 {
                continue;
            }
            let Ok(content) = fs::read(&path) else {
                continue;
            };
            layer.file(name, 0o644, &content);
            bytes += content.len() as u64;
            if bytes >= share {
                archives.push(std::mem::take(&mut layer).finish());
                bytes = 0;
                if archives.len() == layers {
                    write_layout(directory, &archives, &json!({"Cmd": ["true"]}));
                    return;
                }
            }
        }
    }
    panic!("this system has less than {size} bytes of files in /usr");
}

/// A layer being made.
pub struct Layer {
    builder: Builder<Vec<u8>>,
}

impl Layer {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            builder: Builder::new(Vec::new()),
        }
    }

    /// Adds a directory.
    ///
    /// # Panics
    /// If the path is too long for a tar.
    pub fn directory(&mut self, path: &str, mode: u32) {
        let mut header = header(EntryType::Directory, mode, 0);
        self.builder
            .append_data(&mut header, path, io::empty())
            .expect("a path that fits");
    }

    /// Adds a file.
    ///
    /// # Panics
    /// If the path is too long for a tar.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let mut header = header(EntryType::Regular, mode, content.len());
        self.builder
            .append_data(&mut header, path, content)
            .expect("a path that fits");
    }

    /// Adds a file under a name as it is, however bad.
    ///
    /// # Panics
    /// If the path is longer than 100 bytes.
    pub fn file_at_any_path(&mut self, path: &str, content: &[u8]) {
        let mut header = header(EntryType::Regular, 0o644, content.len());
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        self.builder
            .append(&header, content)
            .expect("a write to memory");
    }

    /// Adds a symbolic link.
    ///
    /// # Panics
    /// If the path is too long for a tar.
    pub fn symlink(&mut self, path: &str, target: &str) {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        self.builder
            .append_link(&mut header, path, target)
            .expect("a path that fits");
    }

    /// The archive.
    ///
    /// # Panics
    /// Never: it is in memory.
    pub fn finish(self) -> Vec<u8> {
        self.builder.into_inner().expect("a write to memory")
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(size as u64);
    header
}

/// The parts of an image, as a registry serves them.
#[derive(Debug, Clone)]
pub struct ImageParts {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The configuration.
    pub configuration: Vec<u8>,
    /// The layers, compressed.
    pub layers: Vec<Vec<u8>>,
}

/// Media type of a manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

impl ImageParts {
    /// An image of `archives`, bottom first, with the given `config`.
    ///
    /// # Panics
    /// Never: all is in memory.
    pub fn new(archives: &[Vec<u8>], config: &Value) -> Self {
        Self::for_architecture("amd64", archives, config)
    }

    /// The same for another architecture.
    ///
    /// # Panics
    /// Never: all is in memory.
    pub fn for_architecture(architecture: &str, archives: &[Vec<u8>], config: &Value) -> Self {
        let configuration = json!({
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": {
                "type": "layers",
                "diff_ids": archives.iter().map(|archive| digest(archive)).collect::<Vec<_>>(),
            },
        })
        .to_string()
        .into_bytes();
        let layers: Vec<Vec<u8>> = archives
            .iter()
            .map(|archive| {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(archive).expect("a write to memory");
                encoder.finish().expect("a write to memory")
            })
            .collect();
        let mut parts = Self {
            manifest: Vec::new(),
            configuration,
            layers: Vec::new(),
        };
        parts.set_layers("application/vnd.oci.image.layer.v1.tar+gzip", layers);
        parts
    }

    /// The same layers, compressed otherwise, with a media type that may say so.
    pub fn set_layers(&mut self, media_type: &str, layers: Vec<Vec<u8>>) {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(
                "application/vnd.oci.image.config.v1+json",
                &self.configuration,
            ),
            "layers": layers
                .iter()
                .map(|layer| descriptor(media_type, layer))
                .collect::<Vec<_>>(),
        });
        self.manifest = manifest.to_string().into_bytes();
        self.layers = layers;
    }
}

/// Writes the OCI image layout of an image of `archives` to `directory`.
///
/// # Panics
/// If it cannot be written.
pub fn write_layout(directory: &Path, archives: &[Vec<u8>], config: &Value) {
    let parts = ImageParts::new(archives, config);
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a directory that can be written");
    let write = |path: PathBuf, content: &[u8]| {
        fs::write(path, content).expect("a directory that can be written");
    };
    for blob in parts
        .layers
        .iter()
        .chain([&parts.configuration, &parts.manifest])
    {
        write(blobs.join(hex::encode(Sha256::digest(blob))), blob);
    }
    let index = json!({
        "schemaVersion": 2,
        "manifests": [descriptor(MANIFEST_TYPE, &parts.manifest)],
    });
    write(directory.join("index.json"), index.to_string().as_bytes());
    write(
        directory.join("oci-layout"),
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    );
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

/// `sha256:` and the digest of `content`.
pub fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}
