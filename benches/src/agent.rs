//! Calls to the agent of a machine that runs, on the machine's own vsock socket.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use guest_protocol::AGENT_PORT;
use guest_protocol::container::ExecConfig;
use guest_protocol::frame::{self, Reply};
use guest_protocol::image::{LayerDescriptor, Origin};
use guest_protocol::methods::{
    ExecInspect, ImageCreate, LayerImport, LayerImported, LayerWanted, MachineShell, Method,
};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// The image that [`Agent::import_busybox`] makes.
pub(crate) const BUSYBOX: &str = "bench-busybox:latest";

/// Nothing that a bench asks for takes longer.
const ANSWER_WITHIN: Duration = Duration::from_mins(2);

/// An agent, reached by one connection for each call.
pub(crate) struct Agent {
    socket: PathBuf,
}

impl Agent {
    /// The one behind the vsock socket of a machine.
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Calls a method that has one reply.
    pub(crate) fn call<M: Method>(&self, method: M) -> Result<M::Reply> {
        self.stream(method).map(|(reply, _)| reply)
    }

    /// Calls a method, and gives what goes on after its reply.
    pub(crate) fn stream<M: Method>(&self, method: M) -> Result<(M::Reply, UnixStream)> {
        let mut stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("no machine at {}", self.socket.display()))?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.write_all(format!("CONNECT {AGENT_PORT}\n").as_bytes())?;
        let mut accepted = String::new();
        // One byte at a time: what follows the line is not this reader's.
        BufReader::with_capacity(1, &stream).read_line(&mut accepted)?;
        if !accepted.starts_with("OK ") {
            bail!("the machine does not accept calls: {accepted:?}");
        }
        stream.write_all(&frame::encode(&method.into_request())?)?;
        let reply = read_reply(&mut stream).with_context(|| M::NAME.to_owned())?;
        Ok((reply, stream))
    }

    /// Runs a script in the guest's shell with `input`; its output.
    pub(crate) fn shell(&self, script: &str, input: &[u8]) -> Result<String> {
        let (id, mut stream) = self.shell_stream(script)?;
        stream.write_all(input)?;
        stream.shutdown(Shutdown::Write)?;
        let mut output = String::new();
        while let Some(bytes) = read_output(&mut stream)? {
            output.push_str(&String::from_utf8_lossy(&bytes));
        }
        let exec = self.call(ExecInspect { exec: id })?;
        if exec.exit_code != Some(0) {
            bail!("{script}: exit code {:?}: {output}", exec.exit_code);
        }
        Ok(output)
    }

    /// Starts a script in the guest's shell: its id, and its stdio.
    pub(crate) fn shell_stream(&self, script: &str) -> Result<(String, UnixStream)> {
        let config = ExecConfig {
            attach_stdin: true,
            attach_stdout: true,
            attach_stderr: true,
            cmd: ["/bin/busybox", "sh", "-c", script]
                .map(String::from)
                .into(),
            ..ExecConfig::default()
        };
        let (created, stream) = self.stream(MachineShell { config })?;
        Ok((created.id, stream))
    }

    /// Makes the image [`BUSYBOX`], of the host's static busybox as `/bin/true`.
    pub(crate) fn import_busybox(&self) -> Result<()> {
        let mut archive = tar::Builder::new(Vec::new());
        let busybox = fs::read("/bin/busybox").context("busybox-static is not installed")?;
        append(&mut archive, "bin/true", &busybox)?;
        let layer = archive.into_inner()?;
        let digest = digest(&layer);
        let (wanted, mut stream) = self.stream(LayerImport {
            layer: LayerDescriptor {
                digest: digest.clone(),
                size: layer.len() as u64,
                diff_id: digest.clone(),
            },
        })?;
        if wanted == LayerWanted::Send {
            stream.write_all(&layer)?;
            let _: LayerImported = read_reply(&mut stream)?;
        }
        let configuration = serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Cmd": ["/bin/true"] },
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
            references: vec![BUSYBOX.into()],
            origin: Origin::default(),
        })?;
        Ok(())
    }
}

/// Adds an executable file to an archive.
pub(crate) fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    path: &str,
    contents: &[u8],
) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(contents.len() as u64);
    archive.append_data(&mut header, path, contents)?;
    Ok(())
}

/// One reply of the agent.
pub(crate) fn read_reply<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T> {
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

/// The next piece of output, of either stream; `None` at its end.
pub(crate) fn read_output(stream: &mut UnixStream) -> Result<Option<Vec<u8>>> {
    let mut header = [0; 8];
    match stream.read_exact(&mut header) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
    if length > frame::MAX_FRAME {
        bail!("{length} bytes of output at once");
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
