//! `dctl` starts the engine when it does not run: once, whoever asks, and with
//! clear words when it cannot.

mod support;

use std::{os::unix::fs::PermissionsExt, process::Stdio};

use rustix::process::Signal;
use support::{Home, stderr, stdout};

const SERVER: &[&str] = &["version", "--format", "{{.Server.Version}}"];

#[test]
fn the_first_command_starts_the_engine_and_the_next_finds_it() {
    let home = Home::new();
    let first = home.run(SERVER);
    assert!(first.status.success(), "{}", stderr(&first));
    assert_eq!(stdout(&first).trim(), env!("CARGO_PKG_VERSION"));
    let engine = home.engine().unwrap();
    assert!(home.run(SERVER).status.success());
    assert_eq!(home.engine(), Some(engine));
    let socket = std::fs::metadata(home.path("run/docker.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

#[test]
fn many_commands_at_once_start_one_engine() {
    let home = Home::new();
    let commands: Vec<_> = (0..8)
        .map(|_| {
            home.dctl(SERVER)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for command in commands {
        let output = command.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let second = home.run(&["engine"]);
    assert_eq!(second.status.code(), Some(75), "{}", stderr(&second));
    assert!(stderr(&second).contains("an engine runs already"));
}

#[test]
fn an_engine_that_was_killed_is_started_again() {
    let home = Home::new();
    assert!(home.run(SERVER).status.success());
    let killed = home.engine();
    home.end_engine(Signal::KILL);
    let again = home.run(SERVER);
    assert!(again.status.success(), "{}", stderr(&again));
    assert_ne!(home.engine(), killed);
}

#[test]
fn an_engine_that_cannot_start_says_why() {
    let home = Home::new();
    std::fs::create_dir_all(home.path("run")).unwrap();
    std::fs::set_permissions(home.path("run"), PermissionsExt::from_mode(0o700)).unwrap();
    // Its lock cannot be a directory.
    std::fs::create_dir(home.path("run/engine.lock")).unwrap();
    let output = home.run(SERVER);
    assert_eq!(output.status.code(), Some(125));
    let said = stderr(&output);
    assert!(
        said.starts_with("dctl: the engine did not start:\n"),
        "{said}"
    );
    assert!(said.contains("engine.lock"), "{said}");
    assert!(said.contains("engine.log"), "{said}");
}

#[test]
fn an_engine_named_by_the_user_is_not_started() {
    let home = Home::new();
    for (host, part) in [
        (
            "unix:///nonexistent/docker.sock",
            "cannot connect to the engine at /nonexistent/docker.sock",
        ),
        ("tcp://127.0.0.1:1", "DCTL_HOST must be unix://"),
    ] {
        let output = home.dctl(&["ps"]).env("DCTL_HOST", host).output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
        assert!(home.engine().is_none());
    }
}

#[test]
fn version_tells_of_the_client_even_without_an_engine() {
    let home = Home::new();
    let output = home
        .dctl(&["version"])
        .env("DCTL_HOST", "unix:///nonexistent/docker.sock")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(stdout(&output).contains("Client:"));
    assert!(!stdout(&output).contains("Server:"));
}

#[test]
fn a_machine_that_is_off_can_be_looked_at() {
    let home = Home::new();
    let output = home.run(&["machine", "status", "--format", "{{.name}} {{.state}}"]);
    assert_eq!(stdout(&output), "default off\n", "{}", stderr(&output));
    let removed = home.run(&["machine", "rm"]);
    assert_eq!(removed.status.code(), Some(1));
    assert!(stderr(&removed).contains("--force"));
}
