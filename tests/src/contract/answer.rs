//! An answer without its values: what is recorded of it and compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{http::Raw, shape::Shape};

/// Headers that clients read, or whose absence they notice.
const HEADERS: &[&str] = &[
    "api-version",
    "builder-version",
    "cache-control",
    "connection",
    "content-type",
    "docker-experimental",
    "location",
    "ostype",
    "pragma",
    "server",
    "swarm",
    "upgrade",
    "x-docker-container-path-stat",
];

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) body: Option<Body>,
}

/// A body, as far as it is recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Body {
    /// `{"message": …}` and nothing else.
    Message(String),
    /// The shape of JSON.
    Json(Value),
    /// JSON objects that follow each other: their common shape, and all that they said
    /// as `status` or `error`.
    Objects {
        shape: Value,
        said: BTreeSet<String>,
    },
    /// Events: type, action and the names of attributes.
    Events(Vec<String>),
    /// Output in frames: what came on each stream, 1 and 2.
    Streams(BTreeMap<String, String>),
    /// The names in an archive.
    Archive(BTreeSet<String>),
    /// Anything else.
    Text(String),
}

impl Answer {
    /// What is recorded of `raw`; `names` are replaced in texts by what they stand for.
    pub(super) fn of(raw: &Raw, names: &[(String, String)]) -> Self {
        let header = |name: &&str| {
            let value = raw.header(name)?;
            // Of use only where a connection changes hands.
            (*name != "connection" || raw.status == 101)
                .then(|| ((*name).to_owned(), plain_header(name, value)))
        };
        Self {
            status: raw.status,
            headers: HEADERS.iter().filter_map(header).collect(),
            body: body(raw, names),
        }
    }

    /// An exchange that did not come to an answer.
    pub(super) fn failed(error: &std::io::Error) -> Self {
        Self {
            status: 0,
            headers: BTreeMap::new(),
            body: Some(Body::Text(format!("no answer: {:?}", error.kind()))),
        }
    }
}

fn plain_header(name: &str, value: &str) -> String {
    match name {
        // Docker/28.5.2 (linux)
        "server" => match value.split_once(' ') {
            Some((product, rest)) if product.contains('/') => format!("<product>/<version> {rest}"),
            _ => value.to_owned(),
        },
        "connection" => value.to_ascii_lowercase(),
        "x-docker-container-path-stat" => {
            let json = BASE64_STANDARD.decode(value).unwrap_or_default();
            match serde_json::from_slice(&json) {
                Ok(json) => Shape::of(&json).to_json().to_string(),
                Err(error) => error.to_string(),
            }
        }
        _ => value.to_owned(),
    }
}

fn body(raw: &Raw, names: &[(String, String)]) -> Option<Body> {
    if raw.body.is_empty() {
        return None;
    }
    let kind = raw.header("content-type").unwrap_or_default();
    if kind == "application/vnd.docker.multiplexed-stream" || is_framed(&raw.body) {
        return Some(Body::Streams(streams(&raw.body, names)));
    }
    if kind == "application/x-tar" {
        return Some(archive(&raw.body));
    }
    // Docker's statistics have no type.
    if !(kind.starts_with("application/json") || (kind.is_empty() && raw.body.starts_with(b"{"))) {
        return Some(Body::Text(plain(
            &String::from_utf8_lossy(&raw.body),
            names,
        )));
    }
    let objects: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(&raw.body)
        .into_iter()
        .collect();
    let Ok(objects) = objects else {
        return Some(Body::Text(plain(
            &String::from_utf8_lossy(&raw.body),
            names,
        )));
    };
    if objects.iter().all(|object| object.get("Actor").is_some()) {
        let mut events: Vec<_> = objects.iter().map(event).collect();
        put_in_order(&mut events);
        return Some(Body::Events(events));
    }
    match objects.as_slice() {
        [Value::Object(object)] if object.len() == 1 && object.contains_key("message") => {
            let message = object.get("message").and_then(Value::as_str);
            Some(Body::Message(plain(message.unwrap_or_default(), names)))
        }
        [one] if !is_progress(one) => Some(Body::Json(Shape::of(one).to_json())),
        several => {
            let said = |object: &Value| {
                let text = object.get("error").or(object.get("status"));
                let text = text.or(object.get("stream")).and_then(Value::as_str);
                text.map(|text| plain(text.trim_end(), names))
            };
            Some(Body::Objects {
                shape: Shape::of_all(several).to_json(),
                said: several.iter().filter_map(said).collect(),
            })
        }
    }
}

fn is_progress(object: &Value) -> bool {
    ["status", "errorDetail", "stream"]
        .iter()
        .any(|field| object.get(field).is_some())
}

/// An event in one line: `container start {image,name}`.
fn event(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let attributes = event["Actor"]["Attributes"].as_object();
    let attributes: Vec<_> = attributes
        .into_iter()
        .flat_map(|it| it.keys())
        .cloned()
        .collect();
    let mut fields: Vec<_> = event
        .as_object()
        .into_iter()
        .flat_map(|it| it.keys())
        .cloned()
        .collect();
    fields.sort();
    format!(
        "{} {} {{{}}} {}",
        text(&event["Type"]),
        text(&event["Action"]),
        attributes.join(","),
        fields.join(" ")
    )
}

/// Docker tells of a stop as soon as the process is gone, and meanwhile of its end: which
/// is told first is chance.
fn put_in_order(events: &mut [String]) {
    let is = |event: &String, action: &str| event.starts_with(&format!("container {action} "));
    for at in 1..events.len() {
        let (before, after) = (at - 1, at);
        if is(&events[before], "stop") && is(&events[after], "die") {
            events.swap(before, after);
        }
    }
}

/// Whether a raw stream is one of frames: it begins with a frame's head.
fn is_framed(bytes: &[u8]) -> bool {
    matches!(bytes, [1 | 2, 0, 0, 0, 0, ..])
}

fn streams(mut bytes: &[u8], names: &[(String, String)]) -> BTreeMap<String, String> {
    let mut streams: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    while let [stream, _, _, _, a, b, c, d, rest @ ..] = bytes {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (content, rest) = rest.split_at(length.min(rest.len()));
        streams
            .entry(*stream)
            .or_default()
            .extend_from_slice(content);
        bytes = rest;
    }
    let text = |bytes: Vec<u8>| plain(&String::from_utf8_lossy(&bytes), names);
    streams
        .into_iter()
        .map(|(stream, bytes)| (stream.to_string(), text(bytes)))
        .collect()
}

fn archive(bytes: &[u8]) -> Body {
    let mut archive = tar::Archive::new(bytes);
    let mut names = BTreeSet::new();
    let Ok(entries) = archive.entries() else {
        return Body::Text("no archive".to_owned());
    };
    for entry in entries {
        let Ok(mut entry) = entry else {
            names.insert("(breaks off)".to_owned());
            break;
        };
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        names.insert(plain(&name, &[]));
        if entry.read_to_end(&mut Vec::new()).is_err() {
            names.insert("(breaks off)".to_owned());
        }
    }
    Body::Archive(names)
}

/// What is followed by a name that is made up, or that depends on what else is there.
const BEFORE_NAMES: [&str; 2] = ["docker-import-", "Mounted from "];

/// `text` without what is another at each run: identifiers, times, addresses.
fn plain(text: &str, names: &[(String, String)]) -> String {
    let mut text = text.to_owned();
    for beginning in BEFORE_NAMES {
        if let Some((before, after)) = text.split_once(beginning) {
            let rest = after.find('/').map_or("", |at| after.split_at(at).1);
            text = format!("{before}{beginning}<name>{rest}");
        }
    }
    for (value, name) in names.iter().filter(|(value, _)| !value.is_empty()) {
        text = text.replace(value.as_str(), name);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let digits = rest
            .bytes()
            .take_while(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
            .count();
        let (run, after) = rest.split_at(digits);
        match digits {
            64 => plain.push_str("<id>"),
            12 => plain.push_str("<short id>"),
            _ if is_year(run) && after.starts_with('-') => {
                let end = rest.find(|c: char| !(c.is_ascii_digit() || "-T:.Z+".contains(c)));
                plain.push_str("<time>");
                rest = rest.split_at(end.unwrap_or(rest.len())).1;
                continue;
            }
            _ => plain.push_str(run),
        }
        let mut after = after.chars();
        plain.extend(after.next());
        rest = after.as_str();
    }
    plain
}

fn is_year(run: &str) -> bool {
    run.len() == 4 && run.starts_with("20") && run.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(kind: &str, body: &[u8]) -> Raw {
        Raw {
            status: 200,
            headers: vec![
                ("content-type".into(), kind.into()),
                ("date".into(), "x".into()),
            ],
            body: body.to_vec(),
        }
    }

    fn body_of(kind: &str, body: &[u8]) -> Option<Body> {
        Answer::of(&raw(kind, body), &[]).body
    }

    #[test]
    fn bodies_are_told_apart() {
        let json = "application/json";
        let message = body_of(json, b"{\"message\":\"No such container: x\"}\n");
        assert_eq!(message, Some(Body::Message("No such container: x".into())));
        assert_eq!(body_of(json, b""), None);
        assert_eq!(
            body_of(json, b"{\"a\":1}"),
            Some(Body::Json(serde_json::json!({"a": "number"})))
        );
        let lines = b"{\"status\":\"Pulling\",\"id\":\"x\"}\r\n{\"status\":\"Done\"}\r\n";
        let Some(Body::Objects { shape, said }) = body_of(json, lines) else {
            panic!("objects");
        };
        assert_eq!(shape, serde_json::json!({"status": "text", "id?": "text"}));
        assert_eq!(said.len(), 2);
        let event = br#"{"Type":"container","Action":"die","Actor":{"ID":"x","Attributes":{"b":"","a":""}}}"#;
        let events = Body::Events(vec!["container die {a,b} Action Actor Type".into()]);
        assert_eq!(body_of(json, event), Some(events));
        let stopped = br#"{"Type":"container","Action":"stop","Actor":{}}{"Type":"container","Action":"die","Actor":{}}"#;
        let ordered =
            ["die", "stop"].map(|action| format!("container {action} {{}} Action Actor Type"));
        assert_eq!(body_of(json, stopped), Some(Body::Events(ordered.into())));
        let frames = body_of(
            "application/vnd.docker.multiplexed-stream",
            b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x01e",
        );
        let streams = [("1", "hi"), ("2", "e")]
            .map(|(stream, text)| (stream.to_owned(), text.to_owned()))
            .into();
        assert_eq!(frames, Some(Body::Streams(streams)));
    }

    #[test]
    fn what_changes_with_each_run_is_taken_out_of_texts() {
        let id = "0123456789abcdef".repeat(4);
        let text = format!(
            "container {id} (0123456789ab) at 2026-01-31T12:34:56.5Z on 127.0.0.1:5: dead beef"
        );
        let names = [("127.0.0.1:5".to_owned(), "<registry>".to_owned())];
        assert_eq!(
            plain(&text, &names),
            "container <id> (<short id>) at <time> on <registry>: dead beef"
        );
        assert_eq!(
            plain("open /tmp/docker-import-2870971618/repositories: no", &[]),
            "open /tmp/docker-import-<name>/repositories: no"
        );
        assert_eq!(plain("Mounted from busybox", &[]), "Mounted from <name>");
    }
}
