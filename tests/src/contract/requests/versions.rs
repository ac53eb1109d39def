//! API versions, `_ping`, and what nobody serves.

use super::super::session::{Ask, Session};

pub(super) fn requests(s: &mut Session<'_>) {
    for path in ["/_ping", "/v1.24/_ping", "/v1.51/_ping"] {
        s.head(path);
        s.get(path);
    }
    for path in [
        "/v1.24/version",
        "/v1.51/version",
        "/version",
        "/v1.52/version",
        "/v1.23/version",
        "/v1.23/_ping",
        "/v1.999/containers/json",
        "/v2.0/version",
        "/v1/version",
        "/v1.51",
        "/v1.51/",
        "/vx/version",
        "/v1.x/version",
        "/",
        "/nothing",
        "/v1.51/nothing",
        "/containers",
        "/containers/",
        "/images",
        "/containers/a/b/json",
        "/version/more",
    ] {
        s.get(path);
    }
    s.post("/_ping");
    s.post("/version");
    s.post("/containers/json");
    s.delete("/containers/json");
    s.post("/nothing");
    s.send(Ask::new("PUT", "/containers/contract-nobody/json"));
    s.send(Ask::new("PATCH", "/version"));
    s.send(Ask::new("OPTIONS", "/version"));
    s.send(Ask::new("OPTIONS", "/containers/json"));
    s.head("/version");
    s.head("/containers/json");
    s.head("/info");
    s.head("/nothing");
}
