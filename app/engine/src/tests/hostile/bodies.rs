//! Bodies that are too large, too deep, or lie about their length.

use serde_json::Value;

use super::{Raw, body, status};
use crate::tests::engine::Engine;

/// Endpoints that read JSON before they ask the agent anything.
const READERS: [&str; 4] = [
    "/containers/create",
    "/networks/create",
    "/volumes/create",
    "/containers/x/exec",
];

/// The largest body that is read.
const LIMIT: usize = 4 * 1024 * 1024;

fn request(path: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}\r\n{body}"
    )
}

fn sized(path: &str, body: &str) -> String {
    request(path, &format!("Content-Length: {}\r\n", body.len()), body)
}

/// The message of an error.
fn message(answer: &str) -> String {
    let json: Value = serde_json::from_str(body(answer)).unwrap_or_default();
    json["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn bombs_of_json_are_refused() {
    let engine = Engine::start(None);
    let deep = |open: &str, close: &str| {
        let count = (LIMIT - 100) / (open.len() + close.len());
        format!("{}{}", open.repeat(count), close.repeat(count))
    };
    let bombs = [
        deep("[", "]"),
        deep(r#"{"a":"#, "}"),
        "[".repeat(LIMIT),
        format!(r#"{{"Labels":{}}}"#, deep("[", "]")),
        format!(
            r#"{{"Labels":{{}},"Labels":[{}]}}"#,
            vec!["[]"; 100_000].join(",")
        ),
        r#"{"Labels":1e999999999}"#.to_owned(),
        r#"{"Labels":{"a":"\ud800"}}"#.to_owned(),
        format!(r#"{{"Labels":{{"{}":1}}}}"#, "x".repeat(1000)),
        "\u{feff}{}".to_owned(),
        "{} {}".to_owned(),
    ];
    for path in READERS {
        for bomb in &bombs {
            let answer = Raw::say(engine.socket(), sized(path, bomb)).await;
            let answer = answer.rest().await;
            let start: String = bomb.chars().take(40).collect();
            assert_eq!(status(&answer), 400, "{path} {start}: {answer}");
            assert!(message(&answer).len() < 1000, "{path} {start}: {answer}");
        }
    }
    // A key that comes twice is no error to Docker either; here the last one counts.
    let twice = sized(
        "/containers/create",
        r#"{"Image":"a","Image":"","Image":""}"#,
    );
    let answer = Raw::say(engine.socket(), twice).await.rest().await;
    assert_eq!(status(&answer), 400, "{answer}");
}

/// Sends `piece` after `head`, up to a gibibyte, until the engine has enough; its answer,
/// and how many bytes it took.
async fn pour(engine: &Engine, head: String, piece: &[u8]) -> (String, usize) {
    const GIBIBYTE: usize = 1 << 30;
    let mut client = Raw::say(engine.socket(), head).await;
    let mut sent = 0;
    while sent < GIBIBYTE && client.send(piece).await {
        sent += piece.len();
    }
    (client.rest().await, sent)
}

#[tokio::test]
async fn a_gibibyte_is_not_read() {
    let engine = Engine::start(None);
    let blank = " ".repeat(0x10000);
    let chunk = format!("10000\r\n{blank}\r\n");
    for path in READERS {
        for (length, piece) in [
            ("Content-Length: 1073741824\r\n", &blank),
            ("Content-Length: 18446744073709551610\r\n", &blank),
            ("Transfer-Encoding: chunked\r\n", &chunk),
        ] {
            let head = request(path, length, "");
            let (answer, sent) = pour(&engine, head, piece.as_bytes()).await;
            assert_eq!(status(&answer), 413, "{path} {length}: {answer}");
            assert!(message(&answer).contains("limit"), "{answer}");
            assert!(sent < 2 * LIMIT, "{path} {length}: {sent} bytes were taken");
        }
    }
    // Nor by who looks only whether there is a body.
    let head = request("/containers/x/start", "Content-Length: 1073741824\r\n", "");
    let (answer, sent) = pour(&engine, head, blank.as_bytes()).await;
    assert_eq!(status(&answer), 413, "{answer}");
    assert!(sent < 2 * LIMIT, "{sent} bytes were taken");
    assert_eq!(engine.get("/_ping").await.status, 200);
}
