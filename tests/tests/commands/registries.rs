//! push, login, search and manifests, with a real registry.

use std::fs;

use serde_json::Value;
use tests::{
    images::{ImageParts, Layer, digest, write_layout},
    registry::Registry,
};

use crate::shared::{dctl, shared};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The digest that a registry has for a name.
fn digest_of(name: &str) -> String {
    let said = dctl(&["manifest", "inspect", "--verbose", name])
        .success()
        .text();
    json(&said)["Descriptor"]["digest"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn an_unchanged_image_keeps_its_digest_in_another_repository() {
    let shared = shared();
    // One that no other test has in another shape.
    let layout = tempfile::tempdir().unwrap();
    let mut layer = Layer::new();
    layer.file("bin/true", 0o755, &fs::read("/bin/busybox").unwrap());
    let config = serde_json::json!({"Labels": {"only": "here"}});
    write_layout(layout.path(), &[layer.finish()], &config);
    shared.registry.push(layout.path(), "unchanged");
    let source = shared.registry.name("unchanged");
    let other = shared.registry.name("copies/unchanged:1");
    dctl(&["pull", "-q", &source]).success();
    dctl(&["tag", &source, &other]).success();
    let said = dctl(&["push", &other]).success().text();
    assert!(said.contains("Mounted from unchanged"), "{said}");
    assert!(said.contains("1: digest: sha256:"), "{said}");
    assert_eq!(digest_of(&other), digest_of(&source));
    let again = dctl(&["push", &other]).success().text();
    assert!(again.contains("Layer already exists"), "{again}");
    let digests = shared.installation.inspect(&other, "{{json .RepoDigests}}");
    assert!(digests.contains("copies/unchanged@sha256:"), "{digests}");
    // What was pushed can be pulled.
    dctl(&["rmi", &other, &source]).success();
    dctl(&["pull", "-q", &other]).success();
    dctl(&["run", "--rm", &other, "/bin/true"]).success();
    dctl(&["rmi", &other]).success();
}

#[test]
fn a_loaded_image_is_compressed_and_pushed() {
    let registry = Registry::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image.tar");
    let mut layer = Layer::new();
    layer.file("zeros", 0o644, &vec![0; 5_000_000]);
    let image = ImageParts::new(&[layer.finish()], &serde_json::json!({}));
    let hostile = tests::hostile::HostileRegistry::start();
    hostile.serve("to-push", &image);
    let source = hostile.name("to-push");
    dctl(&["pull", &source]).success();
    dctl(&["save", "-o", file.to_str().unwrap(), &source]).success();
    dctl(&["rmi", &source]).success();
    dctl(&["load", "-i", file.to_str().unwrap()]).success();
    let (one, two) = (registry.name("new/image:1"), registry.name("new/image:2"));
    dctl(&["tag", &source, &one]).success();
    dctl(&["tag", &source, &two]).success();
    let said = dctl(&["push", "--all-tags", &registry.name("new/image")])
        .success()
        .text();
    assert!(said.contains("Pushed"), "{said}");
    assert!(
        said.contains("1: digest") && said.contains("2: digest"),
        "{said}"
    );
    let manifest = json(&dctl(&["manifest", "inspect", &one]).success().text());
    let pushed = manifest["layers"][0]["size"].as_u64().unwrap();
    assert!(pushed < 100_000, "{manifest}");
    assert_eq!(manifest["config"]["digest"], digest(&image.configuration));
    dctl(&["rmi", &source, &one, &two]).success();
    let said = dctl(&["pull", "-a", &registry.name("new/image")])
        .success()
        .text();
    assert!(said.contains("Downloaded newer image"), "{said}");
    for name in [&one, &two] {
        let id = shared().installation.inspect(name, "{{.Id}}");
        assert_eq!(id, digest(&image.configuration));
        dctl(&["rmi", name]).success();
    }
}

#[test]
fn what_is_not_there_cannot_be_pushed() {
    let name = shared().registry.name("nothing-here:1");
    dctl(&["push", &name]).fails_with(1, "An image does not exist locally with the tag");
    dctl(&["push", "-a", &name]).fails_with(1, "tag can't be used");
}

#[test]
fn a_registry_is_logged_in_to_and_out_of() {
    let registry = Registry::with_login();
    let server = registry.name("x").trim_end_matches("/x").to_owned();
    let name = registry.name("private/busybox:1");
    let dctl = |arguments: &[&str], input: &str| {
        shared()
            .installation
            .dctl_with_input(arguments, input.as_bytes())
    };
    let refused = dctl(
        &["login", "-u", "me", "--password-stdin", &server],
        "wrong\n",
    );
    refused.fails_with(1, "unauthorized");
    let config = shared().installation.home().join(".docker/config.json");
    let knows = |server: &str| {
        fs::read_to_string(&config).is_ok_and(|text| text.contains(&format!("{server:?}")))
    };
    assert!(!knows(&server));
    dctl(&["login", &server], "").fails_with(1, "non TTY");
    let said = dctl(
        &["login", "-u", "me", "--password-stdin", &server],
        "secret\n",
    )
    .success();
    assert_eq!(said.text(), "Login Succeeded");
    assert!(said.error().contains("stored unencrypted"), "{said}");
    let said = dctl(&["login", &server], "").success().text();
    assert!(said.contains("existing credentials") && said.contains("Login Succeeded"));
    assert!(knows(&server));

    dctl(&["tag", &shared().busybox, &name], "").success();
    dctl(&["push", "-q", &name], "").success();
    dctl(&["rmi", &name], "").success();
    dctl(&["pull", &name], "").success();

    let said = dctl(&["logout", &server], "").success().text();
    assert_eq!(said, format!("Removing login credentials for {server}"));
    assert!(!knows(&server));
    let said = dctl(&["logout", &server], "").success().text();
    assert_eq!(said, format!("Not logged in to {server}"));
    dctl(&["push", &name], "").fails_with(1, "docker login");
}

#[test]
fn a_registry_without_an_index_is_searched_by_its_list() {
    let term = shared().registry.name("debia");
    let found = dctl(&["search", "--format", "{{.Name}}", &term])
        .success()
        .text();
    assert_eq!(found, shared().registry.name("library/debian"));
    let nothing = shared().registry.name("no-such-thing");
    let found = dctl(&["search", "--format", "{{.Name}}", &nothing])
        .success()
        .text();
    assert_eq!(found, "");
}

#[test]
fn a_registry_tells_about_an_image_without_a_pull() {
    let manifest = dctl(&["manifest", "inspect", &shared().busybox])
        .success()
        .text();
    assert_eq!(json(&manifest)["schemaVersion"], 2);
    let verbose = dctl(&["manifest", "inspect", "-v", &shared().busybox])
        .success()
        .text();
    assert_eq!(
        json(&verbose)["Descriptor"]["platform"]["architecture"],
        "amd64"
    );
    dctl(&["manifest", "inspect", &shared().registry.name("nothing")]).fails_with(1, "not found");
}
