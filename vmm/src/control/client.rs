//! A client of a monitor's control socket, for drivers. It blocks.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lines::Lines;
use super::{Answer, BalloonStatistics, Request, State};
use crate::config::ExportConfig;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody serves the socket: the monitor does not run.
    #[error("no monitor answers at {}: {source}", path.display())]
    Connect {
        /// The control socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or the monitor took too long.
    #[error("lost the monitor's control connection: {0}")]
    Connection(#[from] io::Error),
    /// It does not speak as it should.
    #[error("the monitor's answer is not understood: {0}")]
    Answer(String),
    /// It could not do what was asked.
    #[error("the monitor refused: {0}")]
    Refused(String),
}

/// A connection to a control socket.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to the control socket at `path`. No request waits longer than
    /// `patience`.
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|source| ClientError::Connect {
            path: path.to_owned(),
            source,
        })?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream })
    }

    /// Asks, and waits for the answer. [`Answer::Error`] becomes
    /// [`ClientError::Refused`].
    pub fn ask(&mut self, request: &Request) -> Result<Answer, ClientError> {
        let mut line =
            serde_json::to_vec(request).map_err(|error| ClientError::Answer(error.to_string()))?;
        line.push(b'\n');
        self.stream.write_all(&line)?;

        let mut lines = Lines::default();
        let mut answer = None;
        let mut buffer = [0_u8; 1024];
        while answer.is_none() {
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            lines
                .feed(buffer.get(..count).unwrap_or_default(), |line| {
                    answer = Some(serde_json::from_slice(line));
                    false
                })
                .map_err(|error| ClientError::Answer(error.to_string()))?;
        }
        match answer {
            Some(Ok(Answer::Error { message })) => Err(ClientError::Refused(message)),
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(ClientError::Answer(error.to_string())),
            None => Err(ClientError::Answer("there is none".to_owned())),
        }
    }

    /// The machine's state.
    pub fn state(&mut self) -> Result<State, ClientError> {
        match self.ask(&Request::State)? {
            Answer::State(state) => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// Memory that went back to the host.
    pub fn balloon(&mut self) -> Result<BalloonStatistics, ClientError> {
        match self.ask(&Request::Balloon)? {
            Answer::Balloon(statistics) => Ok(statistics),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes over the size of the image behind disk `index`, which has grown; returns
    /// it in bytes.
    pub fn resize_disk(&mut self, index: u16) -> Result<u64, ClientError> {
        match self.ask(&Request::ResizeDisk { index })? {
            Answer::DiskSize { bytes } => Ok(bytes),
            other => Err(unexpected(&other)),
        }
    }

    /// Shares a file or directory of the host with the guest.
    pub fn add_export(&mut self, export: ExportConfig) -> Result<(), ClientError> {
        self.done(&Request::AddExport(export))
    }

    /// Stops sharing it.
    pub fn remove_export(&mut self, name: &str) -> Result<(), ClientError> {
        self.done(&Request::RemoveExport {
            name: name.to_owned(),
        })
    }

    /// The names of what is shared.
    pub fn exports(&mut self) -> Result<Vec<String>, ClientError> {
        match self.ask(&Request::Exports)? {
            Answer::Exports { names } => Ok(names),
            other => Err(unexpected(&other)),
        }
    }

    /// Stops the virtual CPUs.
    pub fn pause(&mut self) -> Result<(), ClientError> {
        self.done(&Request::Pause)
    }

    /// Lets them go on.
    pub fn resume(&mut self) -> Result<(), ClientError> {
        self.done(&Request::Resume)
    }

    /// Presses the power button; force follows after `timeout`. Returns at once.
    pub fn power_off(&mut self, timeout: Duration) -> Result<(), ClientError> {
        self.done(&Request::PowerOff {
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn done(&mut self, request: &Request) -> Result<(), ClientError> {
        match self.ask(request)? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(answer: &Answer) -> ClientError {
    ClientError::Answer(format!("{answer:?} was not asked for"))
}
