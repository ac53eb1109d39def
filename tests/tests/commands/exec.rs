//! `dctl exec`.

use tests::command::LONG;

use crate::shared::{Name, dctl, shared};

fn sleeping() -> Name {
    let name = Name::new();
    let busybox = &shared().busybox;
    dctl(&[
        "run",
        "-d",
        "--name",
        name.as_str(),
        "-e",
        "A=container",
        busybox,
        "sleep",
        "600",
    ])
    .success();
    name
}

#[test]
fn a_command_runs_beside_the_containers_own() {
    let name = sleeping();
    let said = dctl(&["exec", name.as_str(), "ps"]).success().text();
    let first = said.lines().nth(1).unwrap_or_default();
    assert!(
        first.trim_start().starts_with('1') && first.contains("sleep 600"),
        "{said}"
    );
    assert!(said.contains(" ps"), "{said}");
}

#[test]
fn exit_codes_streams_and_options_are_as_for_run() {
    let name = sleeping();
    let exec = |words: &[&str]| dctl(&[&["exec"], words].concat());
    let container = name.as_str();
    let said = exec(&[container, "sh", "-c", "echo out; echo err >&2; exit 6"]);
    assert_eq!(
        (said.code(), said.text(), said.error()),
        (6, "out".into(), "err".into())
    );
    assert_eq!(exec(&[container, "sh", "-c", "kill -9 $$"]).code(), 137);
    let said = exec(&[
        "-e",
        "B=exec",
        "-w",
        "/tmp",
        "-u",
        "user",
        container,
        "sh",
        "-c",
        "echo $A $B $PWD $(id -u)",
    ]);
    assert_eq!(said.success().text(), "container exec /tmp 1000");
    assert_eq!(exec(&[container, "no-such-command"]).code(), 127);
    assert_eq!(exec(&[container, "/bin/not-executable"]).code(), 126);
    exec(&["nobody", "true"]).fails_with(1, "No such container");
}

#[test]
fn stdin_reaches_the_command_and_ends() {
    let name = sleeping();
    let said = shared()
        .installation
        .dctl_with_input(&["exec", "-i", name.as_str(), "cat"], b"one\ntwo");
    assert_eq!(said.success().stdout, b"one\ntwo");
}

#[test]
fn an_exec_in_a_container_that_ended_is_refused() {
    let name = Name::new();
    dctl(&["run", "--name", name.as_str(), &shared().busybox, "true"]).success();
    dctl(&["exec", name.as_str(), "true"]).fails_with(1, "is not running");
}

#[test]
fn an_exec_ends_with_its_container() {
    let name = sleeping();
    let mut running =
        shared()
            .installation
            .start(&["exec", name.as_str(), "sh", "-c", "echo ready; sleep 600"]);
    running.wait_for_output("ready", LONG);
    dctl(&["rm", "--force", name.as_str()]).success();
    assert_eq!(running.finish(LONG).code(), 137);
}
