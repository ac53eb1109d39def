//! Registry credentials that come with requests, and `POST /auth`.

use axum::{Json, body::Bytes, http::HeaderMap};
use guest_protocol::reference::Reference;
use serde_json::{Value, json};

use super::{ApiError, parameters};
use crate::registry::{AuthConfig, Client, Credentials};

/// Where clients put credentials for one registry.
const HEADER: &str = "x-registry-auth";

/// The request's credentials or, when it brings none, the user's own for the
/// registry `domain`.
pub(super) async fn for_registry(
    headers: &HeaderMap,
    domain: &str,
) -> Result<Credentials, ApiError> {
    let sent = match headers.get(HEADER) {
        Some(value) => {
            let text = value
                .to_str()
                .map_err(|_| ApiError::bad_request("invalid X-Registry-Auth header"))?;
            AuthConfig::from_header(text)
                .map_err(ApiError::bad_request)?
                .credentials()
        }
        None => Credentials::Anonymous,
    };
    if sent == Credentials::Anonymous {
        return Ok(Credentials::of_user(domain).await?);
    }
    Ok(sent)
}

/// `POST /auth`: whether a registry accepts credentials.
pub(super) async fn check(body: Bytes) -> Result<Json<Value>, ApiError> {
    if body.is_empty() {
        return Err(ApiError::bad_request("invalid JSON: unexpected EOF"));
    }
    let auth: AuthConfig = parameters::json(&body)?;
    let server = auth.server_address.as_str();
    let host = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = match host.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" => "docker.io",
        host => host,
    };
    // The repository does not matter: only the registry's root is asked for.
    let reference = Reference::parse(&format!("{host}/library/any"))
        .map_err(|error| ApiError::bad_request(format!("{server}: {error}")))?;
    Client::new(&reference, auth.credentials())?.check().await?;
    Ok(Json(
        json!({"Status": "Login Succeeded", "IdentityToken": ""}),
    ))
}
