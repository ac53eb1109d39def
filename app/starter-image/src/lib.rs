//! Makes the starter image of its program, as an OCI image layout in a tar.
//!
//! The build tool calls [`image`] once; what it returns is embedded in `dctl`.
//! The same program gives the same bytes: nothing of the building machine, its
//! clock or its users is in them.
//!
//! Source: OCI image-spec, `image-layout.md`, `manifest.md`, `config.md`.

use std::io;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// The image's name in the layout's index.
pub const NAME: &str = "hello:latest";

/// Where the program is in the image.
const PROGRAM_PATH: &str = "hello";
/// What time it is in the image: the beginning of 2026, in Unix seconds.
const CREATED: u64 = 1_767_225_600;
const CREATED_TEXT: &str = "2026-01-01T00:00:00Z";

/// The image layout with `program` (a static executable for `architecture`, in
/// Go's words: `amd64`, `arm64`) as its only file and command.
///
/// # Errors
/// None but those of writing to memory.
pub fn image(program: &[u8], architecture: &str) -> io::Result<Vec<u8>> {
    let layer = archive(&[Entry {
        path: PROGRAM_PATH,
        mode: 0o755,
        content: program,
    }])?;
    let layer_digest = digest(&layer);
    let configuration = json!({
        "architecture": architecture,
        "os": "linux",
        "created": CREATED_TEXT,
        "config": {
            "Cmd": [format!("/{PROGRAM_PATH}")],
            "Env": ["PATH=/"],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "hello",
                "org.opencontainers.image.description":
                    "Says what ran where, and what to run next.",
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        "history": [{
            "created": CREATED_TEXT,
            "created_by": "dctl: the starter image",
        }],
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(
            "application/vnd.oci.image.config.v1+json",
            configuration.as_bytes(),
        ),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string();
    let mut named = descriptor(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.as_bytes(),
    );
    named["platform"] = json!({"architecture": architecture, "os": "linux"});
    named["annotations"] = json!({"org.opencontainers.image.ref.name": NAME});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [named],
    })
    .to_string();

    let blob = |content: &[u8]| format!("blobs/sha256/{}", hex::encode(Sha256::digest(content)));
    let file = |path: &'static str, content| Entry {
        path,
        mode: 0o644,
        content,
    };
    let (configuration, manifest) = (configuration.as_bytes(), manifest.as_bytes());
    let blobs = [
        (blob(manifest), manifest),
        (blob(configuration), configuration),
        (blob(&layer), &layer),
    ];
    let mut entries = vec![
        file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        file("index.json", index.as_bytes()),
    ];
    entries.extend(blobs.iter().map(|(path, content)| Entry {
        path,
        mode: 0o644,
        content,
    }));
    archive(&entries)
}

struct Entry<'a> {
    path: &'a str,
    mode: u32,
    content: &'a [u8],
}

fn archive(entries: &[Entry<'_>]) -> io::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(entry.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(CREATED);
        header.set_size(entry.content.len() as u64);
        builder.append_data(&mut header, entry.path, entry.content)?;
    }
    builder.into_inner()
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, io::Read};

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (path, content)
        });
        entries.collect()
    }

    #[test]
    fn every_digest_leads_to_its_blob_and_at_last_to_the_program() {
        let files = files(&image(b"program", "amd64").unwrap());
        let follow = |descriptor: &Value| -> &[u8] {
            let digest = descriptor["digest"].as_str().unwrap();
            let blob = &files[&format!("blobs/{}", digest.replace(':', "/"))];
            assert_eq!(super::digest(blob), digest);
            assert_eq!(descriptor["size"], blob.len());
            blob
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let named = &index["manifests"][0];
        assert_eq!(
            named["annotations"]["org.opencontainers.image.ref.name"],
            NAME
        );
        let manifest: Value = serde_json::from_slice(follow(named)).unwrap();
        let configuration: Value = serde_json::from_slice(follow(&manifest["config"])).unwrap();
        let layer = follow(&manifest["layers"][0]);
        assert_eq!(configuration["rootfs"]["diff_ids"][0], digest(layer));
        let command = configuration["config"]["Cmd"][0].as_str().unwrap();
        assert_eq!(
            self::files(layer)[command.trim_start_matches('/')],
            b"program"
        );
    }

    #[test]
    fn the_same_program_makes_the_same_image() {
        assert_eq!(image(b"x", "amd64").unwrap(), image(b"x", "amd64").unwrap());
        assert_ne!(image(b"x", "amd64").unwrap(), image(b"y", "amd64").unwrap());
    }
}
