//! What needs no agent, and how failures look.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde_json::json;

use super::{client, engine::Engine};

#[tokio::test]
async fn a_ping_names_the_api_and_boots_nothing() {
    let engine = Engine::start(None);
    for method in [Method::GET, Method::HEAD] {
        for path in ["/_ping", "/v1.50/_ping"] {
            let answer = client::ask(engine.socket(), method.clone(), path, &[], "").await;
            assert_eq!(answer.status, StatusCode::OK);
            let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
            assert_eq!(header("api-version"), "1.51");
            assert_eq!(header("ostype"), "linux");
            assert_eq!(header("docker-experimental"), "false");
            assert_eq!(header("builder-version"), "1");
            assert_eq!(header("swarm"), "inactive");
            assert!(method == Method::HEAD || answer.body == "OK");
        }
    }
    let version = engine.get("/version").await.json();
    assert_eq!(version["ApiVersion"], "1.51");
    assert_eq!(version["MinAPIVersion"], "1.24");
    assert_eq!(
        engine.get("/dctl/machine").await.json(),
        json!({"state": "off"})
    );
    assert_eq!(engine.get("/dctl/machine/logs?tail=1").await.body, "two\n");
    assert_eq!(engine.wanted(), 0);
}

#[tokio::test]
async fn what_is_not_served_is_named() {
    let engine = Engine::start(None);
    for (method, path, status, message) in [
        (Method::POST, "/v1.51/build?t=x", 501, "building images"),
        (Method::POST, "/swarm/leave", 503, "not part of a swarm"),
        (Method::GET, "/images/a/b/x", 404, "page not found"),
        (Method::PUT, "/info", 404, "page not found"),
        (Method::GET, "/elsewhere", 404, "page not found"),
        (
            Method::GET,
            "/plugins/a/b/json",
            404,
            "plugin \"a/b\" not found",
        ),
        (Method::GET, "/v1.99/info", 400, "too new"),
        (
            Method::POST,
            "/containers/create",
            400,
            "got EOF while reading request body",
        ),
        (
            Method::POST,
            "/containers/x/resize?h=1",
            400,
            "invalid resize width",
        ),
        (
            Method::POST,
            "/containers/x/wait?condition=later",
            400,
            "later",
        ),
        (
            Method::GET,
            "/containers/x/logs",
            400,
            "at least one stream",
        ),
        (
            Method::GET,
            "/containers/json?filters=%7B%22x%22%3A%5B%5D%7D",
            400,
            "invalid filter 'x'",
        ),
        (
            Method::POST,
            "/images/create?fromImage=UPPER",
            400,
            "must be lowercase",
        ),
        (Method::DELETE, "/dctl/machine", 409, "stop it first"),
    ] {
        let answer = client::ask(engine.socket(), method, path, &[], "").await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{path}: {}",
            answer.message()
        );
        assert!(
            answer.message().contains(message),
            "{path}: {}",
            answer.message()
        );
    }
}

#[tokio::test]
async fn clients_too_old_for_json_are_told_in_text() {
    let engine = Engine::start(None);
    let answer = engine.get("/v1.12/info").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.body.starts_with(b"client version 1.12 is too old"));
}

#[tokio::test]
async fn head_is_where_docker_has_it() {
    let engine = Engine::start(None);
    for (path, status) in [("/_ping", 200), ("/version", 404), ("/info", 404)] {
        let answer = client::ask(engine.socket(), Method::HEAD, path, &[], "").await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
    }
    let answer = client::ask(engine.socket(), Method::OPTIONS, "/version", &[], "").await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn a_machine_that_cannot_be_reached_is_said_so() {
    let engine = Engine::start(None);
    let answer = engine.get("/containers/json").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        answer.message().contains("does not run"),
        "{}",
        answer.message()
    );
    assert!(engine.wanted() > 0);
}

#[tokio::test]
async fn the_engine_ends_when_told_to() {
    let mut engine = Engine::start(None);
    let answer = engine.post("/dctl/engine/stop", &[], "").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    tokio::time::timeout(Duration::from_secs(10), &mut engine.served)
        .await
        .expect("in time")
        .unwrap();
    assert!(
        tokio::net::UnixStream::connect(engine.socket())
            .await
            .is_err()
    );
}
