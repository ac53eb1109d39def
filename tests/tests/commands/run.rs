//! `dctl run`: what runs, as whom, and how it ends.

use crate::shared::{Name, dctl, shared};

#[test]
fn the_starter_image_needs_no_registry() {
    let said = dctl(&["run", "--rm", "hello"]).success().text();
    assert!(said.contains("Hello"), "{said}");
    assert!(said.contains("dctl run -it"), "{said}");
}

#[test]
fn a_command_runs_in_its_image() {
    let shared = shared();
    let said = dctl(&["run", "--rm", &shared.busybox, "echo", "a  b", "c"]).success();
    assert_eq!(said.stdout, b"a  b c\n");
    let said = dctl(&["run", "--rm", &shared.debian, "cat", "/etc/os-release"]).success();
    assert!(said.text().contains("Debian"), "{said}");
}

#[test]
fn exit_codes_are_the_commands_own() {
    let busybox = &shared().busybox;
    let code = |words: &[&str]| {
        let arguments = [&["run", "--rm", busybox.as_str()], words].concat();
        dctl(&arguments).code()
    };
    assert_eq!(code(&["true"]), 0);
    assert_eq!(code(&["sh", "-c", "exit 42"]), 42);
    // Not the container's own PID 1: it is immune to signals from inside.
    assert_eq!(code(&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]), 137);
    assert_eq!(
        code(&["sh", "-c", "trap - TERM; kill -TERM $$; sleep 1; exit 3"]),
        3
    );
}

#[test]
fn what_cannot_be_run_is_126_or_127_or_125() {
    let busybox = &shared().busybox;
    dctl(&["run", "--rm", busybox, "no-such-command"]).fails_with(127, "no-such-command");
    dctl(&["run", "--rm", busybox, "/bin/not-executable"]).fails_with(126, "permission denied");
    dctl(&["run", "--rm", busybox, "/etc"]).fails_with(126, "/etc");
    dctl(&["run", "--no-such-option", busybox]).fails_with(125, "no-such-option");
    dctl(&["run", "--rm", "Bad Name"]).fails_with(125, "invalid reference format");
    let nobody = shared().registry.name("nothing-here");
    dctl(&["run", "--rm", &nobody]).fails_with(125, "nothing-here");
}

#[test]
fn environment_directory_user_and_host_name_are_as_asked() {
    let busybox = &shared().busybox;
    let said = dctl(&[
        "run",
        "--rm",
        "-e",
        "A=1 2",
        "--env",
        "B=",
        "-w",
        "/tmp",
        "-u",
        "user",
        "--hostname",
        "box",
        busybox,
        "sh",
        "-c",
        "echo \"$A|$B|$(pwd)|$(id -u):$(id -g)|$(hostname)|$HOME\"",
    ])
    .success();
    assert_eq!(said.text(), "1 2||/tmp|1000:1000|box|/home/user");
    let said = dctl(&["run", "--rm", "-u", "12:34", busybox, "id"]).success();
    assert!(said.text().contains("uid=12 gid=34"), "{said}");
    dctl(&["run", "--rm", "-u", "nobody-here", busybox, "id"]).fails_with(125, "nobody-here");
}

#[test]
fn an_entrypoint_replaces_the_images() {
    let busybox = &shared().busybox;
    let said = dctl(&["run", "--rm", "--entrypoint", "echo", busybox, "x"]).success();
    assert_eq!(said.text(), "x");
}

#[test]
fn a_container_is_alone_and_has_what_containers_have() {
    let busybox = &shared().busybox;
    let script = "echo $$; mount | grep -c overlay; test -c /dev/null && test -d /sys/fs/cgroup \
        && test -e /proc/self && echo devices; cat /proc/1/comm; grep -c . /etc/hosts";
    let said = dctl(&["run", "--rm", busybox, "sh", "-c", script])
        .success()
        .text();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(&lines[..4], ["1", "1", "devices", "sh"], "{said}");
    // It is not root of the machine.
    let said = dctl(&[
        "run",
        "--rm",
        busybox,
        "sh",
        "-c",
        "mount -t tmpfs x /mnt; echo $?",
    ]);
    assert_ne!(said.text(), "0");
}

#[test]
fn what_a_container_writes_stays_in_it() {
    let (busybox, name) = (&shared().busybox, Name::new());
    let name = name.as_str();
    dctl(&[
        "run",
        "--name",
        name,
        busybox,
        "sh",
        "-c",
        "echo mine > /file",
    ])
    .success();
    dctl(&["run", "--rm", busybox, "ls", "/file"]).fails_with(1, "No such file");
    // And is there again when it is started again.
    dctl(&["start", "--attach", name]).success();
    let name_of_second = Name::new();
    dctl(&[
        "run",
        "--name",
        name_of_second.as_str(),
        busybox,
        "sh",
        "-c",
        "n=$(( $(cat /n 2>/dev/null || echo 0) + 1 )); echo $n > /n; echo $n",
    ])
    .success();
    let said = dctl(&["start", "--attach", name_of_second.as_str()]).success();
    assert_eq!(said.text(), "2");
}

#[test]
fn rm_removes_and_detach_detaches() {
    let (busybox, name) = (&shared().busybox, Name::new());
    let id = dctl(&[
        "run",
        "-d",
        "--name",
        name.as_str(),
        busybox,
        "sleep",
        "600",
    ])
    .success()
    .text();
    assert_eq!(id.len(), 64, "{id}");
    assert_eq!(
        shared().installation.inspect(&id, "{{.State.Running}}"),
        "true"
    );
    let gone = Name::new();
    dctl(&["run", "--rm", "--name", gone.as_str(), busybox, "true"]).success();
    dctl(&["inspect", gone.as_str()]).fails_with(1, gone.as_str());
}

#[test]
fn pull_policies_are_kept() {
    let shared = shared();
    dctl(&["run", "--rm", "--pull", "never", &shared.busybox, "true"]).success();
    let other = shared.registry.name("not-pulled");
    dctl(&["run", "--rm", "--pull", "never", &other, "true"]).fails_with(125, "not-pulled");
    dctl(&["run", "--rm", "--pull", "always", &shared.busybox, "true"]).success();
}
