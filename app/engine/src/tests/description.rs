//! `openapi.yaml` against the routes: what is described is served, and what is served is
//! described.

use axum::http::Method;

use super::{client, engine::Engine};

const DESCRIPTION: &str = include_str!("../../openapi.yaml");
const ROUTES: &str = include_str!("../api/mod.rs");

/// Methods that a route may have. HEAD is GET's shadow, except where Docker has it.
const METHODS: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];

/// How answers begin to requests that no handler takes.
const UNKNOWN: [&str; 3] = ["page not found", "not implemented", "This node is not"];

/// Methods and paths of the description.
fn described() -> Vec<(Method, &'static str)> {
    let paths = DESCRIPTION.split("\npaths:\n").nth(1).unwrap();
    let paths = paths.split("\ncomponents:\n").next().unwrap();
    let mut path = "";
    let mut found = Vec::new();
    for line in paths.lines() {
        if let Some(name) = line.strip_prefix("  /") {
            path = &line[2..3 + name.trim_end_matches(':').len()];
        }
        let word = line.strip_prefix("    ").unwrap_or_default();
        let word = word.split(':').next().unwrap_or_default();
        let method = METHODS
            .into_iter()
            .find(|method| method.as_str().to_lowercase() == word);
        found.extend(method.map(|method| (method, path)));
    }
    found
}

/// Paths of the router.
fn routed() -> Vec<String> {
    let mut found = Vec::new();
    for piece in ROUTES.split(".route(").skip(1) {
        let path = piece.split('"').nth(1).unwrap();
        assert!(path.starts_with('/'), "{path}");
        found.push(path.to_owned());
    }
    found
}

/// A request's path that fits a template.
fn sample(template: &str) -> String {
    let parts = template.split('/');
    let parts = parts.map(|part| if part.starts_with('{') { "x" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// Whether a handler takes the request.
async fn is_served(engine: &Engine, method: &Method, path: &str) -> bool {
    if path == "/dctl/engine/stop" {
        // It does what it says.
        return *method == Method::POST;
    }
    let answer = client::ask(engine.socket(), method.clone(), path, &[], "").await;
    let message: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let message = message["message"].as_str().unwrap_or_default();
    if *method == Method::HEAD {
        return ![404, 501].contains(&answer.status.as_u16());
    }
    !UNKNOWN
        .iter()
        .any(|beginning| message.starts_with(beginning))
}

#[tokio::test]
async fn what_is_described_is_served() {
    let engine = Engine::start(None);
    let described = described();
    assert!(described.len() > 60, "{described:?}");
    for (method, path) in described {
        let served = is_served(&engine, &method, &sample(path)).await;
        assert!(served, "{method} {path} is described and not served");
    }
}

#[tokio::test]
async fn what_is_served_is_described() {
    let engine = Engine::start(None);
    let described = described();
    let routed = routed();
    assert!(routed.len() > 50, "{routed:?}");
    for route in routed {
        // Where a name takes the rest of the path, what follows it is the handler's.
        let (prefix, is_open) = match route.split_once("{*") {
            Some((prefix, _)) => (prefix, true),
            None => (route.as_str(), false),
        };
        for method in METHODS {
            let is_described = described.iter().any(|(of, path)| {
                let fits = if is_open {
                    path.starts_with(prefix)
                } else {
                    sample(path) == sample(&route)
                };
                fits && *of == method
            });
            if is_described || method == Method::HEAD {
                continue;
            }
            let path = if is_open {
                format!("{prefix}x")
            } else {
                sample(&route)
            };
            let served = is_served(&engine, &method, &path).await;
            assert!(!served, "{method} {route} is served and not described");
        }
    }
}
