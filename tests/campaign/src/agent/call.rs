//! Calls to the agent, which may be killed under any of them.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use guest_protocol::{
    AGENT_PORT, AgentError,
    chunks::MAX_CHUNK,
    frame::{self, Reply},
    methods::Method,
};
use serde::de::DeserializeOwned;

/// Nothing that is called here takes longer.
const PATIENCE: Duration = Duration::from_mins(1);
/// The longest frame that is taken.
const MAX_FRAME: usize = 64 << 20;

/// How much is sent at a time.
const CHUNK: usize = 64 * 1024;

/// Why a call has no reply.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The agent said no: nothing has changed.
    Refused(AgentError),
    /// It was killed: what was asked for has happened, or has not.
    CutOff,
}

pub(crate) type Called<T> = Result<T, CallError>;

impl From<io::Error> for CallError {
    fn from(_: io::Error) -> Self {
        Self::CutOff
    }
}

/// Where the agent is called.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    socket: PathBuf,
    /// It is a machine's vsock, where a port is asked for first.
    vsock: bool,
}

impl Caller {
    /// The agent outside of a machine.
    pub(crate) fn agent(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            vsock: false,
        }
    }

    /// The agent of a machine.
    pub(crate) fn machine(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            vsock: true,
        }
    }

    /// Calls a method that has one reply.
    pub(crate) fn call<M: Method>(&self, method: M) -> Called<M::Reply> {
        self.open(method).map(|(reply, _)| reply)
    }

    /// Calls, and gives what goes on after the reply.
    pub(crate) fn open<M: Method>(&self, method: M) -> Called<(M::Reply, UnixStream)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        if self.vsock {
            stream.write_all(format!("CONNECT {AGENT_PORT}\n").as_bytes())?;
            // One byte at a time: what follows the line is not this reader's.
            let mut accepted = String::new();
            BufReader::with_capacity(1, &stream).read_line(&mut accepted)?;
            if !accepted.starts_with("OK ") {
                return Err(CallError::CutOff);
            }
        }
        let request = frame::encode(&method.into_request())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        stream.write_all(&request)?;
        let reply = receive(&mut stream)?;
        Ok((reply, stream))
    }
}

/// Sends what a method takes in chunks, and their end. The agent may have had enough
/// before: its reply says why.
pub(crate) fn send_chunks(stream: &mut UnixStream, bytes: &[u8]) {
    let mut send = || -> io::Result<()> {
        for chunk in bytes.chunks(CHUNK) {
            stream.write_all(&(chunk.len() as u32).to_be_bytes())?;
            stream.write_all(chunk)?;
        }
        stream.write_all(&[0; 4])
    };
    // The reply, or that there is none, tells more.
    let _ = send();
}

/// Reads what comes in chunks up to their end, and the reply after it.
pub(crate) fn receive_chunks(stream: &mut UnixStream) -> Called<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 {
            receive::<()>(stream)?;
            return Ok(bytes);
        }
        if length > MAX_CHUNK || bytes.len() > MAX_FRAME {
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        }
        let start = bytes.len();
        bytes.resize(start + length, 0);
        stream.read_exact(&mut bytes[start..])?;
    }
}

/// Reads a reply.
pub(crate) fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> Called<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::from(io::ErrorKind::InvalidData).into());
    }
    let mut json = vec![0; length];
    stream.read_exact(&mut json)?;
    let reply: Reply<T> = serde_json::from_slice(&json).map_err(io::Error::from)?;
    Result::from(reply).map_err(CallError::Refused)
}
