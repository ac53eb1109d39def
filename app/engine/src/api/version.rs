//! API versions: the prefix of every path, and what may be in it.

use axum::http::{Request, Uri, uri::PathAndQuery};

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
/// Since when an image's virtual size is not told.
pub(super) const NO_VIRTUAL_SIZE: ApiVersion = ApiVersion(1, 44);

/// Since when an image does not tell the configuration of the container that it was
/// made of.
pub(super) const NO_CONTAINER_CONFIG: ApiVersion = ApiVersion(1, 45);

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Takes the version off a path: `/v1.47/info` is 1.47 and `/info`; a path
/// without one is of the newest version.
fn split(path: &str) -> (Option<ApiVersion>, &str) {
    let found = path.strip_prefix("/v").and_then(|rest| {
        let (version, _) = rest.split_once('/')?;
        let (major, minor) = version.split_once('.')?;
        let digits = |text: &str| {
            (text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit()))
                .then(|| text.parse().ok())
                .flatten()
        };
        Some((
            ApiVersion(digits(major)?, digits(minor)?),
            &rest[version.len()..],
        ))
    });
    match found {
        Some((version, rest)) => (Some(version), rest),
        None => (None, path),
    }
}

/// Takes the version off a request's path and notes it ([`ApiVersion`] among its
/// extensions).
///
/// # Errors
/// 400 when the version is not served.
pub(crate) fn negotiate<B>(request: &mut Request<B>) -> Result<(), ApiError> {
    let (version, rest) = split(request.uri().path());
    let version = match version {
        None => MAX_VERSION,
        Some(version) if version < MIN_VERSION => {
            return Err(ApiError::bad_request(format!(
                "client version {version} is too old. Minimum supported API version is {MIN_VERSION}, please upgrade your client to a newer version"
            )));
        }
        Some(version) if version > MAX_VERSION => {
            return Err(ApiError::bad_request(format!(
                "client version {version} is too new. Maximum supported API version is {MAX_VERSION}"
            )));
        }
        Some(version) => {
            let path_and_query = match request.uri().query() {
                Some(query) => format!("{rest}?{query}"),
                None => rest.to_owned(),
            };
            let path_and_query = PathAndQuery::try_from(path_and_query)
                .map_err(|error| ApiError::bad_request(error.to_string()))?;
            *request.uri_mut() = Uri::from(path_and_query);
            version
        }
    };
    request.extensions_mut().insert(version);
    Ok(())
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
        let error = with("/v1.52/info").unwrap_err();
        assert!(error.message.contains("too new"), "{}", error.message);
        let error = with("/v1.23/info").unwrap_err();
        assert!(error.message.contains("too old"), "{}", error.message);
    }

    proptest! {
        #[test]
        fn any_path_is_split(path in ".{0,40}") {
            let (_, rest) = split(&path);
            prop_assert!(path.ends_with(rest));
        }
    }
}
