//! Replies that are progress: one JSON object a line, for as long as it lasts.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt, stream};
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
    let body = stream::once(async { first }).chain(all(task, lines, failed));
    Ok(answer(body))
}

/// The same, but what fails is told in the last line in any case.
pub(super) fn tell(
    task: JoinHandle<Result<(), ImportError>>,
    lines: mpsc::Receiver<Bytes>,
    failed: &'static str,
) -> Response {
    answer(all(task, lines, failed))
}

/// The lines, and how it ended if it failed.
fn all(
    task: JoinHandle<Result<(), ImportError>>,
    lines: mpsc::Receiver<Bytes>,
    failed: &'static str,
) -> impl Stream<Item = Bytes> {
    let lines = stream::unfold(lines, |mut lines| async move {
        lines.recv().await.map(|line| (line, lines))
    });
    lines.chain(stream::once(async move {
        match task.await {
            Ok(Ok(())) => Bytes::new(),
            Ok(Err(error)) => error_line(&error.to_string()),
            Err(error) => error_line(&format!("{failed}: {error}")),
        }
    }))
}

fn answer(lines: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let body = Body::from_stream(lines.map(Ok::<_, Infallible>));
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}
