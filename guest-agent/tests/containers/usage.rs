//! What containers use, run and changed; events that are past.

use guest_protocol::{
    ErrorKind, chunks,
    container::Event,
    docker::{FilesystemChange, HostConfig},
    methods::*,
};

use crate::support::{TestAgent, command, script};

fn top(container: &str, options: &str) -> ContainerTop {
    ContainerTop {
        container: container.into(),
        options: options.into(),
    }
}

#[test]
fn stats_grow_with_what_a_container_does() {
    let agent = TestAgent::start();
    let id = agent
        .create(script("while :; do :; done"), HostConfig::default())
        .unwrap();
    let stats = || {
        agent
            .call(ContainerStats {
                container: id.clone(),
            })
            .unwrap()
    };
    let before = stats();
    assert_eq!((before.time, before.cpu.total), (0, 0));
    agent.start_container(&id).unwrap();
    let first = stats();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let second = stats();
    assert_eq!(second.id, id);
    assert!(second.time > first.time);
    let used = second.cpu.total - first.cpu.total;
    assert!(used > 50_000_000, "{used} ns");
    assert!(second.cpu.machine > first.cpu.machine && second.cpu.online > 0);
    let interfaces: Vec<_> = second.networks.keys().collect();
    assert_eq!(interfaces, ["eth0"]);
}

#[test]
fn top_shows_what_options_ask_for() {
    let agent = TestAgent::start();
    let id = agent
        .create(command(&["sleep", "1000"]), HostConfig::default())
        .unwrap();
    assert_eq!(
        agent.call(top(&id, "")).unwrap_err().kind,
        ErrorKind::Conflict
    );
    agent.start_container(&id).unwrap();
    let pid = agent.inspect(&id).unwrap().state.pid.to_string();
    let full = agent.call(top(&id, "")).unwrap();
    assert_eq!(full.titles.join(" "), "UID PID PPID C STIME TTY TIME CMD");
    assert_eq!(full.processes.len(), 1);
    assert_eq!(full.processes[0][0], "root");
    assert_eq!(full.processes[0][1], pid);
    assert_eq!(full.processes[0][7], "sleep 1000");
    let own = agent.call(top(&id, "-o pid,comm=NAME")).unwrap();
    assert_eq!(own.titles, ["PID", "NAME"]);
    assert_eq!(own.processes, [[pid.as_str(), "sleep"]]);
    let refused = agent.call(top(&id, "-o pid,nonsense")).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::InvalidParameter);
}

#[test]
fn changes_and_sizes_are_those_of_the_root_file_system() {
    let agent = TestAgent::start();
    let text = "echo more >> /etc/passwd; rm /data.txt; mkdir -p /new/deep; \
                head -c 5000 /dev/zero > /new/deep/file; rm -r /home; mkdir /home; \
                touch /home/fresh; echo x > /dev/shm/not-mine";
    let id = agent.create(script(text), HostConfig::default()).unwrap();
    let changes = || {
        let ((), call) = agent
            .open(ContainerChanges {
                container: id.clone(),
            })
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let json = runtime.block_on(async {
            call.stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::UnixStream::from_std(call.stream.try_clone().unwrap());
            let mut json = Vec::new();
            let mut reader = chunks::ChunkReader::new(stream.unwrap());
            tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut json)
                .await
                .unwrap();
            json
        });
        let changes: Vec<FilesystemChange> = serde_json::from_slice(&json).unwrap();
        changes
            .iter()
            .map(|change| {
                let letter = ["C", "A", "D"][change.kind as usize];
                format!("{letter} {}", change.path)
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(changes(), [""; 0]);
    let mut wait = agent.wait(&id, WaitCondition::NextExit);
    agent.start_container(&id).unwrap();
    assert_eq!(wait.wait_result().exit_code, 0);
    assert_eq!(
        changes(),
        [
            "D /data.txt",
            "C /etc",
            "C /etc/passwd",
            "C /home",
            "D /home/app",
            "A /home/fresh",
            "A /new",
            "A /new/deep",
            "A /new/deep/file",
        ]
    );
    let sizes = agent
        .call(ContainerSizes {
            container: Some(id.clone()),
        })
        .unwrap();
    let usage = sizes[&id];
    assert!((5000..20_000).contains(&usage.written), "{usage:?}");
    assert!(usage.total > usage.written + 100_000, "{usage:?}");
    assert_eq!(
        agent.call(ContainerSizes { container: None }).unwrap(),
        sizes
    );
}

#[test]
fn past_events_are_told_again_up_to_a_time() {
    let agent = TestAgent::start();
    let id = agent
        .create(command(&["true"]), HostConfig::default())
        .unwrap();
    let mut wait = agent.wait(&id, WaitCondition::NextExit);
    agent.start_container(&id).unwrap();
    wait.wait_result();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let now = i64::try_from(now.as_nanos()).unwrap();
    let ((), mut events) = agent
        .open(Events {
            since: Some(0),
            until: Some(now),
        })
        .unwrap();
    let mut actions = Vec::new();
    // The stream ends by itself.
    while let Some(event) = events.receive_if_any::<Event>() {
        assert!(event.time <= now);
        if event.kind == "container" {
            actions.push(event.action);
        }
    }
    assert_eq!(actions, ["create", "start", "die"]);
}
