//! Pull, push, and what registries say.

use serde_json::{Value, json};

use super::super::session::{Ask, Session};

pub(super) fn requests(s: &mut Session<'_>) {
    pulls(s);
    pushes(s);
    distribution(s);
    search(s);
    for name in ["$registry/contract-push:1", "$closed/contract-push:1"] {
        s.prepare("DELETE", &format!("/images/{name}?force=1"), Value::Null);
    }
}

fn pulls(s: &mut Session<'_>) {
    for path in [
        "/images/create?fromImage=$registry/busybox&tag=latest",
        "/images/create?fromImage=$registry/busybox:latest",
        "/v1.24/images/create?fromImage=$registry/busybox&tag=latest",
        "/images/create?fromImage=$registry/contract-nobody&tag=latest",
        "/images/create?fromImage=$registry/busybox&tag=contract-nobody",
        "/images/create?fromImage=$registry/busybox&tag=bad tag",
        "/images/create?fromImage=Contract Bad",
        "/images/create?fromImage=",
        "/images/create?fromImage=$closed/busybox&tag=latest",
        "/images/create?fromImage=127.0.0.1:1/busybox&tag=latest",
        "/images/create?fromImage=$registry/busybox&tag=latest&platform=linux/arm64",
        "/images/create?fromImage=$registry/busybox&tag=latest&platform=nonsense",
        "/images/create?fromImage=$registry/busybox&tag=sha256:0123",
    ] {
        s.post(path);
    }
    s.send(
        Ask::new(
            "POST",
            "/images/create?fromImage=$closed/busybox&tag=latest",
        )
        .login("me", "wrong"),
    );
    s.send(
        Ask::new(
            "POST",
            "/images/create?fromImage=$closed/busybox&tag=latest",
        )
        .login("me", "secret"),
    );
    s.send(
        Ask::new(
            "POST",
            "/images/create?fromImage=$registry/busybox&tag=latest#nonsense",
        )
        .header("X-Registry-Auth", "nonsense"),
    );
}

fn pushes(s: &mut Session<'_>) {
    s.prepare(
        "POST",
        "/images/$image/tag?repo=$registry/contract-push&tag=1",
        Value::Null,
    );
    s.prepare(
        "POST",
        "/images/$image/tag?repo=$closed/contract-push&tag=1",
        Value::Null,
    );
    s.send(Ask::new("POST", "/images/$registry/contract-push/push?tag=1").login("", ""));
    s.send(Ask::new("POST", "/images/$registry/contract-push/push?tag=1").login("", ""));
    s.send(Ask::new("POST", "/images/$registry/contract-push:1/push").login("", ""));
    s.post("/images/$registry/contract-push/push?tag=1");
    s.send(Ask::new("POST", "/images/$registry/contract-push/push?tag=2").login("", ""));
    s.send(Ask::new("POST", "/images/$registry/contract-nobody/push?tag=1").login("", ""));
    s.send(Ask::new("POST", "/images/$closed/contract-push/push?tag=1").login("", ""));
    s.send(Ask::new("POST", "/images/$closed/contract-push/push?tag=1").login("me", "wrong"));
    s.send(Ask::new("POST", "/images/$closed/contract-push/push?tag=1").login("me", "secret"));
    s.send(Ask::new("POST", "/images/Contract Bad/push?tag=1").login("", ""));
    s.send(Ask::new("POST", "/images/$registry/contract-push/push?tag=bad tag").login("", ""));
}

fn distribution(s: &mut Session<'_>) {
    s.get("/distribution/$image/json");
    s.get("/v1.30/distribution/$image/json");
    s.get("/distribution/$registry/contract-nobody/json");
    s.get("/distribution/$registry/busybox:contract-nobody/json");
    s.get("/distribution/$closed/busybox/json");
    s.send(Ask::new("GET", "/distribution/$closed/contract-push:1/json").login("me", "secret"));
    s.get("/distribution/Contract Bad/json");
    s.get("/distribution/127.0.0.1:1/busybox/json");
    s.get("/distribution/$image");
}

fn search(s: &mut Session<'_>) {
    s.get("/images/search?term=$registry/x");
    s.get("/images/search?term=$registry/x&limit=x");
    s.get("/images/search?term=$registry/x&limit=500");
    s.get(r#"/images/search?term=$registry/x&filters={"nonsense":["x"]}"#);
    s.get(r#"/images/search?term=$registry/x&filters={"stars":["x"]}"#);
    s.get("/images/search?term=$registry/x&filters=nonsense");
    s.post_json("/images/search", json!({}));
}
