//! Images for the campaign: a shell, and layers of data that are looked at again
//! byte for byte.

use std::{collections::BTreeMap, fs, io, path::Path};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Layers of data; each image has some of them on top of the shell.
const LAYERS: usize = 6;
/// Files in a layer of data.
const FILES: usize = 12;
const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// The layers that images are made of.
pub(crate) struct Images {
    /// The shell first.
    layers: Vec<Layer>,
}

/// One layer.
pub(crate) struct Layer {
    /// Its tar.
    pub(crate) bytes: Vec<u8>,
    /// The tar's digest.
    pub(crate) diff_id: String,
    /// Its regular files.
    files: BTreeMap<String, Vec<u8>>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) id: String,
    pub(crate) configuration: String,
    pub(crate) manifest: String,
    /// Which of the layers.
    pub(crate) layers: Vec<usize>,
}

impl Image {
    pub(crate) fn media_type() -> String {
        MEDIA_TYPE.to_owned()
    }
}

impl Images {
    /// Makes the layers.
    pub(crate) fn make(random: &mut fastrand::Rng) -> Result<Self> {
        let mut layers = vec![shell()?];
        for number in 0..LAYERS {
            let mut layer = Builder::default();
            layer.directory("data")?;
            for file in 0..FILES {
                let mut contents = vec![0; random.usize(..200_000)];
                random.fill(&mut contents);
                layer.file(&format!("data/{number}-{file}"), 0o644, contents)?;
            }
            layers.push(layer.finish()?);
        }
        Ok(Self { layers })
    }

    pub(crate) fn layer(&self, index: usize) -> Option<&Layer> {
        self.layers.get(index)
    }

    /// The layer with this digest.
    pub(crate) fn by_diff_id(&self, diff_id: &str) -> Option<&Layer> {
        self.layers.iter().find(|layer| layer.diff_id == diff_id)
    }

    /// An image as `docker save` writes it.
    pub(crate) fn archive(&self, image: &Image, tags: &[String]) -> io::Result<Vec<u8>> {
        let mut archive = Builder::default();
        let mut names = Vec::new();
        for index in &image.layers {
            if let Some(layer) = self.layers.get(*index) {
                let name = format!("{index}.tar");
                archive.add(&name, tar::EntryType::Regular, 0o644, &layer.bytes)?;
                names.push(name);
            }
        }
        let name = format!("{}.json", image.id.trim_start_matches("sha256:"));
        let configuration = image.configuration.as_bytes();
        archive.add(&name, tar::EntryType::Regular, 0o644, configuration)?;
        let manifest =
            serde_json::json!([{"Config": name, "RepoTags": tags, "Layers": names}]).to_string();
        let manifest = manifest.as_bytes();
        archive.add("manifest.json", tar::EntryType::Regular, 0o644, manifest)?;
        archive.tar.into_inner()
    }

    /// An image of the shell and some layers of data. `label` makes it one of its
    /// own.
    pub(crate) fn image(&self, random: &mut fastrand::Rng, label: u32) -> Image {
        let mut chosen = vec![0];
        for index in 1..self.layers.len() {
            if random.u32(..3) == 0 {
                chosen.push(index);
            }
        }
        let diff_ids: Vec<&str> = chosen
            .iter()
            .filter_map(|index| Some(self.layers.get(*index)?.diff_id.as_str()))
            .collect();
        let configuration = serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "config": {
                "Cmd": ["sh"], "Env": ["PATH=/bin"],
                "Labels": {"campaign": label.to_string()},
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string();
        let id = digest(configuration.as_bytes());
        let described: Vec<_> = chosen
            .iter()
            .filter_map(|index| self.layers.get(*index))
            .map(|layer| {
                serde_json::json!({
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": layer.diff_id,
                    "size": layer.bytes.len(),
                })
            })
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": id,
                "size": configuration.len(),
            },
            "layers": described,
        })
        .to_string();
        Image {
            id,
            configuration,
            manifest,
            layers: chosen,
        }
    }
}

/// An archive of these files.
pub(crate) fn archive_of(files: BTreeMap<String, Vec<u8>>) -> io::Result<Vec<u8>> {
    let mut archive = Builder::default();
    for (name, contents) in files {
        archive.file(&name, 0o644, contents)?;
    }
    archive.tar.into_inner()
}

impl Layer {
    /// Says what is wrong with an unpacked copy of the layer, if something is.
    pub(crate) fn compare(&self, unpacked: &Path) -> Option<String> {
        self.files
            .iter()
            .find_map(|(name, contents)| match fs::read(unpacked.join(name)) {
                Ok(found) if found == *contents => None,
                Ok(_) => Some(format!("{name} has other contents")),
                Err(error) => Some(format!("{name}: {error}")),
            })
    }
}

/// Debian's static busybox, and what containers of the campaign call of it.
fn shell() -> Result<Layer> {
    let busybox =
        fs::read("/bin/busybox").context("cannot read /bin/busybox (package busybox-static)")?;
    let mut layer = Builder::default();
    layer.directory("bin")?;
    layer.file("bin/busybox", 0o755, busybox)?;
    for applet in ["sh", "echo", "dd", "sleep"] {
        layer.link(&format!("bin/{applet}"), "busybox")?;
    }
    layer.finish()
}

struct Builder {
    tar: tar::Builder<Vec<u8>>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            tar: tar::Builder::new(Vec::new()),
            files: BTreeMap::new(),
        }
    }
}

impl Builder {
    fn directory(&mut self, name: &str) -> io::Result<()> {
        self.add(name, tar::EntryType::Directory, 0o755, &[])
    }

    fn file(&mut self, name: &str, mode: u32, contents: Vec<u8>) -> io::Result<()> {
        self.add(name, tar::EntryType::Regular, mode, &contents)?;
        self.files.insert(name.to_owned(), contents);
        Ok(())
    }

    fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        self.tar.append_link(&mut header, name, target)
    }

    fn add(
        &mut self,
        name: &str,
        kind: tar::EntryType,
        mode: u32,
        contents: &[u8],
    ) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(contents.len() as u64);
        self.tar.append_data(&mut header, name, contents)
    }

    fn finish(self) -> Result<Layer> {
        let bytes = self.tar.into_inner()?;
        Ok(Layer {
            diff_id: digest(&bytes),
            bytes,
            files: self.files,
        })
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
