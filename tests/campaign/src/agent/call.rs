//! Calls to the agent, which may be killed under any of them.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use guest_protocol::{
    AgentError,
    frame::{self, Reply},
    methods::Method,
};
use serde::de::DeserializeOwned;

/// Nothing that is called here takes longer.
const PATIENCE: Duration = Duration::from_mins(1);
/// The longest frame that is taken.
const MAX_FRAME: usize = 64 << 20;

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

/// A socket to call.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    socket: PathBuf,
}

impl Caller {
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
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
        let request = frame::encode(&method.into_request())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        stream.write_all(&request)?;
        let reply = receive(&mut stream)?;
        Ok((reply, stream))
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
