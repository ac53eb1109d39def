//! An HTTP client on a unix socket.

use std::{path::Path, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderMap, Method, Request, StatusCode},
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// More than any answer in these tests takes.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An answer, whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body as one JSON value.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The message of an error.
    pub(super) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }

    /// The body as one JSON value a line.
    pub(super) fn lines(&self) -> Vec<Value> {
        std::str::from_utf8(&self.body)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The error at the end of a stream of progress.
    pub(super) fn stream_error(&self) -> String {
        let lines = self.lines();
        let last = lines.last().unwrap();
        assert_eq!(last["error"], last["errorDetail"]["message"]);
        last["error"].as_str().unwrap().to_owned()
    }

    /// The statuses in a stream of progress.
    pub(super) fn statuses(&self) -> Vec<String> {
        self.lines()
            .iter()
            .filter_map(|line| line["status"].as_str().map(str::to_owned))
            .collect()
    }
}

/// Sends a request on a connection of its own; the answer's body is still to come.
pub(super) async fn send(
    socket: &Path,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> axum::http::Response<Incoming> {
    let stream = UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "docker");
    if body.starts_with('{') {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap();
    tokio::time::timeout(TIMEOUT, sender.send_request(request))
        .await
        .expect("an answer in time")
        .unwrap()
}

/// Sends a request and reads the whole answer.
pub(super) async fn ask(
    socket: &Path,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let (parts, body) = send(socket, method, path, headers, body).await.into_parts();
    let body = tokio::time::timeout(TIMEOUT, body.collect())
        .await
        .expect("the body in time")
        .unwrap()
        .to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}
