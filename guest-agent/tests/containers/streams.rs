//! Standard streams, terminals and logs.

use std::{io::Write, net::Shutdown, time::Duration};

use guest_protocol::{
    docker::{ContainerConfig, HostConfig},
    methods::*,
};

use crate::{
    logs,
    support::{TestAgent, command, script},
};

#[test]
fn output_and_exit_codes_come_back() {
    let agent = TestAgent::start();
    let output = agent
        .run(
            script("echo out; echo err >&2; exit 7"),
            HostConfig::default(),
        )
        .unwrap();
    assert_eq!(output.exit_code, 7);
    assert_eq!(output.text(), "out\n");
    assert_eq!(output.error_text(), "err\n");
    let output = agent
        .run(
            script("sh -c 'kill -TERM $$'; exit $?"),
            HostConfig::default(),
        )
        .unwrap();
    assert_eq!(output.exit_code, 143);
    assert!(agent.call(ContainerList {}).unwrap().is_empty());
}

#[test]
fn megabytes_pass_through_both_ways() {
    let agent = TestAgent::start();
    let bytes: Vec<u8> = (0..8_000_000_u32)
        .map(|number| ((number * 7) >> 3) as u8)
        .collect();
    let config = ContainerConfig {
        open_stdin: Some(true),
        stdin_once: Some(true),
        ..command(&["cat"])
    };
    let output = agent
        .run_with_stdin(config, HostConfig::default(), &bytes)
        .unwrap();
    assert_eq!(output.exit_code, 0);
    assert!(
        output.stdout == bytes,
        "{} bytes came back",
        output.stdout.len()
    );
}

#[test]
fn a_slow_reader_loses_nothing() {
    let agent = TestAgent::start();
    let id = agent
        .create(
            script("dd if=/dev/zero bs=64k count=64 2>/dev/null; echo end >&2"),
            HostConfig::default(),
        )
        .unwrap();
    let mut attached = agent.attach(&id, false);
    let mut wait = agent.wait(&id, WaitCondition::NextExit);
    agent.start_container(&id).unwrap();
    // Longer than an ended container waits for its readers.
    std::thread::sleep(Duration::from_secs(3));
    let (stdout, stderr) = attached.output(false);
    assert_eq!(stdout.len(), 64 * 64 * 1024);
    assert_eq!(stderr, b"end\n");
    assert_eq!(wait.wait_result().exit_code, 0);
}

#[test]
fn a_terminal_belongs_to_its_user() {
    let agent = TestAgent::start();
    let config = ContainerConfig {
        user: Some("app".into()),
        tty: Some(true),
        ..script("echo again > /proc/self/fd/1; echo control > /dev/tty")
    };
    let output = agent.run(config, HostConfig::default()).unwrap();
    assert_eq!(output.text(), "again\r\ncontrol\r\n");
}

#[test]
fn a_terminal_resizes_and_detaches() {
    let agent = TestAgent::start();
    let config = ContainerConfig {
        tty: Some(true),
        open_stdin: Some(true),
        ..command(&["sh"])
    };
    let id = agent.create(config, HostConfig::default()).unwrap();
    agent
        .call(ContainerResize {
            container: id.clone(),
            height: 40,
            width: 100,
        })
        .unwrap();
    let mut attached = agent.attach(&id, true);
    agent.start_container(&id).unwrap();
    attached.stream.write_all(b"stty size\n").unwrap();
    attached.read_until("40 100");
    agent
        .call(ContainerResize {
            container: id.clone(),
            height: 24,
            width: 80,
        })
        .unwrap();
    attached.stream.write_all(b"stty size; tty\n").unwrap();
    let seen = attached.read_until("/dev/");
    assert!(seen.contains("24 80"), "{seen}");
    attached.stream.write_all(b"\x10\x11").unwrap();
    attached.output(true);
    assert!(agent.inspect(&id).unwrap().state.is_running());

    let mut again = agent.attach(&id, true);
    let mut wait = agent.wait(&id, WaitCondition::NotRunning);
    again.stream.write_all(b"exit 5\n").unwrap();
    assert_eq!(wait.wait_result().exit_code, 5);
}

#[test]
fn stdin_that_is_not_once_survives_a_connection() {
    let agent = TestAgent::start();
    let config = ContainerConfig {
        open_stdin: Some(true),
        ..script("read a; echo $a; read b; echo $b")
    };
    let id = agent.create(config, HostConfig::default()).unwrap();
    let mut wait = agent.wait(&id, WaitCondition::NextExit);
    let mut first = agent.attach(&id, true);
    agent.start_container(&id).unwrap();
    first.stream.write_all(b"one\n").unwrap();
    first.stream.shutdown(Shutdown::Write).unwrap();
    first.read_until("one");
    let mut second = agent.attach(&id, true);
    second.stream.write_all(b"two\n").unwrap();
    assert_eq!(wait.wait_result().exit_code, 0);
}

#[test]
fn logs_are_kept_and_followed() {
    let agent = TestAgent::start();
    let id = agent
        .create(
            script("echo one; echo two >&2; sleep 0.5; echo three"),
            HostConfig::default(),
        )
        .unwrap();
    agent.start_container(&id).unwrap();
    let (_, mut followed) = agent.open(logs(&id, true)).unwrap();
    let (stdout, stderr) = followed.output(false);
    assert_eq!(
        (stdout.as_slice(), stderr.as_slice()),
        (&b"one\nthree\n"[..], &b"two\n"[..])
    );
    let tail = ContainerLogs {
        tail: Some(1),
        timestamps: true,
        ..logs(&id, false)
    };
    let (stdout, _) = agent.open(tail).unwrap().1.output(false);
    let text = String::from_utf8(stdout).unwrap();
    assert!(
        text.ends_with("Z three\n") && text.starts_with("20"),
        "{text}"
    );
}
