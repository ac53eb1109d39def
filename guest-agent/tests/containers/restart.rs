//! Restart policies: the pauses between runs, and what ends them.

use std::time::{Duration, Instant};

use guest_protocol::{
    container::{Event, Status},
    docker::{ContainerUpdateBody, HostConfig, RestartPolicy, RestartPolicyNameEnum},
    methods::*,
};

use crate::{
    stop,
    support::{PATIENCE, TestAgent, command, script},
};

fn policy(name: RestartPolicyNameEnum, most: i64) -> HostConfig {
    HostConfig {
        restart_policy: Some(RestartPolicy {
            name: Some(name),
            maximum_retry_count: Some(most),
        }),
        ..HostConfig::default()
    }
}

#[test]
fn pauses_double_and_the_state_between_runs_is_restarting() {
    let agent = TestAgent::start();
    let id = agent
        .create(
            command(&["false"]),
            policy(RestartPolicyNameEnum::ON_FAILURE, 4),
        )
        .unwrap();
    let ((), mut events) = agent
        .open(Events {
            since: None,
            until: None,
        })
        .unwrap();
    agent.start_container(&id).unwrap();
    let mut dies: Vec<i64> = Vec::new();
    let mut starts: Vec<i64> = Vec::new();
    let mut seen_restarting = false;
    while dies.len() < 5 {
        let event: Event = events.receive();
        match event.action.as_str() {
            "die" => {
                dies.push(event.time);
                let state = agent.inspect(&id).unwrap().state;
                if state.status == Status::Restarting {
                    seen_restarting = true;
                    assert!(state.is_running());
                    assert_eq!((state.pid, state.exit_code), (0, 1));
                }
            }
            "start" => starts.push(event.time),
            _ => {}
        }
    }
    assert!(seen_restarting);
    // 100, 200, 400, 800 ms, and what a start takes.
    let pauses: Vec<i64> = dies
        .iter()
        .zip(&starts[1..])
        .map(|(died, started)| (started - died) / 1_000_000)
        .collect();
    for (pause, least) in pauses.iter().zip([100, 200, 400, 800]) {
        assert!(*pause >= least, "{pauses:?}");
    }
    let container = agent.inspect(&id).unwrap();
    assert_eq!(container.restart_count, 4);
    let mut wait = agent.wait(&id, WaitCondition::NotRunning);
    assert_eq!(wait.wait_result().exit_code, 1);
    // Started by hand it has all its tries again.
    agent.start_container(&id).unwrap();
    assert_eq!(agent.inspect(&id).unwrap().restart_count, 0);
    agent.call(stop(&id, 0)).unwrap();
}

#[test]
fn a_stop_between_two_runs_is_the_end() {
    let agent = TestAgent::start();
    let id = agent
        .create(command(&["true"]), policy(RestartPolicyNameEnum::ALWAYS, 0))
        .unwrap();
    agent.start_container(&id).unwrap();
    // The sixth pause is 3.2 s long: time enough to stop it in there.
    let began = Instant::now();
    while agent.inspect(&id).unwrap().restart_count < 5 {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut wait = agent.wait(&id, WaitCondition::NotRunning);
    while agent.inspect(&id).unwrap().state.status != Status::Restarting {
        std::thread::sleep(Duration::from_millis(1));
    }
    agent.call(stop(&id, 0)).unwrap();
    assert_eq!(wait.wait_result().exit_code, 0);
    assert_eq!(agent.inspect(&id).unwrap().state.status, Status::Exited);
    let runs = agent.inspect(&id).unwrap().restart_count;
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(agent.inspect(&id).unwrap().restart_count, runs);
}

#[test]
fn policies_hold_across_a_kill_of_the_agent() {
    let mut agent = TestAgent::start();
    let make = |name: &str, policy_name, text: &str| {
        agent
            .create_named(Some(name), script(text), policy(policy_name, 0))
            .unwrap()
    };
    make("no", RestartPolicyNameEnum::NO, "sleep 1000");
    make("always", RestartPolicyNameEnum::ALWAYS, "sleep 1000");
    make(
        "always-stopped",
        RestartPolicyNameEnum::ALWAYS,
        "sleep 1000",
    );
    make(
        "unless",
        RestartPolicyNameEnum::UNLESS_STOPPED,
        "sleep 1000",
    );
    make(
        "unless-stopped",
        RestartPolicyNameEnum::UNLESS_STOPPED,
        "sleep 1000",
    );
    make(
        "on-failure",
        RestartPolicyNameEnum::ON_FAILURE,
        "sleep 1000",
    );
    make("never-started", RestartPolicyNameEnum::ALWAYS, "sleep 1000");
    let mut pids = Vec::new();
    for name in [
        "no",
        "always",
        "always-stopped",
        "unless",
        "unless-stopped",
        "on-failure",
    ] {
        agent.start_container(name).unwrap();
        pids.push(agent.inspect(name).unwrap().state.pid);
    }
    agent.call(stop("always-stopped", 0)).unwrap();
    agent.call(stop("unless-stopped", 0)).unwrap();
    // In a machine they go with PID 1.
    agent.kill_and_start_after(|| {
        for pid in pids {
            let _ = std::process::Command::new("kill")
                .args(["-9", &pid.to_string()])
                .stderr(std::process::Stdio::null())
                .status();
        }
    });
    for (name, runs) in [
        ("always", true),
        ("always-stopped", true),
        ("unless", true),
        ("on-failure", true),
        ("no", false),
        ("unless-stopped", false),
        ("never-started", false),
    ] {
        let began = Instant::now();
        while agent.inspect(name).unwrap().state.is_running() != runs {
            assert!(began.elapsed() < PATIENCE, "{name}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_policy_can_be_changed_while_it_runs() {
    let agent = TestAgent::start();
    let id = agent
        .create(
            script("sleep 0.3; exit 3"),
            policy(RestartPolicyNameEnum::NO, 0),
        )
        .unwrap();
    agent.start_container(&id).unwrap();
    agent
        .call(ContainerUpdate {
            container: id.clone(),
            change: Box::new(ContainerUpdateBody {
                restart_policy: policy(RestartPolicyNameEnum::ON_FAILURE, 1).restart_policy,
                ..ContainerUpdateBody::default()
            }),
        })
        .unwrap();
    let mut wait = agent.wait(&id, WaitCondition::NotRunning);
    assert_eq!(wait.wait_result().exit_code, 3);
    assert_eq!(agent.inspect(&id).unwrap().restart_count, 1);
    let once = agent
        .create(
            command(&["sleep", "1000"]),
            HostConfig {
                auto_remove: Some(true),
                ..HostConfig::default()
            },
        )
        .unwrap();
    let refused = agent.call(ContainerUpdate {
        container: once.clone(),
        change: Box::new(ContainerUpdateBody {
            restart_policy: policy(RestartPolicyNameEnum::ALWAYS, 0).restart_policy,
            ..ContainerUpdateBody::default()
        }),
    });
    assert_eq!(
        refused.unwrap_err().message,
        format!(
            "Cannot update container {once}: Restart policy cannot be updated because \
             AutoRemove is enabled for the container"
        )
    );
}
