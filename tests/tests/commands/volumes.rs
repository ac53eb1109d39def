//! Volumes: their lives, what containers see of them, backup and restore.

use crate::shared::{Name, dctl, shared};

/// A volume's name that nobody else uses, and whose volume goes with it.
struct Volume(String);

impl Volume {
    /// A name; the volume is not made.
    fn name() -> Self {
        Self(format!("{}-volume", Name::new().as_str()))
    }

    fn new() -> Self {
        let volume = Self::name();
        dctl(&["volume", "create", volume.as_str()]).success();
        volume
    }

    fn as_str(&self) -> &str {
        &self.0
    }

    /// It, mounted at `/v` with these options.
    fn mounted(&self, options: &str) -> String {
        format!("{}:/v{options}", self.0)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // It may never have come to be.
        let _ = dctl(&["volume", "rm", "--force", &self.0]);
    }
}

/// What a script does in a busybox container with these options.
#[track_caller]
fn run(options: &[&str], script: &str) -> tests::Finished {
    let tail = [shared().busybox.as_str(), "sh", "-c", script];
    dctl(&[&["run", "--rm"], options, &tail].concat())
}

fn names(arguments: &[&str]) -> Vec<String> {
    let listed = dctl(&[&["volume", "ls", "-q"], arguments].concat()).success();
    listed.text().lines().map(str::to_owned).collect()
}

#[test]
fn a_volume_is_made_listed_inspected_and_removed() {
    let volume = Volume::name();
    let name = volume.as_str();
    let create = ["volume", "create", "--label", "color=red", name];
    assert_eq!(dctl(&create).success().text(), name);
    // Once more is the same one.
    assert_eq!(dctl(&create).success().text(), name);
    for filter in [
        format!("name={name}"),
        "label=color".into(),
        "dangling=1".into(),
    ] {
        assert!(names(&["-f", &filter]).iter().any(|one| one == name));
    }
    assert!(
        !names(&["-f", "label=color=blue"])
            .iter()
            .any(|one| one == name)
    );
    let template = ["-f", "{{.Name}} {{.Driver}} {{.Labels.color}}", name];
    let expected = format!("{name} local red");
    for command in [
        &["volume", "inspect"][..],
        &["inspect"],
        &["inspect", "--type", "volume"],
    ] {
        let shown = dctl(&[command, &template].concat()).success().text();
        assert_eq!(shown, expected, "{command:?}");
    }
    assert_eq!(dctl(&["volume", "rm", name]).success().text(), name);
    dctl(&["volume", "rm", name]).fails_with(1, "no such volume");
    dctl(&["volume", "rm", "-f", name]).success();
    dctl(&["volume", "inspect", name]).fails_with(1, "no such volume");
    dctl(&["inspect", "--type", "volume", name]).fails_with(1, "no such volume");
    dctl(&["inspect", name]).fails_with(1, "No such object");
}

#[test]
fn what_cannot_be_a_volume_is_refused() {
    for (arguments, message) in [
        (&["b ad"][..], "includes invalid characters"),
        (&["../up"], "includes invalid characters"),
        (&["x"], "volume name is too short"),
        (&["-d", "nfs", "remote"], "plugin \"nfs\" not found"),
        (&["-o", "what=ever", "strange"], "invalid option"),
    ] {
        dctl(&[&["volume", "create"], arguments].concat()).fails_with(1, message);
    }
    for (options, message) in [
        (&["-v", "store:v"][..], "mount path must be absolute"),
        (&["-v", "store:/v:strange"], "invalid mode"),
        (&["-v", "store:/"], "destination can't be '/'"),
        (&["-v", "one:/v", "-v", "two:/v"], "Duplicate mount point"),
        (&["--volumes-from", "nobody"], "No such container: nobody"),
    ] {
        let refused = run(options, "true").fails_with(125, message);
        assert!(!refused.error().contains("Unable to find image"));
    }
}

#[test]
fn files_outlive_the_container_that_wrote_them() {
    let volume = Volume::name();
    run(&["-v", &volume.mounted("")], "echo kept > /v/file").success();
    let mount = format!("type=volume,src={},dst=/v,readonly", volume.as_str());
    for options in [["-v", &volume.mounted(":ro")], ["--mount", &mount]] {
        let read = run(&options, "cat /v/file; echo more > /v/other");
        assert_eq!(read.text(), "kept");
        read.fails_with(1, "Read-only file system");
    }
    run(
        &["-v", &volume.mounted("")],
        "mkdir /v/part; echo in > /v/part/file",
    )
    .success();
    let part = format!(
        "type=volume,src={},dst=/v,volume-subpath=part",
        volume.as_str()
    );
    assert_eq!(run(&["--mount", &part], "cat /v/*").success().text(), "in");
}

#[test]
fn an_empty_volume_gets_what_the_image_has_there() {
    let volume = Volume::name();
    let at = format!("{}:/etc", volume.as_str());
    assert_eq!(
        run(&["-v", &at], "grep -c root /etc/passwd")
            .success()
            .text(),
        "1"
    );
    // Once only.
    run(&["-v", &at], "rm /etc/passwd").success();
    assert_eq!(run(&["-v", &at], "ls /etc/passwd").code(), 1);
    // An empty one keeps what was made of it.
    let own = Volume::name();
    run(&["-v", &own.mounted("")], "chown 1000:1000 /v").success();
    run(&["-u", "1000", "-v", &own.mounted("")], "touch /v/file").success();
    let bare = Volume::name();
    let mount = format!("type=volume,src={},dst=/etc,volume-nocopy", bare.as_str());
    assert_eq!(run(&["--mount", &mount], "ls /etc/group").code(), 1);
}

#[test]
fn a_tmpfs_is_as_large_as_was_said() {
    let volume = Volume::name();
    let options = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=4m"];
    dctl(&[&["volume", "create"], &options[..], &[volume.as_str()]].concat()).success();
    let size = "df -k /v | awk 'NR == 2 { print $2 }'; stat -c %a /v";
    for (options, expected) in [
        (["-v", &volume.mounted("")], "4096\n1777"),
        (["--tmpfs", "/v:size=2m,mode=700"], "2048\n700"),
        (
            ["--mount", "type=tmpfs,dst=/v,tmpfs-size=1m,tmpfs-mode=1750"],
            "1024\n1750",
        ),
    ] {
        assert_eq!(run(&options, size).success().text(), expected);
    }
}

#[test]
fn a_volume_in_use_stays() {
    let volume = Volume::new();
    let (first, second) = (Name::new(), Name::new());
    let start = |name: &Name, options: &[&str]| {
        let head = ["run", "-d", "--name", name.as_str()];
        let tail = [shared().busybox.as_str(), "sleep", "600"];
        dctl(&[&head[..], options, &tail].concat()).success();
    };
    start(&first, &["-v", &volume.mounted(""), "-v", "/anonymous"]);
    start(&second, &["--volumes-from", first.as_str()]);
    let exec = |name: &Name, script: &str| {
        dctl(&["exec", name.as_str(), "sh", "-c", script])
            .success()
            .text()
    };
    exec(&first, "echo one > /v/file; echo two > /anonymous/file");
    assert_eq!(exec(&second, "cat /v/file /anonymous/file"), "one\ntwo");
    dctl(&["volume", "rm", volume.as_str()]).fails_with(1, "volume is in use");
    let used = format!("volume={}", volume.as_str());
    let users = dctl(&["ps", "-q", "--filter", &used]).success();
    assert_eq!(users.text().lines().count(), 2);
    let anonymous = shared().installation.inspect(
        first.as_str(),
        "{{range .Mounts}}{{if eq .Destination \"/anonymous\"}}{{.Name}}{{end}}{{end}}",
    );
    assert!(names(&[]).contains(&anonymous));
    // One without a name goes with the last that has it.
    dctl(&["rm", "-f", "-v", first.as_str()]).success();
    assert!(names(&[]).contains(&anonymous));
    dctl(&["rm", "-f", "-v", second.as_str()]).success();
    assert!(!names(&[]).contains(&anonymous));
    dctl(&["volume", "rm", volume.as_str()]).success();
}

#[test]
fn prune_takes_what_nobody_has() {
    // Only its own: others have volumes here.
    let label = ["--label", "prune=this"];
    let (used, unused) = (Volume::name(), Volume::name());
    for volume in [&used, &unused] {
        dctl(&[&["volume", "create"], &label[..], &[volume.as_str()]].concat()).success();
    }
    let container = Name::new();
    let at = used.mounted("");
    dctl(&[
        "create",
        "--name",
        container.as_str(),
        "-v",
        &at,
        &shared().busybox,
    ])
    .success();
    let prune = |more: &[&str]| {
        let filter = ["volume", "prune", "-f", "--filter", "label=prune=this"];
        dctl(&[&filter, more].concat()).success().text()
    };
    assert_eq!(prune(&[]), "Total reclaimed space: 0B");
    let pruned = prune(&["--all"]);
    let deleted = format!("Deleted Volumes:\n{}\n\n", unused.as_str());
    assert!(pruned.starts_with(&deleted), "{pruned}");
    assert_eq!(names(&["-f", "label=prune=this"]), [used.as_str()]);
}

#[test]
fn a_backup_is_restored_whole_or_not_at_all() {
    let (from, to) = (Volume::name(), Volume::name());
    let script = "cd /v; echo content > file; chown 5:6 file; chmod 4750 file; ln -s file link; \
                  ln file second; mkfifo pipe; mkdir -m 711 folder";
    run(&["-v", &from.mounted("")], script).success();
    run(&["-v", &to.mounted("")], "echo old > /v/old").success();
    let archive = dctl(&["volume", "backup", from.as_str()]).success().stdout;
    let restore = |input: &[u8]| {
        shared()
            .installation
            .dctl_with_input(&["volume", "restore", to.as_str()], input)
    };
    // Nothing, something else, cut inside a file and between two.
    for broken in [
        &b""[..],
        b"no archive",
        &archive[..700],
        &archive[..archive.len() - 1024],
    ] {
        restore(broken).fails_with(1, "the archive is truncated");
    }
    let list = "cd /v; stat -c '%n %F %u:%g %a %h' *; readlink link; cat file";
    let at = to.mounted("");
    assert_eq!(run(&["-v", &at], "cat /v/*").success().text(), "old");
    assert_eq!(restore(&archive).success().text(), to.as_str());
    let original = run(&["-v", &from.mounted("")], list).success().text();
    assert!(
        original.contains("file regular file 5:6 4750 2"),
        "{original}"
    );
    assert_eq!(run(&["-v", &at], list).success().text(), original);
    // Not under somebody's hands.
    let user = Name::new();
    let busy = ["run", "-d", "--name", user.as_str(), "-v", &at];
    dctl(&[&busy[..], &[&shared().busybox, "sleep", "600"]].concat()).success();
    restore(&archive).fails_with(1, "a running container has it");
    dctl(&["volume", "backup", "no-such-volume"]).fails_with(1, "no such volume");
}

#[test]
fn a_backup_goes_to_a_file_and_comes_from_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup.tar");
    let path = file.to_str().unwrap();
    let (from, to) = (Volume::name(), Volume::name());
    run(&["-v", &from.mounted("")], "echo content > /v/file").success();
    dctl(&["volume", "backup", "-o", path, from.as_str()]).success();
    dctl(&["volume", "restore", "-i", path, to.as_str()]).success();
    let read = run(&["-v", &to.mounted("")], "cat /v/file").success();
    assert_eq!(read.text(), "content");
}

#[test]
fn programs_in_volumes_run_as_their_owner() {
    let volume = Volume::name();
    let at = volume.mounted("");
    let inside = |user: &str, script: &str| {
        let head = ["run", "--rm", "-u", user, "-v", &at];
        let tail = [shared().debian.as_str(), "sh", "-c", script];
        dctl(&[&head[..], &tail].concat()).success().text()
    };
    inside(
        "0",
        "cp /usr/bin/id /v/id; chmod 4755 /v/id; mknod -m 666 /v/null c 1 3; mknod /v/disk b 254 0",
    );
    assert_eq!(
        inside("1000", "/v/id -u; echo x > /v/null && echo taken"),
        "0\ntaken"
    );
    // A device that the container was not given is none, wherever its name is.
    assert_eq!(
        inside("0", "head -c 1 /v/disk 2> /dev/null || echo refused"),
        "refused"
    );
}
