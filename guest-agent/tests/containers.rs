//! Containers under the real agent, outside of a machine: run as root, with
//! Debian's busybox-static as the image.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::{collections::HashMap, io::Write, net::Shutdown, path::PathBuf, time::Duration};

use guest_protocol::{
    ErrorKind,
    container::{Event, ExecConfig, Status},
    docker::{ContainerConfig, HostConfig, RestartPolicy, RestartPolicyNameEnum},
    methods::*,
};
use support::{TestAgent, command, script};

fn stop(container: &str, timeout: i64) -> ContainerStop {
    ContainerStop {
        container: container.into(),
        signal: None,
        timeout: Some(timeout),
    }
}

fn remove(container: &str, force: bool) -> ContainerRemove {
    ContainerRemove {
        container: container.into(),
        force,
        volumes: true,
    }
}

fn logs(container: &str, follow: bool) -> ContainerLogs {
    ContainerLogs {
        container: container.into(),
        follow,
        stdout: true,
        stderr: true,
        since: 0,
        until: 0,
        timestamps: false,
        tail: None,
    }
}

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
fn programs_that_cannot_run_are_told_apart() {
    let agent = TestAgent::start();
    for (program, kind, text) in [
        (
            "nothing",
            ErrorKind::CommandNotFound,
            "executable file not found in $PATH",
        ),
        (
            "/no/thing",
            ErrorKind::CommandNotFound,
            "no such file or directory",
        ),
        (
            "/no-interpreter",
            ErrorKind::CommandNotFound,
            "no such file or directory",
        ),
        (
            "/data.txt",
            ErrorKind::CommandNotExecutable,
            "permission denied",
        ),
        ("/etc", ErrorKind::CommandNotExecutable, "permission denied"),
        (
            "/no-format",
            ErrorKind::CommandNotExecutable,
            "exec /no-format: exec format error",
        ),
    ] {
        let id = agent
            .create(command(&[program]), HostConfig::default())
            .unwrap();
        let error = agent.start_container(&id).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(text), "{error}");
        assert!(
            error
                .message
                .starts_with("failed to create task for container: OCI runtime create failed: "),
            "{error}"
        );
        let state = agent.inspect(&id).unwrap().state;
        assert_eq!(state.status, Status::Created);
        assert_eq!(
            state.exit_code,
            if kind == ErrorKind::CommandNotFound {
                127
            } else {
                126
            }
        );
        assert_eq!(state.error, error.message);
    }
}

#[test]
fn a_container_is_confined_as_docker_does() {
    let agent = TestAgent::start();
    let output = agent
        .run(
            script("grep -E 'CapEff|CapBnd|Seccomp:|NoNewPrivs' /proc/self/status; mount -t tmpfs x /tmp; unshare -U true; ls /sys/firmware; hostname"),
            HostConfig::default(),
        )
        .unwrap();
    let text = output.text();
    for line in [
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "Seccomp:\t2",
        "NoNewPrivs:\t0",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(
        output.error_text().contains("permission denied"),
        "{output:?}"
    );
    assert!(
        output.error_text().contains("Operation not permitted"),
        "{output:?}"
    );

    let privileged = HostConfig {
        privileged: Some(true),
        ..HostConfig::default()
    };
    let output = agent
        .run(
            script("grep Seccomp: /proc/self/status; mount -t tmpfs x /tmp && echo mounted"),
            privileged,
        )
        .unwrap();
    assert_eq!(output.text(), "Seccomp:\t0\nmounted\n", "{output:?}");
}

#[test]
fn devices_of_the_machine_are_out_of_reach() {
    let agent = TestAgent::start();
    // The numbers of the first disk of the virtio driver, of a loop device and of
    // kernel memory; that of /dev/zero is allowed.
    let probe = "for n in 'b 254 0' 'b 7 0' 'c 1 1' 'c 1 5'; do mknod /tmp/x $n; \
                 head -c1 /tmp/x >/dev/null 2>&1 && echo open $n; rm -f /tmp/x 2>/dev/null || busybox rm /tmp/x; done";
    let output = agent.run(script(probe), HostConfig::default()).unwrap();
    assert_eq!(output.text(), "open c 1 5\n", "{output:?}");
}

#[test]
fn users_are_the_containers_own() {
    let agent = TestAgent::start();
    let run = |user: &str| {
        let config = ContainerConfig {
            user: Some(user.into()),
            working_dir: Some("/made/here".into()),
            ..script("id; pwd; echo $HOME; echo again > /dev/stdout")
        };
        agent.run(config, HostConfig::default())
    };
    let text = run("app").unwrap().text();
    assert_eq!(
        text,
        "uid=1000(app) gid=1000(app) groups=50(staff)\n/made/here\n/home/app\nagain\n"
    );
    assert!(
        run("4711:50")
            .unwrap()
            .text()
            .starts_with("uid=4711 gid=50(staff)")
    );
    let error = run("nobody").unwrap_err();
    assert!(
        error.message.contains("unable to find user nobody"),
        "{error}"
    );
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
fn what_the_user_asks_for_is_there() {
    let agent = TestAgent::start();
    let host = HostConfig {
        binds: Some(vec!["store:/store".into()]),
        tmpfs: Some([("/scratch".to_owned(), "size=1m".to_owned())].into()),
        readonly_rootfs: Some(true),
        extra_hosts: Some(vec!["other:10.0.0.7".into()]),
        ..HostConfig::default()
    };
    let config = ContainerConfig {
        env: Some(vec!["COLOUR=blue".into()]),
        hostname: Some("box".into()),
        ..script(
            "echo kept > /store/file; touch /scratch/x && echo scratch; touch /x; hostname; echo $COLOUR; cat /etc/hosts; ip addr show lo",
        )
    };
    let output = agent.run(config, host).unwrap();
    let text = output.text();
    for part in ["scratch\nbox\nblue\n", "10.0.0.7\tother", "LOOPBACK,UP"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(output.error_text().contains("Read-only file system"));
    let again = HostConfig {
        binds: Some(vec!["store:/elsewhere:ro".into()]),
        ..HostConfig::default()
    };
    let output = agent
        .run(script("cat /elsewhere/file; touch /elsewhere/x"), again)
        .unwrap();
    assert_eq!(output.text(), "kept\n");
    assert!(output.error_text().contains("Read-only file system"));
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
fn execs_run_beside_the_first_process() {
    let agent = TestAgent::start();
    let id = agent
        .create(command(&["sleep", "1000"]), HostConfig::default())
        .unwrap();
    agent.start_container(&id).unwrap();
    let exec = |config: ExecConfig, stdin: &[u8]| {
        let tty = config.tty;
        let exec = agent
            .call(ExecCreate {
                container: id.clone(),
                config: ExecConfig {
                    attach_stdin: true,
                    attach_stdout: true,
                    attach_stderr: true,
                    ..config
                },
            })?
            .id;
        let start = ExecStart {
            exec: exec.clone(),
            detach: false,
            console_size: Some([33, 44]),
        };
        let started = agent.open(start);
        let inspected = |agent: &TestAgent| {
            agent
                .call(ExecInspect { exec: exec.clone() })
                .unwrap()
                .exit_code
        };
        match started {
            Ok((_, mut call)) => {
                call.stream.write_all(stdin).unwrap();
                call.stream.shutdown(Shutdown::Write).unwrap();
                let (stdout, _) = call.output(tty);
                Ok((String::from_utf8(stdout).unwrap(), inspected(&agent)))
            }
            Err(error) => {
                let code = if error.kind == ErrorKind::CommandNotFound {
                    127
                } else {
                    126
                };
                assert_eq!(inspected(&agent), Some(code));
                Err(error)
            }
        }
    };
    let words = |text: &str| ["sh", "-c", text].map(str::to_owned).to_vec();
    let config = ExecConfig {
        cmd: words("cat; id -u; pwd; echo $X; exit 3"),
        user: "app".into(),
        working_dir: "/tmp".into(),
        env: vec!["X=y".into()],
        ..ExecConfig::default()
    };
    assert_eq!(
        exec(config, b"in ").unwrap(),
        ("in 1000\n/tmp\ny\n".into(), Some(3))
    );
    let config = ExecConfig {
        cmd: words("sleep 0.3; stty size"),
        tty: true,
        ..ExecConfig::default()
    };
    assert_eq!(exec(config, b"").unwrap(), ("33 44\r\n".into(), Some(0)));
    for (program, kind, reason) in [
        (
            "nothing",
            ErrorKind::CommandNotFound,
            "exec: \"nothing\": executable file not found in $PATH",
        ),
        (
            "/data.txt",
            ErrorKind::CommandNotExecutable,
            "exec: \"/data.txt\": permission denied",
        ),
    ] {
        let config = ExecConfig {
            cmd: vec![program.into()],
            ..ExecConfig::default()
        };
        let error = exec(config, b"").unwrap_err();
        assert_eq!(error.kind, kind);
        assert_eq!(
            error.message,
            format!(
                "OCI runtime exec failed: exec failed: \
                 unable to start container process: {reason}"
            )
        );
    }
    // What an exec leaves behind does not hold its stream.
    let config = ExecConfig {
        cmd: words("sleep 1000 & echo left"),
        ..ExecConfig::default()
    };
    assert_eq!(exec(config, b"").unwrap().0, "left\n");
    let top = agent
        .call(ContainerTop {
            container: id.clone(),
        })
        .unwrap();
    assert_eq!(top.processes.len(), 2, "{top:?}");
    agent.call(remove(&id, true)).unwrap();
}

#[test]
fn stop_asks_first_and_then_kills() {
    let agent = TestAgent::start();
    let polite = agent
        .create(
            script("trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"),
            HostConfig::default(),
        )
        .unwrap();
    let mut attached = agent.attach(&polite, false);
    agent.start_container(&polite).unwrap();
    attached.read_until("ready");
    agent.call(stop(&polite, 60)).unwrap();
    assert_eq!(agent.inspect(&polite).unwrap().state.exit_code, 5);
    assert_eq!(
        agent.call(stop(&polite, 60)).unwrap_err().kind,
        ErrorKind::NotModified
    );

    let deaf = agent
        .create(command(&["sleep", "1000"]), HostConfig::default())
        .unwrap();
    agent.start_container(&deaf).unwrap();
    assert_eq!(
        agent.start_container(&deaf).unwrap_err().kind,
        ErrorKind::NotModified
    );
    agent.call(stop(&deaf, 0)).unwrap();
    assert_eq!(agent.inspect(&deaf).unwrap().state.exit_code, 137);
    let killed = agent.call(ContainerKill {
        container: deaf.clone(),
        signal: "TERM".into(),
    });
    assert_eq!(killed.unwrap_err().kind, ErrorKind::Conflict);
}

#[test]
fn names_are_unique_and_changeable() {
    let agent = TestAgent::start();
    let first = agent
        .create_named(
            Some("web"),
            command(&["sleep", "1000"]),
            HostConfig::default(),
        )
        .unwrap();
    let taken = agent
        .create_named(Some("/web"), command(&["true"]), HostConfig::default())
        .unwrap_err();
    assert_eq!(taken.kind, ErrorKind::Conflict);
    assert_eq!(
        taken.message,
        format!(
            "Conflict. The container name \"/web\" is already in use by container \"{first}\". \
             You have to remove (or rename) that container to be able to reuse that name."
        )
    );
    agent
        .call(ContainerRename {
            container: "web".into(),
            name: "site".into(),
        })
        .unwrap();
    assert_eq!(agent.inspect("web").unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(agent.inspect("site").unwrap().id, first);
    assert_eq!(agent.inspect(&first[..8]).unwrap().id, first);
    agent.start_container("site").unwrap();
    assert_eq!(
        agent.call(remove("site", false)).unwrap_err().kind,
        ErrorKind::Conflict
    );
    agent.call(remove("site", true)).unwrap();
    agent
        .create_named(Some("site"), command(&["true"]), HostConfig::default())
        .unwrap();
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

#[test]
fn a_policy_restarts_what_fails_and_stop_ends_that() {
    let agent = TestAgent::start();
    let policy = |name, most| HostConfig {
        restart_policy: Some(RestartPolicy {
            name: Some(name),
            maximum_retry_count: Some(most),
        }),
        ..HostConfig::default()
    };
    let tries = agent
        .create(
            command(&["false"]),
            policy(RestartPolicyNameEnum::ON_FAILURE, 2),
        )
        .unwrap();
    agent.start_container(&tries).unwrap();
    let mut wait = agent.wait(&tries, WaitCondition::NotRunning);
    assert_eq!(wait.wait_result().exit_code, 1);
    assert_eq!(agent.inspect(&tries).unwrap().restart_count, 2);

    let always = agent
        .create(command(&["true"]), policy(RestartPolicyNameEnum::ALWAYS, 0))
        .unwrap();
    agent.start_container(&always).unwrap();
    for _ in 0..2 {
        let mut wait = agent.wait(&always, WaitCondition::NextExit);
        assert_eq!(wait.wait_result().exit_code, 0);
    }
    agent.call(stop(&always, 0)).unwrap();
    assert_eq!(agent.inspect(&always).unwrap().state.status, Status::Exited);
}

#[test]
fn events_tell_a_containers_life() {
    let agent = TestAgent::start();
    let ((), mut events) = agent.open(Events {}).unwrap();
    let config = ContainerConfig {
        labels: Some([("team".to_owned(), "blue".to_owned())].into()),
        ..script("exit 4")
    };
    agent.run(config, HostConfig::default()).unwrap();
    let mut actions = Vec::new();
    while actions.last().map(String::as_str) != Some("destroy") {
        let event: Event = events.receive();
        assert_eq!(event.attributes["team"], "blue");
        assert_eq!(event.attributes["image"], "busybox");
        if event.action == "die" {
            assert_eq!(event.attributes["exitCode"], "4");
        }
        actions.push(event.action);
    }
    assert_eq!(actions, ["create", "attach", "start", "die", "destroy"]);
}

#[test]
#[allow(clippy::zero_sized_map_values, reason = "Docker's type for a set")]
fn records_survive_a_kill_of_the_agent() {
    let mut agent = TestAgent::start();
    let running = agent
        .create_named(
            Some("running"),
            command(&["sleep", "1000"]),
            HostConfig::default(),
        )
        .unwrap();
    agent.start_container(&running).unwrap();
    let created = agent
        .create(command(&["true"]), HostConfig::default())
        .unwrap();
    let once = HostConfig {
        auto_remove: Some(true),
        ..HostConfig::default()
    };
    let once = agent
        .create(
            ContainerConfig {
                volumes: Some(HashMap::from([("/kept".into(), HashMap::new())])),
                ..command(&["sleep", "1000"])
            },
            once,
        )
        .unwrap();
    agent.start_container(&once).unwrap();
    let volume = PathBuf::from(
        agent.inspect(&once).unwrap().mounts[0]
            .source
            .clone()
            .unwrap(),
    );
    assert!(volume.exists());
    let pids = [&running, &once].map(|id| agent.inspect(id).unwrap().state.pid);
    agent.kill_and_start();
    // In a machine they would have gone with PID 1.
    for pid in pids {
        let killed = std::process::Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status();
        assert!(killed.unwrap().success());
    }
    assert_eq!(agent.inspect(&once).unwrap_err().kind, ErrorKind::NotFound);
    assert!(!volume.exists());

    let state = agent.inspect("running").unwrap().state;
    assert_eq!(
        (state.status, state.exit_code, state.pid),
        (Status::Exited, 137, 0)
    );
    assert_eq!(
        agent.inspect(&created).unwrap().state.status,
        Status::Created
    );
    // A power cut takes folders that were only just made.
    std::fs::remove_dir_all(agent.data().join("containers").join(&created)).unwrap();
    let mut wait = agent.wait(&created, WaitCondition::NextExit);
    agent.start_container(&created).unwrap();
    assert_eq!(wait.wait_result().exit_code, 0);
    agent.call(remove(&running, false)).unwrap();
}

#[test]
fn strangers_bytes_do_no_harm() {
    let agent = TestAgent::start();
    for bytes in [
        &b"\xff\xff\xff\xff"[..],
        b"\0\0\0\x04null",
        b"\0\0\0\x02{}",
        b"\0\0\0\x20short",
        b"GET / HTTP/1.1\r\n\r\n",
        b"",
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(agent.socket()).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
    }
    agent.call(MachineInfo {}).unwrap();
}

#[test]
fn a_shell_in_the_machine_runs_what_is_asked() {
    let agent = TestAgent::start();
    let (_, mut call) = agent
        .open(MachineShell {
            config: ExecConfig {
                attach_stdin: true,
                attach_stdout: true,
                attach_stderr: true,
                tty: true,
                cmd: ["/bin/sh", "-c", "tty; read line; echo got $line; exit 6"]
                    .map(str::to_owned)
                    .to_vec(),
                ..ExecConfig::default()
            },
        })
        .unwrap();
    call.read_until("/dev/pts/");
    call.stream.write_all(b"this\n").unwrap();
    call.read_until("got this");
}
