//! Names, what uses what, and what a crash leaves.

use std::{cell::RefCell, collections::BTreeSet, fs, thread, time::Duration};

use guest_protocol::{ErrorKind, image::Removed};

use super::*;
use crate::images::ImageUser;

const NOBODY: &dyn Fn(&str) -> Vec<ImageUser> = &|_| Vec::new();

fn user(running: bool) -> ImageUser {
    ImageUser {
        container_id: "c0ffee".repeat(10),
        running,
    }
}

/// A fixture with an image `busybox:latest` of one layer.
fn with_busybox() -> (Fixture, Image, Vec<u8>) {
    let fixture = Fixture::new();
    let layer = tar().file("bin/sh", b"shell").end();
    fixture.import(&layer).unwrap();
    let names = ["busybox", &format!("busybox@{}", digest(b"manifest"))];
    let image = fixture.create(&[&layer], &names).unwrap();
    (fixture, image, layer)
}

/// Waits for the background's deletions.
fn assert_trash_gets_empty(fixture: &Fixture) {
    for _ in 0..1000 {
        if fs::read_dir(fixture.data().join("trash")).unwrap().count() == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("the trash is still full");
}

#[test]
fn an_image_is_found_by_every_way_to_name_it() {
    let (fixture, image, _) = with_busybox();
    let hex = image.id.strip_prefix("sha256:").unwrap();
    for reference in [
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        "library/busybox:latest",
        &format!("busybox@{}", digest(b"manifest")),
        &format!("busybox:other@{}", digest(b"manifest")),
        &image.id,
        hex,
        &hex[..12],
        &format!("sha256:{}", &hex[..5]),
    ] {
        assert_eq!(
            fixture.store.resolve(reference).unwrap(),
            image,
            "{reference}"
        );
    }
    assert_eq!(image.repo_tags, ["busybox:latest"]);
    assert_eq!(
        image.repo_digests,
        [format!("busybox@{}", digest(b"manifest"))]
    );
    assert_eq!(image.size, 5);
    assert_eq!(fixture.store.list().unwrap(), [image]);
}

#[test]
fn an_image_that_comes_again_otherwise_keeps_the_manifest_it_was_pulled_with() {
    let (fixture, image, _) = with_busybox();
    let configuration = image.configuration.to_string();
    let come = |manifest: &str, names: &[&str]| {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        fixture
            .store
            .create(&configuration, "application/json", manifest, &names)
    };
    // Written differently, it says the same.
    let loaded = format!(" {}", manifest_of(&configuration));
    let again = come(&loaded, &["loaded:1"]).unwrap();
    assert_eq!(again.id, image.id);
    assert_eq!(again.manifest_digest, image.manifest_digest);
    let name = format!("pulled@{}", digest(loaded.as_bytes()));
    let pulled = come(&loaded, &[&name]).unwrap();
    assert_eq!(pulled.manifest_digest, digest(loaded.as_bytes()));
}

#[test]
fn what_does_not_exist_is_said_so_in_dockers_words() {
    let (fixture, _, _) = with_busybox();
    for (reference, kind, message) in [
        ("nope", ErrorKind::NotFound, "No such image: nope:latest"),
        ("busybox:2", ErrorKind::NotFound, "No such image: busybox:2"),
        ("Bad", ErrorKind::InvalidParameter, "must be lowercase"),
        (
            "a b",
            ErrorKind::InvalidParameter,
            "invalid reference format",
        ),
        ("", ErrorKind::InvalidParameter, "invalid reference format"),
    ] {
        let error = fixture.store.resolve(reference).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(message), "{error}");
        assert_eq!(fixture.store.tag(reference, "x").unwrap_err().kind, kind);
        let removed = fixture.store.remove(reference, false, NOBODY);
        assert_eq!(removed.unwrap_err().kind, kind);
    }
}

#[test]
fn an_ambiguous_beginning_of_an_id_is_refused() {
    let fixture = Fixture::new();
    let layer = tar().file("a", b"x").end();
    fixture.import(&layer).unwrap();
    // Of seventeen ids two begin alike.
    let mut first_digits = BTreeSet::new();
    let ambiguous = (0..17).find_map(|number| {
        let configuration = serde_json::json!({
            "number": number,
            "rootfs": {"diff_ids": [digest(&layer)]},
        })
        .to_string();
        let image = fixture
            .store
            .create(&configuration, "x", &manifest_of(&configuration), &[])
            .unwrap();
        let digit = image.id.chars().nth("sha256:".len()).unwrap();
        (!first_digits.insert(digit)).then_some(digit)
    });
    let error = fixture
        .store
        .resolve(&format!("sha256:{}", ambiguous.unwrap()))
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidParameter);
    assert!(error.message.contains("ambiguous"), "{error}");
}

#[test]
fn a_name_moves_to_the_image_that_was_given_it_last() {
    let (fixture, old, layer) = with_busybox();
    let other = tar().file("bin/sh", b"newer").end();
    fixture.import(&other).unwrap();
    let new = fixture.create(&[&layer, &other], &["busybox"]).unwrap();
    assert_ne!(old.id, new.id);
    assert_eq!(fixture.store.resolve("busybox").unwrap().id, new.id);
    assert!(fixture.store.resolve(&old.id).unwrap().repo_tags.is_empty());
    fixture.store.tag(&old.id, "me/old:1").unwrap();
    assert_eq!(fixture.store.resolve("me/old:1").unwrap().id, old.id);
    let digest_name = format!("x@{}", digest(b"x"));
    assert!(fixture.store.tag("busybox", &digest_name).is_err());
}

#[test]
fn an_image_needs_its_layers_and_a_manifest_that_names_it() {
    let fixture = Fixture::new();
    let layer = tar().file("a", b"x").end();
    let error = fixture.create(&[&layer], &["x"]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    assert!(error.message.contains("pull the image again"), "{error}");

    fixture.import(&layer).unwrap();
    let configuration = format!(r#"{{"rootfs":{{"diff_ids":["{}"]}}}}"#, digest(&layer));
    let create = |configuration: &str, manifest: &str, names: &[String]| {
        fixture
            .store
            .create(configuration, "x", manifest, names)
            .unwrap_err()
            .kind
    };
    let manifest = manifest_of(&configuration);
    assert_eq!(create("{", &manifest, &[]), ErrorKind::Corrupt);
    assert_eq!(create(&configuration, "{}", &[]), ErrorKind::Corrupt);
    let none = r#"{"rootfs":{"diff_ids":[]}}"#;
    assert_eq!(create(none, &manifest_of(none), &[]), ErrorKind::Corrupt);
    let path = r#"{"rootfs":{"diff_ids":["../../x"]}}"#;
    assert_eq!(create(path, &manifest_of(path), &[]), ErrorKind::Corrupt);
    let other = manifest_of("another");
    assert_eq!(create(&configuration, &other, &[]), ErrorKind::Corrupt);
    assert_eq!(
        create(&configuration, &manifest, &["Bad".into()]),
        ErrorKind::InvalidParameter
    );
    assert!(fixture.store.list().unwrap().is_empty());
}

#[test]
fn removal_deletes_the_layers_that_nothing_else_uses() {
    let (fixture, image, shared) = with_busybox();
    let own = tar().file("own", b"x").end();
    fixture.import(&own).unwrap();
    let other = fixture.create(&[&shared, &own], &["other"]).unwrap();

    let removed = fixture.store.remove("other", false, NOBODY).unwrap();
    assert_eq!(
        removed,
        [
            Removed::Untagged("other:latest".into()),
            Removed::Deleted(other.id),
            Removed::Deleted(digest(&own)),
        ]
    );
    assert!(!fixture.files(&digest(&own)).exists());
    assert!(fixture.files(&digest(&shared)).exists());
    let removed = fixture
        .store
        .remove(&image.id[..20], false, NOBODY)
        .unwrap();
    assert_eq!(removed.len(), 4, "{removed:?}");
    assert!(!fixture.files(&digest(&shared)).exists());
    assert!(fixture.store.list().unwrap().is_empty());
    assert_trash_gets_empty(&fixture);
}

#[test]
fn an_image_removed_by_force_serves_its_containers_until_the_last_is_gone() {
    let (fixture, image, _) = with_busybox();
    let containers = RefCell::new(vec![user(false)]);
    let users = |id: &str| {
        assert_eq!(id, image.id);
        containers.borrow().clone()
    };
    let error = fixture.store.remove("busybox", false, &users).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    fixture.store.remove("busybox", true, &users).unwrap();
    assert!(fixture.store.list().unwrap().is_empty());
    assert_eq!(
        fixture.store.resolve(&image.id).unwrap_err().kind,
        ErrorKind::NotFound
    );
    let layers = fixture.store.layers(&image.id).unwrap();
    assert!(layers[0].join("bin/sh").exists());
    fixture.store.collect(&users).unwrap();
    assert!(layers[0].exists());
    containers.borrow_mut().clear();
    fixture.store.collect(&users).unwrap();
    assert!(!layers[0].exists());
    assert!(fixture.store.layers(&image.id).is_err());
}

#[test]
fn a_running_container_keeps_its_image_whatever_the_force() {
    let (fixture, image, _) = with_busybox();
    let users = |_: &str| vec![user(true)];
    let error = fixture.store.remove(&image.id, true, &users).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    // By name it loses only the name.
    let removed = fixture.store.remove("busybox", true, &users).unwrap();
    assert!(
        removed
            .iter()
            .all(|one| matches!(one, Removed::Untagged(_)))
    );
    assert!(
        fixture
            .store
            .resolve(&image.id)
            .unwrap()
            .repo_tags
            .is_empty()
    );
}

#[test]
fn layers_of_a_pull_under_way_are_not_collected() {
    let (fixture, _, layer) = with_busybox();
    // A second pull asks what it needs, and finds the layer there.
    assert!(fixture.store.missing(&[digest(&layer)]).unwrap().is_empty());
    let coming = tar().file("coming", b"x").end();
    fixture.import(&coming).unwrap();
    fixture.store.remove("busybox", false, NOBODY).unwrap();
    fixture.create(&[&layer, &coming], &["second"]).unwrap();
}

#[test]
fn identical_imports_at_the_same_time_share_one() {
    let fixture = Fixture::new();
    let tar = tar().file("a", &[1; 10_000]).end();
    let layer = descriptor(&tar);
    fixture.runtime.block_on(async {
        let first = fixture.store.reserve_layer(&layer).await.unwrap().unwrap();
        let second = fixture.store.reserve_layer(&layer);
        let import = async { first.import(&mut tar.as_slice()).await.unwrap() };
        let (imported, second) = tokio::join!(import, second);
        assert_eq!(imported.size, 10_000);
        assert!(second.unwrap().is_none());
    });
}

#[test]
fn when_the_first_of_two_imports_fails_the_second_takes_over() {
    let fixture = Fixture::new();
    let tar = tar().file("a", &[1; 10_000]).end();
    let layer = descriptor(&tar);
    fixture.runtime.block_on(async {
        let first = fixture.store.reserve_layer(&layer).await.unwrap().unwrap();
        let second = fixture.store.reserve_layer(&layer);
        let import = async { first.import(&mut &tar[..100]).await };
        let (failed, second) = tokio::join!(import, second);
        assert!(failed.is_err());
        let second = second.unwrap().unwrap();
        second.import(&mut tar.as_slice()).await.unwrap();
    });
}

#[test]
fn what_was_done_is_there_after_a_crash_and_what_was_not_leaves_nothing() {
    let (fixture, image, layer) = with_busybox();
    let layers = fixture.data().join("layers");
    // What kills between the steps of an import and of a removal leave.
    fs::create_dir_all(layers.join("tmp-0/fs/half")).unwrap();
    fs::create_dir_all(layers.join(format!("sha256-{}", "0".repeat(64))).join("fs")).unwrap();
    fs::create_dir_all(fixture.data().join("trash/3/deep")).unwrap();
    // A layer that no image came to use.
    let unused = tar().file("unused", b"x").end();
    fixture.import(&unused).unwrap();

    let fixture = fixture.reopened();
    assert_eq!(fixture.store.list().unwrap(), std::slice::from_ref(&image));
    assert!(fixture.files(&digest(&layer)).join("bin/sh").exists());
    assert_eq!(fs::read_dir(&layers).unwrap().count(), 1);
    assert_trash_gets_empty(&fixture);
    assert_eq!(
        fixture.store.missing(&[digest(&unused)]).unwrap(),
        [digest(&unused)]
    );
}

#[test]
fn a_layer_lost_from_the_disk_is_missing_and_can_be_pulled_again() {
    let (fixture, image, layer) = with_busybox();
    fs::remove_dir_all(fixture.files(&digest(&layer)).parent().unwrap()).unwrap();
    let fixture = fixture.reopened();
    assert_eq!(
        fixture.store.missing(&[digest(&layer)]).unwrap(),
        [digest(&layer)]
    );
    let error = fixture.store.layers(&image.id).unwrap_err();
    assert!(error.message.contains("pull the image again"), "{error}");
    fixture.import(&layer).unwrap();
    assert_eq!(fixture.store.layers(&image.id).unwrap().len(), 1);
}
