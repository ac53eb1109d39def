//! Images that are made here: `commit`, and `export` with `import`.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use crate::shared::{Name, dctl, shared};

/// An image's name that nobody else uses, and whose image goes with it.
struct ImageName(String);

impl ImageName {
    fn new() -> Self {
        Self(format!("{}-image:made", Name::new().as_str()))
    }

    fn as_str(&self) -> &str {
        &self.0
    }

    fn inspect(&self, template: &str) -> String {
        shared().installation.inspect(&self.0, template)
    }
}

impl Drop for ImageName {
    fn drop(&mut self) {
        // It may never have come to be.
        let _ = dctl(&["rmi", "--force", &self.0]);
    }
}

/// A container that ran `script` and stopped.
fn stopped(options: &[&str], script: &str) -> Name {
    let name = Name::new();
    let head = ["run", "--name", name.as_str()];
    let tail = [shared().busybox.as_str(), "sh", "-c", script];
    dctl(&[&head[..], options, &tail].concat()).success();
    name
}

#[track_caller]
fn run(image: &ImageName, command: &[&str]) -> String {
    dctl(&[&["run", "--rm", image.as_str()], command].concat())
        .success()
        .text()
}

#[test]
fn an_image_of_a_container_has_its_changes_and_its_configuration() {
    let volume = format!("{}-committed", Name::new().as_str());
    let mount = format!("{volume}:/v");
    let name = stopped(
        &["-e", "A=1", "-v", &mount],
        "echo new > /file; rm /bin/vi; chown 5:6 /file; echo hidden > /v/file",
    );
    let image = ImageName::new();
    let id = dctl(&[
        "commit",
        "-a",
        "me",
        "-m",
        "why",
        name.as_str(),
        image.as_str(),
    ])
    .success()
    .text();
    assert_eq!(image.inspect("{{.Id}}"), id);
    assert_eq!(image.inspect("{{.Author}} {{.Comment}}"), "me why");
    assert_eq!(image.inspect("{{.Config.Labels.origin}}"), "test");
    assert_eq!(
        run(
            &image,
            &[
                "sh",
                "-c",
                "cat /file; stat -c %u:%g /file; ls /bin/vi 2>&1; ls /v; echo $A"
            ]
        ),
        "new\n5:6\nls: /bin/vi: No such file or directory\n1"
    );
    let history = dctl(&["history", "--no-trunc", image.as_str()]).success();
    assert!(history.text().contains("echo new > /file"), "{history}");
    dctl(&["rm", name.as_str()]).success();
    dctl(&["volume", "rm", &volume]).success();
}

#[test]
fn changes_are_those_of_a_dockerfile() {
    let name = stopped(&[], "true");
    let image = ImageName::new();
    let changes = [
        "CMD [\"echo\", \"two words\"]",
        "ENV A=1 B=\"2 3\"",
        "EXPOSE 80",
        "LABEL color=red",
        "USER user",
        "VOLUME /data",
        "WORKDIR /tmp",
        "STOPSIGNAL SIGINT",
    ];
    let mut arguments = vec!["commit"];
    arguments.extend(changes.iter().flat_map(|change| ["-c", change]));
    arguments.extend([name.as_str(), image.as_str()]);
    dctl(&arguments).success();
    assert_eq!(run(&image, &[]), "two words");
    assert_eq!(
        run(
            &image,
            &[
                "sh",
                "-c",
                "id -un; pwd; echo $A $B; test -d /data && echo there"
            ]
        ),
        "user\n/tmp\n1 2 3\nthere"
    );
    assert_eq!(
        image.inspect(
            "{{json .Config.ExposedPorts}} {{.Config.Labels.color}} {{.Config.StopSignal}}"
        ),
        "{\"80/tcp\":{}} red SIGINT"
    );
    for change in ["RUN true", "FROM scratch", "CMD"] {
        dctl(&["commit", "-c", change, name.as_str()]).fails_with(1, "");
    }
}

#[test]
fn an_entry_point_takes_the_command_away_that_was_for_another() {
    let name = stopped(&[], "true");
    for (changes, expected) in [
        (&[][..], r#"null ["sh","-c","true"]"#),
        (&["ENTRYPOINT [\"x\"]"], r#"["x"] null"#),
        (&["ENTRYPOINT x y"], r#"["/bin/sh","-c","x y"] null"#),
        (&["CMD x y"], r#"null ["/bin/sh","-c","x y"]"#),
        (&["CMD [\"y\"]", "ENTRYPOINT [\"x\"]"], r#"["x"] ["y"]"#),
        (&["ENTRYPOINT [\"x\"]", "CMD [\"y\"]"], r#"["x"] ["y"]"#),
    ] {
        let image = ImageName::new();
        let mut arguments = vec!["commit"];
        arguments.extend(changes.iter().flat_map(|change| ["-c", change]));
        arguments.extend([name.as_str(), image.as_str()]);
        dctl(&arguments).success();
        let config: serde_json::Value =
            serde_json::from_str(&image.inspect("{{json .Config}}")).unwrap();
        let found = format!("{} {}", config["Entrypoint"], config["Cmd"]);
        assert_eq!(found, expected, "{changes:?}");
    }
}

#[test]
fn a_container_that_runs_is_committed_and_goes_on() {
    let name = Name::new();
    let head = ["run", "-d", "--name", name.as_str(), &shared().busybox];
    let script = "echo x > /file; while :; do date +%N > /tmp/now; done";
    dctl(&[&head[..], &["sh", "-c", script]].concat()).success();
    let begun = ["exec", name.as_str(), "test", "-s", "/tmp/now"];
    tests::installation::wait_until("it has begun", tests::command::LONG, || {
        dctl(&begun).code() == 0
    });
    for options in [&[][..], &["--pause=false"]] {
        let image = ImageName::new();
        dctl(&[&["commit"], options, &[name.as_str(), image.as_str()]].concat()).success();
        assert_eq!(run(&image, &["cat", "/file"]), "x");
    }
    let status = shared()
        .installation
        .inspect(name.as_str(), "{{.State.Status}}");
    assert_eq!(status, "running");
    let now = ["exec", name.as_str(), "cat", "/tmp/now"];
    let before = dctl(&now).success().text();
    tests::installation::wait_until("it goes on", tests::command::LONG, || {
        dctl(&now).success().text() != before
    });
    dctl(&["commit", "nobody", "x:y"]).fails_with(1, "No such container: nobody");
    dctl(&["commit", name.as_str(), "Bad Name"]).fails_with(1, "invalid reference format");
}

#[test]
fn what_is_exported_is_an_image_when_imported() {
    let volume = format!("{}-exported", Name::new().as_str());
    let mount = format!("{volume}:/v");
    let name = stopped(
        &["-v", &mount],
        "echo x > /file; echo hidden > /v/file; rm /bin/vi",
    );
    let archive = dctl(&["export", name.as_str()]).success().stdout;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("exported.tar");
    let path = file.to_str().unwrap();
    dctl(&["export", "-o", path, name.as_str()]).success();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&archive).unwrap();
    let gzip = gzip.finish().unwrap();
    for (source, input) in [("-", &archive[..]), ("-", &gzip), (path, &[])] {
        let image = ImageName::new();
        let arguments = [
            "import",
            "-m",
            "why",
            "-c",
            "CMD [\"sh\", \"-c\", \"cat /file; ls /v /bin/vi\"]",
            source,
            image.as_str(),
        ];
        let id = shared()
            .installation
            .dctl_with_input(&arguments, input)
            .success()
            .text();
        assert_eq!(image.inspect("{{.Id}} {{.Comment}}"), format!("{id} why"));
        // One layer, and nothing of what was configured.
        assert_eq!(image.inspect("{{len .RootFS.Layers}}"), "1");
        assert!(!image.inspect("{{json .Config}}").contains("origin"));
        let ran = dctl(&["run", "--rm", image.as_str()]);
        assert_eq!(ran.text(), "x\n/v:");
        ran.fails_with(1, "ls: /bin/vi: No such file or directory");
    }
    for (input, message) in [
        (&b""[..], "the archive is empty"),
        (b"no archive", "the archive is truncated"),
        (b"BZh91AY", "the archive is truncated"),
        (b"BZh91AY&SYno block", "its compressed data is damaged"),
    ] {
        shared()
            .installation
            .dctl_with_input(&["import", "-"], input)
            .fails_with(1, message);
    }
    dctl(&["import", "/no/such.tar"]).fails_with(1, "no such file");
    dctl(&["export", "nobody"]).fails_with(1, "No such container: nobody");
    dctl(&["rm", name.as_str()]).success();
    dctl(&["volume", "rm", &volume]).success();
}

#[test]
fn events_tell_how_images_came_to_be() {
    let name = stopped(&[], "true");
    let image = ImageName::new();
    let since = dctl(&["machine", "shell", "date", "+%s"]).success().text();
    let id = dctl(&["commit", "-m", "why", name.as_str(), image.as_str()])
        .success()
        .text();
    let archive = dctl(&["export", name.as_str()]).success().stdout;
    let imported = shared()
        .installation
        .dctl_with_input(&["import", "-"], &archive)
        .success()
        .text();
    let until = dctl(&["machine", "shell", "date", "+%s"]).success().text();
    let until = (until.parse::<u64>().unwrap() + 1).to_string();
    let format = "{{.Type}} {{.Action}} {{.Actor.ID}}";
    let told = |filter: &str| {
        let head = ["events", "--since", &since, "--until", &until];
        dctl(&[&head[..], &["--filter", filter, "--format", format]].concat())
            .success()
            .text()
    };
    assert_eq!(
        told(&format!("image={}", image.as_str())),
        format!("image tag {id}")
    );
    assert_eq!(
        told(&format!("image={imported}")),
        format!("image import {imported}")
    );
    let events = told(&format!("container={}", name.as_str()));
    assert!(events.contains("container commit"), "{events}");
    assert!(events.contains("container export"), "{events}");
    dctl(&["rmi", &imported]).success();
}
