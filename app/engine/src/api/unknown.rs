//! Requests that are not served: which of them Docker would serve, and which
//! nobody does.

use axum::http::{Method, StatusCode, Uri};

use super::ApiError;

/// What of the Docker Engine API is not there yet: first parts of paths, and an end
/// that the path has, if it is not all of them.
const UNBUILT: &[(&str, &str)] = &[
    ("build", ""),
    ("session", ""),
    ("grpc", ""),
    ("plugins", ""),
    ("containers", "/attach/ws"),
    ("containers", "/checkpoints"),
];

/// The fallback of all routes.
pub(super) async fn endpoint(method: Method, uri: Uri) -> ApiError {
    error(method.as_str(), &uri)
}

/// What to answer to a request that is not served.
pub(super) fn error(method: &str, uri: &Uri) -> ApiError {
    let path = uri.path();
    let first = path.split('/').nth(1).unwrap_or_default();
    match first {
        // A name with a slash is no container's, and `inspect` goes on to images.
        "containers" if method == "GET" && path.ends_with("/json") => {
            let name = path.trim_start_matches("/containers/");
            let name = name.trim_end_matches("/json");
            ApiError::not_found(format!("No such container: {name}"))
        }
        // `docker inspect` asks for one of these last, and goes by the status.
        "plugins" if method == "GET" => ApiError::not_found(format!("{path}: no such plugin")),
        "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs" => ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("This node is not a swarm manager: {method} {path} is not available"),
        ),
        _ if UNBUILT
            .iter()
            .any(|(begin, end)| first == *begin && path.ends_with(end)) =>
        {
            ApiError::new(
                StatusCode::NOT_IMPLEMENTED,
                format!("not implemented by dctl: {method} {path}"),
            )
        }
        // Docker says so of a wrong method, too.
        _ => ApiError::not_found(format!("page not found: {method} {path}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_has_is_told_from_what_nobody_has() {
        let status = |method: &str, path: &'static str| {
            error(method, &Uri::from_static(path)).status.as_u16()
        };
        assert_eq!(status("POST", "/containers/x/checkpoints"), 501);
        assert_eq!(status("POST", "/swarm/init"), 503);
        assert_eq!(status("GET", "/plugins/x/json"), 404);
        assert_eq!(status("GET", "/containers/localhost:5000/x/json"), 404);
        assert_eq!(status("GET", "/nothing"), 404);
        assert_eq!(status("PUT", "/info"), 404);
        assert_eq!(status("GET", "/images/a/b/x"), 404);
        let message = error("POST", &Uri::from_static("/build?t=x")).message;
        assert_eq!(message, "not implemented by dctl: POST /build");
    }
}
