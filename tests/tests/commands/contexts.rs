//! How Docker's client finds dctl: `dctl context`, `dctl env`, and the question at
//! the first run.

use std::{fs, process::Command};

use serde_json::Value;
use tests::{
    Installation,
    command::{self, Finished, LONG},
    terminal::Terminal,
};

use crate::shared::shared;

/// Docker's client with the home of an installation and nothing else.
fn docker(installation: &Installation, arguments: &[&str]) -> Finished {
    let mut client = Command::new("docker");
    client.args(arguments).env("HOME", installation.home());
    for variable in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"] {
        client.env_remove(variable);
    }
    command::run(&mut client, b"", LONG)
}

/// A home of its own whose commands reach the engine of all tests.
fn beside_the_shared_one() -> (Installation, impl Fn(&[&str]) -> Command) {
    let installation = Installation::new();
    let program = installation.command(&[]).get_program().to_owned();
    let home = installation.home().to_owned();
    let host = format!("unix://{}", shared().installation.socket().display());
    let command = move |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .env("HOME", &home)
            .env("DCTL_HOME", &home);
        command.env("DCTL_HOST", &host);
        for variable in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"] {
            command.env_remove(variable);
        }
        command
    };
    (installation, command)
}

#[test]
fn the_environment_leads_docker_s_client_here() {
    let (installation, command) = beside_the_shared_one();
    let line = command::run(&mut command(&["env", "--shell", "sh"]), b"", LONG)
        .success()
        .text();
    let script = format!("{line}; docker info --format '{{{{.OSType}}}}'");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).env("HOME", installation.home());
    let said = command::run(&mut shell, b"", LONG).success().text();
    assert_eq!(said, "linux");
    let line = command::run(&mut command(&["env", "--shell", "fish", "-u"]), b"", LONG);
    assert_eq!(line.success().text(), "set -e DOCKER_HOST");
}

#[test]
fn a_context_leads_docker_s_client_here_and_leaves_others_alone() {
    let (installation, command) = beside_the_shared_one();
    let dctl = |arguments: &[&str]| command::run(&mut command(arguments), b"", LONG);
    docker(
        &installation,
        &[
            "context",
            "create",
            "other",
            "--docker",
            "host=unix:///other.sock",
        ],
    )
    .success();
    docker(&installation, &["context", "use", "other"]).success();
    let shown = dctl(&["context", "show"]).success().text();
    assert_eq!(shown, "dctl: not registered; docker uses \"other\"");

    let used = dctl(&["context", "use"]).success();
    assert_eq!(used.text(), "dctl");
    assert!(used.error().contains("docker context use other"), "{used}");
    let said = docker(&installation, &["info", "--format", "{{.OSType}}"]);
    assert_eq!(said.success().text(), "linux");
    let hosts = docker(
        &installation,
        &[
            "context",
            "inspect",
            "dctl",
            "other",
            "--format",
            "{{.Endpoints.docker.Host}}",
        ],
    );
    let socket = shared().installation.socket();
    let expected = format!("unix://{}\nunix:///other.sock", socket.display());
    assert_eq!(hosts.success().text(), expected);
    assert_eq!(dctl(&["context", "show"]).success().text(), "dctl: in use");

    assert_eq!(dctl(&["context", "rm"]).success().text(), "dctl");
    let names = docker(&installation, &["context", "ls", "--quiet"]);
    assert_eq!(names.success().text(), "default\nother");
    dctl(&["context", "rm"]).fails_with(1, "there is no Docker context \"dctl\"");
}

#[test]
fn a_context_that_somebody_else_made_is_not_replaced() {
    let (installation, command) = beside_the_shared_one();
    docker(
        &installation,
        &[
            "context",
            "create",
            "dctl",
            "--docker",
            "host=unix:///mine.sock",
        ],
    )
    .success();
    let used = command::run(&mut command(&["context", "use"]), b"", LONG);
    used.fails_with(1, "that dctl did not make");
    let host = docker(
        &installation,
        &[
            "context",
            "inspect",
            "dctl",
            "--format",
            "{{.Endpoints.docker.Host}}",
        ],
    );
    assert_eq!(host.success().text(), "unix:///mine.sock");
}

#[test]
fn the_first_run_asks_once_at_a_terminal() {
    let (installation, command) = beside_the_shared_one();
    installation.forget_that_it_was_asked();
    let run = ["run", "--rm", "-it", &shared().busybox, "echo", "it ran"];
    // Nobody to ask.
    command::run(
        &mut command(&["run", "--rm", &shared().busybox, "true"]),
        b"",
        LONG,
    )
    .success();
    let mut terminal = Terminal::start(&mut command(&run), 24, 80);
    terminal.wait_for("Docker context \"dctl\"? [Y/n]", LONG);
    terminal.type_text("y\r");
    terminal.wait_for("it ran", LONG);
    assert_eq!(terminal.finish(LONG), 0);
    let file = fs::read(installation.home().join(".docker/config.json")).unwrap();
    let configuration: Value = serde_json::from_slice(&file).unwrap();
    assert_eq!(configuration["currentContext"], "dctl");

    docker(&installation, &["context", "use", "default"]).success();
    let mut terminal = Terminal::start(&mut command(&run), 24, 80);
    terminal.wait_for("it ran", LONG);
    assert_eq!(terminal.finish(LONG), 0);
    let shown = command::run(&mut command(&["context", "show"]), b"", LONG);
    assert_eq!(
        shown.success().text(),
        "dctl: registered; docker uses \"default\""
    );
}
