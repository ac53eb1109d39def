//! save and load, and that others' tools read what is saved.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use tests::{
    command::{LONG, run},
    hostile::HostileRegistry,
    images::{ImageParts, Layer, digest},
};

use crate::shared::{dctl, shared};

/// An image with two layers, pulled; its name and id.
fn pulled(repository: &str) -> (String, String) {
    let mut lower = Layer::new();
    lower.directory("etc/", 0o755);
    lower.file("etc/name", 0o644, repository.as_bytes());
    let mut upper = Layer::new();
    upper.file("large", 0o600, &vec![7; 300_000]);
    upper.symlink("link", "large");
    let layers = [lower.finish(), upper.finish()];
    let image = ImageParts::new(&layers, &serde_json::json!({"Cmd": ["/large"]}));
    let registry = HostileRegistry::start();
    registry.serve(repository, &image);
    let name = registry.name(repository);
    dctl(&["pull", &name]).success();
    let tag = format!("{repository}:1");
    dctl(&["tag", &name, &tag]).success();
    dctl(&["rmi", &name]).success();
    (tag, digest(&image.configuration))
}

fn skopeo(arguments: &[&str]) -> tests::Finished {
    run(
        Command::new("skopeo")
            .arg("--insecure-policy")
            .args(arguments),
        b"",
        LONG,
    )
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn what_is_saved_is_loaded_with_the_same_id() {
    let (name, id) = pulled("saved");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image.tar");
    dctl(&["save", "-o", text(&file), &name]).success();
    // The file is all there is, and the same archive goes to standard output.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let streamed = dctl(&["save", &name]).success();
    assert!(streamed.stdout == fs::read(&file).unwrap());

    dctl(&["rmi", &name]).success();
    dctl(&["image", "inspect", &name]).fails_with(1, "No such");
    let said = dctl(&["load", "-i", text(&file)]).success().text();
    assert_eq!(said, format!("Loaded image: {name}"));
    assert_eq!(shared().installation.inspect(&name, "{{.Id}}"), id);
    assert!(dctl(&["save", &name]).success().stdout == streamed.stdout);

    dctl(&["rmi", &name]).success();
    let archive = fs::read(&file).unwrap();
    let said = shared()
        .installation
        .dctl_with_input(&["image", "load", "-q"], &archive)
        .success()
        .text();
    assert_eq!(said, format!("Loaded image: {name}"));
    dctl(&["rmi", &name]).success();
}

#[test]
fn several_images_are_saved_together_and_one_without_a_name() {
    let (one, one_id) = pulled("together-a");
    let (two, _) = pulled("together-b");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("both.tar");
    dctl(&["save", "--output", text(&file), &one, &two]).success();
    let unnamed = directory.path().join("id.tar");
    dctl(&["save", "-o", text(&unnamed), &one_id]).success();
    dctl(&["rmi", &one, &two]).success();
    let said = dctl(&["load", "-i", text(&file)]).success().text();
    let said: BTreeSet<_> = said.lines().collect();
    let expected = [&one, &two].map(|name| format!("Loaded image: {name}"));
    assert_eq!(said, expected.iter().map(String::as_str).collect());
    dctl(&["rmi", &one, &two]).success();
    let said = dctl(&["load", "-i", text(&unnamed)]).success().text();
    assert_eq!(said, format!("Loaded image ID: {one_id}"));
    dctl(&["rmi", &one_id]).success();
}

#[test]
fn other_tools_read_what_is_saved() {
    let (name, id) = pulled("read-by-others");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image.tar");
    dctl(&["save", "-o", text(&file), &name]).success();
    // As Docker's archive and, of the same file, as an OCI layout.
    for (index, from) in ["docker-archive", "oci-archive"].into_iter().enumerate() {
        let copy = directory.path().join(index.to_string());
        skopeo(&[
            "copy",
            &format!("{from}:{}", text(&file)),
            &format!("dir:{}", text(&copy)),
        ])
        .success();
        let manifest = fs::read_to_string(copy.join("manifest.json")).unwrap();
        assert!(manifest.contains(&id), "{manifest}");
    }
    let layout = directory.path().join("layout");
    fs::create_dir(&layout).unwrap();
    run(
        Command::new("tar")
            .args(["-xf", text(&file), "-C"])
            .arg(&layout),
        b"",
        LONG,
    )
    .success();
    let bundle = directory.path().join("bundle");
    run(
        Command::new("umoci")
            .args(["unpack", "--image", &format!("{}:1", text(&layout))])
            .arg(&bundle),
        b"",
        LONG,
    )
    .success();
    let content = fs::read_to_string(bundle.join("rootfs/etc/name")).unwrap();
    assert_eq!(content, "read-by-others");
    dctl(&["rmi", &name]).success();
}

#[test]
fn archives_of_other_tools_are_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    tests::images::write_busybox(&layout);
    for (format, name) in [
        ("docker-archive", "by-skopeo:old"),
        ("oci-archive", "by-skopeo:oci"),
    ] {
        let file = directory.path().join(format);
        skopeo(&[
            "copy",
            &format!("oci:{}", text(&layout)),
            &format!("{format}:{}:{name}", text(&file)),
        ])
        .success();
        let said = dctl(&["load", "-i", text(&file)]).success().text();
        assert_eq!(said, format!("Loaded image: {name}"));
        dctl(&["run", "--rm", name, "true"]).success();
        dctl(&["rmi", name]).success();
    }
}

/// Buildah, with everything it keeps below `folder`.
fn buildah(folder: &Path, command: &str, arguments: &[&str]) -> String {
    let policy = folder.join("policy.json");
    fs::write(
        &policy,
        r#"{"default": [{"type": "insecureAcceptAnything"}]}"#,
    )
    .unwrap();
    let mut buildah = Command::new("buildah");
    buildah
        .args(["--storage-driver", "vfs", "--root"])
        .arg(folder.join("root"))
        .arg("--runroot")
        .arg(folder.join("run"))
        .arg(command);
    if matches!(command, "commit" | "push") {
        buildah.arg("--signature-policy").arg(&policy);
    }
    run(buildah.args(arguments), b"", LONG).success().text()
}

#[test]
fn images_made_by_buildah_are_loaded_and_pulled() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    let buildah = |command, arguments: &[&str]| buildah(folder, command, arguments);
    let file = folder.join("file");
    fs::write(&file, "content\n").unwrap();
    let container = buildah("from", &["scratch"]);
    let container = container.as_str();
    let add = [
        "--chown",
        "5:6",
        "--chmod",
        "640",
        container,
        text(&file),
        "/data/file",
    ];
    buildah("add", &add);
    buildah("add", &[container, "/bin/busybox", "/bin/busybox"]);
    let command = r#"["/bin/busybox", "sh", "-c", "echo $A $PWD; busybox stat -c %u:%g:%a file"]"#;
    let options = [
        "--env",
        "A=1",
        "--env",
        "PATH=/bin",
        "--workingdir",
        "/data",
    ];
    buildah(
        "config",
        &[&options[..], &["--cmd", command, container]].concat(),
    );
    let pushed = shared().registry.name("by-buildah:pushed");
    buildah("commit", &["--quiet", container, &pushed]);
    let (target, loaded) = (format!("docker://{pushed}"), "localhost/by-buildah:loaded");
    buildah("push", &["--quiet", "--tls-verify=false", &pushed, &target]);

    let mut made = vec![(pushed.as_str(), None)];
    for format in ["oci", "docker"] {
        let archive = folder.join(format);
        let target = format!("{format}-archive:{}:{loaded}", text(&archive));
        buildah(
            "commit",
            &["--quiet", "--format", format, container, &target],
        );
        made.push((loaded, Some(archive)));
    }
    for (name, archive) in made {
        match archive {
            Some(archive) => {
                let said = dctl(&["load", "-i", text(&archive)]).success().text();
                assert_eq!(said, format!("Loaded image: {name}"));
            }
            None => drop(dctl(&["pull", name]).success()),
        }
        let said = dctl(&["run", "--rm", name]).success();
        assert_eq!(said.text(), "1 /data\n5:6:640");
        let history = dctl(&["history", "-q", name]).success().text();
        assert!(!history.is_empty());
        dctl(&["rmi", name]).success();
    }
}

#[test]
fn compressed_archives_are_loaded_and_imported() {
    let (name, id) = pulled("compressed");
    let archive = dctl(&["save", &name]).success().stdout;
    dctl(&["rmi", &name]).success();
    let mut files = Layer::new();
    files.file("file", 0o644, &vec![7; 2_000_000]);
    let files = files.finish();
    for tool in ["gzip", "zstd", "xz", "bzip2"] {
        let compressed = |bytes: &[u8]| {
            run(Command::new(tool).arg("-c"), bytes, LONG)
                .success()
                .stdout
        };
        let installation = &shared().installation;
        let said = installation
            .dctl_with_input(&["load"], &compressed(&archive))
            .success();
        assert_eq!(said.text(), format!("Loaded image: {name}"), "{tool}");
        assert_eq!(installation.inspect(&name, "{{.Id}}"), id);
        dctl(&["rmi", &name]).success();
        let imported = installation
            .dctl_with_input(&["import", "-"], &compressed(&files))
            .success()
            .text();
        let size = installation.inspect(&imported, "{{.Size}}");
        assert_eq!(size, "2000000", "{tool}");
        let mut damaged = compressed(&archive);
        let middle = damaged.len() / 2;
        damaged.truncate(middle);
        installation
            .dctl_with_input(&["load"], &damaged)
            .fails_with(1, "invalid image archive");
        dctl(&["rmi", &imported]).success();
    }
}

/// Docker goes by a layer's bytes, and there are registries with such types.
#[test]
fn layers_are_pulled_however_they_are_compressed_and_whatever_their_type_says() {
    let registry = HostileRegistry::start();
    for (tool, kind) in [
        ("xz", "tar+xz"),
        ("bzip2", "tar+bzip2"),
        ("zstd", "tar+gzip"),
        ("gzip", "tar"),
        ("cat", "tar+gzip"),
    ] {
        let mut layer = Layer::new();
        layer.file("file", 0o644, &vec![7; 300_000]);
        layer.file("tool", 0o644, tool.as_bytes());
        let layer = layer.finish();
        let mut command = Command::new(tool);
        if tool != "cat" {
            command.arg("-c");
        }
        let compressed = run(&mut command, &layer, LONG).success().stdout;
        let mut image = ImageParts::new(&[layer], &serde_json::json!({"Cmd": ["/file"]}));
        let media_type = format!("application/vnd.oci.image.layer.v1.{kind}");
        image.set_layers(&media_type, vec![compressed]);
        let repository = format!("by-{tool}");
        registry.serve(&repository, &image);
        let name = registry.name(&repository);
        dctl(&["pull", &name]).success();
        let installation = &shared().installation;
        let size = 300_000 + tool.len();
        assert_eq!(installation.inspect(&name, "{{.Size}}"), size.to_string());
        dctl(&["rmi", &name]).success();
    }
}

#[test]
fn mistakes_are_said_so_and_leave_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.tar");
    dctl(&["save", "-o", text(&file), "no-such-image"]).fails_with(1, "No such image");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    dctl(&["save", "-o", "/no/such/folder/x.tar", &shared().busybox])
        .fails_with(1, "invalid output path");
    fs::write(&file, "no archive").unwrap();
    dctl(&["load", "-i", text(&file)]).fails_with(1, "invalid image archive");
    dctl(&["load", "-i", "/no/such/file"]).fails_with(1, "no such file");
    dctl(&["save", "--platform", "linux/s390x", &shared().busybox])
        .fails_with(1, "does not match the specified platform");
}

#[test]
fn docker_s_client_saves_and_loads() {
    let (name, id) = pulled("by-docker");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image.tar");
    let docker = |arguments: &[&str]| {
        let host = format!("unix://{}", shared().installation.socket().display());
        run(
            Command::new("docker")
                .args(arguments)
                .env("DOCKER_HOST", host)
                .env("DOCKER_CONFIG", directory.path()),
            b"",
            LONG,
        )
        .success()
        .text()
    };
    docker(&["save", "-o", text(&file), &name]);
    docker(&["rmi", &name]);
    let said = docker(&["load", "-i", text(&file)]);
    assert!(said.ends_with(&format!("Loaded image: {name}")), "{said}");
    assert_eq!(docker(&["image", "inspect", "-f", "{{.Id}}", &name]), id);
    let history = docker(&["history", "--format", "{{.Size}}", &name]);
    assert_eq!(history.lines().count(), 2, "{history}");
    let usage = docker(&["system", "df"]);
    assert!(
        usage.contains("Images") && usage.contains("Local Volumes"),
        "{usage}"
    );
    dctl(&["rmi", &name]).success();
}
