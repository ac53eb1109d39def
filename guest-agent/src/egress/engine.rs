//! Streams to the engine.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use guest_protocol::{
    datagrams::{DatagramReader, DatagramWriter},
    egress::{Answer, EGRESS_PORT, Refusal, Request},
    frame,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_vsock::{VMADDR_CID_HOST, VsockAddr, VsockStream};

use crate::server::Connection;

/// How long an engine that is not there is waited for: one that is restarted comes
/// back within this.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is tried meanwhile.
const RETRY: Duration = Duration::from_millis(100);

/// How long the host's resolver may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the engine is.
#[derive(Debug)]
pub(crate) enum Engine {
    /// On the host.
    Vsock,
    /// Behind a unix socket, in tests.
    #[cfg(test)]
    Unix(std::path::PathBuf),
}

/// A stream to the engine.
#[derive(Debug)]
pub(super) enum Carrier {
    Vsock(VsockStream),
    #[cfg(test)]
    Unix(tokio::net::UnixStream),
}

impl Carrier {
    /// A descriptor of it.
    pub(super) fn into_descriptor(self) -> io::Result<OwnedFd> {
        match self {
            Self::Vsock(stream) => stream.as_fd().try_clone_to_owned(),
            #[cfg(test)]
            Self::Unix(stream) => stream.as_fd().try_clone_to_owned(),
        }
    }

    /// It as a connection.
    pub(super) fn into_connection(self) -> Connection {
        match self {
            Self::Vsock(stream) => Box::new(stream),
            #[cfg(test)]
            Self::Unix(stream) => Box::new(stream),
        }
    }
}

impl Engine {
    async fn connect(&self) -> io::Result<Carrier> {
        match self {
            Self::Vsock => VsockStream::connect(VsockAddr::new(VMADDR_CID_HOST, EGRESS_PORT))
                .await
                .map(Carrier::Vsock),
            #[cfg(test)]
            Self::Unix(path) => tokio::net::UnixStream::connect(path)
                .await
                .map(Carrier::Unix),
        }
    }

    /// Asks the engine for something, and waits for as long as it takes.
    pub(super) async fn open(&self, request: &Request) -> Result<Carrier, Refusal> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_open(request).await {
                Ok(answer) => return answer,
                Err(error) if Instant::now() < deadline => {
                    tracing::debug!("the engine cannot be asked for {request:?}: {error}");
                    sleep(RETRY).await;
                }
                Err(error) => {
                    tracing::info!("the engine does not answer: {error}");
                    return Err(Refusal::NetworkUnreachable);
                }
            }
        }
    }

    async fn try_open(&self, request: &Request) -> io::Result<Result<Carrier, Refusal>> {
        let mut carrier = self.connect().await?;
        let answer = match &mut carrier {
            Carrier::Vsock(stream) => ask(stream, request).await?,
            #[cfg(test)]
            Carrier::Unix(stream) => ask(stream, request).await?,
        };
        Ok(answer.map(|()| carrier))
    }

    /// Has a DNS message answered.
    pub(super) async fn resolve(&self, question: &[u8]) -> io::Result<Vec<u8>> {
        let work = async {
            let carrier = self
                .open(&Request::Resolve)
                .await
                .map_err(io::Error::other)?;
            let mut connection = carrier.into_connection();
            DatagramWriter::new(&mut connection).write(question).await?;
            let mut reader = DatagramReader::new(connection);
            match reader.next().await? {
                Some(answer) => Ok(answer.to_vec()),
                None => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        timeout(RESOLVE_TIMEOUT, work).await?
    }
}

async fn ask<S>(stream: &mut S, request: &Request) -> io::Result<Answer>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    frame::write(stream, request)
        .await
        .map_err(io::Error::other)?;
    frame::read(stream).await.map_err(io::Error::other)
}
