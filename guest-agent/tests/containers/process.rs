//! What a container's process is given, what it may do, and what runs beside it.

use std::{
    io::Write,
    net::Shutdown,
    time::{Duration, Instant},
};

use guest_protocol::{
    AgentError, ErrorKind,
    container::{ExecConfig, Status},
    docker::{ContainerConfig, HostConfig},
    methods::*,
};

use crate::{
    remove,
    support::{PATIENCE, TestAgent, command, script},
};

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
            raw: tty,
            console_size: Some([33, 44]),
        };
        let (_, mut call) = agent.open(start)?;
        call.stream.write_all(stdin).unwrap();
        call.stream.shutdown(Shutdown::Write).unwrap();
        let (stdout, _) = call.output(tty);
        let inspected = agent.call(ExecInspect { exec }).unwrap();
        Ok::<_, AgentError>((String::from_utf8(stdout).unwrap(), inspected.exit_code))
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
    // The terminal has its size before the program looks, each time.
    for _ in 0..30 {
        let config = ExecConfig {
            cmd: ["stty", "size"].map(str::to_owned).to_vec(),
            tty: true,
            ..ExecConfig::default()
        };
        assert_eq!(exec(config, b"").unwrap(), ("33 44\r\n".into(), Some(0)));
    }
    // And is its user's.
    let config = ExecConfig {
        cmd: words("echo mine > $(tty)"),
        user: "app".into(),
        tty: true,
        ..ExecConfig::default()
    };
    assert_eq!(exec(config, b"").unwrap(), ("mine\r\n".into(), Some(0)));
    // The stream is there before the process, so it is where a failure is told.
    for (program, code, reason) in [
        (
            "nothing",
            127,
            "exec: \"nothing\": executable file not found in $PATH",
        ),
        ("/data.txt", 126, "exec: \"/data.txt\": permission denied"),
    ] {
        let config = ExecConfig {
            cmd: vec![program.into()],
            ..ExecConfig::default()
        };
        let told = format!(
            "OCI runtime exec failed: exec failed: \
             unable to start container process: {reason}\r\n"
        );
        assert_eq!(exec(config, b"").unwrap(), (told, Some(code)));
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
            options: String::new(),
        })
        .unwrap();
    assert_eq!(top.processes.len(), 2, "{top:?}");
    agent.call(remove(&id, true)).unwrap();
}

#[test]
fn a_client_that_leaves_in_the_middle_of_output_ends_the_input() {
    let agent = TestAgent::start();
    let id = agent
        .create(command(&["sleep", "1000"]), HostConfig::default())
        .unwrap();
    agent.start_container(&id).unwrap();
    // Which end of the connection is noticed first is chance.
    for _ in 0..12 {
        let script = "while echo more; do :; done & cat > /dev/null; kill $!";
        let config = ExecConfig {
            attach_stdin: true,
            attach_stdout: true,
            cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
            ..ExecConfig::default()
        };
        let container = id.clone();
        let exec = agent.call(ExecCreate { container, config }).unwrap().id;
        let (_, mut call) = agent
            .open(ExecStart {
                exec: exec.clone(),
                detach: false,
                raw: false,
                console_size: None,
            })
            .unwrap();
        call.read_until("more");
        drop(call);
        let began = Instant::now();
        while agent
            .call(ExecInspect { exec: exec.clone() })
            .unwrap()
            .running
        {
            assert!(began.elapsed() < PATIENCE, "it waits for input");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    agent.call(remove(&id, true)).unwrap();
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
