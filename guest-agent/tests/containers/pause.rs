//! Freezing and letting go on.

use std::{fs, thread::sleep, time::Duration};

use guest_protocol::{
    ErrorKind,
    container::{ExecConfig, Status},
    docker::HostConfig,
    methods::*,
};

use crate::{
    remove, stop,
    support::{TestAgent, script},
};

fn pause(container: &str) -> ContainerPause {
    ContainerPause {
        container: container.into(),
    }
}

fn unpause(container: &str) -> ContainerUnpause {
    ContainerUnpause {
        container: container.into(),
    }
}

/// A container that counts as fast as it can into its log.
fn counting(agent: &TestAgent) -> String {
    let text = "trap 'exit 6' TERM; while :; do echo x; sleep 0.01; done";
    let id = agent.create(script(text), HostConfig::default()).unwrap();
    let mut attached = agent.attach(&id, false);
    agent.start_container(&id).unwrap();
    attached.read_until("x");
    id
}

fn log_length(agent: &TestAgent, id: &str) -> u64 {
    let path = agent.inspect(id).unwrap().log_path;
    fs::metadata(path).unwrap().len()
}

#[test]
fn a_paused_container_does_nothing_until_it_is_resumed() {
    let agent = TestAgent::start();
    let id = counting(&agent);
    agent.call(pause(&id)).unwrap();
    assert_eq!(agent.inspect(&id).unwrap().state.status, Status::Paused);
    // What was in the pipe is written by then.
    sleep(Duration::from_millis(200));
    let length = log_length(&agent, &id);
    sleep(Duration::from_millis(300));
    assert_eq!(log_length(&agent, &id), length);

    let again = agent.call(pause(&id)).unwrap_err();
    assert_eq!(again.kind, ErrorKind::Conflict);
    assert_eq!(again.message, format!("Container {id} is already paused"));
    let exec = agent.call(ExecCreate {
        container: id.clone(),
        config: ExecConfig {
            cmd: vec!["true".into()],
            ..ExecConfig::default()
        },
    });
    let refused = exec.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert_eq!(
        refused.message,
        format!("Container {id} is paused, unpause the container before exec")
    );
    assert_eq!(
        agent.start_container(&id).unwrap_err().message,
        "cannot start a paused container, try unpause instead"
    );
    assert_eq!(
        agent.call(remove(&id, false)).unwrap_err().kind,
        ErrorKind::Conflict
    );

    agent.call(unpause(&id)).unwrap();
    assert_eq!(agent.inspect(&id).unwrap().state.status, Status::Running);
    let mut attached = agent.attach(&id, false);
    attached.read_until("x");
    let refused = agent.call(unpause(&id)).unwrap_err();
    assert_eq!(refused.message, format!("Container {id} is not paused"));
}

#[test]
fn stop_and_removal_reach_a_paused_container() {
    let agent = TestAgent::start();
    let id = counting(&agent);
    agent.call(pause(&id)).unwrap();
    agent.call(stop(&id, 60)).unwrap();
    assert_eq!(agent.inspect(&id).unwrap().state.exit_code, 6);
    let refused = agent.call(pause(&id)).unwrap_err();
    assert_eq!(refused.message, format!("container {id} is not running"));

    agent.start_container(&id).unwrap();
    agent.call(pause(&id)).unwrap();
    agent.call(remove(&id, true)).unwrap();
    assert_eq!(agent.inspect(&id).unwrap_err().kind, ErrorKind::NotFound);
}

#[test]
fn a_kill_ends_a_paused_container_and_a_stop_resumes_it_first() {
    let agent = TestAgent::start();
    let id = counting(&agent);
    agent.call(pause(&id)).unwrap();
    agent
        .call(ContainerKill {
            container: id.clone(),
            signal: "KILL".into(),
        })
        .unwrap();
    let state = agent.inspect(&id).unwrap().state;
    assert_eq!((state.status, state.exit_code), (Status::Exited, 137));
    let told = agent.past_events();
    assert_eq!(
        told[told.len() - 4..],
        [
            "container pause",
            "container kill",
            "network disconnect",
            "container die"
        ]
    );

    agent.start_container(&id).unwrap();
    agent.call(pause(&id)).unwrap();
    agent.call(stop(&id, 1)).unwrap();
    let told = agent.past_events();
    let at = told.iter().rposition(|event| event == "container pause");
    let next: Vec<_> = told[at.unwrap()..].iter().take(3).collect();
    assert_eq!(
        next,
        ["container pause", "container kill", "container unpause"]
    );
}
