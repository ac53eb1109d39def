//! Requests one after the other, and what is noted of their answers.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Engine,
    answer::Answer,
    http::{Request, Until, exchange},
};

/// How long a state may take to come.
const PATIENCE: Duration = Duration::from_mins(1);

/// A request and what was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Exchange {
    pub(super) request: String,
    #[serde(flatten)]
    pub(super) answer: Answer,
}

/// A group's requests under way.
pub(super) struct Session<'a> {
    engine: &'a Engine,
    /// What `$name` in a path stands for.
    values: BTreeMap<String, String>,
    /// The last answer's body.
    body: Vec<u8>,
    exchanges: Vec<Exchange>,
    /// How often each request was sent.
    sent: BTreeMap<String, usize>,
}

impl<'a> Session<'a> {
    pub(super) fn new(engine: &'a Engine) -> Self {
        let values = [
            ("registry", engine.registry.clone()),
            ("closed", engine.closed_registry.clone()),
            ("image", format!("{}/busybox:latest", engine.registry)),
        ];
        let values = values.map(|(name, value)| (name.to_owned(), value));
        Self {
            engine,
            values: values.into(),
            body: Vec::new(),
            exchanges: Vec::new(),
            sent: BTreeMap::new(),
        }
    }

    pub(super) fn into_exchanges(self) -> Vec<Exchange> {
        self.exchanges
    }

    pub(super) fn get(&mut self, path: &str) {
        self.send(Ask::new("GET", path));
    }

    pub(super) fn head(&mut self, path: &str) {
        self.send(Ask::new("HEAD", path));
    }

    pub(super) fn delete(&mut self, path: &str) {
        self.send(Ask::new("DELETE", path));
    }

    /// A POST without a body.
    pub(super) fn post(&mut self, path: &str) {
        self.send(Ask::new("POST", path));
    }

    /// A POST of JSON.
    #[expect(clippy::needless_pass_by_value, reason = "it is made for the call")]
    pub(super) fn post_json(&mut self, path: &str, body: Value) {
        self.send(Ask::new("POST", path).json(&body));
    }

    /// Sends a request and notes the answer.
    pub(super) fn send(&mut self, ask: Ask) {
        let mut label = ask.label.clone();
        let count = self.sent.entry(label.clone()).or_insert(0);
        *count += 1;
        if *count > 1 {
            label = format!("{label} #{count}");
        }
        let answer = self.exchange(ask);
        let request = label;
        self.exchanges.push(Exchange { request, answer });
    }

    /// Sends a request that is not compared: it prepares or cleans up.
    #[expect(clippy::needless_pass_by_value, reason = "it is made for the call")]
    pub(super) fn prepare(&mut self, method: &'static str, path: &str, body: Value) {
        let ask = Ask::new(method, path);
        self.exchange(if body.is_null() { ask } else { ask.json(&body) });
    }

    fn exchange(&mut self, ask: Ask) -> Answer {
        let mut request = ask.request;
        request.path = encode(&self.with_values(&request.path));
        if let Ok(body) = std::str::from_utf8(&request.body) {
            request.body = self.with_values(body).into_bytes();
        }
        match exchange(&self.engine.socket, &request) {
            Ok(raw) => {
                let names = self.values.iter();
                let names: Vec<_> = names
                    .map(|(name, value)| (value.clone(), format!("<{name}>")))
                    .collect();
                let answer = Answer::of(&raw, &names);
                self.body = raw.body;
                answer
            }
            Err(error) => Answer::failed(&error),
        }
    }

    /// Keeps a field of the last answer as `$name`.
    pub(super) fn keep(&mut self, name: &str, field: &str) {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let value = match body.pointer(field) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => "none".to_owned(),
        };
        self.values.insert(name.to_owned(), value);
    }

    /// Keeps a time of the last answer as `$name`, in seconds since 1970: those are what
    /// Docker takes in a query.
    pub(super) fn keep_seconds(&mut self, name: &str, field: &str) {
        self.keep(name, field);
        let time = self.values.get(name).cloned().unwrap_or_default();
        if let Ok(time) = OffsetDateTime::parse(&time, &Rfc3339) {
            let seconds = format!("{}.{:09}", time.unix_timestamp(), time.nanosecond());
            self.values.insert(name.to_owned(), seconds);
        }
    }

    /// Keeps what `$name` stands for as `$other`, too.
    pub(super) fn keep_as(&mut self, name: &str, other: &str) {
        let value = self.values.get(name).cloned().unwrap_or_default();
        self.values.insert(other.to_owned(), value);
    }

    /// Asks until a field of the answer is `wanted`, for a bounded time.
    pub(super) fn wait_for(&mut self, path: &str, field: &str, wanted: &Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.prepare("GET", path, Value::Null);
            let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
            if body.pointer(field) == Some(wanted) || Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a container's state is `status`.
    pub(super) fn wait_for_state(&mut self, container: &str, status: &str) {
        let path = format!("/containers/{container}/json");
        self.wait_for(&path, "/State/Status", &json!(status));
    }

    /// Waits until a container has said something.
    pub(super) fn wait_for_output(&mut self, container: &str, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let path = format!("/containers/{container}/logs?stdout=1&stderr=1");
            self.prepare("GET", &path, Value::Null);
            let said = self
                .body
                .windows(text.len())
                .any(|it| it == text.as_bytes());
            if said || Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn with_values(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.values {
            text = text.replace(&format!("${name}"), value);
        }
        text
    }
}

/// A request to be sent.
pub(super) struct Ask {
    label: String,
    request: Request,
}

impl Ask {
    pub(super) fn new(method: &'static str, path: &str) -> Self {
        Self {
            label: format!("{method} {path}"),
            request: Request::new(method, path),
        }
    }

    pub(super) fn json(self, body: &Value) -> Self {
        self.text("application/json", &body.to_string())
    }

    /// A body of text, of that content type.
    pub(super) fn text(mut self, kind: &str, body: &str) -> Self {
        let shown: String = body.chars().take(160).collect();
        self.label = format!("{} {shown}", self.label);
        self.bytes(kind, body.as_bytes().to_vec())
    }

    /// A body that the request's name does not show.
    pub(super) fn bytes(mut self, kind: &str, body: Vec<u8>) -> Self {
        if !kind.is_empty() {
            self = self.header("Content-Type", kind);
        }
        self.request.body = body;
        self
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.request
            .headers
            .push((name.to_owned(), value.to_owned()));
        self
    }

    /// Credentials for a registry.
    pub(super) fn login(mut self, name: &str, password: &str) -> Self {
        self.label = format!("{} as {name}:{password}", self.label);
        let auth = json!({"username": name, "password": password}).to_string();
        self.header("X-Registry-Auth", &BASE64_URL_SAFE.encode(auth))
    }

    /// Asks for the connection, and sends `input` on it.
    pub(super) fn upgrade(mut self, input: &str) -> Self {
        self.label = format!("{} (upgrade)", self.label);
        self.request.input = input.as_bytes().to_vec();
        self.header("Connection", "Upgrade")
            .header("Upgrade", "tcp")
    }

    /// Asks for a websocket.
    pub(super) fn websocket(self) -> Self {
        self.header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("Origin", "http://docker")
    }

    /// Reads the head alone.
    pub(super) fn head_only(mut self) -> Self {
        self.request.until = Until::Head;
        self
    }

    /// Reads so many lines of the answer.
    pub(super) fn lines(mut self, count: usize) -> Self {
        self.request.until = Until::Lines(count);
        self
    }
}

/// A path as it goes over the wire.
fn encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for character in path.chars() {
        match character {
            '{' | '}' | '"' | '[' | ']' | ' ' | '<' | '>' | '^' | '|' | '\\' => {
                encoded.extend(["%", &format!("{:02X}", u32::from(character))]);
            }
            _ => encoded.push(character),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_encoded() {
        assert_eq!(
            encode(r#"/a?filters={"b":["c d"]}"#),
            "/a?filters=%7B%22b%22:%5B%22c%20d%22%5D%7D"
        );
    }
}
