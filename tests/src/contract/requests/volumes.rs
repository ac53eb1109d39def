//! Volumes.

use serde_json::{Value, json};

use super::{
    super::session::{Ask, Session},
    make, remove, shell,
};

pub(super) fn requests(s: &mut Session<'_>) {
    for name in ["contract-store", "contract-tmp", "contract-used"] {
        s.prepare("DELETE", &format!("/volumes/{name}?force=1"), Value::Null);
    }
    create(s);
    lists(s);
    prune(s);
}

fn create(s: &mut Session<'_>) {
    let labels = json!({"contract": "volumes", "empty": ""});
    s.post_json(
        "/volumes/create",
        json!({"Name": "contract-store", "Labels": labels}),
    );
    // Again: that is no error, and nothing changes.
    s.post_json("/volumes/create", json!({"Name": "contract-store"}));
    s.post_json(
        "/volumes/create",
        json!({"Name": "contract-store", "Driver": "other"}),
    );
    s.post_json(
        "/volumes/create",
        json!({
            "Name": "contract-tmp", "Driver": "local", "Labels": {"contract": "volumes"},
            "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"},
        }),
    );
    s.post_json(
        "/volumes/create",
        json!({"Name": "contract-tmp", "DriverOpts": {"type": "nfs"}}),
    );
    s.post_json("/volumes/create", json!({"Name": "contract bad"}));
    s.post_json("/volumes/create", json!({"Name": "x"}));
    s.post_json(
        "/volumes/create",
        json!({"Name": "contract-no", "Driver": "contract-nobody"}),
    );
    s.post_json(
        "/volumes/create",
        json!({"Name": "contract-no", "DriverOpts": {"nonsense": "x"}}),
    );
    s.post_json("/volumes/create", json!({"Name": 5}));
    s.post_json(
        "/volumes/create",
        json!({"ClusterVolumeSpec": {}, "Name": "contract-cluster"}),
    );
    s.send(Ask::new("POST", "/volumes/create").text("application/json", "{"));
    s.send(Ask::new("POST", "/volumes/create").text("text/plain", "{}"));
    s.post("/v1.24/volumes/create");
    s.keep("unnamed", "/Name");
    s.get("/volumes/$unnamed");
    s.delete("/volumes/$unnamed");
    s.send(Ask::new("PUT", "/volumes/contract-store?version=1").json(&json!({})));
}

fn lists(s: &mut Session<'_>) {
    make(s, "contract-volume-user", {
        let mut config = shell("volumes", "true");
        config["HostConfig"] = json!({"Binds": ["contract-used:/data"]});
        config
    });
    s.get("/volumes/contract-store");
    s.get("/v1.24/volumes/contract-store");
    s.get("/volumes/contract-tmp");
    s.get("/volumes/contract-used");
    s.get("/volumes/contract-nobody");
    s.get(r#"/volumes?filters={"label":["contract=volumes"]}"#);
    s.get(r#"/volumes?filters={"label":{"contract=volumes":true}}"#);
    s.get(r#"/volumes?filters={"name":["contract-nobody"]}"#);
    s.get(r#"/volumes?filters={"name":["contract-used"],"dangling":["false"]}"#);
    s.get(r#"/volumes?filters={"name":["contract-used"],"dangling":["true"]}"#);
    s.get(r#"/volumes?filters={"driver":["contract-nobody"]}"#);
    s.get(r#"/volumes?filters={"dangling":["maybe"]}"#);
    s.get(r#"/volumes?filters={"dangling":["true","false"]}"#);
    s.get(r#"/volumes?filters={"nonsense":["x"]}"#);
    s.get("/volumes?filters=nonsense");
    s.get("/volumes?filters=[]");
    s.get("/volumes?filters={}");
    s.delete("/volumes/contract-nobody");
    s.delete("/volumes/contract-nobody?force=1");
    s.delete("/volumes/contract-used");
    s.delete("/volumes/contract-used?force=1");
    remove(s, &["contract-volume-user"]);
    s.delete("/volumes/contract-used");
    s.delete("/volumes/contract-tmp");
}

fn prune(s: &mut Session<'_>) {
    s.post(r#"/volumes/prune?filters={"nonsense":["x"]}"#);
    s.post("/volumes/prune?filters=nonsense");
    s.post(r#"/volumes/prune?filters={"all":["maybe"],"label":["contract=volumes"]}"#);
    s.post(r#"/volumes/prune?filters={"label":["contract=nobody"]}"#);
    s.post(r#"/volumes/prune?filters={"label":["contract=volumes"]}"#);
    s.post(r#"/volumes/prune?filters={"label":["contract=volumes"],"all":["true"]}"#);
    s.get("/volumes/contract-store");
}
