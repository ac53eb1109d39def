//! Pulls from registries in good order and in bad.

use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use base64::{Engine as _, engine::general_purpose};
use serde_json::json;

use super::{
    client,
    engine::Engine,
    image::{TestImage, digest, noise},
    receiver::Receiver,
    registry_server::{Head, RegistryServer, Reply, serve_image},
};

fn started() -> (Engine, Receiver) {
    let engine = Engine::start(None);
    let receiver = Receiver::start(&engine.agent_socket());
    (engine, receiver)
}

fn is_layer(image: &TestImage) -> impl Fn(&Head) -> bool + use<> {
    let layer = digest(&image.layers[0]);
    move |head| head.path.ends_with(&layer)
}

fn auth_header(username: &str, password: &str) -> String {
    let json = json!({"username": username, "password": password}).to_string();
    general_purpose::URL_SAFE.encode(json)
}

#[tokio::test]
async fn an_image_arrives_and_is_up_to_date_then() {
    let image = TestImage::new(&[&noise(300_000), b"two", b"three", b"four"]);
    let server = RegistryServer::with_image(image.clone(), |_, _| None).await;
    let (engine, receiver) = started();
    let answer = engine.post(&server.pull_path(), &[], "").await;
    assert_eq!(answer.status, StatusCode::OK);
    let statuses = answer.statuses();
    assert_eq!(statuses[0], "Pulling from x");
    assert_eq!(statuses.iter().filter(|s| *s == "Pull complete").count(), 4);
    let name = server.image_name();
    assert_eq!(
        statuses[statuses.len() - 2..],
        [
            format!("Digest: {}", digest(&image.manifest)),
            format!("Status: Downloaded newer image for {name}"),
        ]
    );
    let stored = receiver.image(&name).unwrap();
    assert_eq!(stored.id, image.id());
    let by_digest = format!("{}/x@{}", server.address, digest(&image.manifest));
    assert_eq!(stored.repo_tags, [by_digest, name.clone()]);

    let blobs = server.asked_for("/blobs/").len();
    let again = engine.post(&server.pull_path(), &[], "").await.statuses();
    assert_eq!(again.iter().filter(|s| *s == "Already exists").count(), 4);
    assert_eq!(
        again.last().unwrap(),
        &format!("Status: Image is up to date for {name}")
    );
    // Only the configuration was asked for again.
    assert_eq!(server.asked_for("/blobs/").len(), blobs + 1);
}

#[tokio::test]
async fn a_layer_that_goes_with_another_image_is_brought_again() {
    let image = TestImage::new(&[b"one", b"two"]);
    let server = RegistryServer::with_image(image, |_, _| None).await;
    let (engine, receiver) = started();
    receiver.received.lock().unwrap().removals = 2;
    let statuses = engine.post(&server.pull_path(), &[], "").await.statuses();
    assert_eq!(statuses.iter().filter(|s| *s == "Pull complete").count(), 4);
    assert!(receiver.image(&server.image_name()).is_some());

    // It is not tried for ever.
    let (engine, receiver) = started();
    receiver.received.lock().unwrap().removals = 100;
    let answer = engine.post(&server.pull_path(), &[], "").await;
    assert!(answer.stream_error().contains("is not on disk"));
    assert!(receiver.image(&server.image_name()).is_none());
}

#[tokio::test]
async fn a_layer_with_a_wrong_digest_is_never_completed() {
    let image = TestImage::new(&[&noise(500_000)]);
    let (is_layer, mut bad) = (is_layer(&image), image.layers[0].clone());
    let last = bad.len() - 1;
    bad[last] ^= 1;
    let server = RegistryServer::with_image(image, move |head, _| {
        is_layer(head).then(|| Reply::ok("application/octet-stream", bad.clone()))
    })
    .await;
    let (engine, mut receiver) = started();
    let answer = engine.post(&server.pull_path(), &[], "").await;
    assert_eq!(answer.status, StatusCode::OK);
    let error = answer.stream_error();
    assert!(
        error.contains("failed verification: expected digest sha256:"),
        "{error}"
    );
    receiver
        .broken
        .wait_for(|broken| *broken == 1)
        .await
        .unwrap();
    assert!(receiver.image(&server.image_name()).is_none());
    assert_eq!(receiver.layers(), 0);
}

#[tokio::test]
async fn a_layer_that_is_longer_than_promised_is_refused() {
    let image = TestImage::new(&[b"short"]);
    let is_layer = is_layer(&image);
    let server = RegistryServer::with_image(image, move |head, _| {
        is_layer(head).then_some(Reply::Endless)
    })
    .await;
    let (engine, receiver) = started();
    let error = engine
        .post(&server.pull_path(), &[], "")
        .await
        .stream_error();
    assert!(error.contains("failed verification: expected "), "{error}");
    assert_eq!(receiver.layers(), 0);
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    for ranges in [true, false] {
        let image = TestImage::new(&[&noise(400_000)]);
        let (is_layer, offered) = (is_layer(&image), image.clone());
        let server = RegistryServer::with_image(image, move |head, before| {
            if !is_layer(head) {
                return None;
            }
            match before {
                0 => Some(Reply::CutOff(offered.layers[0].clone(), 100_000)),
                1 => Some(Reply::error(503, "UNAVAILABLE", "in a moment")),
                _ if ranges => None,
                _ => Some(Reply::ok(
                    "application/octet-stream",
                    offered.layers[0].clone(),
                )),
            }
        })
        .await;
        let (engine, receiver) = started();
        let answer = engine.post(&server.pull_path(), &[], "").await;
        assert!(
            receiver.image(&server.image_name()).is_some(),
            "{:?}",
            answer.lines()
        );
        let asked = server.asked_for("/blobs/");
        let range = asked.last().unwrap().headers.get("range").unwrap();
        assert_eq!(range, "bytes=100000-");
    }
}

#[tokio::test]
async fn a_layer_that_stays_truncated_is_an_error() {
    let image = TestImage::new(&[&noise(50_000)]);
    let (is_layer, offered) = (is_layer(&image), image.clone());
    let server = RegistryServer::with_image(image, move |head, _| {
        is_layer(head).then(|| {
            // Without ranges, so that no attempt gets any further.
            Reply::CutOff(offered.layers[0].clone(), 1_000)
        })
    })
    .await;
    let (engine, receiver) = started();
    let error = engine
        .post(&server.pull_path(), &[], "")
        .await
        .stream_error();
    assert!(error.contains("(1000 of "), "{error}");
    assert_eq!(receiver.layers(), 0);
}

#[tokio::test]
async fn a_registry_that_is_down_is_an_error_at_once() {
    let (engine, _receiver) = started();
    let begun = Instant::now();
    let answer = engine
        .post("/images/create?fromImage=127.0.0.1:1/x&tag=latest", &[], "")
        .await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        answer.message(),
        "cannot reach registry 127.0.0.1:1: connection refused"
    );
}

#[tokio::test]
async fn unknown_images_and_repositories_are_not_found() {
    for (code, words) in [
        ("MANIFEST_UNKNOWN", "x:latest not found: manifest unknown"),
        ("NAME_UNKNOWN", "/x not found: name unknown"),
        ("DENIED", "pull access denied for 127.0.0.1"),
    ] {
        let server = RegistryServer::start(move |_, _| Reply::error(404, code, "no")).await;
        let (engine, _receiver) = started();
        let answer = engine.post(&server.pull_path(), &[], "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert!(answer.message().contains(words), "{}", answer.message());
    }
}

#[tokio::test]
async fn a_registry_that_limits_is_asked_again_and_then_quoted() {
    let server =
        RegistryServer::start(|_, _| Reply::error(429, "TOOMANYREQUESTS", "slow down")).await;
    let (engine, _receiver) = started();
    let answer = engine.post(&server.pull_path(), &[], "").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(
        answer.message().contains("slow down"),
        "{}",
        answer.message()
    );
    assert_eq!(server.asked_for("/manifests/").len(), 5);
}

#[tokio::test]
async fn basic_credentials_are_asked_for_and_accepted() {
    let image = TestImage::new(&[b"content"]);
    let server = RegistryServer::with_image(image, |head, _| {
        let expected = format!("Basic {}", general_purpose::STANDARD.encode("me:pass"));
        if head.headers.get("authorization") == Some(&expected) {
            return None;
        }
        let challenge = ("WWW-Authenticate", "Basic realm=\"x\"".to_owned());
        Some(Reply::Whole(401, vec![challenge], Vec::new()))
    })
    .await;
    let (engine, receiver) = started();
    let answer = engine.post(&server.pull_path(), &[], "").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(
        answer.message().contains("docker login"),
        "{}",
        answer.message()
    );
    let wrong = auth_header("me", "wrong");
    let answer = engine
        .post(&server.pull_path(), &[("x-registry-auth", &wrong)], "")
        .await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(
        answer.message().contains("refused the credentials"),
        "{}",
        answer.message()
    );
    assert!(!answer.message().contains("wrong"));
    let right = auth_header("me", "pass");
    engine
        .post(&server.pull_path(), &[("x-registry-auth", &right)], "")
        .await;
    assert!(receiver.image(&server.image_name()).is_some());
    // What `docker login` asks.
    for (password, status) in [
        ("pass", StatusCode::OK),
        ("wrong", StatusCode::UNAUTHORIZED),
    ] {
        let body = json!({
            "username": "me", "password": password, "serveraddress": server.address.to_string(),
        });
        let answer = engine.post("/auth", &[], &body.to_string()).await;
        assert_eq!(answer.status, status);
    }
}

#[tokio::test]
async fn a_token_is_fetched_where_the_registry_says() {
    let image = TestImage::new(&[b"content"]);
    let server = RegistryServer::with_image(image, |head, _| {
        if head.path.starts_with("/token?") {
            let basic = format!("Basic {}", general_purpose::STANDARD.encode("me:pass"));
            if head.headers.get("authorization") != Some(&basic) {
                return Some(Reply::error(401, "UNAUTHORIZED", "who are you"));
            }
            assert!(
                head.path.contains("service=s")
                    && head.path.contains("scope=repository%3Ax%3Apull")
            );
            return Some(Reply::ok("application/json", r#"{"token":"t0k3n"}"#));
        }
        if head.headers.get("authorization").map(String::as_str) == Some("Bearer t0k3n") {
            return None;
        }
        let realm = format!("http://{}/token", head.headers["host"]);
        let challenge =
            format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:x:pull\"");
        Some(Reply::Whole(
            401,
            vec![("WWW-Authenticate", challenge)],
            Vec::new(),
        ))
    })
    .await;
    let (engine, receiver) = started();
    let answer = engine.post(&server.pull_path(), &[], "").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let right = auth_header("me", "pass");
    engine
        .post(&server.pull_path(), &[("x-registry-auth", &right)], "")
        .await;
    assert!(receiver.image(&server.image_name()).is_some());
    // Once for each pull, not for each request.
    assert_eq!(server.asked_for("/token").len(), 2);
}

#[tokio::test]
async fn the_platform_chooses_in_an_index() {
    let image = TestImage::new(&[b"content"]);
    let offered = image.clone();
    let server = RegistryServer::start(move |head, _| {
        if !head.path.ends_with("/manifests/latest") {
            return serve_image(&offered, head);
        }
        let entry = |architecture: &str, digest: String, size: usize| {
            json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest, "size": size,
                "platform": {"os": "linux", "architecture": architecture},
            })
        };
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                entry("s390x", digest(b"other"), 5),
                entry(std::env::consts::ARCH, digest(&offered.manifest), offered.manifest.len()),
            ],
        });
        Reply::ok("application/vnd.oci.image.index.v1+json", index.to_string())
    })
    .await;
    let (engine, receiver) = started();
    let path = format!("{}&platform=linux/riscv64", server.pull_path());
    let answer = engine.post(&path, &[], "").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(
        answer.message(),
        "no matching manifest for linux/riscv64 in the manifest list entries"
    );
    engine.post(&server.pull_path(), &[], "").await;
    assert_eq!(receiver.image(&server.image_name()).unwrap().id, image.id());
}

#[tokio::test]
async fn documents_that_are_too_large_or_no_images_are_refused() {
    let image = TestImage::new(&[b"content"]);
    let answers: [fn(&TestImage) -> Reply; 3] = [
        |_| Reply::Endless,
        |_| Reply::ok("text/html", "<html>"),
        |image| {
            let chart = String::from_utf8(image.manifest.clone()).unwrap().replace(
                "vnd.oci.image.config.v1+json",
                "vnd.cncf.helm.config.v1+json",
            );
            Reply::ok("application/vnd.oci.image.manifest.v1+json", chart)
        },
    ];
    for (answer, words) in answers.into_iter().zip([
        "expected 4194304 bytes",
        "is no JSON",
        "is no container image",
    ]) {
        let image = image.clone();
        let server = RegistryServer::start(move |_, _| answer(&image)).await;
        let (engine, _receiver) = started();
        let reply = engine.post(&server.pull_path(), &[], "").await;
        assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(reply.message().contains(words), "{}", reply.message());
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_pull() {
    let image = TestImage::new(&[&noise(100_000)]);
    let (is_layer, length) = (is_layer(&image), image.layers[0].len());
    let server = RegistryServer::with_image(image, move |head, _| {
        is_layer(head).then_some(Reply::Stall(length))
    })
    .await;
    let (engine, mut receiver) = started();
    let path = server.pull_path();
    let answer = client::send(engine.socket(), Method::POST, &path, &[], "").await;
    let on_their_way = |asked: &Vec<Head>| {
        asked
            .iter()
            .filter(|head| head.path.contains("/blobs/"))
            .count()
            == 2
    };
    server.asked.clone().wait_for(on_their_way).await.unwrap();
    drop(answer);
    tokio::time::timeout(
        Duration::from_secs(10),
        receiver.broken.wait_for(|n| *n == 1),
    )
    .await
    .expect("in time")
    .unwrap();
}

#[tokio::test]
async fn the_starter_image_needs_no_network() {
    let layout = starter_layout();
    let engine = Engine::start(Some(layout));
    let receiver = Receiver::start(&engine.agent_socket());
    let body = r#"{"Image":"hello:latest"}"#;
    let created = engine.post("/containers/create?name=a", &[], body).await;
    assert_eq!(created.status, StatusCode::CREATED);
    assert!(receiver.image("hello:latest").is_some());
    let pulled = engine
        .post("/images/create?fromImage=hello&tag=latest", &[], "")
        .await;
    assert_eq!(
        pulled.statuses().last().unwrap(),
        "Status: Imported starter image hello:latest"
    );
    let other = engine
        .post("/containers/create", &[], r#"{"Image":"other:latest"}"#)
        .await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    assert_eq!(other.message(), "No such image: other:latest");
}

/// An OCI image layout as a tar.
fn starter_layout() -> &'static [u8] {
    let image = TestImage::new(&[b"hello"]);
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(&image.manifest),
            "size": image.manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": "hello:latest"},
        }],
    });
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content).unwrap();
    };
    add("index.json", index.to_string().as_bytes());
    for blob in image.blobs().chain([&image.manifest]) {
        add(&format!("blobs/{}", digest(blob).replace(':', "/")), blob);
    }
    tar.into_inner().unwrap().leak()
}
