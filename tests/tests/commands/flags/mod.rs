//! The options of `run` and `create`, and what each does inside a container.

mod limits;
mod namespaces;
mod refused;
mod security;
mod settings;

use crate::shared::{dctl, shared};

/// What `script` says in a busybox container with these options.
#[track_caller]
fn inside(options: &[&str], script: &str) -> String {
    run(options, script).success().text()
}

/// Runs `script` in a busybox container with these options.
#[track_caller]
fn run(options: &[&str], script: &str) -> tests::Finished {
    let busybox = &shared().busybox;
    let tail = [busybox.as_str(), "sh", "-c", script];
    dctl(&[&["run", "--rm"], options, &tail].concat())
}

/// Fails unless `text` has these lines, in any order.
#[track_caller]
fn has_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            text.lines().any(|found| found.trim() == *line),
            "no line {line:?} in:\n{text}"
        );
    }
}
