//! Names, ends, restarts, events, and what survives.

use std::{collections::HashMap, io::Write, net::Shutdown, path::PathBuf};

use guest_protocol::{
    ErrorKind,
    container::{Event, Status},
    docker::{ContainerConfig, HostConfig, RestartPolicy, RestartPolicyNameEnum},
    methods::*,
};

use crate::{
    remove, stop,
    support::{TestAgent, command, script},
};

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
fn a_stop_that_waits_holds_up_nobody() {
    let agent = TestAgent::start();
    let deaf = agent
        .create(command(&["sleep", "1000"]), HostConfig::default())
        .unwrap();
    for _ in 0..2 {
        agent.start_container(&deaf).unwrap();
        std::thread::scope(|scope| {
            // For ever, and for longer than the test.
            let waiting = [-1, 1000].map(|seconds| {
                let (agent, deaf) = (&agent, &deaf);
                scope.spawn(move || agent.call(stop(deaf, seconds)))
            });
            agent.call(stop(&deaf, 0)).unwrap();
            for stopped in waiting {
                // It may have come when all was over.
                if let Err(error) = stopped.join().unwrap() {
                    assert_eq!(error.kind, ErrorKind::NotModified);
                }
            }
        });
        assert_eq!(agent.inspect(&deaf).unwrap().state.exit_code, 137);
    }
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
    let ((), mut events) = agent
        .open(Events {
            since: None,
            until: None,
        })
        .unwrap();
    let config = ContainerConfig {
        labels: Some([("team".to_owned(), "blue".to_owned())].into()),
        ..script("exit 4")
    };
    agent.run(config, HostConfig::default()).unwrap();
    let mut actions = Vec::new();
    while actions.last().map(String::as_str) != Some("destroy") {
        let event: Event = events.receive();
        if event.kind == "network" {
            assert_eq!(event.attributes["type"], "bridge");
            actions.push(event.action);
            continue;
        }
        assert_eq!(event.attributes["team"], "blue");
        assert_eq!(event.attributes["image"], "busybox");
        if event.action == "die" {
            assert_eq!(event.attributes["exitCode"], "4");
        }
        actions.push(event.action);
    }
    assert_eq!(
        actions,
        [
            "create",
            "attach",
            "connect",
            "start",
            "disconnect",
            "die",
            "destroy"
        ]
    );
}

#[test]
fn volumes_and_networks_are_told_of_inside_a_run() {
    let agent = TestAgent::start();
    let host = || HostConfig {
        binds: Some(vec!["store:/store".into()]),
        ..HostConfig::default()
    };
    let id = agent.create(command(&["true"]), host()).unwrap();
    let mut wait = agent.wait(&id, WaitCondition::NextExit);
    agent.start_container(&id).unwrap();
    wait.wait_result();
    agent.call(remove(&id, false)).unwrap();
    let told = [
        "image pull",
        "volume create",
        "container create",
        "volume mount",
        "network connect",
        "container start",
        "network disconnect",
        "volume unmount",
        "container die",
        "container destroy",
    ];
    assert_eq!(agent.past_events(), told);

    // A start that fails takes back what it did.
    let id = agent.create(command(&["/nothing"]), host()).unwrap();
    agent.start_container(&id).unwrap_err();
    let failed = ["container create", "volume mount", "volume unmount"];
    assert_eq!(agent.past_events()[told.len()..], failed);
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
    // A power cut takes folders that were only just made.
    let folder = agent.data().join("containers").join(&created);
    agent.kill_and_start_after(|| std::fs::remove_dir_all(&folder).unwrap());
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
    assert!(folder.is_dir());
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
