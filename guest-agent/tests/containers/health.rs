//! Health checks: verdicts, timeouts, and what ends them.

use std::time::Instant;

use guest_protocol::{
    container::{Container, Event, HealthStatus, Status},
    docker::{ContainerConfig, HealthConfig, HostConfig},
    methods::*,
};

use crate::{
    stop,
    support::{PATIENCE, TestAgent, command},
};

const MILLISECOND: i64 = 1_000_000;

/// A sleeping container whose check is `test`, run every 50 ms.
fn checked(agent: &TestAgent, test: &str, timeout: i64) -> String {
    let config = ContainerConfig {
        healthcheck: Some(HealthConfig {
            test: Some(vec!["CMD-SHELL".into(), test.into()]),
            interval: Some(50 * MILLISECOND),
            timeout: Some(timeout),
            retries: Some(2),
            ..HealthConfig::default()
        }),
        ..command(&["sleep", "1000"])
    };
    let id = agent.create(config, HostConfig::default()).unwrap();
    agent.start_container(&id).unwrap();
    id
}

fn until(agent: &TestAgent, id: &str, holds: impl Fn(&Container) -> bool) -> Container {
    let began = Instant::now();
    loop {
        let container = agent.inspect(id).unwrap();
        if holds(&container) {
            return container;
        }
        assert!(began.elapsed() < PATIENCE, "{:?}", container.state);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn status(container: &Container) -> HealthStatus {
    container.state.health.as_ref().unwrap().status
}

#[test]
fn a_check_follows_what_its_command_finds() {
    let agent = TestAgent::start();
    let ((), mut events) = agent
        .open(Events {
            since: None,
            until: None,
        })
        .unwrap();
    let id = checked(&agent, "echo looked; test ! -e /tmp/ill", 0);
    let healthy = until(&agent, &id, |c| status(c) == HealthStatus::Healthy);
    let probe = healthy.state.health.unwrap().log.pop().unwrap();
    assert_eq!((probe.exit_code, probe.output.as_str()), (0, "looked\n"));
    assert!(probe.start > 0 && probe.end >= probe.start);
    let mut actions = Vec::new();
    while actions.last().map(String::as_str) != Some("health_status: healthy") {
        let event: Event = events.receive();
        actions.push(event.action);
    }
    assert!(
        actions.contains(&"exec_create: /bin/sh -c echo looked; test ! -e /tmp/ill".to_owned()),
        "{actions:?}"
    );

    let touch = agent.exec(&id, &["touch", "/tmp/ill"]);
    assert_eq!(touch, 0);
    let ill = until(&agent, &id, |c| status(c) == HealthStatus::Unhealthy);
    let health = ill.state.health.unwrap();
    assert!(
        health.failing_streak >= 2 && health.log.len() <= 5,
        "{health:?}"
    );

    assert_eq!(agent.exec(&id, &["rm", "/tmp/ill"]), 0);
    until(&agent, &id, |c| status(c) == HealthStatus::Healthy);
    // Nobody looks after one that is paused or has ended.
    agent
        .call(ContainerPause {
            container: id.clone(),
        })
        .unwrap();
    let paused = agent.inspect(&id).unwrap();
    assert_eq!(status(&paused), HealthStatus::Unhealthy);
    agent
        .call(ContainerUnpause {
            container: id.clone(),
        })
        .unwrap();
    until(&agent, &id, |c| status(c) == HealthStatus::Healthy);
    agent.call(stop(&id, 0)).unwrap();
    let ended = agent.inspect(&id).unwrap();
    assert_eq!(ended.state.status, Status::Exited);
    assert_eq!(status(&ended), HealthStatus::Unhealthy);
}

#[test]
fn a_probe_that_takes_too_long_is_killed() {
    let agent = TestAgent::start();
    let id = checked(&agent, "echo begun; exec sleep 999", 100 * MILLISECOND);
    let ill = until(&agent, &id, |c| status(c) == HealthStatus::Unhealthy);
    let probe = ill.state.health.unwrap().log.pop().unwrap();
    assert_eq!(probe.exit_code, -1);
    assert_eq!(
        probe.output,
        "Health check exceeded timeout (100ms): begun\n"
    );
    let listed = agent
        .call(ContainerTop {
            container: id.clone(),
            options: String::new(),
        })
        .unwrap();
    let probes = listed
        .processes
        .iter()
        .filter(|row| row.last().is_some_and(|command| command == "sleep 999"))
        .count();
    assert!(probes <= 1, "{listed:?}");
}

#[test]
fn much_output_is_cut() {
    let agent = TestAgent::start();
    let id = checked(&agent, "yes | head -c 100000", 0);
    let healthy = until(&agent, &id, |c| status(c) == HealthStatus::Healthy);
    let output = healthy.state.health.unwrap().log.pop().unwrap().output;
    assert_eq!(output.len(), 4096 + 3);
    assert!(output.ends_with("..."));
}

#[test]
fn a_verdict_outlives_the_agent() {
    let mut agent = TestAgent::start();
    let id = checked(&agent, "exit 1", 0);
    until(&agent, &id, |c| status(c) == HealthStatus::Unhealthy);
    agent.kill_and_start();
    let ended = agent.inspect(&id).unwrap();
    assert_eq!(ended.state.status, Status::Exited);
    assert_eq!(status(&ended), HealthStatus::Unhealthy);
}
