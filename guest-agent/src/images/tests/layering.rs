//! Layers on top of each other, seen through a real overlay, against a model of
//! what the OCI image specification says they add up to.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::*;
use crate::images::overlay;

/// One thing that a layer's archive does.
#[derive(Debug, Clone)]
enum Step {
    File {
        path: String,
        content: u8,
        mode: u32,
    },
    Directory {
        path: String,
        mode: u32,
    },
    Symlink {
        path: String,
    },
    HardLink {
        path: String,
        target: String,
    },
    Whiteout {
        path: String,
    },
    Opaque {
        path: String,
    },
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File { content: u8, mode: u32 },
    Directory { mode: u32 },
    Symlink,
}

type Tree = BTreeMap<String, Node>;

fn remove_below(tree: &mut Tree, directory: &str) {
    let prefix = format!("{directory}/");
    tree.retain(|path, _| !(directory.is_empty() || path.starts_with(&prefix)));
}

/// A file or link at `path` in place of whatever is there.
fn put(tree: &mut Tree, path: &str, node: Node) {
    remove_below(tree, path);
    tree.insert(path.to_owned(), node);
}

/// A directory at `path`: what is there stays below it when it is one, too.
fn put_directory(tree: &mut Tree, path: &str, mode: u32) {
    tree.insert(path.to_owned(), Node::Directory { mode });
}

/// Applies a layer's steps to `lower`, and writes those that make sense as an
/// archive.
fn apply(lower: &Tree, steps: &[Step]) -> (Tree, Vec<u8>) {
    let mut hidden = lower.clone();
    let mut own = Tree::new();
    let mut writer = tar();
    for step in steps {
        let (Step::File { path, .. }
        | Step::Directory { path, .. }
        | Step::Symlink { path }
        | Step::HardLink { path, .. }
        | Step::Whiteout { path }
        | Step::Opaque { path }) = step;
        let is_opaque = matches!(step, Step::Opaque { .. });
        // The directories on the way, the opaque one itself included.
        let ways = path.match_indices('/').map(|(end, _)| &path[..end]);
        let ways: Vec<&str> = ways.chain(is_opaque.then_some(path.as_str())).collect();
        let blocked = |way: &&str| matches!(own.get(*way), Some(Node::File { .. } | Node::Symlink));
        if ways.iter().any(blocked) {
            continue;
        }
        // What is below the link goes before it is made: its target must be elsewhere.
        if let Step::HardLink { path, target } = step
            && (!matches!(own.get(target), Some(Node::File { .. }))
                || target.starts_with(&format!("{path}/")))
        {
            continue;
        }
        for way in ways {
            if !way.is_empty() && !own.contains_key(way) {
                put_directory(&mut own, way, 0o755);
            }
        }
        match step {
            Step::File {
                path,
                content,
                mode,
            } => {
                put(
                    &mut own,
                    path,
                    Node::File {
                        content: *content,
                        mode: *mode,
                    },
                );
                let mut header = TarWriter::header(b'0', path.as_bytes(), 1);
                header.set_mode(*mode);
                writer.raw(header, &[*content]);
            }
            Step::Directory { path, mode } => {
                if !matches!(own.get(path), None | Some(Node::Directory { .. })) {
                    hidden.remove(path);
                    remove_below(&mut hidden, path);
                }
                put_directory(&mut own, path, *mode);
                let mut header = TarWriter::header(b'5', path.as_bytes(), 0);
                header.set_mode(*mode);
                writer.raw(header, b"");
            }
            Step::Symlink { path } => {
                put(&mut own, path, Node::Symlink);
                writer.symlink(path, "target");
            }
            Step::HardLink { path, target } => {
                if path != target {
                    let node = own[target].clone();
                    put(&mut own, path, node);
                }
                writer.hard_link(path, target);
            }
            Step::Whiteout { path } => {
                hidden.remove(path);
                remove_below(&mut hidden, path);
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
                writer.file(&format!("{parent}/.wh.{name}"), b"");
            }
            Step::Opaque { path } => {
                remove_below(&mut hidden, path);
                writer.file(&format!("{path}/.wh..wh..opq"), b"");
            }
        }
    }
    let mut merged = hidden;
    for (path, node) in own {
        match (&node, merged.get(&path)) {
            (Node::Directory { mode }, None | Some(Node::Directory { .. })) => {
                put_directory(&mut merged, &path, *mode);
            }
            _ => put(&mut merged, &path, node),
        }
    }
    (merged, writer.end())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let path = || "[abc](/[abc]){0,2}";
    let mode = || prop::sample::select(vec![0o644_u32, 0o755, 0o4755, 0o700]);
    let step = prop_oneof![
        4 => (path(), any::<u8>(), mode())
            .prop_map(|(path, content, mode)| Step::File { path, content, mode }),
        2 => (path(), mode()).prop_map(|(path, mode)| Step::Directory { path, mode }),
        1 => path().prop_map(|path| Step::Symlink { path }),
        1 => (path(), path()).prop_map(|(path, target)| Step::HardLink { path, target }),
        3 => path().prop_map(|path| Step::Whiteout { path }),
        1 => path().prop_map(|path| Step::Opaque { path }),
        1 => Just(Step::Opaque { path: String::new() }),
    ];
    prop::collection::vec(step, 1..8)
}

/// What is at and below `directory`.
fn read(directory: &Path, prefix: &str, tree: &mut Tree) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}/{name}")
        };
        let metadata = fs::symlink_metadata(entry.path()).unwrap();
        let mode = metadata.mode() & 0o7777;
        let node = if metadata.is_dir() {
            read(&entry.path(), &path, tree);
            Node::Directory { mode }
        } else if metadata.is_symlink() {
            Node::Symlink
        } else {
            let content = fs::read(entry.path()).unwrap();
            assert_eq!(metadata.mtime(), 1_000_000_000);
            assert_eq!(content.len(), 1, "{path}");
            Node::File {
                content: content[0],
                mode,
            }
        };
        tree.insert(path, node);
    }
}

/// A mounted overlay, unmounted when it goes out of scope.
struct Mounted {
    target: PathBuf,
}

impl Mounted {
    fn new(fixture: &Fixture, image: &Image) -> Self {
        let container = fixture.directory.path().join("container");
        fs::create_dir(&container).unwrap();
        let target = container.join("rootfs");
        overlay::mount(
            &fixture.store.layers(&image.id).unwrap(),
            &container.join("upper"),
            &container.join("work"),
            &target,
        )
        .unwrap();
        Self { target }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        overlay::unmount(&self.target).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn layers_add_up_to_what_the_specification_says(
        layers in prop::collection::vec(steps(), 1..4)
    ) {
        let fixture = Fixture::new();
        let mut expected = Tree::new();
        let mut archives = Vec::new();
        for steps in &layers {
            let (merged, archive) = apply(&expected, steps);
            fixture.import(&archive).unwrap();
            archives.push(archive);
            expected = merged;
        }
        let archives: Vec<&[u8]> = archives.iter().map(Vec::as_slice).collect();
        let image = fixture.create(&archives, &["x"]).unwrap();
        let mounted = Mounted::new(&fixture, &image);
        let mut found = Tree::new();
        read(&mounted.target, "", &mut found);
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_directory_in_place_of_a_whiteout_shows_nothing_of_the_old_one() {
    let fixture = Fixture::new();
    let lower = tar().file("d/old", b"x").file("e/old", b"x").end();
    let upper = tar()
        .file(".wh.d", b"")
        .directory("d")
        .file("d/new", b"y")
        .directory("e")
        .file("e/new", b"y")
        .file(".wh.e", b"")
        .end();
    fixture.import(&lower).unwrap();
    fixture.import(&upper).unwrap();
    let image = fixture.create(&[&lower, &upper], &["x"]).unwrap();
    let mounted = Mounted::new(&fixture, &image);
    for directory in ["d", "e"] {
        let names: Vec<_> = fs::read_dir(mounted.target.join(directory))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["new"], "{directory}");
    }
}

#[test]
fn a_container_sees_the_overlay_attributes_that_its_image_has() {
    let fixture = Fixture::new();
    let tar = tar()
        .pax(&[(b"SCHILY.xattr.trusted.overlay.opaque", b"y")])
        .directory("inner")
        .end();
    fixture.import(&tar).unwrap();
    let image = fixture.create(&[&tar], &["x"]).unwrap();
    let mounted = Mounted::new(&fixture, &image);
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(
        mounted.target.join("inner"),
        "trusted.overlay.opaque",
        &mut value,
    )
    .unwrap();
    assert_eq!(&value[..length], b"y");
}

#[test]
fn more_layers_than_a_page_of_mount_options_holds() {
    let fixture = Fixture::new();
    let archives: Vec<Vec<u8>> = (0..overlay::MAX_LAYERS)
        .map(|number| tar().file(&format!("file{number}"), b"x").end())
        .collect();
    for archive in &archives {
        fixture.import(archive).unwrap();
    }
    let archives: Vec<&[u8]> = archives.iter().map(Vec::as_slice).collect();
    let image = fixture.create(&archives, &["x"]).unwrap();
    let mounted = Mounted::new(&fixture, &image);
    assert_eq!(
        fs::read_dir(&mounted.target).unwrap().count(),
        overlay::MAX_LAYERS
    );

    let too_many: Vec<&[u8]> = archives.iter().copied().chain([archives[0]]).collect();
    let error = fixture.create(&too_many, &["x"]).unwrap_err();
    assert!(error.message.contains("the kernel takes 500"), "{error}");
}

#[test]
fn a_layer_may_come_twice_in_an_image() {
    let fixture = Fixture::new();
    let one = tar().file("a", b"1").end();
    let two = tar().file("a", b"2").file("b", b"2").end();
    fixture.import(&one).unwrap();
    fixture.import(&two).unwrap();
    let image = fixture.create(&[&one, &two, &one], &["x"]).unwrap();
    assert_eq!(image.size, 3);
    let mounted = Mounted::new(&fixture, &image);
    assert_eq!(fs::read(mounted.target.join("a")).unwrap(), b"1");
    assert_eq!(fs::read(mounted.target.join("b")).unwrap(), b"2");
}

#[test]
fn the_upper_directory_takes_the_writes_and_outlives_the_mount() {
    let fixture = Fixture::new();
    let layer = tar().file("a", b"1").end();
    let files = fixture.import(&layer).unwrap();
    let image = fixture.create(&[&layer], &["x"]).unwrap();
    let mounted = Mounted::new(&fixture, &image);
    let root = fs::metadata(&mounted.target).unwrap();
    assert_eq!(root.mode() & 0o7777, 0o755);
    fs::write(mounted.target.join("a"), "changed").unwrap();
    fs::create_dir(mounted.target.join("new")).unwrap();
    drop(mounted);
    assert_eq!(fs::read(files.join("a")).unwrap(), b"1");
    let upper = fixture.directory.path().join("container/upper");
    assert_eq!(fs::read(upper.join("a")).unwrap(), b"changed");
    assert!(upper.join("new").is_dir());
    // Nothing is mounted any more: no error.
    overlay::unmount(&upper).unwrap();
    overlay::unmount(&upper.join("nothing")).unwrap();
}

#[test]
fn a_mount_that_fails_says_why() {
    let fixture = Fixture::new();
    let at = |name: &str| fixture.directory.path().join(name);
    fs::create_dir(at("lower")).unwrap();
    let error = overlay::mount(
        &[at("lower"), at("lower")],
        &at("upper"),
        &at("work"),
        &at("target"),
    )
    .unwrap_err();
    let target = at("target").display().to_string();
    assert!(error.to_string().contains(&target), "{error}");
}
