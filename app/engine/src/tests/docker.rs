//! Docker's own command line in front, the real agent behind.
//!
//! The agent runs in its developer mode, which needs root: as anybody else these
//! tests say so and do nothing.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

use super::{
    engine::Engine,
    image::{TestImage, noise},
    local_registry::Registry,
};

/// More than any command in these tests takes.
const TIMEOUT: Duration = Duration::from_mins(1);

/// An agent in developer mode; it ends with the test.
pub(super) struct DeveloperAgent {
    process: Child,
}

impl DeveloperAgent {
    pub(super) async fn start(socket: &Path, data: &Path) -> Self {
        std::fs::create_dir_all(data).unwrap();
        let mut process = Command::new(agent_program().await)
            .arg("serve")
            .arg("--unix")
            .arg(socket)
            .arg("--data")
            .arg(data)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        loop {
            let line = lines.next_line().await.unwrap().expect("the agent listens");
            if line.contains("listening on") {
                break;
            }
        }
        // Read on, so that it never waits for its log.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { process }
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// Ends it as its users do, so that it cleans up.
    pub(super) async fn stop(mut self) {
        let process = self.process.id().unwrap();
        let process = rustix::process::Pid::from_raw(process as i32).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        let _ = tokio::time::timeout(TIMEOUT, self.process.wait()).await;
    }
}

/// The agent's program, built if it is not up to date.
async fn agent_program() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "guest-agent"])
        .status()
        .await
        .unwrap();
    assert!(built.success());
    // This program is <target>/<profile>/deps/<name>.
    let this = std::env::current_exe().unwrap();
    this.ancestors().nth(2).unwrap().join("dctl-agent")
}

/// `docker` on one engine.
pub(super) struct Docker<'a> {
    pub(super) engine: &'a Engine,
}

impl Docker<'_> {
    async fn run_with(&self, input: &[u8], arguments: &[&str]) -> Output {
        let mut child = Command::new("docker")
            .args(arguments)
            .env(
                "DOCKER_HOST",
                format!("unix://{}", self.engine.socket().display()),
            )
            .env("DOCKER_CONFIG", self.engine.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Debian's package docker.io or docker-cli");
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        tokio::spawn(async move {
            // A command may end without reading.
            let _ = stdin.write_all(&input).await;
        });
        tokio::time::timeout(TIMEOUT, child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("docker {arguments:?} takes too long"))
            .unwrap()
    }

    pub(super) async fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(b"", arguments).await
    }

    /// Exit code and both outputs.
    pub(super) async fn all(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.run(arguments).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// Its output, when it succeeds.
    pub(super) async fn ok(&self, arguments: &[&str]) -> String {
        let (code, output, errors) = self.all(arguments).await;
        assert_eq!(code, 0, "docker {arguments:?}: {errors}");
        output
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_s_own_commands_work() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: the agent's developer mode needs root");
        return;
    }
    let engine = Engine::start(None);
    let data = engine.directory.path().join("data");
    let agent = DeveloperAgent::start(&engine.agent_socket(), &data).await;
    let registry = Registry::start();
    registry
        .push(&TestImage::busybox(), "busybox", "latest")
        .await;
    let docker = Docker { engine: &engine };
    let image = format!("{}/busybox", registry.address);

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
    agent.stop().await;
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
