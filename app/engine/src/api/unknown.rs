//! Requests that are not served.

use axum::{
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};

use super::ApiError;

/// The fallback of all routes.
pub(super) async fn endpoint(method: Method, uri: Uri) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::OK.into_response();
    }
    error(method.as_str(), &uri).into_response()
}

/// What to answer to a request that is not served.
pub(super) fn error(method: &str, uri: &Uri) -> ApiError {
    let name = uri.path().strip_prefix("/containers/");
    match name {
        Some("") if method == "DELETE" => {
            return ApiError::bad_request("invalid name or ID supplied: \"\"");
        }
        // Names that are lists, or so, are no container's.
        Some(name) if method == "DELETE" && !name.contains('/') => {
            return ApiError::not_found(format!("No such container: {name}"));
        }
        _ => {}
    }
    match name.and_then(|name| name.strip_suffix("/json")) {
        // A name with a slash is no container's, and `inspect` goes on to images.
        Some(name) if method == "GET" => ApiError::not_found(format!("No such container: {name}")),
        _ => ApiError::not_found("page not found"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_slashes_are_no_container_s() {
        let message = |method: &str, path: &'static str| {
            let error = error(method, &Uri::from_static(path));
            assert_eq!(error.status, StatusCode::NOT_FOUND);
            error.message
        };
        assert_eq!(
            message("GET", "/containers/localhost:5000/x/json"),
            "No such container: localhost:5000/x"
        );
        assert_eq!(message("POST", "/containers/x/json"), "page not found");
        assert_eq!(message("GET", "/nothing"), "page not found");
    }
}
