//! Swarm and plugins, of an engine that is in no swarm and has no plugins.

use serde_json::json;

use super::super::session::{Ask, Session};

pub(super) fn requests(s: &mut Session<'_>) {
    for path in [
        "/swarm",
        "/swarm/unlockkey",
        "/nodes",
        "/nodes/x",
        "/services",
        "/services/x",
        "/services/x/logs",
        "/services/x/logs?stdout=1",
        "/tasks",
        "/tasks/x",
        "/tasks/x/logs",
        "/tasks/x/logs?stdout=1",
        "/secrets",
        "/secrets/x",
        "/configs",
        "/configs/x",
        "/services?filters=nonsense",
        "/v1.24/services",
        "/v1.24/secrets",
        "/v1.24/configs",
    ] {
        s.get(path);
    }
    for path in [
        "/swarm/init",
        "/swarm/join",
        "/swarm/leave",
        "/swarm/leave?force=1",
        "/swarm/update",
        "/swarm/update?version=1",
        "/swarm/unlock",
        "/nodes/x/update",
        "/nodes/x/update?version=1",
        "/services/create",
        "/services/x/update",
        "/services/x/update?version=1",
        "/secrets/create",
        "/secrets/x/update",
        "/secrets/x/update?version=1",
        "/configs/create",
        "/configs/x/update",
        "/configs/x/update?version=1",
    ] {
        s.post(path);
        if !path.contains("init") && !path.contains("join") {
            s.post_json(path, json!({}));
        }
    }
    s.send(Ask::new("POST", "/swarm/init").text("application/json", "{"));
    s.send(Ask::new("POST", "/services/create").text("application/json", "{"));
    s.send(Ask::new("POST", "/swarm/update?version=1").text("text/plain", "{}"));
    for path in [
        "/nodes/x",
        "/nodes/x?force=1",
        "/services/x",
        "/secrets/x",
        "/configs/x",
    ] {
        s.delete(path);
    }
    plugins(s);
}

fn plugins(s: &mut Session<'_>) {
    s.get("/plugins");
    s.get(r#"/plugins?filters={"enabled":["true"]}"#);
    s.get(r#"/plugins?filters={"enabled":["maybe"]}"#);
    s.get(r#"/plugins?filters={"nonsense":["x"]}"#);
    s.get("/plugins?filters=nonsense");
    s.get("/plugins/contract-nobody/json");
    s.get("/plugins/a/b/json");
    for path in [
        "/plugins/contract-nobody/enable",
        "/plugins/contract-nobody/enable?timeout=1",
        "/plugins/contract-nobody/disable",
        "/plugins/contract-nobody/push",
        "/plugins/contract-nobody/set",
        "/plugins/contract-nobody/upgrade?remote=x",
        "/plugins/create",
        "/plugins/create?name=contract-nobody",
        "/plugins/pull",
    ] {
        s.post(path);
    }
    s.post_json("/plugins/contract-nobody/set", json!(["A=B"]));
    s.delete("/plugins/contract-nobody");
    s.delete("/plugins/contract-nobody?force=1");
}
