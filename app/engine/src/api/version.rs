//! API versions: the prefix of every path, and what may be in it.

use axum::{
    http::{Request, StatusCode, Uri, uri::PathAndQuery},
    response::{IntoResponse, Response},
};

use super::ApiError;

/// A version of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(u16, u16);

/// The newest that is served.
pub(crate) const MAX_VERSION: ApiVersion = ApiVersion(1, 51);
/// The oldest that is served.
pub(crate) const MIN_VERSION: ApiVersion = ApiVersion(1, 24);
/// Since when streams say whether they are multiplexed.
pub(super) const MULTIPLEXED_TYPE: ApiVersion = ApiVersion(1, 42);
/// Since when a prune of volumes takes only those without a name.
pub(super) const PRUNES_ANONYMOUS_VOLUMES: ApiVersion = ApiVersion(1, 42);
/// Since when nothing is told of the container that an image was made in.
pub(super) const NO_CONTAINER_CONFIG: ApiVersion = ApiVersion(1, 45);
/// Since when an image that does not say when it was made has no time.
pub(super) const NO_MADE_UP_TIME: ApiVersion = ApiVersion(1, 44);
/// Since when an image's configuration has no fields that only containers use.
pub(super) const FEW_IMAGE_FIELDS: ApiVersion = ApiVersion(1, 50);
/// Since when lists of images tell digests without being asked.
pub(super) const ALWAYS_DIGESTS: ApiVersion = ApiVersion(1, 43);
/// Until when `info` tells of layers that may not be pushed.
pub(super) const NO_ALLOWED_NON_DISTRIBUTABLE: ApiVersion = ApiVersion(1, 47);
/// Until when `info` tells which versions of its parts an engine expects.
pub(super) const NO_EXPECTED_COMMITS: ApiVersion = ApiVersion(1, 49);
/// Until when `info` tells whether bridges are filtered.
pub(super) const NO_BRIDGE_FILTERS: ApiVersion = ApiVersion(1, 50);
/// Since when an image's virtual size is not told.
pub(super) const NO_VIRTUAL_SIZE: ApiVersion = ApiVersion(1, 44);

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Takes the version off a path: `/v1.47/info` is 1.47 and `/info`; a path
/// without one is of the newest version. Like Docker it takes digits and dots for a
/// version: what is missing of one is 0.
fn split(path: &str) -> (Option<ApiVersion>, &str) {
    let found = path.strip_prefix("/v").and_then(|rest| {
        let (version, _) = rest.split_once('/')?;
        let mut parts = version.split('.').map(|part| {
            (part.len() <= 4 && part.bytes().all(|b| b.is_ascii_digit()))
                .then(|| part.parse().ok())
                .flatten()
        });
        let major = parts.next()??;
        let minor = parts.next().unwrap_or(Some(0))?;
        Some((ApiVersion(major, minor), version.len()))
    });
    match found {
        Some((version, length)) => (Some(version), &path[2 + length..]),
        None => (None, path),
    }
}

/// Takes the version off a request's path and notes it ([`ApiVersion`] among its
/// extensions).
///
/// # Errors
/// 400 when the version is not served; as text for clients too old for errors in JSON.
pub(crate) fn negotiate<B>(request: &mut Request<B>) -> Result<(), Box<Response>> {
    let (version, rest) = split(request.uri().path());
    let version = match version {
        None => MAX_VERSION,
        Some(version) if version < MIN_VERSION => {
            let message = format!(
                "client version {} is too old. Minimum supported API version is {MIN_VERSION}, please upgrade your client to a newer version\n",
                written(request.uri().path())
            );
            return Err(Box::new((StatusCode::BAD_REQUEST, message).into_response()));
        }
        Some(version) if version > MAX_VERSION => {
            let error = ApiError::bad_request(format!(
                "client version {} is too new. Maximum supported API version is {MAX_VERSION}",
                written(request.uri().path())
            ));
            return Err(Box::new(error.into_response()));
        }
        Some(version) => {
            let path_and_query = match request.uri().query() {
                Some(query) => format!("{rest}?{query}"),
                None => rest.to_owned(),
            };
            let path_and_query = PathAndQuery::try_from(path_and_query).map_err(|error| {
                Box::new(ApiError::bad_request(error.to_string()).into_response())
            })?;
            *request.uri_mut() = Uri::from(path_and_query);
            version
        }
    };
    request.extensions_mut().insert(version);
    Ok(())
}

/// A path's version as the client wrote it.
fn written(path: &str) -> &str {
    let rest = path.trim_start_matches("/v");
    rest.split('/').next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_version_is_taken_off_the_path() {
        assert_eq!(split("/v1.47/info"), (Some(ApiVersion(1, 47)), "/info"));
        assert_eq!(split("/info"), (None, "/info"));
        assert_eq!(split("/volumes/x"), (None, "/volumes/x"));
        assert_eq!(split("/v1.x/info"), (None, "/v1.x/info"));
        assert_eq!(split("/v1.47"), (None, "/v1.47"));
        assert_eq!(split("/v1/info"), (Some(ApiVersion(1, 0)), "/info"));
        assert_eq!(split("/v1.2.3/info"), (Some(ApiVersion(1, 2)), "/info"));
        assert_eq!(split("/vx/info"), (None, "/vx/info"));
    }

    #[test]
    fn only_served_versions_are_accepted() {
        let with = |path: &str| {
            let mut request = Request::get(path).body(()).unwrap();
            negotiate(&mut request).map(|()| request)
        };
        let request = with("/v1.24/containers/json?all=1").unwrap();
        assert_eq!(request.uri(), "/containers/json?all=1");
        assert_eq!(request.extensions().get(), Some(&ApiVersion(1, 24)));
        assert!(with("/v1.51/info").is_ok());
        for path in ["/v1.52/info", "/v1.23/info", "/v1/info", "/v2/info"] {
            assert_eq!(
                with(path).unwrap_err().status(),
                StatusCode::BAD_REQUEST,
                "{path}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_path_is_split(path in ".{0,40}") {
            let (_, rest) = split(&path);
            prop_assert!(path.ends_with(rest));
        }
    }
}
