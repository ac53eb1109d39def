//! `/dctl/`: the machine and the engine themselves, which Docker has no API for.

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use dctl_machine::{Change, Changed};
use guest_protocol::{
    container::ExecConfig,
    methods::{DiskGrow, MachineLogs, MachineShell},
};
use serde_json::Value;

use super::{
    ApiError, Context,
    attach::tail,
    exec::ExecBody,
    hijack::{Hijack, stdio_type, stream_body},
    parameters::{self, Parameters},
};

/// Names the exec behind a shell.
const EXEC_ID: &str = "dctl-exec-id";

/// `GET /dctl/machine`: its state. Never boots it.
pub(super) async fn status(State(context): State<Context>) -> Result<Json<Value>, ApiError> {
    Ok(Json(context.agent.guest().status().await?))
}

/// `POST /dctl/machine/start?driver=kvm|qemu`: without `driver`, on whatever the
/// settings and the probe say.
pub(super) async fn start(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<StatusCode, ApiError> {
    if let Some(driver) = parameters.text("driver") {
        let driver = driver
            .parse()
            .map_err(|problem: String| ApiError::bad_request(problem))?;
        context.agent.guest().force_driver(driver).await?;
    }
    context.agent.guest().ensure_running().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /dctl/machine/stop`
pub(super) async fn stop(State(context): State<Context>) -> Result<StatusCode, ApiError> {
    context.agent.guest().stop().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /dctl/machine/restart`
pub(super) async fn restart(State(context): State<Context>) -> Result<StatusCode, ApiError> {
    context.agent.guest().stop().await?;
    context.agent.guest().ensure_running().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /dctl/machine`: stops it and removes all that it holds.
pub(super) async fn remove(State(context): State<Context>) -> Result<StatusCode, ApiError> {
    context.agent.guest().stop().await?;
    context.agent.guest().remove().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PATCH /dctl/machine`: other processors, memory or disk, see [`Change`]; answers
/// with what came of it. The disk of a machine that runs is larger when it answers,
/// its file system with it.
pub(super) async fn change(
    State(context): State<Context>,
    body: Bytes,
) -> Result<Json<Changed>, ApiError> {
    let change: Change = parameters::json(&body)?;
    let mut changed = context.agent.guest().change(change).await?;
    if let Some(size) = changed.disk_grown
        && let Err(error) = context.agent.call_running(DiskGrow { size }).await
    {
        changed.restart_needed = true;
        changed.warnings.push(format!(
            "the disk has grown; its file system does so at the next start: {error}"
        ));
    }
    Ok(Json(changed))
}

/// `POST /dctl/machine/reset`: stops it and empties its disk.
pub(super) async fn reset(State(context): State<Context>) -> Result<StatusCode, ApiError> {
    context.agent.guest().stop().await?;
    context.agent.guest().reset().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /dctl/machine/logs`: the agent's log, as plain text. Of a machine that is
/// off, what its console showed last.
pub(super) async fn logs(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let content_type = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
    let tail = tail(parameters.text("tail"));
    let guest = context.agent.guest();
    if !guest.is_running().await {
        let console = guest.console_log().await?;
        return Ok((content_type, last_lines(&console, tail).to_vec()).into_response());
    }
    let request = MachineLogs {
        follow: parameters.flag("follow"),
        tail,
    };
    let ((), guest) = context.agent.open(request).await?;
    Ok((content_type, stream_body(guest)).into_response())
}

/// The last `count` lines of a text, or all.
fn last_lines(text: &[u8], count: Option<u64>) -> &[u8] {
    let Some(count) = count.and_then(|count| usize::try_from(count).ok()) else {
        return text;
    };
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let Some(skipped) = count.checked_sub(1) else {
        return &[];
    };
    let breaks = body
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n');
    match breaks.map(|(at, _)| at).nth(skipped) {
        Some(at) => &text[at + 1..],
        None => text,
    }
}

/// `POST /dctl/machine/shell`: a shell beside the agent. The body is that of
/// `POST /containers/{id}/exec`; the stream is hijacked as that of
/// `POST /exec/{id}/start`, and the header [`EXEC_ID`] names the exec that serves
/// `/exec/{id}/resize` and `/exec/{id}/json`.
pub(super) async fn shell(
    State(context): State<Context>,
    parameters: Parameters,
    hijack: Hijack,
    body: Bytes,
) -> Result<Response, ApiError> {
    let config: ExecConfig = parameters::json::<ExecBody>(&body)?.into();
    let tty = config.tty;
    let (created, guest) = context.agent.open(MachineShell { config }).await?;
    let id = HeaderValue::from_str(&created.id)
        .map_err(|_| ApiError::internal("the agent's exec id is malformed"))?;
    let content_type = stdio_type(tty, parameters.version);
    let mut response = hijack.join(Body::empty(), guest, content_type);
    response.headers_mut().insert(EXEC_ID, id);
    Ok(response)
}

/// `POST /dctl/engine/stop`. The machine goes on.
pub(super) async fn stop_engine(State(context): State<Context>) -> StatusCode {
    context.shutdown.notify_one();
    StatusCode::NO_CONTENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_taken() {
        let text = b"one\ntwo\nthree\n";
        assert_eq!(last_lines(text, None), text);
        assert_eq!(last_lines(text, Some(0)), b"");
        assert_eq!(last_lines(text, Some(1)), b"three\n");
        assert_eq!(last_lines(text, Some(2)), b"two\nthree\n");
        assert_eq!(last_lines(text, Some(9)), text);
        assert_eq!(last_lines(b"", Some(1)), b"");
    }
}
