//! Containers in a user namespace of their own: all that can be done to others can be
//! done to them, and one setting makes it the rule.

use tests::{Installation, command::LONG, installation::wait_until, terminal::Terminal};

use crate::shared::{Name, dctl, shared};

const PRIVATE: &str = "--userns=private";

/// Starts a container in a user namespace that runs `script`.
fn started(options: &[&str], script: &str) -> Name {
    let name = Name::new();
    let head = ["run", "-d", "--name", name.as_str(), PRIVATE];
    let tail = [shared().busybox.as_str(), "sh", "-c", script];
    dctl(&[&head[..], options, &tail].concat()).success();
    name
}

fn inspect(name: &Name, template: &str) -> String {
    shared().installation.inspect(name.as_str(), template)
}

#[track_caller]
fn exec(name: &Name, script: &str) -> String {
    dctl(&["exec", name.as_str(), "sh", "-c", script])
        .success()
        .text()
}

/// The first lines of a namespace's mapping of users, as words.
fn mapping(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[test]
fn its_health_is_checked() {
    let check = "test -e /tmp/fit && test $(id -u) -eq 0";
    let options = ["--health-cmd", check, "--health-interval", "300ms"];
    let retries = [&options[..], &["--health-retries", "1"]].concat();
    let name = started(&retries, "sleep 600");
    let status = || inspect(&name, "{{.State.Health.Status}}");
    wait_until("it is unhealthy", LONG, || status() == "unhealthy");
    exec(&name, "touch /tmp/fit");
    wait_until("it is healthy", LONG, || status() == "healthy");
}

#[test]
fn a_command_in_it_has_a_terminal() {
    let name = started(&[], "sleep 600");
    let arguments = ["exec", "-it", name.as_str(), "sh"];
    let mut terminal = Terminal::start(&mut shared().installation.command(&arguments), 24, 80);
    terminal.wait_for("# ", LONG);
    terminal.type_text("tty; stat -c owner-%u $(tty); id -u\r");
    terminal.wait_for("/dev/pts/", LONG);
    terminal.wait_for("owner-0", LONG);
    terminal.type_text("sh -c 'echo run-$((1 + 1)); exec sleep 600'\r");
    terminal.wait_for("run-2", LONG);
    terminal.type_text("\x03");
    terminal.wait_for("# ", LONG);
    terminal.type_text("exit 9\r");
    assert_eq!(terminal.finish(LONG), 9);

    let own = Name::new();
    let run = ["run", "-it", "--name", own.as_str(), PRIVATE];
    let run = [&run[..], &[shared().busybox.as_str(), "sh"]].concat();
    let mut terminal = Terminal::start(&mut shared().installation.command(&run), 24, 80);
    terminal.wait_for("# ", LONG);
    terminal.type_text("stat -c owner-%u $(tty); cat /proc/self/uid_map; exit 4\r");
    terminal.wait_for("owner-0", LONG);
    terminal.wait_for("100000", LONG);
    assert_eq!(terminal.finish(LONG), 4);
}

#[test]
fn it_is_committed_restarted_copied_and_changed() {
    let script = "echo run >> /runs; chown 5:6 /runs; exec sleep 600";
    let name = started(&["-v", "/data", "-m", "64m"], script);
    wait_until("the script has begun", LONG, || {
        dctl(&["exec", name.as_str(), "grep", "sleep", "/proc/1/comm"]).code() == 0
    });
    assert_eq!(
        mapping(&exec(&name, "cat /proc/self/uid_map")),
        ["0", "100000", "65536"]
    );
    dctl(&["restart", "-t", "0", name.as_str()]).success();
    wait_until("the script has run again", LONG, || {
        exec(&name, "wc -l < /runs") == "2"
    });

    // Ids are those of the container, whichever way files go.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "here\n").unwrap();
    let at = |path: &str| format!("{}:{path}", name.as_str());
    for to in ["/copied", "/data/copied"] {
        dctl(&["cp", "-a", file.to_str().unwrap(), &at(to)]).success();
        dctl(&["cp", file.to_str().unwrap(), &at(to)]).success();
        assert_eq!(
            exec(&name, &format!("stat -c %u:%g {to}; cat {to}")),
            "0:0\nhere"
        );
    }
    let archive = dctl(&["cp", &at("/runs"), "-"]).success().stdout;
    let mut archive = tar::Archive::new(&*archive);
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    let owner = (entry.header().uid().unwrap(), entry.header().gid().unwrap());
    assert_eq!(owner, (5, 6));
    let diff = dctl(&["diff", name.as_str()]).success().text();
    assert_eq!(diff, "A /copied\nA /data\nA /runs");

    // An image of it is for everybody.
    let image = format!("{}-image", name.as_str());
    dctl(&["commit", name.as_str(), &image]).success();
    for userns in [PRIVATE, "--userns=host"] {
        let stat = ["stat", "-c", "%u:%g %n", "/runs", "/copied", "/bin/sh"];
        let said = dctl(&[&["run", "--rm", userns, &image], &stat[..]].concat()).success();
        assert_eq!(said.text(), "5:6 /runs\n0:0 /copied\n0:0 /bin/sh");
    }
    let exported = dctl(&["export", name.as_str()]).success().stdout;
    let owners = tar::Archive::new(&*exported)
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().header().uid().unwrap())
        .max();
    assert!(owners < Some(100_000), "{owners:?}");

    dctl(&["update", "-m", "96m", "--memory-swap", "96m", name.as_str()]).success();
    assert_eq!(
        exec(&name, "cat /sys/fs/cgroup/memory.max"),
        (96 << 20).to_string()
    );
    dctl(&["pause", name.as_str()]).success();
    dctl(&["unpause", name.as_str()]).success();
    let top = dctl(&["top", name.as_str(), "-o", "pid,uid,comm"])
        .success()
        .text();
    assert!(top.contains("100000") && top.contains("sleep"), "{top}");
    dctl(&["stop", "-t", "0", name.as_str()]).success();
    dctl(&["cp", &at("/data/copied"), "-"]).success();
    dctl(&["rm", "-v", name.as_str()]).success();
    dctl(&["rmi", &image]).success();
}

#[test]
fn a_volume_is_shared_with_containers_of_the_other_kind() {
    let volume = format!("{}-shared", Name::new().as_str());
    let mount = format!("{volume}:/v");
    let run = |userns: &str, script: &str| {
        let busybox = shared().busybox.as_str();
        dctl(&[
            "run", "--rm", userns, "-v", &mount, busybox, "sh", "-c", script,
        ])
        .success()
        .text()
    };
    run("--userns=host", "echo x > /v/one; chown 7:8 /v/one");
    assert_eq!(
        run(
            PRIVATE,
            "stat -c %u:%g /v/one; echo y > /v/two; chmod 4755 /v/two"
        ),
        "7:8"
    );
    assert_eq!(
        run("--userns=host", "stat -c '%u:%g %a' /v/two"),
        "0:0 4755"
    );
    dctl(&["volume", "rm", &volume]).success();
}

#[test]
fn one_setting_makes_it_the_rule() {
    let installation = Installation::new();
    let machine = [
        "machine", "create", "dev", "--cpus", "1", "--memory", "512m",
    ];
    let create = [&machine[..], &["--disk", "1g", "--userns", "private"]].concat();
    installation.dctl(&create).success();
    let dctl = |arguments: &[&str]| installation.dctl(&[&["--machine", "dev"], arguments].concat());
    let busybox = &shared().busybox;
    dctl(&["pull", busybox]).success();
    let users = |options: &[&str]| {
        let tail = [busybox.as_str(), "cat", "/proc/self/uid_map"];
        let said = dctl(&[&["run", "--rm"], options, &tail].concat()).success();
        said.text().split_whitespace().nth(1).map(str::to_owned)
    };
    assert_eq!(users(&[]).as_deref(), Some("100000"));
    assert_eq!(users(&["--userns", "host"]).as_deref(), Some("0"));
    let info = dctl(&["system", "info", "--format", "{{json .SecurityOptions}}"]).success();
    assert!(info.text().contains("name=userns"), "{info}");
    let status = dctl(&["machine", "status"]).success();
    assert!(status.text().contains("private"), "{status}");
    for option in ["--privileged", "--pid=host", "--network=host"] {
        let refused = dctl(&["run", "--rm", option, busybox, "true"]);
        refused.fails_with(125, "user namespaces");
    }
    dctl(&[
        "run",
        "--rm",
        "--privileged",
        "--userns=host",
        busybox,
        "true",
    ])
    .success();
    // It counts at once, for what is made from then on.
    dctl(&[
        "create",
        "--name",
        "before",
        busybox,
        "cat",
        "/proc/self/uid_map",
    ])
    .success();
    let changed = dctl(&["machine", "set", "--userns", "host"]).success();
    assert_eq!(changed.error(), "");
    assert_eq!(users(&[]).as_deref(), Some("0"));
    let before = dctl(&["start", "-a", "before"]).success();
    assert!(before.text().contains("100000"), "{before}");
    let refused = dctl(&["machine", "set", "--userns", "remap"]);
    assert!(
        refused.error().contains("neither host nor private"),
        "{refused}"
    );
}
