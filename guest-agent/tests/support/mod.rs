//! A real agent outside of a machine, and calls to it.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use guest_protocol::{
    AgentError,
    container::{Container, Event},
    docker::{ContainerConfig, HostConfig},
    frame::Reply,
    image::{LayerDescriptor, Origin},
    methods::*,
};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

/// Longer than anything here takes, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// An agent with one image, `busybox:latest`. Gone with all it made when dropped.
pub(crate) struct TestAgent {
    process: Child,
    folder: tempfile::TempDir,
}

/// A connection after its reply.
pub(crate) struct Call {
    pub(crate) stream: UnixStream,
}

impl TestAgent {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = spawn(folder.path());
        let agent = Self { process, folder };
        agent.wait_until_ready();
        agent.load_busybox();
        agent
    }

    /// Kills the agent without warning and starts it again on the same data.
    pub(crate) fn kill_and_start(&mut self) {
        self.kill_and_start_after(|| {});
    }

    /// The same, with `between` in between.
    pub(crate) fn kill_and_start_after(&mut self, between: impl FnOnce()) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        between();
        self.process = spawn(self.folder.path());
        self.wait_until_ready();
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// How many files the agent has open.
    pub(crate) fn open_files(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.process.id());
        std::fs::read_dir(folder).unwrap().count()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    fn wait_until_ready(&self) {
        let began = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            assert!(began.elapsed() < PATIENCE, "the agent does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn call<M: Method>(&self, method: M) -> Result<M::Reply, AgentError> {
        self.open(method).map(|(reply, _)| reply)
    }

    pub(crate) fn open<M: Method>(&self, method: M) -> Result<(M::Reply, Call), AgentError> {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut call = Call { stream };
        call.send(&method.into_request());
        let reply: Reply<M::Reply> = call.receive();
        Result::from(reply).map(|reply| (reply, call))
    }

    fn load_busybox(&self) {
        let layer = busybox_layer();
        let digest = digest_of(&layer);
        let (wanted, mut call) = self
            .open(LayerImport {
                layer: LayerDescriptor {
                    digest: digest.clone(),
                    size: layer.len() as u64,
                    diff_id: digest.clone(),
                },
            })
            .unwrap();
        assert_eq!(wanted, LayerWanted::Send);
        call.stream.write_all(&layer).unwrap();
        let imported: Reply<LayerImported> = call.receive();
        Result::from(imported).unwrap();
        let configuration = serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        })
        .to_string();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest_of(configuration.as_bytes()),
                "size": configuration.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest,
                "size": layer.len(),
            }],
        })
        .to_string();
        self.call(ImageCreate {
            configuration,
            manifest_media_type: "application/vnd.oci.image.manifest.v1+json".into(),
            manifest,
            references: vec!["busybox:latest".into()],
            origin: Origin::default(),
        })
        .unwrap();
    }

    pub(crate) fn create(
        &self,
        config: ContainerConfig,
        host: HostConfig,
    ) -> Result<String, AgentError> {
        self.create_named(None, config, host)
    }

    pub(crate) fn create_named(
        &self,
        name: Option<&str>,
        mut config: ContainerConfig,
        host: HostConfig,
    ) -> Result<String, AgentError> {
        config.image.get_or_insert_with(|| "busybox".into());
        self.call(ContainerCreate {
            name: name.map(str::to_owned),
            config: Box::new(config),
            host_config: Box::new(host),
            networks: BTreeMap::new(),
        })
        .map(|created| created.id)
    }

    pub(crate) fn start_container(&self, container: &str) -> Result<(), AgentError> {
        self.call(ContainerStart {
            container: container.into(),
        })
    }

    pub(crate) fn inspect(&self, container: &str) -> Result<Container, AgentError> {
        self.call(ContainerInspect {
            container: container.into(),
        })
    }

    pub(crate) fn attach(&self, container: &str, stdin: bool) -> Call {
        self.open(ContainerAttach {
            container: container.into(),
            stdin,
            stdout: true,
            stderr: true,
            logs: false,
            stream: true,
            detach_keys: String::new(),
        })
        .unwrap()
        .1
    }

    /// Runs a command in a container to its end; its exit code.
    pub(crate) fn exec(&self, container: &str, words: &[&str]) -> i64 {
        let config = guest_protocol::container::ExecConfig {
            attach_stdout: true,
            attach_stderr: true,
            cmd: words.iter().map(|&word| word.to_owned()).collect(),
            ..Default::default()
        };
        let created = self
            .call(ExecCreate {
                container: container.into(),
                config,
            })
            .unwrap();
        let (_, mut call) = self
            .open(ExecStart {
                exec: created.id.clone(),
                detach: false,
                raw: false,
                console_size: None,
            })
            .unwrap();
        call.output(false);
        let ended = self.call(ExecInspect { exec: created.id }).unwrap();
        ended.exit_code.unwrap()
    }

    /// Registers a wait; [`Call::wait_result`] gives how it ended.
    /// What was told so far, as `kind action`.
    pub(crate) fn past_events(&self) -> Vec<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let until = i64::try_from(now.as_nanos()).unwrap();
        let call = Events {
            since: Some(0),
            until: Some(until),
        };
        let ((), mut events) = self.open(call).unwrap();
        std::iter::from_fn(|| events.receive_if_any::<Event>())
            .map(|event| format!("{} {}", event.kind, event.action))
            .collect()
    }

    pub(crate) fn wait(&self, container: &str, condition: WaitCondition) -> Call {
        self.open(ContainerWait {
            container: container.into(),
            condition,
        })
        .unwrap()
        .1
    }

    /// Runs a container from its creation to its removal, as `run --rm` does.
    pub(crate) fn run(
        &self,
        config: ContainerConfig,
        host: HostConfig,
    ) -> Result<Output, AgentError> {
        self.run_with_stdin(config, host, b"")
    }

    pub(crate) fn run_with_stdin(
        &self,
        config: ContainerConfig,
        host: HostConfig,
        stdin: &[u8],
    ) -> Result<Output, AgentError> {
        let carried = config.open_stdin == Some(true);
        let tty = config.tty == Some(true);
        let host = HostConfig {
            auto_remove: Some(true),
            ..host
        };
        let id = self.create(config, host)?;
        let mut attached = self.attach(&id, carried);
        let mut wait = self.wait(&id, WaitCondition::Removed);
        self.start_container(&id)?;
        let mut writer = attached.stream.try_clone().unwrap();
        let (stdout, stderr) = std::thread::scope(|scope| {
            scope.spawn(move || {
                // The container may end without having read it all.
                let _ = writer.write_all(stdin);
                if !tty {
                    let _ = writer.shutdown(Shutdown::Write);
                }
            });
            attached.output(tty)
        });
        Ok(Output {
            exit_code: wait.wait_result().exit_code,
            stdout,
            stderr,
        })
    }
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        // Asked, it takes containers and mounts with it.
        let asked = Command::new("kill")
            .arg(self.process.id().to_string())
            .status();
        if asked.is_ok() {
            let began = Instant::now();
            while began.elapsed() < PATIENCE {
                if !matches!(self.process.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What came of a container.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) exit_code: i64,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Output {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

impl Call {
    pub(crate) fn send<T: Serialize>(&mut self, value: &T) {
        self.stream
            .write_all(&guest_protocol::frame::encode(value).unwrap())
            .unwrap();
    }

    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> T {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut json = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut json).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    /// The next value; `None` when the agent has ended the stream.
    pub(crate) fn receive_if_any<T: DeserializeOwned>(&mut self) -> Option<T> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return None,
            result => result.unwrap(),
        }
        let mut json = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut json).unwrap();
        Some(serde_json::from_slice(&json).unwrap())
    }

    pub(crate) fn wait_result(&mut self) -> WaitResult {
        let reply: Reply<WaitResult> = self.receive();
        Result::from(reply).unwrap()
    }

    /// Reads a stdio stream to its end: stdout and stderr.
    pub(crate) fn output(&mut self, tty: bool) -> (Vec<u8>, Vec<u8>) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        if tty {
            self.stream.read_to_end(&mut stdout).unwrap();
            return (stdout, stderr);
        }
        loop {
            let mut header = [0; 8];
            match self.stream.read_exact(&mut header) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return (stdout, stderr);
                }
                result => result.unwrap(),
            }
            let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let stream = if header[0] == 1 {
                &mut stdout
            } else {
                &mut stderr
            };
            let copied = (&self.stream)
                .take(u64::from(length))
                .read_to_end(stream)
                .unwrap();
            assert_eq!(copied, length as usize, "a stream ends inside a frame");
        }
    }

    /// Reads a terminal until `text` has come.
    pub(crate) fn read_until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        let mut bytes = [0; 4096];
        while !seen.contains(text) {
            let length = self.stream.read(&mut bytes).unwrap();
            assert_ne!(length, 0, "the stream ended after {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
        seen
    }
}

fn spawn(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_dctl-agent"))
        .args(["serve", "--unix"])
        .arg(folder.join("agent.sock"))
        .arg("--data")
        .arg(folder.join("data"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// `sh -c script`.
pub(crate) fn script(text: &str) -> ContainerConfig {
    command(&["sh", "-c", text])
}

pub(crate) fn command(words: &[&str]) -> ContainerConfig {
    ContainerConfig {
        cmd: Some(words.iter().map(|&word| word.to_owned()).collect()),
        ..ContainerConfig::default()
    }
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A root file system with Debian's static busybox (package `busybox-static`), two users, and files that
/// cannot be executed.
fn busybox_layer() -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, contents: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        if kind == tar::EntryType::Symlink {
            header.set_size(0);
            archive.append_link(&mut header, path, "busybox").unwrap();
        } else {
            header.set_size(contents.len() as u64);
            archive.append_data(&mut header, path, contents).unwrap();
        }
    };
    for folder in ["bin", "etc", "root", "home", "home/app"] {
        add(folder, tar::EntryType::Directory, 0o755, b"");
    }
    add("tmp", tar::EntryType::Directory, 0o1777, b"");
    add("bin/busybox", tar::EntryType::Regular, 0o755, &busybox);
    for applet in [
        "sh", "cat", "echo", "id", "ls", "sleep", "true", "false", "dd", "stty", "tty", "env",
        "touch", "rm", "test", "mount", "unshare", "hostname", "ps", "kill", "head", "grep", "pwd",
        "wc", "mkdir", "ip", "mknod", "yes", "ping",
    ] {
        add(
            &format!("bin/{applet}"),
            tar::EntryType::Symlink,
            0o777,
            b"",
        );
    }
    add(
        "etc/passwd",
        tar::EntryType::Regular,
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
    );
    add(
        "etc/group",
        tar::EntryType::Regular,
        0o644,
        b"root:x:0:\napp:x:1000:\nstaff:x:50:app\n",
    );
    add(
        "no-format",
        tar::EntryType::Regular,
        0o755,
        b"neither a program nor a script",
    );
    add(
        "data.txt",
        tar::EntryType::Regular,
        0o644,
        b"not a program\n",
    );
    add(
        "no-interpreter",
        tar::EntryType::Regular,
        0o755,
        b"#!/no/such\n",
    );
    archive.into_inner().unwrap()
}
