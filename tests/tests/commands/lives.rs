//! Containers' lives beyond start and stop: pause, update, restart policies, health
//! checks.

use std::time::Duration;

use tests::{command::LONG, installation::wait_until};

use crate::shared::{Name, dctl, shared};

/// Starts a container with `options` that runs `script`.
fn started(options: &[&str], script: &str) -> Name {
    let name = Name::new();
    let arguments = [
        &["run", "-d", "--name", name.as_str()],
        options,
        &[&shared().busybox, "sh", "-c", script],
    ]
    .concat();
    dctl(&arguments).success();
    name
}

fn inspect(name: &Name, template: &str) -> String {
    shared().installation.inspect(name.as_str(), template)
}

#[test]
fn a_paused_container_stands_still() {
    let name = started(&[], "i=0; while :; do i=$((i+1)); echo $i > /tmp/i; done");
    let count = || {
        dctl(&["top", name.as_str(), "-o", "pid,times"])
            .success()
            .text()
    };
    dctl(&["pause", name.as_str()]).success();
    assert_eq!(inspect(&name, "{{.State.Status}}"), "paused");
    let before = count();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(count(), before);
    dctl(&["pause", name.as_str()]).fails_with(1, "is already paused");
    dctl(&["exec", name.as_str(), "true"]).fails_with(1, "unpause the container before exec");
    dctl(&["attach", name.as_str()]).fails_with(1, "paused container");
    dctl(&["container", "unpause", name.as_str()]).success();
    dctl(&["unpause", name.as_str()]).fails_with(1, "is not paused");
    wait_until("it goes on", LONG, || count() != before);
    dctl(&["pause", name.as_str()]).success();
    dctl(&["stop", "-t", "1", name.as_str()]).success();
    assert_eq!(inspect(&name, "{{.State.Status}}"), "exited");
}

#[test]
fn limits_are_changed_while_it_runs() {
    let name = started(&["-m", "64m", "--cpus", "1"], "sleep 600");
    let file = |file: &str| {
        dctl(&[
            "exec",
            name.as_str(),
            "cat",
            &format!("/sys/fs/cgroup/{file}"),
        ])
        .success()
        .text()
    };
    assert_eq!(file("memory.max"), (64 << 20).to_string());
    dctl(&[
        "update",
        "--memory",
        "96m",
        "--memory-swap",
        "128m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "50",
        "--cpu-shares",
        "512",
        "--restart",
        "unless-stopped",
        name.as_str(),
    ])
    .success();
    assert_eq!(file("memory.max"), (96 << 20).to_string());
    assert_eq!(file("memory.swap.max"), (32 << 20).to_string());
    assert_eq!(file("cpu.max"), "50000 100000");
    assert_eq!(file("pids.max"), "50");
    assert_eq!(file("cpu.weight"), "59");
    let template = "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}";
    let memory = 96 << 20;
    assert_eq!(inspect(&name, template), format!("{memory} unless-stopped"));
    dctl(&["update", "--pids-limit", "-1", name.as_str()]).success();
    assert_eq!(file("pids.max"), "max");
    dctl(&["update", "--memory", "1m", name.as_str()]).fails_with(1, "6MB");
    dctl(&["update", "--cpu-quota", "20000", name.as_str()])
        .fails_with(1, "NanoCPUs has already been set");
    dctl(&["update", name.as_str()]).fails_with(1, "one or more flags");
    // What was refused changed nothing.
    assert_eq!(file("memory.max"), memory.to_string());
}

#[test]
fn a_restart_policy_tries_again_and_gives_up() {
    let name = started(&["--restart", "on-failure:2"], "echo try; exit 4");
    assert_eq!(dctl(&["wait", name.as_str()]).success().text(), "4");
    assert_eq!(
        inspect(&name, "{{.RestartCount}} {{.State.Status}}"),
        "2 exited"
    );
    let logs = dctl(&["logs", name.as_str()]).success().text();
    assert_eq!(logs, "try\ntry\ntry");
    let always = started(&["--restart", "always"], "exit 0");
    wait_until("it is between two runs", LONG, || {
        inspect(&always, "{{.State.Restarting}}") == "true"
    });
    dctl(&["stop", always.as_str()]).success();
    assert_eq!(inspect(&always, "{{.State.Status}}"), "exited");
    dctl(&[
        "run",
        "--rm",
        "--restart",
        "always",
        &shared().busybox,
        "true",
    ])
    .fails_with(125, "restart");
}

#[test]
fn a_health_check_is_shown_everywhere() {
    let check = "test -e /tmp/fit || { echo not yet; exit 1; }";
    let name = started(
        &[
            "--health-cmd",
            check,
            "--health-interval",
            "500ms",
            "--health-retries",
            "2",
        ],
        "sleep 600",
    );
    let status = "{{.State.Health.Status}}";
    let listed = || {
        let filter = format!("name=^{}$", name.as_str());
        dctl(&["ps", "--filter", &filter, "--format", "{{.Status}}"])
            .success()
            .text()
    };
    assert!(inspect(&name, status) == "starting" || listed().contains("(unhealthy)"));
    wait_until("it is unhealthy", LONG, || {
        inspect(&name, status) == "unhealthy"
    });
    let said = inspect(&name, "{{(index .State.Health.Log 0).Output}}");
    assert_eq!(said, "not yet");
    dctl(&["exec", name.as_str(), "touch", "/tmp/fit"]).success();
    wait_until("it is healthy", LONG, || {
        inspect(&name, status) == "healthy"
    });
    assert!(listed().contains("(healthy)"), "{}", listed());
    assert!(
        inspect(&name, "{{len .State.Health.Log}}")
            .parse::<u32>()
            .unwrap()
            <= 5
    );
    let filter = format!("container={}", name.as_str());
    let events = dctl(&[
        "events",
        "--since",
        "10m",
        "--until",
        "0s",
        "--filter",
        &filter,
        "--format",
        "{{.Action}}",
    ])
    .success()
    .text();
    for event in ["health_status: unhealthy", "health_status: healthy"] {
        assert!(events.contains(event), "{events}");
    }
    assert!(
        events.contains("exec_create: /bin/sh -c test -e"),
        "{events}"
    );
}
