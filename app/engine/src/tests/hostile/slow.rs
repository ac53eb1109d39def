//! Clients that take their time, or send one direction only.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::{Raw, footprint::connections, status};
use crate::{server::Limits, tests::engine::Engine};

/// Limits that a test can wait for.
fn short() -> Limits {
    Limits {
        head_time: Duration::from_millis(300),
        body_pause: Duration::from_millis(300),
        ..Limits::default()
    }
}

#[tokio::test]
async fn headers_that_never_end_are_given_up() {
    let engine = Engine::with_limits(None, short());
    let mut clients = Vec::new();
    for _ in 0..100 {
        let head = "GET /_ping HTTP/1.1\r\nHost: x\r\n";
        clients.push(Raw::say(engine.socket(), head).await);
    }
    // Others are served meanwhile.
    assert_eq!(engine.get("/_ping").await.status, 200);
    for client in clients {
        client.rest().await;
    }
    assert_eq!(connections(engine.socket()), 0);
}

#[tokio::test]
async fn headers_that_drip_are_given_up() {
    let engine = Engine::with_limits(None, short());
    let mut client = Raw::say(engine.socket(), "GET /_ping HTTP/1.1\r\nX: ").await;
    let drip = async {
        while client.send("x").await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), drip)
        .await
        .expect("the engine closes");
}

#[tokio::test]
async fn a_body_that_was_announced_and_stands_still_is_given_up() {
    let engine = Engine::with_limits(None, short());
    for path in [
        "/containers/create",
        "/containers/x/exec",
        "/auth",
        "/commit?container=x",
    ] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{");
        let answer = Raw::say(engine.socket(), head).await.rest().await;
        assert_eq!(status(&answer), 400, "{path}: {answer}");
    }
    assert_eq!(connections(engine.socket()), 0);
}

#[tokio::test]
async fn a_body_that_drips_is_read() {
    let engine = Engine::with_limits(None, short());
    let body = r#"{"Image":""}"#;
    let head = format!(
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut client = Raw::say(engine.socket(), head).await;
    for byte in body.bytes() {
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(client.send([byte]).await);
    }
    let answer = client.rest().await;
    assert!(answer.contains("no command specified"), "{answer}");
}

#[tokio::test]
async fn who_has_said_all_still_gets_the_answer() {
    let engine = Engine::start(None);
    for path in ["/_ping", "/version"] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut client = Raw::say(engine.socket(), head).await;
        client.stream.shutdown().await.unwrap();
        let answer = client.rest().await;
        assert_eq!(status(&answer), 200, "{answer}");
    }
}

#[tokio::test]
async fn more_clients_than_fit_wait_for_their_turn() {
    let limits = Limits {
        connections: 4,
        ..short()
    };
    let engine = Engine::with_limits(None, limits);
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(Raw::connect(engine.socket()).await);
    }
    assert_eq!(engine.get("/_ping").await.status, 200);
}
