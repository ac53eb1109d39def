//! An engine with the real agent behind it, images to run, and Docker's own command
//! line in front: what tests of whole commands begin with.
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

use super::{engine::Engine, image::TestImage, local_registry::Registry};

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
    pub(super) async fn run_with(&self, input: &[u8], arguments: &[&str]) -> Output {
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

/// Engine, agent, and a registry that has busybox.
pub(super) struct Stage {
    pub(super) engine: Engine,
    pub(super) agent: DeveloperAgent,
    pub(super) registry: Registry,
}

impl Stage {
    /// Nothing in the engine; `None` without root.
    pub(super) async fn empty() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: the agent's developer mode needs root");
            return None;
        }
        let engine = Engine::start(None);
        let data = engine.directory.path().join("data");
        let agent = DeveloperAgent::start(&engine.agent_socket(), &data).await;
        let registry = Registry::start();
        registry
            .push(&TestImage::busybox(), "busybox", "latest")
            .await;
        Some(Self {
            engine,
            agent,
            registry,
        })
    }

    /// With busybox as `bb`; `None` without root.
    pub(super) async fn with_busybox() -> Option<Self> {
        let stage = Self::empty().await?;
        stage.take("busybox", "bb").await;
        Some(stage)
    }

    /// Pulls an image of the registry and names it.
    pub(super) async fn take(&self, image: &str, name: &str) {
        let image = format!("{}/{image}", self.registry.address);
        let docker = self.docker();
        docker.ok(&["pull", "-q", &image]).await;
        docker.ok(&["tag", &image, name]).await;
    }

    /// Docker's command line on the engine.
    pub(super) fn docker(&self) -> Docker<'_> {
        Docker {
            engine: &self.engine,
        }
    }
}
