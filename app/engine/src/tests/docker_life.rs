//! Docker's own command line on the lives of containers: pauses, health checks,
//! restart policies, use, changes, events.

use std::time::Duration;

use super::stage::{Docker, Stage};
use crate::api::times;

/// More than anything here takes to come about.
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_s_commands_on_lives_work() {
    let Some(stage) = Stage::with_busybox().await else {
        return;
    };
    let docker = stage.docker();

    paused(&docker).await;
    healthy(&docker).await;
    restarted(&docker).await;
    measured(&docker).await;
    changed(&docker).await;
    told(&docker).await;
    pruned(&docker).await;
    stage.agent.stop().await;
}

async fn until(docker: &Docker<'_>, arguments: &[&str], wanted: &str) {
    let waiting = async {
        while docker.ok(arguments).await.trim() != wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let came = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(came.is_ok(), "{arguments:?} never says {wanted}");
}

async fn paused(docker: &Docker<'_>) {
    docker
        .ok(&["run", "-d", "--name", "still", "bb", "sleep", "1000"])
        .await;
    assert_eq!(docker.ok(&["pause", "still"]).await, "still\n");
    let status = docker
        .ok(&[
            "ps",
            "--filter",
            "status=paused",
            "--format",
            "{{.Names}} {{.Status}}",
        ])
        .await;
    assert!(status.starts_with("still Up") && status.ends_with("(Paused)\n"));
    let state = docker
        .ok(&[
            "inspect",
            "-f",
            "{{.State.Paused}} {{.State.Running}}",
            "still",
        ])
        .await;
    assert_eq!(state, "true true\n");
    for (arguments, message) in [
        (&["pause", "still"][..], "is already paused"),
        (
            &["exec", "still", "true"],
            "is paused, unpause the container before exec",
        ),
        (&["start", "still"], "cannot start a paused container"),
        (&["rm", "still"], "container is paused"),
    ] {
        let (code, _, errors) = docker.all(arguments).await;
        assert_eq!(code, 1, "{arguments:?}");
        assert!(errors.contains(message), "{arguments:?}: {errors}");
    }
    assert_eq!(docker.ok(&["unpause", "still"]).await, "still\n");
    let (code, _, errors) = docker.all(&["unpause", "still"]).await;
    assert_eq!(code, 1);
    assert!(errors.contains("is not paused"), "{errors}");
    docker.ok(&["exec", "still", "true"]).await;
    docker.ok(&["pause", "still"]).await;
    docker.ok(&["rm", "-f", "still"]).await;
}

async fn healthy(docker: &Docker<'_>) {
    docker
        .ok(&[
            "run",
            "-d",
            "--name",
            "fit",
            "--health-cmd",
            "echo looked",
            "--health-interval",
            "100ms",
            "--health-retries",
            "1",
            "bb",
            "sleep",
            "1000",
        ])
        .await;
    let status = ["inspect", "-f", "{{.State.Health.Status}}", "fit"];
    until(docker, &status, "healthy").await;
    let said = docker
        .ok(&[
            "inspect",
            "-f",
            "{{(index .State.Health.Log 0).Output}}{{.Config.Healthcheck.Test}}",
            "fit",
        ])
        .await;
    assert_eq!(said, "looked\n[CMD-SHELL echo looked]\n");
    let listed = docker
        .ok(&[
            "ps",
            "--filter",
            "health=healthy",
            "--format",
            "{{.Status}}",
        ])
        .await;
    assert!(listed.ends_with("(healthy)\n"), "{listed}");
    docker.ok(&["rm", "-f", "fit"]).await;
    docker
        .ok(&[
            "run",
            "-d",
            "--name",
            "ill",
            "--health-cmd",
            "exit 3",
            "--health-interval",
            "100ms",
            "--health-retries",
            "2",
            "bb",
            "sleep",
            "1000",
        ])
        .await;
    until(
        docker,
        &["inspect", "-f", "{{.State.Health.Status}}", "ill"],
        "unhealthy",
    )
    .await;
    let codes = docker
        .ok(&[
            "inspect",
            "-f",
            "{{(index .State.Health.Log 0).ExitCode}}",
            "ill",
        ])
        .await;
    assert_eq!(codes, "3\n");
    docker.ok(&["rm", "-f", "ill"]).await;
}

async fn restarted(docker: &Docker<'_>) {
    docker
        .ok(&[
            "run",
            "-d",
            "--name",
            "again",
            "--restart",
            "on-failure:2",
            "bb",
            "sh",
            "-c",
            "exit 3",
        ])
        .await;
    assert_eq!(docker.ok(&["wait", "again"]).await, "3\n");
    let count = ["inspect", "-f", "{{.RestartCount}}", "again"];
    assert_eq!(docker.ok(&count).await, "2\n");
    let updated = docker.ok(&["update", "--restart", "always", "again"]).await;
    assert_eq!(updated, "again\n");
    docker.ok(&["start", "again"]).await;
    let listed = [
        "ps",
        "--filter",
        "status=restarting",
        "--format",
        "{{.Names}}",
    ];
    until(docker, &listed, "again").await;
    docker.ok(&["stop", "-t", "0", "again"]).await;
    until(
        docker,
        &["inspect", "-f", "{{.State.Status}}", "again"],
        "exited",
    )
    .await;
    docker.ok(&["rm", "again"]).await;
    let (code, _, errors) = docker
        .all(&["run", "-d", "--rm", "--restart", "always", "bb"])
        .await;
    assert_eq!(code, 125);
    assert!(errors.contains("conflicting options"), "{errors}");
}

async fn measured(docker: &Docker<'_>) {
    docker
        .ok(&[
            "run",
            "-d",
            "--name",
            "busy",
            "bb",
            "sh",
            "-c",
            "while :; do :; done",
        ])
        .await;
    let used = docker
        .ok(&[
            "stats",
            "--no-stream",
            "--format",
            "{{.Name}} {{.CPUPerc}}",
            "busy",
        ])
        .await;
    let percent = used
        .trim()
        .strip_prefix("busy ")
        .and_then(|text| text.strip_suffix('%'))
        .unwrap_or_else(|| panic!("{used}"));
    assert!(percent.parse::<f64>().unwrap() > 1.0, "{used}");
    let table = docker.ok(&["stats", "--no-stream"]).await;
    assert!(table.contains("MEM USAGE / LIMIT"), "{table}");
    let processes = docker.ok(&["top", "busy", "-o", "pid,comm"]).await;
    let rows: Vec<_> = processes.lines().collect();
    assert!(
        rows[0].starts_with("PID") && rows[1].ends_with("sh"),
        "{processes}"
    );
    assert!(docker.ok(&["top", "busy", "aux"]).await.starts_with("USER"));
    docker.ok(&["rm", "-f", "busy"]).await;
}

async fn changed(docker: &Docker<'_>) {
    let script =
        "echo x > /added; busybox head -c 3000 /dev/zero > /bin/more; busybox rm /etc/passwd";
    docker
        .ok(&["run", "--name", "writer", "bb", "sh", "-c", script])
        .await;
    let diff = docker.ok(&["diff", "writer"]).await;
    for line in [
        "A /added",
        "C /bin",
        "A /bin/more",
        "C /etc",
        "D /etc/passwd",
    ] {
        assert!(diff.lines().any(|found| found == line), "{line}: {diff}");
    }
    let sizes = docker
        .ok(&[
            "inspect",
            "-s",
            "-f",
            "{{.SizeRw}} {{.SizeRootFs}}",
            "writer",
        ])
        .await;
    let sizes: Vec<u64> = sizes
        .split_whitespace()
        .map(|size| size.parse().unwrap())
        .collect();
    assert!(sizes[0] == 3002 && sizes[1] > 500_000, "{sizes:?}");
    let listed = docker
        .ok(&[
            "ps",
            "-a",
            "-s",
            "--filter",
            "name=writer",
            "--format",
            "{{.Size}}",
        ])
        .await;
    assert!(listed.starts_with("3kB (virtual "), "{listed}");
    // What nobody asked for is said all the same.
    let template = "{{.HostConfig.Memory}} {{.HostConfig.Privileged}} {{.Config.User}}|{{.HostConfig.RestartPolicy.Name}}";
    let defaults = docker.ok(&["inspect", "-f", template, "writer"]).await;
    assert_eq!(defaults, "0 false |no\n");
    docker.ok(&["rm", "writer"]).await;
}

async fn told(docker: &Docker<'_>) {
    // The client tells whole seconds: the one that has begun is over then.
    let until = (times::now() / 1_000_000_000 + 1).to_string();
    let events = docker
        .ok(&[
            "events",
            "--since",
            "10m",
            "--until",
            &until,
            "--filter",
            "container=writer",
            "--format",
            "{{.Action}}",
        ])
        .await;
    let actions: Vec<_> = events.lines().collect();
    for action in ["create", "start", "die", "destroy"] {
        assert!(actions.contains(&action), "{actions:?}");
    }
    let pauses = docker
        .ok(&[
            "events",
            "--since",
            "10m",
            "--until",
            &until,
            "--filter",
            "event=pause",
            "--format",
            "{{.Type}}",
        ])
        .await;
    assert_eq!(pauses, "container\ncontainer\n");
    let verdicts = docker
        .ok(&[
            "events",
            "--since",
            "10m",
            "--until",
            &until,
            "--filter",
            "event=health_status: healthy",
            "--format",
            "{{.Action}}",
        ])
        .await;
    assert_eq!(verdicts, "health_status: healthy\n");
}

async fn pruned(docker: &Docker<'_>) {
    for (name, label) in [("one", "keep=no"), ("two", "keep=yes")] {
        docker
            .ok(&[
                "run",
                "--name",
                name,
                "--label",
                label,
                "bb",
                "sh",
                "-c",
                "busybox head -c 5000 /dev/zero > /x",
            ])
            .await;
    }
    let said = docker
        .ok(&["container", "prune", "-f", "--filter", "label=keep=no"])
        .await;
    assert!(said.contains("Total reclaimed space: 5kB"), "{said}");
    assert_eq!(
        docker.ok(&["ps", "-a", "--format", "{{.Names}}"]).await,
        "two\n"
    );
    docker.ok(&["container", "prune", "-f"]).await;
    assert_eq!(docker.ok(&["ps", "-aq"]).await, "");
}
