//! A call of the API, before it becomes an HTTP request.

use std::fmt::Write as _;

use hyper::Method;
use serde::Serialize;

use super::Error;

/// What to ask of the engine.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    query: String,
    body: Option<Vec<u8>>,
    upgrade: bool,
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: String::new(),
            body: None,
            upgrade: false,
        }
    }

    /// A GET of `path`, which is encoded already: see [`segment`](Self::segment).
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// A HEAD of `path`.
    pub(crate) fn head(path: impl Into<String>) -> Self {
        Self::new(Method::HEAD, path)
    }

    /// A POST to `path`.
    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    /// A PATCH of `path`.
    pub(crate) fn patch(path: impl Into<String>) -> Self {
        Self::new(Method::PATCH, path)
    }

    /// A PUT to `path`.
    pub(crate) fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    /// A DELETE of `path`.
    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// A name that a user gave, encoded for a path. Slashes stay: names of images
    /// have them.
    pub(crate) fn segment(name: &str) -> String {
        encode(name, b"/:@")
    }

    /// Adds a parameter.
    pub(crate) fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        let separator = if self.query.is_empty() { '?' } else { '&' };
        self.query.push(separator);
        self.query.push_str(&encode(name, b""));
        self.query.push('=');
        self.query.push_str(&encode(value.as_ref(), b""));
        self
    }

    /// Adds a parameter if there is a value for it.
    pub(crate) fn query_if(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Adds a parameter as `1` if it holds.
    pub(crate) fn flag(self, name: &str, holds: bool) -> Self {
        if holds { self.query(name, "1") } else { self }
    }

    /// Gives it a body of JSON.
    pub(crate) fn with_json(mut self, value: &impl Serialize) -> Result<Self, Error> {
        self.body = Some(serde_json::to_vec(value).map_err(Error::Encode)?);
        Ok(self)
    }

    /// Asks for the connection itself.
    pub(crate) fn upgrade(mut self) -> Self {
        self.upgrade = true;
        self
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn path_and_query(&self) -> String {
        format!("{}{}", self.path, self.query)
    }

    pub(super) fn body(&self) -> Option<&[u8]> {
        self.body.as_deref()
    }

    pub(super) fn is_upgrade(&self) -> bool {
        self.upgrade
    }
}

/// Percent-encodes all but RFC 3986's unreserved characters and `keep`.
fn encode(text: &str, keep: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_query_is_encoded() {
        let call = Call::get("/containers/json")
            .query("filters", r#"{"a":["b c"]}"#)
            .flag("all", true)
            .flag("size", false)
            .query_if("limit", None::<&str>);
        assert_eq!(
            call.path_and_query(),
            "/containers/json?filters=%7B%22a%22%3A%5B%22b%20c%22%5D%7D&all=1"
        );
    }

    #[test]
    fn names_of_images_keep_their_slashes() {
        assert_eq!(
            Call::segment("localhost:5000/a/b:1@sha256:00"),
            "localhost:5000/a/b:1@sha256:00"
        );
        assert_eq!(Call::segment("a b?#"), "a%20b%3F%23");
    }

    proptest! {
        #[test]
        fn what_is_encoded_can_be_decoded(text in any::<String>()) {
            let encoded = encode(&text, b"");
            prop_assert!(encoded.is_ascii());
            let mut bytes = Vec::new();
            let mut rest = encoded.as_bytes();
            while let [first, tail @ ..] = rest {
                if *first == b'%' {
                    let digits = std::str::from_utf8(&tail[..2]).unwrap();
                    bytes.push(u8::from_str_radix(digits, 16).unwrap());
                    rest = &tail[2..];
                } else {
                    bytes.push(*first);
                    rest = tail;
                }
            }
            prop_assert_eq!(bytes, text.into_bytes());
        }
    }
}
