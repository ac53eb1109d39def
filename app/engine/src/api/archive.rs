//! What is in containers: copying in and out, export.

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use guest_protocol::{
    methods::{ContainerArchiveGet, ContainerArchivePut, ContainerExport, ContainerPathStat},
    volume::PathStat,
};
use serde_json::json;

use super::{
    ApiError, Context,
    archive_stream::{download, upload},
    parameters::Parameters,
    times,
};

/// Says what a path is.
const PATH_STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

const TAR: HeaderValue = HeaderValue::from_static("application/x-tar");

/// `HEAD /containers/{id}/archive`
pub(super) async fn stat(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let path = path(&parameters)?;
    let stat = context
        .agent
        .call(ContainerPathStat { container, path })
        .await?;
    Ok(headers(&stat)?.into_response())
}

/// `GET /containers/{id}/archive`
pub(super) async fn get(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let path = path(&parameters)?;
    let (stat, guest) = context
        .agent
        .open(ContainerArchiveGet { container, path })
        .await?;
    let mut headers = headers(&stat)?;
    headers.insert(CONTENT_TYPE, TAR);
    Ok((headers, download(guest)).into_response())
}

/// `PUT /containers/{id}/archive`
pub(super) async fn put(
    State(context): State<Context>,
    Path(container): Path<String>,
    parameters: Parameters,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let request = ContainerArchivePut {
        container,
        path: path(&parameters)?,
        keep_folders: parameters.flag("noOverwriteDirNonDir"),
        chown: parameters.flag("copyUIDGID"),
    };
    let ((), guest) = context.agent.open(request).await?;
    upload::<ContainerArchivePut, ()>(guest, body.into_data_stream()).await?;
    Ok(StatusCode::OK)
}

/// `GET /containers/{id}/export`
pub(super) async fn export(
    State(context): State<Context>,
    Path(container): Path<String>,
) -> Result<Response, ApiError> {
    let ((), guest) = context.agent.open(ContainerExport { container }).await?;
    Ok(([(CONTENT_TYPE, TAR)], download(guest)).into_response())
}

fn path(parameters: &Parameters) -> Result<String, ApiError> {
    parameters
        .text("path")
        .map(str::to_owned)
        .ok_or_else(|| ApiError::bad_request("bad parameter: 'path' cannot be empty"))
}

fn headers(stat: &PathStat) -> Result<HeaderMap, ApiError> {
    // Zero is never; nobody tells a nanosecond after 1970 from its beginning.
    let modified = if stat.modified == 0 { 1 } else { stat.modified };
    let stat = json!({
        "name": stat.name,
        "size": stat.size,
        "mode": go_mode(stat.mode),
        "mtime": times::rfc3339(modified),
        "linkTarget": stat.link_target,
    });
    let value = HeaderValue::from_str(&STANDARD.encode(stat.to_string()))
        .map_err(|_| ApiError::internal("a path's description does not fit into a header"))?;
    Ok(HeaderMap::from_iter([(PATH_STAT, value)]))
}

/// Go's `os.FileMode` of a mode of stat(2).
fn go_mode(mode: u32) -> u32 {
    const DIRECTORY: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const NAMED_PIPE: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const SET_USER_ID: u32 = 1 << 23;
    const SET_GROUP_ID: u32 = 1 << 22;
    const CHARACTER_DEVICE: u32 = 1 << 21;
    const STICKY: u32 = 1 << 20;
    let kind = match mode & 0o170_000 {
        0o040_000 => DIRECTORY,
        0o120_000 => SYMLINK,
        0o060_000 => DEVICE,
        0o020_000 => DEVICE | CHARACTER_DEVICE,
        0o010_000 => NAMED_PIPE,
        0o140_000 => SOCKET,
        _ => 0,
    };
    let bit = |unix: u32, go: u32| if mode & unix == 0 { 0 } else { go };
    (mode & 0o777)
        | kind
        | bit(0o4000, SET_USER_ID)
        | bit(0o2000, SET_GROUP_ID)
        | bit(0o1000, STICKY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_go_s() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o040_755), (1 << 31) | 0o755);
        assert_eq!(go_mode(0o041_777), (1 << 31) | (1 << 20) | 0o777);
        assert_eq!(go_mode(0o120_777), (1 << 27) | 0o777);
        assert_eq!(go_mode(0o104_755), (1 << 23) | 0o755);
        assert_eq!(go_mode(0o020_600), (1 << 26) | (1 << 21) | 0o600);
    }

    #[test]
    fn a_path_is_described_in_a_header() {
        let stat = PathStat {
            name: "etc".into(),
            mode: 0o040_755,
            modified: 1_700_000_000_000_000_000,
            ..PathStat::default()
        };
        let headers = headers(&stat).unwrap();
        let json = STANDARD.decode(&headers[PATH_STAT]).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["name"], "etc");
        assert_eq!(json["mode"], 2_147_484_141_u32);
        assert_eq!(json["mtime"], "2023-11-14T22:13:20Z");
    }
}
