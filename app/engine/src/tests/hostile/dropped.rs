//! Clients that leave in the middle of every call that streams: nothing stays behind,
//! neither in the engine nor in the agent.
//!
//! The agent runs in its developer mode, which needs root: as anybody else these
//! tests say so and do nothing.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::{
    Raw,
    footprint::{Footprint, connections},
};
use crate::tests::{
    engine::Engine,
    image::{TestImage, noise},
    registry_server::{RegistryServer, Reply},
    stage::{Docker, Stage},
};

/// Clients of each call.
const CLIENTS: usize = 5;

/// What a client does at the end.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    /// Closes.
    Closes,
    /// Says that it has said all, and closes some time later.
    HalfCloses,
    /// Asks for something else before the answer is there, and closes.
    AsksOn,
}

const LEAVINGS: [Leaving; 3] = [Leaving::Closes, Leaving::HalfCloses, Leaving::AsksOn];

/// A call, and what a client waits for before it leaves.
struct Call {
    head: String,
    /// Sent after the head.
    body: Vec<u8>,
    /// Part of the answer; nothing if there is none before the body is whole.
    answer: &'static str,
}

impl Call {
    fn new(line: &str, headers: &str) -> Self {
        Self {
            head: format!("{line} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"),
            body: Vec::new(),
            answer: "HTTP/1.1 200 OK",
        }
    }

    fn get(path: &str) -> Self {
        Self::new(&format!("GET {path}"), "")
    }

    fn post(path: &str, headers: &str) -> Self {
        Self::new(&format!("POST {path}"), headers)
    }

    /// One that sends the beginning of a body and never its end.
    fn uploading(line: &str, beginning: &[u8]) -> Self {
        let mut body = format!("{:x}\r\n", beginning.len()).into_bytes();
        body.extend_from_slice(beginning);
        body.extend_from_slice(b"\r\n");
        Self {
            body,
            answer: "",
            ..Self::new(line, "Transfer-Encoding: chunked\r\n")
        }
    }

    fn answered(self, answer: &'static str) -> Self {
        Self { answer, ..self }
    }

    async fn leave(&self, engine: &Engine, leaving: Leaving) {
        let mut client = Raw::say(engine.socket(), &self.head).await;
        client.send(&self.body).await;
        match self.answer {
            // It has got so far that it waits for more.
            "" => tokio::time::sleep(Duration::from_millis(100)).await,
            answer => drop(client.until(answer).await),
        }
        match leaving {
            Leaving::Closes => {}
            Leaving::HalfCloses => {
                let _ = client.stream.shutdown().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Leaving::AsksOn => {
                client.send("GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n").await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// What a request with a body says of it.
const JSON: &str = "Content-Type: application/json\r\n";
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: tcp\r\n";

/// A stage with a container `run` that runs and images to move.
struct Running(Stage);

impl Running {
    /// None without root.
    async fn set() -> Option<Self> {
        let stage = Stage::empty().await?;
        let large = TestImage::new(&[&noise(3_000_000)]);
        stage.registry.push(&large, "large", "latest").await;
        for image in ["busybox", "large"] {
            stage.take(image, image).await;
        }
        let docker = stage.docker();
        let script = "echo line; exec sleep 100000";
        docker
            .ok(&[
                "run", "-d", "-i", "--name", "run", "busybox", "sh", "-c", script,
            ])
            .await;
        // It is what it stays.
        while docker
            .ok(&["top", "run", "-o", "pid,args"])
            .await
            .contains("echo line")
            || connections(stage.engine.socket()) > 0
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(Self(stage))
    }

    fn docker(&self) -> Docker<'_> {
        self.0.docker()
    }

    /// What there is while nobody calls: the commands before have ended, but their
    /// connections may still be on their way out.
    async fn footprint(&self) -> Footprint {
        const MOMENT: Duration = Duration::from_millis(100);
        let look = || Footprint::of(&self.0.engine, &self.0.agent);
        let mut last = look();
        loop {
            tokio::time::sleep(MOMENT).await;
            let now = look();
            if now == last && connections(self.0.engine.socket()) == 0 {
                return now;
            }
            last = now;
        }
    }

    /// Several clients begin a call and leave it, in each way; nothing is left.
    async fn all_leave(&self, call: impl AsyncFn() -> Call) {
        for leaving in LEAVINGS {
            let mut name = String::new();
            let before = self.footprint().await;
            for _ in 0..CLIENTS {
                let call = call().await;
                name = call.head.lines().collect::<Vec<_>>().join(" | ");
                call.leave(&self.0.engine, leaving).await;
            }
            let what = format!("{name} {leaving:?}");
            before.returns(&self.0.engine, &self.0.agent, &what).await;
        }
    }

    async fn exec(&self, command: &str) -> String {
        let body =
            format!(r#"{{"AttachStdin":true,"AttachStdout":true,"Cmd":["sh","-c","{command}"]}}"#);
        let answer = self.0.engine.post("/containers/run/exec", &[], &body).await;
        answer.json()["Id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_leave_take_everything_with_them() {
    let Some(stage) = Running::set().await else {
        return;
    };
    for path in [
        "/containers/run/logs?follow=1&stdout=1&stderr=1",
        "/events",
        "/events?since=0",
        "/containers/run/stats",
        // They fill the socket, and stand still.
        "/images/get?names=large",
        "/images/large/get",
        "/containers/run/export",
        "/containers/run/archive?path=/bin",
        "/containers/run/changes",
    ] {
        stage.all_leave(async || Call::get(path)).await;
    }
    for condition in ["not-running", "next-exit", "removed"] {
        let path = format!("/containers/run/wait?condition={condition}");
        stage.all_leave(async || Call::post(&path, "")).await;
    }
    stage.0.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_attach_and_leave_take_everything_with_them() {
    let Some(stage) = Running::set().await else {
        return;
    };
    let attach = "/containers/run/attach?stream=1&stdin=1&stdout=1&stderr=1";
    stage
        .all_leave(async || Call::post(attach, UPGRADE).answered("101 "))
        .await;
    let logs = format!("{attach}&logs=1");
    stage
        .all_leave(async || Call::post(&logs, UPGRADE).answered("line"))
        .await;
    stage.all_leave(async || Call::post(attach, "")).await;
    stage
        .all_leave(async || Call::uploading(&format!("POST {attach}"), b"input"))
        .await;
    // `cat` ends with its input, which the client's end is.
    let start = async |headers: &str| {
        let path = format!("/exec/{}/start", stage.exec("cat").await);
        let mut call = Call::post(&path, &format!("{headers}{JSON}Content-Length: 2\r\n"));
        call.body = b"{}".to_vec();
        call
    };
    stage
        .all_leave(async || start(UPGRADE).await.answered("101 "))
        .await;
    stage.all_leave(async || start("").await).await;
    // Who does not read what a process writes holds it up, and lets it go.
    let flood = async || {
        let path = format!("/exec/{}/start", stage.exec("exec cat /dev/zero").await);
        let mut call = Call::post(&path, &format!("{UPGRADE}{JSON}Content-Length: 2\r\n"));
        call.body = b"{}".to_vec();
        call.answered("101 ")
    };
    flood().await.leave(&stage.0.engine, Leaving::Closes).await;
    stage.docker().ok(&["restart", "-t", "0", "run"]).await;
    stage.0.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_upload_and_leave_leave_nothing() {
    let Some(stage) = Running::set().await else {
        return;
    };
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1_000_000);
    header.set_mode(0o644);
    let content = noise(1_000_000);
    tar.append_data(&mut header, "file", &content[..]).unwrap();
    // The header and half of the file.
    let half = &tar.into_inner().unwrap()[..500_000];
    stage.docker().ok(&["volume", "create", "kept"]).await;
    let df = stage.docker().ok(&["system", "df", "-v"]).await;
    for line in [
        "PUT /containers/run/archive?path=/tmp",
        "POST /images/load",
        "POST /images/create?fromSrc=-",
        "POST /dctl/volumes/kept/restore",
        "POST /containers/create?name=half",
    ] {
        stage.all_leave(async || Call::uploading(line, half)).await;
    }
    assert_eq!(stage.docker().ok(&["ps", "-aq"]).await.lines().count(), 1);
    let images = |df: &str| df.split("Containers space").next().map(str::to_owned);
    let now = stage.docker().ok(&["system", "df", "-v"]).await;
    assert_eq!(images(&now), images(&df));
    stage.0.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_and_pushes_end_with_their_clients() {
    let Some(stage) = Running::set().await else {
        return;
    };
    let image = TestImage::new(&[&noise(1000)]);
    let manifest = image.manifest.clone();
    let (id, configuration) = (image.id(), image.configuration.clone());
    let registry = RegistryServer::start(move |head, _| {
        if head.path.contains("/silent/") {
            Reply::Stall(10)
        } else if head.path.contains("/manifests/") {
            Reply::ok(crate::tests::image::MANIFEST_TYPE, manifest.clone())
        } else if head.path.ends_with(&id) {
            Reply::ok("application/json", configuration.clone())
        } else if head.path.contains("/blobs/") {
            Reply::Stall(1000)
        } else {
            Reply::ok("application/json", "{}")
        }
    })
    .await;
    let address = registry.address;
    let pull = |name: &str| format!("/images/create?fromImage={address}/{name}&tag=latest");
    let begun = pull("begun");
    stage.all_leave(async || Call::post(&begun, "")).await;
    // The registry has said nothing that could be an answer.
    let silent = pull("silent/image");
    stage
        .all_leave(async || Call::post(&silent, "").answered(""))
        .await;
    let name = format!("{address}/silent/image");
    stage.docker().ok(&["tag", "busybox", &name]).await;
    let push = format!("/images/{name}/push?tag=latest");
    stage
        .all_leave(async || Call::post(&push, "X-Registry-Auth: e30=\r\n").answered(""))
        .await;
    let import = format!("/images/create?fromSrc=http://{address}/silent/file");
    stage
        .all_leave(async || Call::post(&import, "").answered(""))
        .await;
    stage.0.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_made_though_its_client_is_gone() {
    let Some(stage) = Running::set().await else {
        return;
    };
    let docker = stage.docker();
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let publish = format!("127.0.0.1:{port}:80");
    docker
        .ok(&[
            "create", "--name", "web", "-p", &publish, "busybox", "sleep", "1000",
        ])
        .await;
    let before = stage.footprint().await;
    let gone = async |line: &str, state: &str| {
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        drop(Raw::say(stage.0.engine.socket(), request).await);
        let asked = async {
            while docker
                .ok(&["inspect", "-f", "{{.State.Status}}", "web"])
                .await
                .trim()
                != state
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), asked).await;
        assert!(in_time.is_ok(), "{line}: it is not {state}");
    };
    let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    for _ in 0..3 {
        gone("POST /containers/web/start", "running").await;
        assert!(listens());
        gone("POST /containers/web/pause", "paused").await;
        gone("POST /containers/web/unpause", "running").await;
        gone("POST /containers/web/kill", "exited").await;
    }
    before
        .returns(&stage.0.engine, &stage.0.agent, "lives")
        .await;
    assert!(!listens());
    stage.0.agent.stop().await;
}
