//! A reply that is one JSON value after another, for as long as it lasts:
//! progress of a pull, events.

use std::marker::PhantomData;

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::Error;

/// The largest value, in bytes.
const MAX_VALUE: usize = 16 * 1024 * 1024;

/// The values of a reply, as they come.
#[derive(Debug)]
pub(crate) struct JsonLines<T> {
    body: Incoming,
    values: Splitter,
    path: String,
    kind: PhantomData<T>,
}

impl<T: DeserializeOwned> JsonLines<T> {
    pub(super) fn new(body: Incoming, path: &str) -> Self {
        Self {
            body,
            values: Splitter::default(),
            path: path.to_owned(),
            kind: PhantomData,
        }
    }

    /// The next value; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(value) = self.values.next().map_err(|source| Error::Malformed {
                path: self.path.clone(),
                source,
            })? {
                return Ok(Some(value));
            }
            if self.values.buffer.len() > MAX_VALUE {
                return Err(Error::TooLong { limit: MAX_VALUE });
            }
            match self.body.frame().await.transpose()? {
                Some(frame) => {
                    if let Some(data) = frame.data_ref() {
                        self.values.buffer.extend_from_slice(data);
                    }
                }
                None if self.values.buffer.is_empty() => return Ok(None),
                None => return Err(Error::Lost("the reply was cut short".into())),
            }
        }
    }
}

/// Cuts a stream of bytes into JSON values, whatever lies between them.
#[derive(Debug, Default)]
struct Splitter {
    buffer: BytesMut,
}

impl Splitter {
    /// The next complete value, if all of it is here.
    fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, serde_json::Error> {
        let blank = self
            .buffer
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        self.buffer.advance(blank);
        let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<T>();
        match values.next() {
            None => Ok(None),
            Some(Err(error)) if error.is_eof() => Ok(None),
            Some(Err(error)) => Err(error),
            Some(Ok(value)) => {
                let length = values.byte_offset();
                self.buffer.advance(length);
                Ok(Some(value))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    proptest! {
        #[test]
        fn values_survive_any_cut(
            texts in proptest::collection::vec(".{0,20}", 0..8),
            size in 1_usize..30,
        ) {
            let values: Vec<Value> = texts.iter().map(|text| json!({ "status": text })).collect();
            let mut stream = Vec::new();
            for value in &values {
                stream.extend_from_slice(value.to_string().as_bytes());
                stream.extend_from_slice(b"\r\n");
            }
            let mut splitter = Splitter::default();
            let mut seen = Vec::new();
            for chunk in stream.chunks(size) {
                splitter.buffer.extend_from_slice(chunk);
                while let Some(value) = splitter.next::<Value>().unwrap() {
                    seen.push(value);
                }
            }
            prop_assert_eq!(seen, values);
            prop_assert!(splitter.next::<Value>().unwrap().is_none());
            prop_assert!(splitter.buffer.is_empty());
        }
    }

    #[test]
    fn what_is_not_json_is_an_error() {
        let mut splitter = Splitter::default();
        splitter.buffer.extend_from_slice(b"{nonsense}");
        assert!(splitter.next::<Value>().is_err());
    }
}
