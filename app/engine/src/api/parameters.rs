//! A request's query, read as Docker reads it.

use std::{convert::Infallible, str::FromStr};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{header::CONTENT_TYPE, request::Parts},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::error::Category;

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
        let mut texts = self.all(name);
        texts.retain(|text| !text.is_empty());
        texts
    }

    /// All texts of that name.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        let named = self.pairs.iter().filter(|(key, _)| key == name);
        named.map(|(_, value)| value.clone()).collect()
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

    /// The size of a terminal: height, width.
    ///
    /// # Errors
    /// 400 when one of them is missing or something else.
    pub(super) fn terminal_size(&self) -> Result<(u16, u16), ApiError> {
        let read = |name: &str, what: &str| {
            let text = self.text(name).unwrap_or_default();
            text.parse().map_err(|_| {
                let why = if text.parse::<i64>().is_ok() {
                    "value out of range"
                } else {
                    "invalid syntax"
                };
                ApiError::bad_request(format!("invalid resize {what} {text:?}: {why}"))
            })
        };
        Ok((read("h", "height")?, read("w", "width")?))
    }

    /// The filters; none when there are none.
    ///
    /// # Errors
    /// 400 when they are not understood.
    pub(super) fn filters(&self) -> Result<Filters, ApiError> {
        Filters::parse(self.text("filters").unwrap_or_default()).map_err(ApiError::bad_request)
    }
}

/// A request's body, if it is JSON by its content type, or there is none.
pub(super) struct JsonBody(Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind = request.headers().get(CONTENT_TYPE);
        let kind = String::from_utf8_lossy(kind.map_or(&[], |kind| kind.as_bytes())).into_owned();
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|error| ApiError::new(error.status(), error.body_text()))?;
        let media_type = kind.split(';').next().unwrap_or_default().trim();
        if body.is_empty() || media_type.eq_ignore_ascii_case("application/json") {
            return Ok(Self(body));
        }
        Err(ApiError::bad_request(if media_type.is_empty() {
            format!("malformed Content-Type header ({kind}): mime: no media type")
        } else {
            format!("unsupported Content-Type header ({kind}): must be 'application/json'")
        }))
    }
}

impl JsonBody {
    /// Reads it; an empty one is `T`'s default.
    ///
    /// # Errors
    /// 400 when it is not a `T`.
    pub(super) fn read<T: DeserializeOwned + Default>(&self) -> Result<T, ApiError> {
        json(&self.0)
    }

    /// The same of a body that must be there.
    ///
    /// # Errors
    /// 400 when it is missing or not a `T`.
    pub(super) fn read_required<T: DeserializeOwned + Default>(&self) -> Result<T, ApiError> {
        if self.0.is_empty() {
            return Err(ApiError::bad_request(
                "invalid JSON: got EOF while reading request body",
            ));
        }
        json(&self.0)
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
    let mut reader = serde_json::Deserializer::from_slice(body);
    // Go's clients send `null` for what is not there.
    let value = Option::<T>::deserialize(&mut reader).map_err(|error| {
        ApiError::bad_request(match error.classify() {
            Category::Eof => "invalid JSON: unexpected EOF".to_owned(),
            _ => format!("invalid JSON: {error}"),
        })
    })?;
    reader
        .end()
        .map_err(|_| ApiError::bad_request("unexpected content after JSON"))?;
    Ok(value.unwrap_or_default())
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
        let p = parameters("t=24&w=x").await;
        assert_eq!(p.number::<u16>("t").unwrap(), Some(24));
        assert!(p.number::<u16>("w").is_err());
        assert_eq!(p.number::<i64>("z").unwrap(), None);
    }

    #[tokio::test]
    async fn a_terminal_has_two_sides() {
        let size = |query| async move { parameters(query).await.terminal_size() };
        assert_eq!(size("h=24&w=80").await.unwrap(), (24, 80));
        for (query, message) in [
            ("w=80", "invalid resize height \"\": invalid syntax"),
            (
                "h=24&w=-1",
                "invalid resize width \"-1\": value out of range",
            ),
        ] {
            assert_eq!(size(query).await.unwrap_err().message, message);
        }
    }

    #[tokio::test]
    async fn a_body_is_json_by_its_type() {
        let read = |kind: &'static str, body: &'static str| async move {
            let mut request = Request::post("/").body(body.into()).unwrap();
            if !kind.is_empty() {
                request
                    .headers_mut()
                    .insert(CONTENT_TYPE, kind.parse().unwrap());
            }
            let body = JsonBody::from_request(request, &()).await?;
            body.read::<serde_json::Value>()
        };
        let json = "application/json";
        assert_eq!(read(json, "{}").await.unwrap(), serde_json::json!({}));
        assert!(read("", "").await.unwrap().is_null());
        assert!(read("application/json; charset=utf-8", "7").await.is_ok());
        for (kind, body, message) in [
            (
                "text/plain",
                "{}",
                "unsupported Content-Type header (text/plain): must be 'application/json'",
            ),
            (
                "",
                "{}",
                "malformed Content-Type header (): mime: no media type",
            ),
            (json, "{", "invalid JSON: unexpected EOF"),
            (json, "{} {}", "unexpected content after JSON"),
        ] {
            assert_eq!(read(kind, body).await.unwrap_err().message, message);
        }
    }
}
