//! Refusals that are not a handler's: of the router's own readers of paths and bodies.

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Response, header::CONTENT_TYPE},
    response::IntoResponse,
};

use super::ApiError;

/// The most that a refusal says, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;

/// Puts a refusal that is plain text into the form in which clients look for it.
pub(super) async fn as_json(response: Response<Body>) -> Response<Body> {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || !is_text(response.headers()) {
        return response;
    }
    let text = to_bytes(response.into_body(), MAX_MESSAGE).await;
    let text = text.unwrap_or_default();
    ApiError::new(status, String::from_utf8_lossy(&text)).into_response()
}

fn is_text(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"))
}
