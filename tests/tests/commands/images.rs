//! pull, images, tag, rmi.

use tests::{
    Installation,
    hostile::{Answer, HostileRegistry},
    images::{ImageParts, Layer, digest},
};

use crate::shared::{Name, dctl, shared};

/// An image of one small file.
fn small_image(content: &str) -> ImageParts {
    let mut layer = Layer::new();
    layer.file("file", 0o644, content.as_bytes());
    ImageParts::new(&[layer.finish()], &serde_json::json!({"Cmd": ["/file"]}))
}

fn installation() -> &'static Installation {
    &shared().installation
}

/// Pulls `repository`, which must fail with `message` and leave no image.
#[track_caller]
fn pull_fails(registry: &HostileRegistry, repository: &str, message: &str) {
    let name = registry.name(repository);
    dctl(&["pull", &name]).fails_with(1, message);
    dctl(&["image", "inspect", &name]).fails_with(1, "No such");
}

#[test]
fn images_are_listed_tagged_and_removed() {
    let shared = shared();
    let listed = dctl(&["images", "--format", "{{.Repository}}:{{.Tag}}"])
        .success()
        .text();
    assert!(
        listed.lines().any(|line| line == shared.busybox),
        "{listed}"
    );
    assert!(listed.lines().any(|line| line == shared.debian), "{listed}");
    dctl(&["tag", &shared.busybox, "renamed:1"]).success();
    dctl(&["run", "--rm", "renamed:1", "true"]).success();
    let removed = dctl(&["rmi", "renamed:1"]).success().text();
    assert_eq!(removed, "Untagged: renamed:1");
    dctl(&["rmi", "renamed:1"]).fails_with(1, "No such image: renamed:1");
}

#[test]
fn an_image_in_use_is_not_removed() {
    let name = Name::new();
    let registry = HostileRegistry::start();
    let image = small_image("in use");
    registry.serve("used", &image);
    let reference = registry.name("used");
    dctl(&["pull", &reference]).success();
    dctl(&["create", "--name", name.as_str(), &reference]).success();
    dctl(&["rmi", &reference]).fails_with(1, "must force");
    dctl(&["rm", name.as_str()]).success();
    let removed = dctl(&["rmi", &reference]).success().text();
    assert!(removed.contains("Untagged: "), "{removed}");
    assert!(removed.contains(&digest(&image.configuration)), "{removed}");
}

#[test]
fn a_second_pull_finds_everything_there() {
    let said = dctl(&["pull", &shared().busybox]).success().text();
    assert!(said.contains("Image is up to date"), "{said}");
}

#[test]
fn an_image_can_be_pulled_by_digest() {
    let registry = HostileRegistry::start();
    let image = small_image("by digest");
    registry.serve("digested", &image);
    let name = format!("{}@{}", registry.name("digested"), digest(&image.manifest));
    dctl(&["pull", &name]).success();
    let id = digest(&image.configuration);
    assert_eq!(installation().inspect(&name, "{{.Id}}"), id);
}

#[test]
fn an_unknown_image_and_a_registry_that_is_down_are_said_so() {
    let nothing = shared().registry.name("nothing");
    dctl(&["pull", &nothing]).fails_with(1, "not found");
    let tag = shared().registry.name("busybox:no-such-tag");
    dctl(&["pull", &tag]).fails_with(1, "not found");
    let address = tests::registry::free_address();
    let down = format!("{address}/x");
    dctl(&["pull", &down]).fails_with(1, "refused");
}

#[test]
fn a_registry_that_wants_a_login_is_said_so() {
    let registry = HostileRegistry::start();
    let refusal = Answer::refusal(
        "401 Unauthorized",
        r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
    )
    .with_header("WWW-Authenticate", r#"Basic realm="test""#);
    registry.set("/v2/", refusal.clone());
    registry.set("/v2/private/manifests/latest", refusal);
    pull_fails(&registry, "private", "unauthorized");
}

#[test]
fn a_manifest_or_layer_with_another_digest_is_refused() {
    let image = small_image("original");
    let registry = HostileRegistry::start();
    registry.serve("forged", &image);
    let mut forged = image.layers[0].clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    registry.set(
        &HostileRegistry::blob_path("forged", &image.layers[0]),
        Answer::good("application/octet-stream", &forged),
    );
    pull_fails(&registry, "forged", "digest");

    registry.serve("config", &image);
    registry.set(
        &HostileRegistry::blob_path("config", &image.configuration),
        Answer::good("application/octet-stream", b"{}"),
    );
    let name = registry.name("config");
    let refused = dctl(&["pull", &name]);
    assert_eq!(refused.code(), 1, "{refused}");
}

#[test]
fn a_truncated_layer_is_an_error() {
    let registry = HostileRegistry::start();
    let image = small_image(&"long enough to be cut in two ".repeat(1000));
    registry.serve("cut", &image);
    let blob = &image.layers[0];
    registry.set(
        &HostileRegistry::blob_path("cut", blob),
        Answer::good("application/octet-stream", blob).truncated(blob.len() / 2),
    );
    let name = registry.name("cut");
    let refused = dctl(&["pull", &name]);
    assert_eq!(refused.code(), 1, "{refused}");
    dctl(&["image", "inspect", &name]).fails_with(1, "No such");
    // Nothing stands in the way of the whole one.
    registry.serve("cut", &image);
    dctl(&["pull", &name]).success();
}

#[test]
fn layers_that_try_to_escape_are_refused() {
    for (repository, path) in [("up", "../../evil"), ("through", "link/evil")] {
        let mut layer = Layer::new();
        layer.symlink("link", "/etc");
        layer.file_at_any_path(path, b"evil");
        let image = ImageParts::new(&[layer.finish()], &serde_json::json!({}));
        let registry = HostileRegistry::start();
        registry.serve(repository, &image);
        pull_fails(&registry, repository, "out of the archive");
    }
    dctl(&["run", "--rm", &shared().busybox, "true"]).success();
}
