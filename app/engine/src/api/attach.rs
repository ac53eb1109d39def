//! A container's stdio and its log.

use axum::{
    body::Body,
    extract::{Path, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use guest_protocol::methods::{ContainerAttach, ContainerLogs};

use super::{
    ApiError, Context,
    hijack::{Hijack, output_body, raw_stream, stdio_type},
    parameters::Parameters,
    times,
};

/// `POST /containers/{id}/attach`
pub(super) async fn attach(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
    hijack: Hijack,
    body: Body,
) -> Response {
    let request = request(container, &parameters);
    match context.agent.open(request).await {
        Ok((attached, guest)) => {
            let content_type = stdio_type(attached.tty, parameters.version);
            hijack.join(body, guest, content_type)
        }
        Err(error) => refused(&error.into()),
    }
}

/// An error as Docker tells it to a client that wants its connection: as text.
fn refused(error: &ApiError) -> Response {
    tracing::info!(status = error.status.as_u16(), message = %error.message, "refused");
    let text = format!("{}\r\n", error.message);
    (error.status, [(CONTENT_TYPE, raw_stream())], text).into_response()
}

/// What a client asks to be attached to.
pub(super) fn request(container: String, parameters: &Parameters) -> ContainerAttach {
    ContainerAttach {
        container,
        stdin: parameters.flag("stdin"),
        stdout: parameters.flag("stdout"),
        stderr: parameters.flag("stderr"),
        logs: parameters.flag("logs"),
        stream: parameters.flag("stream"),
        detach_keys: parameters.text("detachKeys").unwrap_or_default().to_owned(),
    }
}

/// `GET /containers/{id}/logs`
pub(super) async fn logs(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let time = |name: &str| match parameters.text(name) {
        None | Some("0") => Ok(0),
        Some(text) => times::parse(text).map_err(ApiError::bad_request),
    };
    let request = ContainerLogs {
        container,
        follow: parameters.flag("follow"),
        stdout: parameters.flag("stdout"),
        stderr: parameters.flag("stderr"),
        since: time("since")?,
        until: time("until")?,
        timestamps: parameters.flag("timestamps"),
        tail: tail(parameters.text("tail")),
        details: parameters.flag("details"),
    };
    if !request.stdout && !request.stderr {
        return Err(ApiError::bad_request(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    let (attached, guest) = context.agent.open(request).await?;
    let content_type = stdio_type(attached.tty, parameters.version);
    Ok((
        [(CONTENT_TYPE, content_type)],
        output_body(context.agent, guest),
    )
        .into_response())
}

/// How many lines from the end: what is no number means all, as in Docker.
pub(super) fn tail(text: Option<&str>) -> Option<u64> {
    text.and_then(|text| text.parse().ok())
}
