//! Request lines and headers that are none, or too much of them.

use std::time::Duration;

use super::{Raw, body, status};
use crate::tests::engine::Engine;

/// Sends `piece` again and again after `start`, up to `total` bytes, until the engine has
/// enough; its answer.
async fn flood(engine: &Engine, start: &str, piece: &[u8], total: usize) -> (String, usize) {
    let mut client = Raw::say(engine.socket(), start).await;
    let mut sent = 0;
    while sent < total && client.send(piece).await {
        sent += piece.len();
    }
    (client.rest().await, sent)
}

#[tokio::test]
async fn a_gigabyte_of_header_is_cut_off_early() {
    const GIGABYTE: usize = 1 << 30;
    // What the engine reads, and what the socket holds for it.
    const MOST: usize = 4 << 20;
    let engine = Engine::start(None);
    let line = format!("X: {}\r\n", "x".repeat(1000));
    for (start, piece) in [
        ("GET /_ping HTTP/1.1\r\nHost: x\r\nX: ", "x".repeat(65536)),
        ("GET /_ping HTTP/1.1\r\n", line),
        ("GET /_ping HTTP/1.1\r\n", "a:b\r\n".repeat(10_000)),
        ("GET /", "x".repeat(65536)),
        ("", "x".repeat(65536)),
        ("", "\r\n".repeat(10_000)),
    ] {
        let (answer, sent) = flood(&engine, start, piece.as_bytes(), GIGABYTE).await;
        assert!(sent < MOST, "{start:?}: {sent} bytes were taken");
        assert!(
            (400..500).contains(&status(&answer)),
            "{start:?}: {answer:?}"
        );
    }
    assert_eq!(engine.get("/_ping").await.status, 200);
}

#[tokio::test]
async fn headers_that_clients_send_fit() {
    let engine = Engine::start(None);
    let large = "x".repeat(200 * 1024);
    let many = "X-Many: one\r\n".repeat(90);
    for headers in [format!("X-Registry-Config: {large}\r\n"), many] {
        let request =
            format!("GET /_ping HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n");
        let answer = Raw::say(engine.socket(), request).await.rest().await;
        assert_eq!(status(&answer), 200, "{answer}");
    }
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let engine = Engine::start(None);
    let requests: &[&[u8]] = &[
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /_ping\r\n\r\n",
        b"GET  /_ping HTTP/1.1\r\n\r\n",
        b"GET /_ping HTTP/9.9\r\n\r\n",
        b"G\x00T /_ping HTTP/1.1\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nA\x00: b\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\xff: \xff\r\n\r\n",
        b"GET _ping HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 0x10\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n{}",
    ];
    for request in requests {
        let mut client = Raw::say(engine.socket(), request).await;
        // Nothing more is coming.
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await;
        let answer = client.rest().await;
        let shown = String::from_utf8_lossy(request).into_owned();
        assert!(
            (400..500).contains(&status(&answer)),
            "{shown:?}: {answer:?}"
        );
    }
    // Another protocol's beginning, to which there is no answer in this one.
    let answer = Raw::say(engine.socket(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(answer.rest().await, "");
    assert_eq!(engine.get("/_ping").await.status, 200);
}

#[tokio::test]
async fn paths_of_any_kind_are_answered() {
    let engine = Engine::start(None);
    for path in [
        "*",
        "http://docker/nothing",
        "//",
        "/v1.51",
        "/v1.51/",
        "/v1.51//",
        "/v99999.99999/info",
        "/v1.51/v1.51/info",
        "/..%2f..%2fetc",
        "/containers/%00/json?%00=%ff",
        "/containers/%ff%fe/json",
        "/containers/%/json",
        "/containers/%zz/start",
        "/images/%ff/json",
        "/?&&&===&%",
    ] {
        for method in ["GET", "POST", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            );
            let answer = Raw::say(engine.socket(), request).await.rest().await;
            // 503: the machine is off, so these were valid. Everything has options.
            let expected = (400..500).contains(&status(&answer))
                || status(&answer) == 503
                || (status(&answer) == 200 && method == "OPTIONS");
            assert!(expected, "{method} {path}: {answer:?}");
            if !body(&answer).is_empty() {
                let json: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
                assert!(json["message"].is_string(), "{method} {path}: {answer}");
            }
        }
    }
    let mut client = Raw::say(engine.socket(), "CONNECT docker:80 HTTP/1.1\r\n\r\n").await;
    assert!((400..500).contains(&status(&client.until("\r\n\r\n").await)));
}

#[tokio::test]
async fn requests_in_a_row_are_all_answered() {
    const REQUESTS: usize = 1000;
    let engine = Engine::start(None);
    let mut requests = "GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n".repeat(REQUESTS - 1);
    requests.push_str("GET /_ping HTTP/1.0\r\n\r\n");
    let mut client = Raw::connect(engine.socket()).await;
    let (reader, mut writer) = client.stream.split();
    let mut answers = String::new();
    let (sent, read) = tokio::time::timeout(Duration::from_secs(30), async {
        let send = tokio::io::AsyncWriteExt::write_all(&mut writer, requests.as_bytes());
        let mut reader = reader;
        tokio::join!(
            send,
            tokio::io::AsyncReadExt::read_to_string(&mut reader, &mut answers)
        )
    })
    .await
    .expect("in time");
    sent.unwrap();
    read.unwrap();
    assert_eq!(answers.matches(" 200 OK\r\n").count(), REQUESTS);
}
