//! Replies that are progress: one JSON object a line, for as long as it lasts.

use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use tokio::{sync::mpsc, task::JoinHandle};

use super::ApiError;
use crate::images::{ImportError, error_line};

/// The reply of a `task` that tells what it does in `lines`.
///
/// What fails before there is progress is an HTTP error, afterwards a last line.
pub(super) async fn respond(
    task: JoinHandle<Result<(), ImportError>>,
    mut lines: mpsc::Receiver<Bytes>,
    failed: &'static str,
) -> Result<Response, ApiError> {
    let Some(first) = lines.recv().await else {
        return match task.await {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) => Ok(StatusCode::OK.into_response()),
            Err(error) => Err(ApiError::internal(format!("{failed}: {error}"))),
        };
    };
    let rest = stream::unfold(lines, |mut lines| async move {
        lines.recv().await.map(|line| (line, lines))
    });
    let last = stream::once(async move {
        match task.await {
            Ok(Ok(())) => Bytes::new(),
            Ok(Err(error)) => error_line(&error.to_string()),
            Err(error) => error_line(&format!("{failed}: {error}")),
        }
    });
    let body = stream::once(async { first })
        .chain(rest)
        .chain(last)
        .map(Ok::<_, std::convert::Infallible>);
    Ok((
        [(CONTENT_TYPE, "application/json")],
        Body::from_stream(body),
    )
        .into_response())
}
