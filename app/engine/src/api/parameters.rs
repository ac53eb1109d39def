//! A request's query, read as Docker reads it.

use std::{convert::Infallible, str::FromStr};

use axum::{body::Bytes, extract::FromRequestParts, http::request::Parts};
use serde::de::DeserializeOwned;

use super::{
    ApiError,
    filters::Filters,
    version::{ApiVersion, MAX_VERSION},
};
use crate::registry::Platform;

/// The parameters of a request's query.
pub(super) struct Parameters {
    pairs: Vec<(String, String)>,
    /// The API version that the client speaks.
    pub(super) version: ApiVersion,
}

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self {
            pairs: url::form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
            version: parts.extensions.get().copied().unwrap_or(MAX_VERSION),
        })
    }
}

impl Parameters {
    /// Parameters that this program gives itself.
    pub(super) fn of(pairs: &[(&str, &str)], version: ApiVersion) -> Self {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Self {
            pairs: pairs.iter().map(owned).collect(),
            version,
        }
    }

    /// A text, if it is there and not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// All texts of that name that are not empty.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        self.pairs
            .iter()
            .filter(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// The platform, if one is asked for.
    ///
    /// # Errors
    /// 400 when it is none.
    pub(super) fn platform(&self) -> Result<Option<Platform>, ApiError> {
        self.text("platform")
            .map(|text| Platform::from_parameter(text).map_err(ApiError::bad_request))
            .transpose()
    }

    /// A switch: off when it is missing, empty, `0`, `no`, `false` or `none`.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| {
            !matches!(
                value.trim().to_ascii_lowercase().as_str(),
                "" | "0" | "no" | "false" | "none"
            )
        })
    }

    /// A number, if it is there.
    ///
    /// # Errors
    /// 400 when it is something else.
    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.text(name)
            .map(|value| {
                value.parse().map_err(|_| {
                    ApiError::bad_request(format!("invalid value for {name}: {value:?}"))
                })
            })
            .transpose()
    }

    /// A number that must be there.
    ///
    /// # Errors
    /// 400 when it is missing or something else.
    pub(super) fn required<T: FromStr>(&self, name: &str) -> Result<T, ApiError> {
        self.number(name)?
            .ok_or_else(|| ApiError::bad_request(format!("parameter {name} is missing")))
    }

    /// The filters; none when there are none.
    ///
    /// # Errors
    /// 400 when they are not understood.
    pub(super) fn filters(&self) -> Result<Filters, ApiError> {
        Filters::parse(self.text("filters").unwrap_or_default()).map_err(ApiError::bad_request)
    }
}

/// Reads a body as JSON, whatever its content type; an empty one is `T`'s default.
///
/// # Errors
/// 400 when it is not a `T`.
pub(super) fn json<T: DeserializeOwned + Default>(body: &Bytes) -> Result<T, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    // Go's clients send `null` for what is not there.
    serde_json::from_slice::<Option<T>>(body)
        .map(Option::unwrap_or_default)
        .map_err(|error| ApiError::bad_request(format!("invalid JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parameters(query: &str) -> Parameters {
        let request = axum::http::Request::get(format!("/?{query}"))
            .body(())
            .unwrap();
        Parameters::from_request_parts(&mut request.into_parts().0, &())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn switches_are_docker_s() {
        let p = parameters("a=1&b=true&c=0&d=False&e=&f=none&g=yes").await;
        let on: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h"]
            .into_iter()
            .filter(|name| p.flag(name))
            .collect();
        assert_eq!(on, ["a", "b", "g"]);
    }

    #[tokio::test]
    async fn a_number_that_is_none_is_refused() {
        let p = parameters("h=24&w=x").await;
        assert_eq!(p.required::<u16>("h").unwrap(), 24);
        assert!(p.required::<u16>("w").is_err());
        assert!(p.required::<u16>("z").is_err());
        assert_eq!(p.number::<i64>("z").unwrap(), None);
    }
}
