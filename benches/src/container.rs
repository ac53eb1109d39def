//! The agent's create and start beside `crun run`, in one kernel, of a container
//! that runs one static program.
//!
//! The agent runs outside of a machine (`dctl-agent serve`), so that crun can run
//! beside it. What is timed is what a user waits for: until the process runs for
//! the agent, which answers then; until it has ended for crun, which does no less.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use guest_protocol::docker::{ContainerConfig, HostConfig};
use guest_protocol::frame::{self, Reply};
use guest_protocol::image::{Compression, LayerDescriptor};
use guest_protocol::methods::{
    ContainerCreate, ContainerRemove, ContainerStart, ImageCreate, LayerImport, LayerImported,
    LayerWanted, Method,
};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::Options;
use crate::statistics::{compare, median};

const IMAGE: &str = "bench:latest";

pub(crate) fn run(options: &Options) -> Result<()> {
    // The lab's root is an overlay, on which no other overlay can stand; this is a tmpfs.
    let folder = tempfile::tempdir_in("/dev/shm")?;
    let agent = Agent::start(options, folder.path())?;
    agent.import()?;
    let bundle = bundle(folder.path())?;
    let (mut ours, mut crun) = (Vec::new(), Vec::new());
    for round in 0..options.rounds * 4 {
        ours.push(agent.create_and_start()?.as_secs_f64() * 1e3);
        crun.push(crun_run(&bundle, round)?.as_secs_f64() * 1e3);
    }
    let middle = |values: &[f64]| median(values).context("nothing was measured");
    compare(
        "create and start",
        middle(&ours)?,
        "crun run",
        middle(&crun)?,
        "ms",
        1.5,
    );
    Ok(())
}

struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It stops its containers when it is asked to end.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.child.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.child.wait();
    }
}

impl Agent {
    fn start(options: &Options, folder: &Path) -> Result<Self> {
        let socket = folder.join("agent.sock");
        let child = Command::new(&options.agent)
            .arg("serve")
            .arg("--unix")
            .arg(&socket)
            .arg("--data")
            .arg(folder.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run the agent")?;
        let mut agent = Self { child, socket };
        // It has no way to say so here but to answer.
        let limit = Instant::now() + Duration::from_mins(1);
        while UnixStream::connect(&agent.socket).is_err() {
            if let Some(status) = agent.child.try_wait()? {
                bail!("the agent ended: {status}");
            }
            if Instant::now() > limit {
                bail!("the agent does not answer");
            }
            sleep(Duration::from_millis(20));
        }
        Ok(agent)
    }

    fn call<M: Method>(&self, method: M) -> Result<M::Reply> {
        self.stream(method).map(|(reply, _)| reply)
    }

    fn stream<M: Method>(&self, method: M) -> Result<(M::Reply, UnixStream)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(&frame::encode(&method.into_request())?)?;
        let reply = read_reply(&mut stream).with_context(|| M::NAME.to_owned())?;
        Ok((reply, stream))
    }

    /// An image of busybox and nothing else.
    fn import(&self) -> Result<()> {
        let layer = layer()?;
        let digest = digest(&layer);
        let layer_descriptor = LayerDescriptor {
            digest: digest.clone(),
            size: layer.len() as u64,
            diff_id: digest.clone(),
            compression: Compression::None,
        };
        let (wanted, mut stream) = self.stream(LayerImport {
            layer: layer_descriptor,
        })?;
        if wanted == LayerWanted::Send {
            stream.write_all(&layer)?;
            let _: LayerImported = read_reply(&mut stream)?;
        }
        let configuration = serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Cmd": ["/true"] },
            "rootfs": { "type": "layers", "diff_ids": [digest] },
        })
        .to_string();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": self::digest(configuration.as_bytes()),
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
            references: vec![IMAGE.into()],
        })?;
        Ok(())
    }

    fn create_and_start(&self) -> Result<Duration> {
        let start = Instant::now();
        let created = self.call(ContainerCreate {
            name: None,
            config: Box::new(ContainerConfig {
                image: Some(IMAGE.into()),
                ..ContainerConfig::default()
            }),
            host_config: Box::new(HostConfig::default()),
        })?;
        self.call(ContainerStart {
            container: created.id.clone(),
        })?;
        let time = start.elapsed();
        self.call(ContainerRemove {
            container: created.id,
            force: true,
            volumes: true,
        })?;
        Ok(time)
    }
}

fn read_reply<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > frame::MAX_FRAME {
        bail!("a frame of {length} bytes");
    }
    let mut json = vec![0; length];
    stream.read_exact(&mut json)?;
    match frame::decode(&json)? {
        Reply::Ok(value) => Ok(value),
        Reply::Error(error) => bail!("{error}"),
    }
}

fn layer() -> Result<Vec<u8>> {
    let busybox = fs::read("/bin/busybox").context("busybox-static is not installed")?;
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o755);
    header.set_size(busybox.len() as u64);
    archive.append_data(&mut header, "true", busybox.as_slice())?;
    Ok(archive.into_inner()?)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// crun's own default bundle, with the same program.
fn bundle(folder: &Path) -> Result<PathBuf> {
    let bundle = folder.join("bundle");
    fs::create_dir_all(bundle.join("rootfs"))?;
    fs::copy("/bin/busybox", bundle.join("rootfs/true"))?;
    let status = Command::new("crun")
        .arg("spec")
        .current_dir(&bundle)
        .status()
        .context("crun is not installed")?;
    if !status.success() {
        bail!("crun spec failed: {status}");
    }
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["process"]["args"] = serde_json::json!(["/true"]);
    config["process"]["terminal"] = serde_json::json!(false);
    fs::write(&path, config.to_string())?;
    Ok(bundle)
}

fn crun_run(bundle: &Path, round: usize) -> Result<Duration> {
    let start = Instant::now();
    let output = Command::new("crun")
        .args(["--cgroup-manager", "cgroupfs", "run", "--bundle"])
        .arg(bundle)
        .arg(format!("bench-{round}"))
        .stdin(Stdio::null())
        .output()?;
    let time = start.elapsed();
    if !output.status.success() {
        bail!(
            "crun run failed: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(time)
}
