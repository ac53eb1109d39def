//! The engine itself: version, info, disk usage, logins, the build cache.

use serde_json::json;

use super::super::session::{Ask, Session};

pub(super) fn requests(s: &mut Session<'_>) {
    s.get("/info");
    s.get("/v1.24/info");
    s.get("/v1.44/info");
    s.get("/v1.48/info");
    s.get("/version");
    s.get("/system/df");
    s.get("/v1.41/system/df");
    s.get("/v1.43/system/df");
    for kind in ["image", "volume", "container", "build-cache"] {
        s.get(&format!("/system/df?type={kind}"));
    }
    s.get("/system/df?type=image&type=volume");
    s.get("/system/df?type=nonsense");
    s.get("/system/df?type=");
    logins(s);
    builds(s);
}

fn logins(s: &mut Session<'_>) {
    s.post("/auth");
    s.send(Ask::new("POST", "/auth").text("application/json", "{"));
    s.post_json(
        "/auth",
        json!({"username": "me", "password": "secret", "serveraddress": "$closed"}),
    );
    s.post_json(
        "/auth",
        json!({"username": "me", "password": "wrong", "serveraddress": "$closed"}),
    );
    s.post_json(
        "/auth",
        json!({"username": "me", "password": "secret", "serveraddress": "http://$closed/v2/"}),
    );
    s.post_json(
        "/auth",
        json!({"username": "me", "password": "secret", "serveraddress": "127.0.0.1:1"}),
    );
    s.post_json("/auth", json!({"username": 7}));
}

fn builds(s: &mut Session<'_>) {
    s.post("/session");
    s.post("/grpc");
    s.post("/build");
    s.post("/build?remote=nonsense");
    s.post("/build/prune");
    s.post("/build/prune?all=1");
    s.post(r#"/build/prune?filters={"until":["24h"]}"#);
    s.post("/build/prune?filters=nonsense");
    s.post("/build/cancel");
    s.post("/build/cancel?id=contract-nobody");
}
