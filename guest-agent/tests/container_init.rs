//! The init process of `--init` containers, outside of one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

fn init(command: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_dctl-agent"))
        .arg0("/sbin/docker-init")
        .arg("--")
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn the_exit_code_is_the_programs() {
    for (command, code) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["/no/such/program"], 127),
        (&["/etc"], 126),
    ] {
        assert_eq!(
            init(command).wait().unwrap().code(),
            Some(code),
            "{command:?}"
        );
    }
}

#[test]
fn signals_are_passed_on() {
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let mut init = init(&["sh", "-c", script]);
    let mut line = String::new();
    BufReader::new(init.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let killed = Command::new("kill").arg(init.id().to_string()).status();
    assert!(killed.unwrap().success());
    assert_eq!(init.wait().unwrap().code(), Some(9));
}
