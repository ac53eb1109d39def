//! Archives between a client's HTTP body and the agent's chunks.

use std::{io, pin::pin};

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use futures_util::{Stream, TryStreamExt, stream};
use guest_protocol::{
    AgentError,
    chunks::{self, ChunkReader},
    frame::{self, FrameError, Reply},
    methods::Method,
};
use serde::de::DeserializeOwned;
use tokio::{io::AsyncReadExt, net::UnixStream};

use super::ApiError;
use crate::agent::CallError;

/// How much of an archive is handed on at a time, in bytes.
const PIECE: usize = 256 * 1024;

/// The archive that `guest` sends, as a body. It breaks off when the agent says at
/// the end that it is not whole.
pub(super) fn download(guest: UnixStream) -> Body {
    let pieces = stream::unfold(Some(ChunkReader::new(guest)), |chunks| async move {
        let mut chunks = chunks?;
        let mut piece = BytesMut::with_capacity(PIECE);
        match chunks.read_buf(&mut piece).await {
            Ok(0) => {}
            Ok(_) => return Some((Ok(piece.freeze()), Some(chunks))),
            Err(error) => return Some((Err(error), None)),
        }
        let mut guest = chunks.into_inner();
        let error = match frame::read::<_, Reply<()>>(&mut guest).await {
            Ok(Reply::Ok(())) => return None,
            Ok(Reply::Error(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::info!(error, "an archive is not whole");
        Some((Err(io::Error::other(error)), None))
    });
    Body::from_stream(pieces)
}

/// Sends an archive to the agent and takes its answer, which may come before all is
/// sent.
pub(super) async fn upload<M: Method, T: DeserializeOwned>(
    guest: UnixStream,
    archive: impl Stream<Item = Result<Bytes, axum::Error>>,
) -> Result<T, ApiError> {
    let (mut replies, mut guest) = guest.into_split();
    let answer = frame::read::<_, Reply<T>>(&mut replies);
    let sending = async {
        let mut archive = pin!(archive.map_err(io::Error::other));
        while let Some(piece) = archive.try_next().await.map_err(SendError::Client)? {
            chunks::write(&mut guest, &piece)
                .await
                .map_err(SendError::Guest)?;
        }
        chunks::end(&mut guest).await.map_err(SendError::Guest)
    };
    let (mut answer, sending) = (pin!(answer), pin!(sending));
    let failed = |error| ApiError::from(CallError::connection(M::NAME, error));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        sent = sending => match sent {
            Ok(()) => answer.await,
            Err(SendError::Client(error)) => {
                // The agent sees the connection close and throws away what it got.
                return Err(ApiError::bad_request(format!(
                    "the archive did not come whole: {error}"
                )));
            }
            // It has hung up, and may have said why.
            Err(SendError::Guest(error)) => match answer.await {
                Ok(reply @ Reply::Error(_)) => Ok(reply),
                _ => Err(FrameError::Io(error)),
            },
        },
    };
    let answer: Result<T, AgentError> = answer.map_err(failed)?.into();
    Ok(answer?)
}

enum SendError {
    Client(io::Error),
    Guest(io::Error),
}
