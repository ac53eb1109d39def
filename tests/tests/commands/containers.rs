//! Containers' lives: ps, logs, stop, kill, rm, wait, inspect.

use std::time::Duration;

use rustix::process::Signal;
use tests::{command::LONG, installation::wait_until};

use crate::shared::{Name, dctl, shared};

/// Starts a container that sleeps.
fn sleeping() -> Name {
    let name = Name::new();
    let busybox = &shared().busybox;
    dctl(&[
        "run",
        "-d",
        "--name",
        name.as_str(),
        busybox,
        "sleep",
        "600",
    ])
    .success();
    name
}

#[test]
fn ps_shows_running_ones_and_all_with_a() {
    let running = sleeping();
    let ended = Name::new();
    dctl(&[
        "run",
        "--name",
        ended.as_str(),
        &shared().busybox,
        "sh",
        "-c",
        "exit 7",
    ]);
    let names = |arguments: &[&str]| {
        let arguments = [arguments, &["--format", "{{.Names}} {{.Status}}"]].concat();
        dctl(&arguments).success().text()
    };
    let shown = names(&["ps"]);
    assert!(
        shown.contains(&format!("{} Up", running.as_str())),
        "{shown}"
    );
    assert!(!shown.contains(ended.as_str()), "{shown}");
    let shown = names(&["ps", "-a"]);
    assert!(
        shown.contains(&format!("{} Exited (7)", ended.as_str())),
        "{shown}"
    );
    let table = dctl(&["ps", "-a"]).success().text();
    assert!(table.starts_with("CONTAINER ID"), "{table}");
}

#[test]
fn a_name_can_be_used_once() {
    let name = sleeping();
    let again = dctl(&["run", "--name", name.as_str(), &shared().busybox, "true"]);
    again.fails_with(125, "already in use");
    dctl(&["rm", "--force", name.as_str()]).success();
    dctl(&["run", "--name", name.as_str(), &shared().busybox, "true"]).success();
}

#[test]
fn logs_are_kept_and_followed() {
    let name = Name::new();
    let script = "echo out; echo err >&2; sleep 2; echo late";
    dctl(&[
        "run",
        "-d",
        "--name",
        name.as_str(),
        &shared().busybox,
        "sh",
        "-c",
        script,
    ])
    .success();
    let mut following = shared().installation.start(&["logs", "-f", name.as_str()]);
    following.wait_for_output("out", LONG);
    let followed = following.finish(LONG).success();
    assert_eq!(followed.text(), "out\nlate");
    assert_eq!(followed.error(), "err");
    let logs = dctl(&["logs", "--tail", "1", name.as_str()]).success();
    assert_eq!(logs.text(), "late");
    let logs = dctl(&["logs", "--timestamps", name.as_str()]).success();
    assert!(logs.text().starts_with("20"), "{logs}");
    dctl(&["logs", "nobody"]).fails_with(1, "No such container");
}

#[test]
fn stop_asks_first_and_kills_then() {
    let busybox = &shared().busybox;
    let polite = Name::new();
    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    dctl(&[
        "run",
        "-d",
        "--name",
        polite.as_str(),
        busybox,
        "sh",
        "-c",
        script,
    ])
    .success();
    let mut logs = shared()
        .installation
        .start(&["logs", "-f", polite.as_str()]);
    logs.wait_for_output("ready", LONG);
    dctl(&["stop", polite.as_str()]).success();
    assert_eq!(
        shared()
            .installation
            .inspect(polite.as_str(), "{{.State.ExitCode}}"),
        "5"
    );
    // PID 1 of a namespace ignores what it has no handler for.
    let stubborn = sleeping();
    dctl(&["stop", "--time", "1", stubborn.as_str()]).success();
    assert_eq!(
        shared()
            .installation
            .inspect(stubborn.as_str(), "{{.State.ExitCode}}"),
        "137"
    );
    dctl(&["stop", stubborn.as_str()]).success();
    dctl(&["stop", "nobody"]).fails_with(1, "No such container");
}

#[test]
fn kill_sends_the_signal_that_is_named() {
    let name = Name::new();
    let script = "trap 'echo got usr1; exit 3' USR1; echo ready; while :; do sleep 0.1; done";
    dctl(&[
        "run",
        "-d",
        "--name",
        name.as_str(),
        &shared().busybox,
        "sh",
        "-c",
        script,
    ])
    .success();
    let mut logs = shared().installation.start(&["logs", "-f", name.as_str()]);
    logs.wait_for_output("ready", LONG);
    dctl(&["kill", "--signal", "USR1", name.as_str()]).success();
    let said = dctl(&["wait", name.as_str()]).success();
    assert_eq!(said.text(), "3");
    logs.wait_for_output("got usr1", LONG);
    dctl(&["kill", name.as_str()]).fails_with(1, "is not running");
    dctl(&["kill", "--signal", "NONSENSE", name.as_str()]).fails_with(1, "NONSENSE");
}

#[test]
fn wait_ends_with_the_container() {
    let name = Name::new();
    let script = "sleep 1; exit 9";
    dctl(&[
        "run",
        "-d",
        "--name",
        name.as_str(),
        &shared().busybox,
        "sh",
        "-c",
        script,
    ])
    .success();
    assert_eq!(dctl(&["wait", name.as_str()]).success().text(), "9");
    assert_eq!(dctl(&["wait", name.as_str()]).success().text(), "9");
}

#[test]
fn rm_leaves_running_ones_alone_without_force() {
    let name = sleeping();
    let refused = dctl(&["rm", name.as_str()]);
    assert_eq!(refused.code(), 1, "{refused}");
    assert!(
        refused.error().contains("container is running"),
        "{refused}"
    );
    dctl(&["rm", "-f", name.as_str()]).success();
    dctl(&["rm", name.as_str()]).fails_with(1, "No such container");
}

#[test]
fn inspect_says_what_was_asked_for() {
    let name = sleeping();
    let json = dctl(&["inspect", name.as_str()]).success();
    let parsed: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let container = &parsed[0];
    assert_eq!(container["Name"], format!("/{}", name.as_str()));
    assert_eq!(container["State"]["Status"], "running");
    assert_eq!(container["Config"]["Image"], shared().busybox.as_str());
    assert_eq!(container["Path"], "sleep");
    assert_eq!(container["Args"][0], "600");
    dctl(&["inspect", "nobody"]).fails_with(1, "nobody");
}

#[test]
fn a_container_can_be_named_by_the_beginning_of_its_id() {
    let name = sleeping();
    let id = shared().installation.inspect(name.as_str(), "{{.Id}}");
    assert_eq!(shared().installation.inspect(&id[..12], "{{.Id}}"), id);
}

#[test]
fn an_interrupt_is_passed_on() {
    let name = Name::new();
    let script = "trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 0.1; done";
    let mut running = shared().installation.start(&[
        "run",
        "--name",
        name.as_str(),
        &shared().busybox,
        "sh",
        "-c",
        script,
    ]);
    running.wait_for_output("ready", LONG);
    running.signal(Signal::INT);
    running.wait_for_output("interrupted", LONG);
    assert_eq!(running.finish(LONG).code(), 4);
}

#[test]
fn a_client_that_is_killed_leaves_the_container_running() {
    let name = Name::new();
    let mut running = shared().installation.start(&[
        "run",
        "--name",
        name.as_str(),
        &shared().busybox,
        "sh",
        "-c",
        "echo ready; sleep 600",
    ]);
    running.wait_for_output("ready", LONG);
    running.signal(Signal::KILL);
    assert_eq!(running.finish(LONG).code(), 137);
    wait_until("the engine has noticed", Duration::from_secs(20), || {
        shared()
            .installation
            .inspect(name.as_str(), "{{.State.Running}}")
            == "true"
    });
}
