//! Layers' archives given back, and archives of whole images.

use std::{collections::BTreeMap, fs, io::Cursor};

use guest_protocol::{ErrorKind, image::LoadStep};
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::{Fixture, TarWriter, digest, tar};
use crate::images::load;

impl Fixture {
    /// The tar that the layer with this digest was.
    fn export(&self, diff_id: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.store.export_layer(diff_id, &mut bytes).unwrap();
        assert_eq!(
            self.store.archive_size(diff_id).unwrap(),
            bytes.len() as u64
        );
        bytes
    }

    /// Imports `tar`, which must come back as it is.
    #[track_caller]
    fn round_trip(&self, tar: &[u8]) {
        self.import(tar).unwrap();
        assert!(
            self.export(&digest(tar)) == tar,
            "another archive came back"
        );
    }

    fn save(&self, names: &[&str]) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut bytes = Vec::new();
        self.store.save(&names).unwrap().write(&mut bytes).unwrap();
        bytes
    }

    fn load(&self, archive: Vec<u8>) -> Result<Vec<LoadStep>, guest_protocol::AgentError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let (sender, mut steps) = mpsc::channel(1000);
        let archive = Cursor::new(archive);
        let loading = load(&self.store, archive, "linux/amd64".to_owned(), &sender);
        let result = runtime.block_on(loading);
        // Waits for what the load left to threads.
        drop(runtime);
        drop(sender);
        result?;
        let mut all = Vec::new();
        while let Ok(step) = steps.try_recv() {
            if !matches!(step, LoadStep::Layer { .. }) {
                all.push(step);
            }
        }
        Ok(all)
    }
}

/// The files of a tar.
fn members(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut members = BTreeMap::new();
    for entry in ::tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        members.insert(name, content);
    }
    members
}

/// A tar of these files.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = tar();
    for (name, content) in files {
        writer.file(name, content);
    }
    writer.end()
}

fn configuration(layers: &[&[u8]]) -> String {
    let diff_ids: Vec<String> = layers.iter().map(|tar| digest(tar)).collect();
    serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string()
}

fn loaded(id: &str, name: Option<&str>) -> LoadStep {
    LoadStep::Loaded {
        id: id.to_owned(),
        name: name.map(str::to_owned),
    }
}

#[test]
fn an_archive_comes_back_byte_for_byte() {
    let fixture = Fixture::new();
    let mut writer = tar();
    writer
        .directory("usr/")
        .file("usr/large", &vec![7; 300_000])
        .file("usr/empty", b"")
        .file("odd", b"odd length")
        .hard_link("link", "odd")
        .symlink("symbolic", "usr")
        .pax(&[(b"path", &[b'x'; 200])])
        .file("short", b"with a long name")
        .file(".wh.gone", b"");
    let mut bytes = writer.end();
    // What follows the end belongs to it, too.
    bytes.extend_from_slice(b"trailing rubbish");
    fixture.round_trip(&bytes);
    let layer = fixture.files(&digest(&bytes));
    assert!(!layer.with_file_name("kept").exists());
}

#[test]
fn contents_that_the_archive_replaces_come_back_too() {
    let fixture = Fixture::new();
    let mut writer = tar();
    writer
        .file("twice", b"first")
        .file("twice", b"second")
        .hard_link("also", "twice")
        .file("twice", b"third")
        .directory("d/")
        .directory("d/deep/")
        .file("d/deep/file", b"below")
        .file("d/deep/empty", b"")
        .hard_link("d/again", "d/deep/file")
        .file("d", b"a file now")
        .file("real/x", b"x")
        .symlink("way", "real")
        .file("way/through", b"a link")
        .symlink("way", "elsewhere")
        .file("real/through", b"another");
    let bytes = writer.end();
    fixture.round_trip(&bytes);
    let files = fixture.files(&digest(&bytes));
    assert_eq!(fs::read(files.join("twice")).unwrap(), b"third");
    assert_eq!(fs::read(files.join("also")).unwrap(), b"second");
}

#[test]
fn sparse_files_come_back() {
    let fixture = Fixture::new();
    let mut writer = tar();
    let size = (1_u64 << 33).to_string();
    writer
        .pax(&[
            (b"GNU.sparse.major", b"0"),
            (b"GNU.sparse.minor", b"1"),
            (b"GNU.sparse.realsize", size.as_bytes()),
            (b"GNU.sparse.map", b"4096,5,1048576,6"),
        ])
        .file("sparse", b"helloworld!");
    fixture.round_trip(&writer.end());
}

#[test]
fn a_layer_without_a_recipe_says_what_to_do() {
    let fixture = Fixture::new();
    let mut writer = tar();
    let bytes = writer.file("f", b"x").end();
    let files = fixture.import(&bytes).unwrap();
    fs::remove_file(files.with_file_name("recipe")).unwrap();
    let error = fixture.store.archive_size(&digest(&bytes)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.contains("pull them again"), "{error}");
}

#[test]
fn a_layer_that_was_changed_on_the_disk_is_noticed() {
    let fixture = Fixture::new();
    let mut writer = tar();
    let bytes = writer.file("f", b"right").end();
    let files = fixture.import(&bytes).unwrap();
    fs::write(files.join("f"), b"wrong").unwrap();
    let error = fixture
        .store
        .export_layer(&digest(&bytes), &mut Vec::new())
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    fs::write(files.join("f"), b"x").unwrap();
    let error = fixture
        .store
        .export_layer(&digest(&bytes), &mut Vec::new())
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::System);
}

#[test]
fn what_is_saved_loads_elsewhere_with_the_same_id() {
    let from = Fixture::new();
    let lower = tar().file("a", b"lower").end();
    let upper = tar().file("b", &[3; 5000]).end();
    from.import(&lower).unwrap();
    from.import(&upper).unwrap();
    let image = from
        .create(&[&lower, &upper], &["a:1", "a:2", "b:1"])
        .unwrap();
    let saved = from.save(&["a", "b:1"]);
    // The same again, and each blob once.
    assert!(saved == from.save(&["a:1", "a:2", "b:1"]));
    let files = members(&saved);
    let names: Vec<_> = files.keys().collect();
    assert_eq!(names.len(), 2 + 4 + 4, "{names:?}");
    let top: serde_json::Value = serde_json::from_slice(&files["repositories"]).unwrap();
    assert_eq!(
        top["a"]["1"].as_str().unwrap(),
        digest(&upper).strip_prefix("sha256:").unwrap()
    );

    let to = Fixture::new();
    let steps = to.load(saved).unwrap();
    let names = ["a:1", "a:2", "b:1"];
    assert_eq!(steps, names.map(|name| loaded(&image.id, Some(name))));
    assert_eq!(to.export(&digest(&upper)), upper);
    // Nothing of the archive is left.
    let left = fs::read_dir(to.data().join("loading")).unwrap().count();
    assert_eq!(left, 0);

    let untagged = from.save(&[&image.id]);
    let steps = Fixture::new().load(untagged).unwrap();
    assert_eq!(steps, [loaded(&image.id, None)]);
}

#[test]
fn an_oci_layout_without_manifest_json_is_loaded() {
    let from = Fixture::new();
    let layer = tar().file("a", b"x").end();
    from.import(&layer).unwrap();
    let image = from.create(&[&layer], &["one:1", "two:2"]).unwrap();
    let files = members(&from.save(&["one:1", "two:2"]));
    let only: Vec<(&str, &[u8])> = files
        .iter()
        .filter(|(name, _)| name.len() > "blobs/sha256/".len() || *name == "index.json")
        .map(|(name, content)| (name.as_str(), content.as_slice()))
        .collect();
    let steps = Fixture::new().load(archive(&only)).unwrap();
    assert_eq!(
        steps,
        [
            loaded(&image.id, Some("one:1")),
            loaded(&image.id, Some("two:2"))
        ]
    );
}

#[test]
fn the_old_layout_with_links_between_layers_is_loaded() {
    let layer = tar().file("a", b"x").end();
    let text = configuration(&[&layer, &layer]);
    let id = digest(text.as_bytes());
    let name = format!("{}.json", id.strip_prefix("sha256:").unwrap());
    let manifest = serde_json::json!([{
        "Config": name, "RepoTags": ["old:style"],
        "Layers": ["0a/layer.tar", "0b/layer.tar"],
    }])
    .to_string();
    let mut writer = tar();
    writer
        .directory("0a/")
        .file("0a/VERSION", b"1.0")
        .file("0a/layer.tar", &layer)
        .symlink("0b/layer.tar", "../0a/layer.tar")
        .file("repositories", b"{}")
        .file(&name, text.as_bytes())
        .file("manifest.json", manifest.as_bytes());
    let bytes = writer.end();
    let mut compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut compressed, &bytes).unwrap();
    for bytes in [
        bytes.clone(),
        compressed.finish().unwrap(),
        zstd::encode_all(&bytes[..], 1).unwrap(),
    ] {
        let fixture = Fixture::new();
        let steps = fixture.load(bytes).unwrap();
        assert_eq!(steps, [loaded(&id, Some("old:style"))]);
    }
}

#[test]
fn a_name_that_moves_is_told() {
    let fixture = Fixture::new();
    let old = tar().file("a", b"old").end();
    fixture.import(&old).unwrap();
    let before = fixture.create(&[&old], &["x:1"]).unwrap();
    let layer = tar().file("a", b"new").end();
    let text = configuration(&[&layer]);
    let manifest = r#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l.tar"]}]"#.as_bytes();
    let files: [(&str, &[u8]); 3] = [
        ("l.tar", &layer),
        ("c.json", text.as_bytes()),
        ("manifest.json", manifest),
    ];
    let steps = fixture.load(archive(&files)).unwrap();
    assert_eq!(
        steps,
        [
            LoadStep::Renamed {
                name: "x:1".into(),
                id: before.id
            },
            loaded(&digest(text.as_bytes()), Some("x:1"))
        ]
    );
}

#[test]
fn archives_that_are_not_what_they_say_are_refused() {
    let layer = tar().file("a", b"x").end();
    let text = configuration(&[&layer]);
    let wrong = format!("blobs/sha256/{}", "0".repeat(64));
    let wrong_configuration = format!("{}.json", "0".repeat(64));
    let named = format!(r#"[{{"Config":"{wrong_configuration}","Layers":["l"]}}]"#);
    let item = |layers: &str| format!(r#"[{{"Config":"c","Layers":[{layers}]}}]"#);
    let (good, missing, many) = (item(r#""l""#), item(r#""m""#), item(r#""l","l""#));
    let name = r#"[{"Config":"c","RepoTags":["UPPER"],"Layers":["l"]}]"#;
    let manifest = |text| ("manifest.json", str::as_bytes(text));
    let (c, l) = (("c", text.as_bytes()), ("l", layer.as_slice()));
    let other = tar().file("a", b"y").end();
    let looping = tar()
        .file("manifest.json", good.as_bytes())
        .symlink("c", "c")
        .end();
    let climbing = tar().file("../c", b"x").end();
    let device = tar().link(b'3', "c", "x").end();
    for (bytes, message) in [
        (
            archive(&[l, c]),
            "neither a manifest.json nor an index.json",
        ),
        (archive(&[manifest("{}")]), "manifest.json"),
        (archive(&[manifest("[]")]), "no images"),
        (archive(&[manifest(&good), l]), "c is missing"),
        (
            archive(&[manifest(&missing), c, l]),
            "the layer m is missing",
        ),
        (archive(&[manifest(&many), c, l]), "has 2 layers"),
        (archive(&[manifest(name), c, l]), "UPPER"),
        (archive(&[(&wrong, b"x")]), "does not have the digest"),
        (
            archive(&[manifest(&named), (&wrong_configuration, c.1), l]),
            "has digest",
        ),
        (
            archive(&[manifest(&good), c, ("l", &other)]),
            "not what its image says",
        ),
        (looping, "c is missing"),
        (climbing, "leads out"),
        (device, "neither a plain file nor a link"),
        (
            archive(&[manifest(&good), c, l])[..700].to_vec(),
            "truncated",
        ),
        (b"no archive at all".repeat(100), "invalid image archive"),
        (b"\xfd7zXZ\0".to_vec(), "truncated or damaged"),
    ] {
        let fixture = Fixture::new();
        let error = fixture.load(bytes).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
        assert!(error.message.contains(message), "{message}: {error}");
        assert!(fixture.store.list().unwrap().is_empty());
        let left = fs::read_dir(fixture.data().join("loading"))
            .unwrap()
            .count();
        assert_eq!(left, 0, "{message}");
    }
}

#[test]
fn an_interrupted_load_leaves_nothing_after_a_start() {
    let fixture = Fixture::new();
    let loading = fixture.data().join("loading/0123");
    fs::create_dir_all(&loading).unwrap();
    fs::write(loading.join("0"), "half").unwrap();
    let fixture = fixture.reopened();
    assert!(!fixture.data().join("loading/0123").exists());
}

/// An entry of a tar that a test makes up.
#[derive(Debug, Clone)]
enum Made {
    File(String, Vec<u8>),
    Directory(String),
    Symlink(String, String),
    HardLink(String, String),
}

fn made() -> impl Strategy<Value = Made> {
    // Few names, so that entries meet.
    let path = || "(a|b|\\.wh\\.a|a/b|b/a|a/b/c|l|l/a)";
    prop_oneof![
        4 => (path(), prop::collection::vec(any::<u8>(), 0..1500))
            .prop_map(|(path, content)| Made::File(path, content)),
        2 => path().prop_map(Made::Directory),
        1 => (path(), path()).prop_map(|(path, target)| Made::Symlink(path, target)),
        1 => (path(), path()).prop_map(|(path, target)| Made::HardLink(path, target)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever archive is accepted is given back as it was.
    #[test]
    fn any_accepted_archive_comes_back(
        entries in prop::collection::vec(made(), 0..12),
        trailing in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut writer = TarWriter::default();
        for entry in &entries {
            match entry {
                Made::File(path, content) => writer.file(path, content),
                Made::Directory(path) => writer.directory(path),
                Made::Symlink(path, target) => writer.symlink(path, target),
                Made::HardLink(path, target) => writer.hard_link(path, target),
            };
        }
        let mut bytes = writer.end();
        bytes.extend(trailing);
        let fixture = Fixture::new();
        if fixture.import(&bytes).is_ok() {
            prop_assert!(fixture.export(&digest(&bytes)) == bytes);
        } else {
            fixture.assert_nothing_left();
        }
    }
}

#[test]
fn where_layers_are_is_remembered_as_long_as_they_are_here() {
    let fixture = Fixture::new();
    let layer = tar().file("a", b"x").end();
    fixture.import(&layer).unwrap();
    let image = fixture.create(&[&layer], &["a:1"]).unwrap();
    let diff_id = digest(&layer);
    let blob = |repository: &str| guest_protocol::image::LayerBlob {
        diff_id: diff_id.clone(),
        digest: digest(b"compressed"),
        size: 10,
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
        repository: repository.into(),
    };
    let unknown = guest_protocol::image::LayerBlob {
        diff_id: digest(b"unknown"),
        ..blob("localhost:5000/a")
    };
    let both = [blob("localhost:5000/a"), unknown];
    fixture.store.keep_blobs(&both).unwrap();
    let manifest = super::manifest_of(&configuration(&[&layer]));
    let call = guest_protocol::methods::ImagePushed {
        reference: "a:1".into(),
        name: format!("localhost:5000/b@{}", digest(manifest.as_bytes())),
        manifest_media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        manifest,
        blobs: vec![blob("localhost:5000/b")],
    };
    let wrong = guest_protocol::methods::ImagePushed {
        name: format!("localhost:5000/b@{}", digest(b"other")),
        ..call.clone()
    };
    assert!(fixture.store.pushed(&wrong).is_err());
    assert_eq!(fixture.store.pushed(&call).unwrap(), image.id);
    let image = fixture.store.resolve("a:1").unwrap();
    assert_eq!(image.repo_digests, [call.name]);
    let ids = [diff_id.clone(), digest(b"unknown")];
    let known = fixture.store.blobs(&ids).unwrap();
    assert_eq!(known, [blob("localhost:5000/a"), blob("localhost:5000/b")]);
    fixture
        .store
        .remove(&image.id, true, &|_| Vec::new())
        .unwrap();
    assert!(fixture.store.blobs(&ids).unwrap().is_empty());
}

#[test]
fn shared_layers_are_counted_once() {
    let fixture = Fixture::new();
    let shared = tar().file("a", &[1; 1000]).end();
    let own = tar().file("b", &[2; 50]).end();
    fixture.import(&shared).unwrap();
    fixture.import(&own).unwrap();
    let small = fixture.create(&[&shared], &["a:1"]).unwrap();
    let large = fixture.create(&[&shared, &own], &["b:1"]).unwrap();
    let usage = fixture.store.usage().unwrap();
    assert_eq!(usage.layers_size, 1050);
    assert_eq!(
        (usage.shared[&small.id], usage.shared[&large.id]),
        (1000, 1000)
    );
    assert_eq!(large.layers.len(), 2);
    assert_eq!(large.layers[1].size, 50);
}
