//! The client of a monitor's control socket; see [`dctl_vmm::control`].

use std::{path::Path, time::Duration};

use dctl_vmm::{
    config::ExportConfig,
    control::{Answer, BalloonStatistics, MAX_LINE, Request, State},
};
use rustix::process::Pid;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};

use crate::{Error, Result, vsock::nobody_listens};

/// A monitor answers from a thread that does nothing else.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A connection to a monitor.
#[derive(Debug)]
pub(crate) struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    /// Connects; `None` when no monitor serves the socket.
    pub(crate) async fn connect(socket: &Path) -> Result<Option<Self>> {
        match UnixStream::connect(socket).await {
            Ok(stream) => Ok(Some(Self {
                stream: BufReader::new(stream),
            })),
            Err(error) if nobody_listens(&error) => Ok(None),
            Err(error) => Err(Error::io("reach the monitor through", socket, error)),
        }
    }

    /// The monitor's process, by the socket's word, not the monitor's.
    pub(crate) fn process(&self) -> Option<Pid> {
        let credentials = self.stream.get_ref().peer_cred().ok()?;
        Pid::from_raw(credentials.pid()?)
    }

    pub(crate) async fn state(&mut self) -> Result<State> {
        match self.ask(Request::State).await? {
            Answer::State(state) => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn balloon(&mut self) -> Result<BalloonStatistics> {
        match self.ask(Request::Balloon).await? {
            Answer::Balloon(statistics) => Ok(statistics),
            other => Err(unexpected(&other)),
        }
    }

    /// Has the monitor take over the size of a disk's image; returns it in bytes.
    pub(crate) async fn resize_disk(&mut self, index: u16) -> Result<u64> {
        match self.ask(Request::ResizeDisk { index }).await? {
            Answer::DiskSize { bytes } => Ok(bytes),
            other => Err(unexpected(&other)),
        }
    }

    /// Shares a file or directory of the host with the guest.
    pub(crate) async fn add_export(&mut self, export: ExportConfig) -> Result<()> {
        self.done(Request::AddExport(export)).await
    }

    /// Stops sharing it.
    pub(crate) async fn remove_export(&mut self, name: String) -> Result<()> {
        self.done(Request::RemoveExport { name }).await
    }

    /// The names of what is shared.
    pub(crate) async fn exports(&mut self) -> Result<Vec<String>> {
        match self.ask(Request::Exports).await? {
            Answer::Exports { names } => Ok(names),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn power_off(&mut self, within: Duration) -> Result<()> {
        let timeout_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        self.done(Request::PowerOff { timeout_ms }).await
    }

    async fn done(&mut self, request: Request) -> Result<()> {
        match self.ask(request).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&mut self, request: Request) -> Result<Answer> {
        match timeout(ANSWER_WITHIN, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Monitor(format!(
                "no answer within {} s",
                ANSWER_WITHIN.as_secs()
            ))),
        }
    }

    async fn exchange(&mut self, request: Request) -> Result<Answer> {
        let broken = |error: std::io::Error| Error::Monitor(format!("it hung up: {error}"));
        let mut line = serde_json::to_vec(&request)
            .map_err(|error| Error::Monitor(format!("a request has no JSON: {error}")))?;
        line.push(b'\n');
        self.stream.write_all(&line).await.map_err(broken)?;
        let mut answer = Vec::new();
        (&mut self.stream)
            .take(MAX_LINE as u64)
            .read_until(b'\n', &mut answer)
            .await
            .map_err(broken)?;
        if answer.last() != Some(&b'\n') {
            return Err(Error::Monitor("it hung up".into()));
        }
        match serde_json::from_slice(&answer) {
            Ok(Answer::Error { message }) => Err(Error::Monitor(message)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(Error::Monitor(format!(
                "its answer was not understood: {error}"
            ))),
        }
    }
}

fn unexpected(answer: &Answer) -> Error {
    Error::Monitor(format!("it gave an answer to another question: {answer:?}"))
}
