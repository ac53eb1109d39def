//! Mistakes on the command line, and output that nobody reads: Docker's exit
//! codes, and no engine is started for them.

mod support;

use std::process::Stdio;

use support::{Home, stderr, stdout};

#[test]
fn mistakes_have_dockers_exit_codes() {
    let home = Home::new();
    for (arguments, code, part) in [
        (&["run", "--nope", "x"][..], 125, "--nope"),
        (&["run", "-m", "1q", "x"], 125, "invalid suffix: 'q'"),
        (
            &["run", "--ulimit", "foo", "x"],
            125,
            "invalid ulimit argument: foo",
        ),
        (&["run", "--pull", "foo", "x"], 125, "foo"),
        (&["run"], 1, "IMAGE"),
        (&["exec", "x"], 1, "COMMAND"),
        (&["rm"], 1, "CONTAINER"),
        (&["nope"], 1, "nope"),
        (&["run", "-it", "x"], 1, "the input device is not a TTY"),
        (
            &["run", "-d", "-a", "stdout", "x"],
            125,
            "cannot specify both --attach and --detach",
        ),
        (
            &["run", "--rm", "--restart", "always", "x"],
            125,
            "cannot specify both --restart and --rm",
        ),
        (
            &["run", "--env-file", "/nonexistent", "x"],
            125,
            "open /nonexistent",
        ),
        (&["pull", "BAD"], 1, "must be lowercase"),
        (&["ps", "--format", "{{.ID"], 1, "unclosed action"),
        (&["ps", "-f", "x"], 1, "bad format of filter"),
        (
            &["logs", "--since", "x", "y"],
            1,
            "invalid value for \"since\"",
        ),
        (
            &["start", "-a", "x", "y"],
            1,
            "cannot start and attach multiple containers at once",
        ),
        (&["tag", "x", "BAD"], 1, "is not a valid repository/tag"),
    ] {
        let output = home.run(arguments);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
    assert!(home.engine().is_none());
}

#[test]
fn help_and_version_need_nothing() {
    let home = Home::new();
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["help", "run"],
        &["run", "--help"],
        &["container", "ls", "--help"],
        &["completion", "bash"],
    ] {
        let output = home.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(!output.stdout.is_empty());
        assert!(!stdout(&output).contains('\x1b'));
    }
    assert!(home.engine().is_none());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let home = Home::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = home
        .dctl(&["completion", "bash"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    // What a shell reports of a program that SIGPIPE ended.
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(stderr(&output), "");
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let home = Home::new();
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = home.dctl(&["--version"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("cannot write the output"),
        "{}",
        stderr(&output)
    );
}
