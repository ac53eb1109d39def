//! Docker's own command line in front, the real agent behind: runs, outputs and a
//! container's life.

use super::{
    image::noise,
    stage::{Docker, Stage},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_s_own_commands_work() {
    let Some(stage) = Stage::empty().await else {
        return;
    };
    let docker = stage.docker();
    let image = format!("{}/busybox", stage.registry.address);

    // The client pulls what is missing, and goes on.
    let (code, output, errors) = docker.all(&["run", "--rm", &image, "echo", "hi"]).await;
    assert_eq!((code, output.as_str()), (0, "hi\n"), "{errors}");
    assert!(errors.contains("Pull complete"), "{errors}");
    docker.ok(&["tag", &image, "bb"]).await;
    assert!(docker.ok(&["images", "bb"]).await.contains("latest"));

    outputs_and_exit_codes(&docker).await;
    a_container_s_life(&docker).await;

    docker.ok(&["rmi", "bb"]).await;
    let (code, _, errors) = docker.all(&["run", "--pull=never", "bb"]).await;
    assert_eq!(code, 125);
    assert!(errors.contains("No such image: bb:latest"), "{errors}");
    stage.agent.stop().await;
}

async fn outputs_and_exit_codes(docker: &Docker<'_>) {
    let both = docker
        .all(&[
            "run",
            "--rm",
            "bb",
            "sh",
            "-c",
            "echo out; echo err >&2; exit 7",
        ])
        .await;
    assert_eq!(both, (7, "out\n".to_owned(), "err\n".to_owned()));
    for (command, code) in [("nosuch", 127), ("/etc/passwd", 126)] {
        assert_eq!(
            docker.all(&["run", "--rm", "bb", command]).await.0,
            code,
            "{command}"
        );
    }
    let megabytes = noise(5_000_000);
    let echoed = docker
        .run_with(&megabytes, &["run", "--rm", "-i", "bb", "cat"])
        .await;
    assert!(
        echoed.stdout == megabytes,
        "{} bytes came back",
        echoed.stdout.len()
    );
}

async fn a_container_s_life(docker: &Docker<'_>) {
    docker
        .ok(&[
            "run",
            "-d",
            "--name",
            "web",
            "bb",
            "sh",
            "-c",
            "echo line; sleep 1000",
        ])
        .await;
    let listed = docker
        .ok(&["ps", "--format", "{{.Names}} {{.State}}"])
        .await;
    assert_eq!(listed, "web running\n");
    let inspected = docker
        .ok(&[
            "inspect",
            "web",
            "--format",
            "{{.State.Status}} {{.Config.Image}}",
        ])
        .await;
    assert_eq!(inspected, "running bb\n");
    assert!(docker.ok(&["top", "web"]).await.contains("sleep 1000"));
    let (code, output, _) = docker
        .all(&["exec", "web", "sh", "-c", "echo inside; exit 3"])
        .await;
    assert_eq!((code, output.as_str()), (3, "inside\n"));
    assert_eq!(docker.all(&["exec", "web", "nosuch"]).await.0, 127);
    let piped = docker
        .run_with(b"piped", &["exec", "-i", "web", "cat"])
        .await;
    assert_eq!(piped.stdout, b"piped");
    let (code, _, errors) = docker.all(&["run", "--name", "web", "bb"]).await;
    assert_eq!(code, 125);
    assert!(errors.contains("already in use"), "{errors}");

    // Who waits and who follows learn of the end.
    let (waited, followed, killed) = tokio::join!(
        docker.ok(&["wait", "web"]),
        docker.ok(&["logs", "-f", "web"]),
        docker.ok(&["kill", "web"]),
    );
    assert_eq!(waited, "137\n");
    assert_eq!(followed, "line\n");
    assert_eq!(killed, "web\n");
    docker.ok(&["start", "web"]).await;
    docker.ok(&["restart", "-t", "0", "web"]).await;
    docker.ok(&["stop", "-t", "0", "web"]).await;
    docker.ok(&["rename", "web", "gone"]).await;
    assert!(docker.ok(&["ps", "-a"]).await.contains("Exited (137)"));
    docker.ok(&["rm", "gone"]).await;
    let (code, _, errors) = docker.all(&["rm", "gone"]).await;
    assert_eq!(code, 1);
    assert!(errors.contains("No such container: gone"), "{errors}");
}
