//! Calls to the guest agent: one vsock connection each.
//!
//! The API's handlers and image imports go through here. A call boots the
//! machine when it is off. Nothing of what the agent answers is kept.

use std::sync::Arc;

use guest_protocol::{
    AGENT_PORT, AgentError,
    frame::{self, FrameError, Reply},
    methods::Method,
};
use tokio::net::UnixStream;

use crate::guest::Guest;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// There is no machine to call.
    #[error(transparent)]
    Machine(#[from] dctl_machine::Error),
    /// The connection broke, or the peer does not speak the protocol.
    #[error("the machine's agent did not answer {method}: {source}")]
    Connection {
        /// What was called.
        method: &'static str,
        /// How it failed.
        source: FrameError,
    },
    /// The agent says no.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

impl CallError {
    /// The connection of a call to `method` failed.
    pub(crate) fn connection(method: &'static str, source: FrameError) -> Self {
        Self::Connection { method, source }
    }

    /// Whether the agent says that what was named does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Agent(error) if error.kind == guest_protocol::ErrorKind::NotFound)
    }
}

/// The agent in a machine.
pub(crate) struct Agent {
    guest: Arc<dyn Guest>,
}

impl Agent {
    /// The agent of `guest`.
    pub(crate) fn new(guest: Arc<dyn Guest>) -> Self {
        Self { guest }
    }

    /// The machine that it is in.
    pub(crate) fn guest(&self) -> &dyn Guest {
        &*self.guest
    }

    /// Calls, and takes the reply.
    pub(crate) async fn call<M: Method>(&self, method: M) -> Result<M::Reply, CallError> {
        Ok(self.open(method).await?.0)
    }

    /// Calls about what is gone when the machine is, such as an exec. A machine that
    /// is off stays off, and the error says how it ended.
    pub(crate) async fn call_running<M: Method>(&self, method: M) -> Result<M::Reply, CallError> {
        Ok(self.open_running(method).await?.0)
    }

    /// Calls, and takes the reply and the connection for what follows.
    pub(crate) async fn open<M: Method>(
        &self,
        method: M,
    ) -> Result<(M::Reply, UnixStream), CallError> {
        open(self.connect().await?, method).await
    }

    /// As [`Agent::open`], for what [`Agent::call_running`] is for.
    pub(crate) async fn open_running<M: Method>(
        &self,
        method: M,
    ) -> Result<(M::Reply, UnixStream), CallError> {
        open(self.guest.connect(AGENT_PORT).await?, method).await
    }

    async fn connect(&self) -> Result<UnixStream, dctl_machine::Error> {
        self.guest.ensure_running().await?;
        match self.guest.connect(AGENT_PORT).await {
            Ok(stream) => Ok(stream),
            // It may have been powered off between the two.
            Err(error) => {
                tracing::warn!(%error, "connecting to the agent again");
                self.guest.ensure_running().await?;
                self.guest.connect(AGENT_PORT).await
            }
        }
    }
}

async fn open<M: Method>(
    mut stream: UnixStream,
    method: M,
) -> Result<(M::Reply, UnixStream), CallError> {
    tracing::debug!(method = M::NAME, "call");
    let failed = |source| CallError::connection(M::NAME, source);
    frame::write(&mut stream, &method.into_request())
        .await
        .map_err(failed)?;
    let reply: Reply<M::Reply> = frame::read_reply(&mut stream).await.map_err(failed)?;
    let reply = Result::from(reply).map_err(CallError::Agent)?;
    Ok((reply, stream))
}
