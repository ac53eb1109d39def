//! Commands run in running containers.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use guest_protocol::{
    container::{Exec, ExecConfig},
    docker::{ExecInspectResponse, ProcessConfig},
    methods::{ExecCreate, ExecInspect, ExecResize, ExecStart},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    ApiError, Context,
    hijack::{Hijack, stdio_type},
    parameters::{JsonBody, Parameters},
    version::MULTIPLEXED_TYPE,
};

/// `ExecConfig` of the API.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct ExecBody {
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    tty: bool,
    console_size: Option<Vec<u16>>,
    detach_keys: Option<String>,
    env: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    privileged: bool,
    user: Option<String>,
    working_dir: Option<String>,
}

impl From<ExecBody> for ExecConfig {
    fn from(body: ExecBody) -> Self {
        Self {
            attach_stdin: body.attach_stdin,
            attach_stdout: body.attach_stdout,
            attach_stderr: body.attach_stderr,
            tty: body.tty,
            console_size: known_size(body.console_size.as_deref()),
            detach_keys: body.detach_keys.unwrap_or_default(),
            env: body.env.unwrap_or_default(),
            cmd: body.cmd.unwrap_or_default(),
            privileged: body.privileged,
            user: body.user.unwrap_or_default(),
            working_dir: body.working_dir.unwrap_or_default(),
        }
    }
}

/// A height and a width. Clients without a terminal send 0 by 0; numbers that are missing
/// are 0, too, and those too many do not count.
fn known_size(size: Option<&[u16]>) -> Option<[u16; 2]> {
    let mut numbers = size?.iter().copied();
    let size = [(); 2].map(|()| numbers.next().unwrap_or(0));
    (size != [0, 0]).then_some(size)
}

/// `POST /containers/{id}/exec`
pub(super) async fn create(
    State(context): State<Context>,
    Path(container): Path<String>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let config: ExecConfig = body.read::<ExecBody>()?.into();
    if config.cmd.is_empty() {
        return Err(ApiError::bad_request("No exec command specified"));
    }
    let created = context.agent.call(ExecCreate { container, config }).await?;
    Ok((StatusCode::CREATED, Json(json!({"Id": created.id}))).into_response())
}

/// `POST /exec/{id}/start`
pub(super) async fn start(
    State(context): State<Context>,
    Path(exec): Path<String>,
    parameters: Parameters,
    hijack: Hijack,
    body: JsonBody,
) -> Result<Response, ApiError> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct StartBody {
        detach: bool,
        tty: bool,
        console_size: Option<Vec<u16>>,
    }
    let body: StartBody = body.read()?;
    let size = known_size(body.console_size.as_deref());
    let request = ExecStart {
        exec,
        detach: body.detach,
        raw: body.tty,
        // Of no use without a terminal, and unknown to older clients.
        console_size: size.filter(|_| body.tty && parameters.version >= MULTIPLEXED_TYPE),
    };
    match context.agent.open_running(request).await {
        Ok(_) if body.detach => Ok(StatusCode::OK.into_response()),
        Ok((_, guest)) => {
            let content_type = stdio_type(body.tty, parameters.version);
            Ok(hijack.join(Body::empty(), guest, content_type))
        }
        Err(error) => Err(error.into()),
    }
}

/// `POST /exec/{id}/resize`
pub(super) async fn resize(
    State(context): State<Context>,
    Path(exec): Path<String>,
    parameters: Parameters,
) -> Result<StatusCode, ApiError> {
    let (height, width) = parameters.terminal_size()?;
    let request = ExecResize {
        exec,
        height,
        width,
    };
    context.agent.call_running(request).await?;
    Ok(StatusCode::OK)
}

/// An exec as clients read it.
#[derive(Serialize)]
pub(super) struct Inspected {
    #[serde(flatten)]
    exec: ExecInspectResponse,
    /// Null, not absent, while it runs.
    #[serde(rename = "ExitCode")]
    exit_code: Option<i64>,
}

/// `GET /exec/{id}/json`
pub(super) async fn inspect(
    State(context): State<Context>,
    Path(exec): Path<String>,
) -> Result<Json<Inspected>, ApiError> {
    let exec = context.agent.call_running(ExecInspect { exec }).await?;
    Ok(Json(inspected(exec)))
}

fn inspected(exec: Exec) -> Inspected {
    let config = exec.config;
    let mut command = config.cmd.into_iter();
    let exit_code = exec.exit_code;
    let exec = ExecInspectResponse {
        can_remove: Some(false),
        detach_keys: Some(config.detach_keys),
        id: Some(exec.id),
        running: Some(exec.running),
        exit_code: None,
        process_config: Some(ProcessConfig {
            privileged: Some(config.privileged),
            user: Some(config.user).filter(|user| !user.is_empty()),
            tty: Some(config.tty),
            entrypoint: command.next(),
            arguments: Some(command.collect()),
        }),
        open_stdin: Some(config.attach_stdin),
        open_stderr: Some(config.attach_stderr),
        open_stdout: Some(config.attach_stdout),
        container_id: Some(exec.container_id),
        pid: Some(i64::from(exec.pid)),
    };
    Inspected { exec, exit_code }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;

    use super::*;

    #[test]
    fn an_exit_code_is_null_until_there_is_one() {
        let running = serde_json::to_value(inspected(Exec::default())).unwrap();
        assert_eq!(running.get("ExitCode"), Some(&serde_json::Value::Null));
        let ended = Exec {
            exit_code: Some(3),
            ..Exec::default()
        };
        assert_eq!(
            serde_json::to_value(inspected(ended)).unwrap()["ExitCode"],
            3
        );
    }

    #[test]
    fn a_clients_exec_is_read() {
        let body = br#"{"User":"","Privileged":false,"Tty":true,"ConsoleSize":[24,80],
            "AttachStdin":true,"AttachStderr":true,"AttachStdout":true,"DetachKeys":"",
            "Env":null,"WorkingDir":"","Cmd":["sh","-c","id"]}"#;
        let body: ExecBody = super::super::parameters::json(&Bytes::from_static(body)).unwrap();
        let config = ExecConfig::from(body);
        assert_eq!(config.cmd, ["sh", "-c", "id"]);
        assert_eq!(config.console_size, Some([24, 80]));
        assert!(config.attach_stdin && config.tty && config.env.is_empty());
    }
}
