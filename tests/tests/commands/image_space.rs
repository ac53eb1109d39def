//! history, prune, system df, and images for another architecture.

use std::{fs, process::Command};

use tests::{
    command::{LONG, run},
    hostile::HostileRegistry,
    images::{ImageParts, Layer},
};

use crate::shared::{Name, dctl, shared};

#[test]
fn history_shows_the_size_of_each_layer() {
    let mut small = Layer::new();
    small.file("a", 0o644, &[1; 1000]);
    let mut large = Layer::new();
    large.file("b", 0o644, &vec![2; 50_000]);
    let image = ImageParts::new(&[small.finish(), large.finish()], &serde_json::json!({}));
    let registry = HostileRegistry::start();
    registry.serve("history", &image);
    let name = registry.name("history");
    dctl(&["pull", &name]).success();
    let sizes = dctl(&["history", "--format", "{{.Size}}", &name]).success();
    assert_eq!(sizes.text(), "50kB\n1kB");
    let bytes = dctl(&[
        "image",
        "history",
        "--human=false",
        "--format",
        "{{.Size}}",
        &name,
    ]);
    assert_eq!(bytes.success().text(), "50000\n1000");
    let ids = dctl(&["history", "-q", "--no-trunc", &name])
        .success()
        .text();
    assert!(ids.starts_with("sha256:"), "{ids}");
    let table = dctl(&["history", &name]).success().text();
    assert!(table.starts_with("IMAGE "), "{table}");
    dctl(&["history", "no-such-image"]).fails_with(1, "No such image");
    dctl(&["rmi", &name]).success();
}

#[test]
fn only_images_without_name_and_container_are_pruned() {
    let mut layer = Layer::new();
    layer.file("dangling", 0o644, b"x");
    let labels = serde_json::json!({"Labels": {"prune": "me"}});
    let image = ImageParts::new(&[layer.finish()], &labels);
    let registry = HostileRegistry::start();
    registry.serve("dangling", &image);
    let name = registry.name("dangling");
    dctl(&["pull", &name]).success();
    let id = shared().installation.inspect(&name, "{{.Id}}");
    let label = "label=prune=me";
    // It has a name.
    let said = dctl(&["image", "prune", "-f", "--filter", label]).success();
    assert_eq!(said.text(), "Total reclaimed space: 0B");
    let container = Name::new();
    dctl(&["create", "--name", container.as_str(), &name, "x"]).success();
    let said = dctl(&["image", "prune", "-af", "--filter", label]).success();
    assert_eq!(said.text(), "Total reclaimed space: 0B");
    let used = dctl(&["system", "df", "-v"]).success().text();
    assert!(
        used.contains("CONTAINER ID") && used.contains(container.as_str()),
        "{used}"
    );
    dctl(&["rm", container.as_str()]).success();
    // Asks first, and the end of the input is a no.
    dctl(&["image", "prune", "-a", "--filter", label]).fails_with(1, "cancelled");
    let said = dctl(&["system", "prune", "-af", "--filter", label]).success();
    assert!(said.text().contains(&format!("deleted: {id}")), "{said}");
    dctl(&["image", "inspect", &name]).fails_with(1, "No such");
}

#[test]
fn layers_that_images_share_are_reclaimed_once() {
    let mut common = Layer::new();
    common.file("common", 0o644, &vec![1; 40_000]);
    let common = common.finish();
    let registry = HostileRegistry::start();
    for (name, size) in [("shares-a", 1000), ("shares-b", 2000)] {
        let mut own = Layer::new();
        own.file(name, 0o644, &vec![2; size]);
        let labels = serde_json::json!({"Labels": {"prune": "sharing"}});
        let image = ImageParts::new(&[common.clone(), own.finish()], &labels);
        registry.serve(name, &image);
        dctl(&["pull", &registry.name(name)]).success();
    }
    let prune = ["image", "prune", "-af", "--filter", "label=prune=sharing"];
    let said = dctl(&prune).success().text();
    assert!(said.ends_with("Total reclaimed space: 43kB"), "{said}");
}

#[test]
fn df_counts_images_containers_and_volumes() {
    let table = dctl(&["system", "df"]).success().text();
    for kind in [
        "TYPE",
        "Images",
        "Containers",
        "Local Volumes",
        "Build Cache",
    ] {
        assert!(table.contains(kind), "{table}");
    }
    let images = dctl(&["system", "df", "--format", "{{.Type}} {{.TotalCount}}"])
        .success()
        .text();
    assert!(!images.contains("Images 0"), "{images}");
}

/// A static program for arm64 that says where it runs.
const PROGRAM: &str = r#"
static long call(long number, long a, long b, long c) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
void _start(void) {
    static char names[6][65];
    call(160, (long)names, 0, 0);
    long length = 0;
    while (names[4][length]) length++;
    names[4][length] = '\n';
    call(64, 1, (long)names[4], length + 1);
    call(93, 7, 0, 0);
}
"#;

#[test]
fn an_image_for_arm64_runs_with_an_emulator() {
    let directory = tempfile::tempdir().unwrap();
    let (source, program) = (directory.path().join("x.c"), directory.path().join("x"));
    fs::write(&source, PROGRAM).unwrap();
    run(
        Command::new("aarch64-linux-gnu-gcc")
            .args(["-static", "-nostdlib", "-O1", "-ffreestanding", "-o"])
            .args([&program, &source]),
        b"",
        LONG,
    )
    .success();
    let mut layer = Layer::new();
    layer.file("x", 0o755, &fs::read(&program).unwrap());
    let config = serde_json::json!({"Entrypoint": ["/x"]});
    let image = ImageParts::for_architecture("arm64", &[layer.finish()], &config);
    let registry = HostileRegistry::start();
    registry.serve("foreign", &image);
    let name = registry.name("foreign");
    dctl(&["pull", "--platform", "linux/arm64", &name]).success();
    let ran = dctl(&["run", "--rm", "--platform", "linux/arm64", &name]);
    assert_eq!((ran.code(), ran.text().as_str()), (7, "aarch64"), "{ran}");
    let warned = dctl(&["run", "--rm", &name]);
    assert_eq!(warned.code(), 7, "{warned}");
    assert!(
        warned
            .error()
            .contains("does not match the detected host platform"),
        "{warned}"
    );
    dctl(&["rmi", &name]).success();
}

#[test]
fn an_architecture_that_nothing_runs_is_said_so() {
    let mut layer = Layer::new();
    layer.file("x", 0o755, b"x");
    let config = serde_json::json!({"Cmd": ["/x"]});
    let image = ImageParts::for_architecture("pdp11", &[layer.finish()], &config);
    let registry = HostileRegistry::start();
    registry.serve("pdp11", &image);
    let name = registry.name("pdp11");
    dctl(&["pull", "--platform", "linux/pdp11", &name]).success();
    dctl(&["run", "--rm", &name]).fails_with(125, "qemu-pdp11-static");
    dctl(&["rmi", &name]).success();
}
