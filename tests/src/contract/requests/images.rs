//! Images that are there: lists, descriptions, names, archives, commits, imports.

use serde_json::{Value, json};

use super::{
    super::session::{Ask, Session},
    archives::tar,
    make, remove, shell,
};

pub(super) fn requests(s: &mut Session<'_>) {
    for name in [
        "contract-made:1",
        "contract-made:2",
        "contract-import:1",
        "contract-tag:1",
    ] {
        s.prepare("DELETE", &format!("/images/{name}?force=1"), Value::Null);
    }
    views(s);
    tags(s);
    commits(s);
    imports(s);
    archives(s);
    removals(s);
}

fn views(s: &mut Session<'_>) {
    for version in [
        "", "/v1.24", "/v1.40", "/v1.43", "/v1.45", "/v1.47", "/v1.49",
    ] {
        s.get(&format!("{version}/images/$image/json"));
        s.get(&format!(
            r#"{version}/images/json?filters={{"reference":["$image"]}}"#
        ));
    }
    s.get("/images/$image/json?manifests=1");
    s.get("/images/$image/json?platform={\"os\":\"linux\",\"architecture\":\"arm64\"}");
    s.get("/images/$image/json?platform=nonsense");
    s.get("/images/$image/history");
    s.get("/v1.24/images/$image/history");
    s.get("/images/contract-nobody/json");
    s.get("/images/contract-nobody:tag/json");
    s.get("/images/contract/nobody/json");
    s.get("/images/Contract Nobody/json");
    s.get("/images/sha256:0123/json");
    s.get("/images/contract-nobody/history");
    s.get("/images/contract-nobody/get");
    s.get("/images/contract-nobody/nonsense");
    s.get("/images/contract-nobody");
    s.get("/images//json");
    for query in [
        r#"all=1&filters={"reference":["$image"]}"#,
        r#"digests=1&filters={"reference":["$image"]}"#,
        r#"shared-size=1&filters={"reference":["$image"]}"#,
        r#"manifests=1&filters={"reference":["$image"]}"#,
        r#"filters={"reference":["contract-nobody"]}"#,
        r#"filters={"reference":["*/busybox"],"dangling":["false"]}"#,
        r#"filters={"reference":["$image"],"label":["origin=test"]}"#,
        r#"filters={"reference":["$image"],"label":["origin=other"]}"#,
        r#"filters={"reference":["$image"],"dangling":["true"]}"#,
        r#"filters={"dangling":["maybe"]}"#,
        r#"filters={"reference":["$image"],"before":["contract-nobody"]}"#,
        r#"filters={"reference":["$image"],"since":["contract-nobody"]}"#,
        r#"filters={"reference":["$image"],"since":["$image"]}"#,
        r#"filters={"reference":["$image"],"until":["1h"]}"#,
        r#"filters={"reference":["$image"],"until":["soon"]}"#,
        r#"filters={"reference":["["]}"#,
        r#"filters={"reference":["*/busybo[a-x]"]}"#,
        r#"filters={"reference":["*/busybo[^a-x]"]}"#,
        r#"filters={"reference":["*/busybox:l?t*"]}"#,
        r#"filters={"nonsense":["x"]}"#,
        "filters=nonsense",
    ] {
        s.get(&format!("/images/json?{query}"));
    }
    s.get("/v1.24/images/json?filter=$image");
}

fn tags(s: &mut Session<'_>) {
    s.post("/images/$image/tag?repo=contract-tag&tag=1");
    s.post("/images/$image/tag?repo=contract-tag:1");
    s.post("/images/$image/tag?repo=contract-tag&tag=1&force=1");
    s.post("/images/contract-nobody/tag?repo=contract-tag&tag=1");
    s.post("/images/$image/tag?repo=Contract Bad&tag=1");
    s.post("/images/$image/tag?repo=contract-tag&tag=bad tag");
    s.post("/images/$image/tag?repo=");
    s.post("/images/$image/tag");
    s.post("/images/$image/tag?repo=contract-tag@sha256:0123");
    s.post("/images/$image/nonsense");
    s.get("/images/contract-tag:1/json");
    s.delete("/images/contract-tag:1");
    s.delete("/images/contract-tag:1");
}

fn commits(s: &mut Session<'_>) {
    make(s, "contract-source", shell("images", "true"));
    s.post("/commit?container=contract-source&repo=contract-made&tag=1&author=me&comment=words");
    s.keep("made", "/Id");
    s.get("/images/contract-made:1/json");
    s.get("/images/contract-made:1/history");
    s.post_json("/commit?container=contract-source&repo=contract-made&tag=2&changes=ENV A=B&changes=CMD [\"sh\"]", json!({"Labels": {"a": "b"}}));
    s.get("/images/contract-made:2/json");
    s.post("/commit");
    s.post("/commit?container=contract-nobody");
    s.post("/commit?container=contract-source&repo=Contract Bad");
    s.post("/commit?container=contract-source&repo=contract-made&tag=bad tag");
    s.post("/commit?container=contract-source&changes=NONSENSE x");
    s.post("/commit?container=contract-source&changes=RUN x");
    s.send(Ask::new("POST", "/commit?container=contract-source").text("application/json", "{"));
    s.send(Ask::new("POST", "/commit?container=contract-source").text("text/plain", "{}"));
    s.get(r#"/images/json?filters={"reference":["contract-made"]}"#);
    s.get(r#"/images/json?filters={"reference":["contract-mad[a-e]:*"]}"#);
}

fn imports(s: &mut Session<'_>) {
    let import = |options: &str, bytes: Vec<u8>| {
        Ask::new("POST", &format!("/images/create?fromSrc=-&{options}"))
            .bytes("application/x-tar", bytes)
    };
    s.send(import(
        "repo=contract-import&tag=1&message=words&changes=CMD sh",
        tar(b"x"),
    ));
    s.get("/images/contract-import:1/json");
    s.get("/images/contract-import:1/history");
    s.send(import("repo=Contract Bad", tar(b"x")));
    s.send(import("repo=contract-import&changes=NONSENSE x", tar(b"x")));
    s.send(import("repo=contract-import&platform=nonsense", tar(b"x")));
    s.send(import(
        "repo=contract-import",
        b"no archive at all".to_vec(),
    ));
    s.send(import("repo=contract-import", Vec::new()));
    s.post("/images/create");
    s.post("/images/create?fromSrc=http://127.0.0.1:1/x");
}

fn archives(s: &mut Session<'_>) {
    s.get("/images/contract-import:1/get");
    s.get("/images/get?names=contract-import:1&names=contract-made:1");
    s.get("/images/get?names=contract-nobody");
    s.get("/images/get?names=Contract Bad");
    s.get("/images/get");
    let load = |query: &str, bytes: Vec<u8>| {
        Ask::new("POST", &format!("/images/load{query}")).bytes("application/x-tar", bytes)
    };
    s.send(load("", b"no archive at all".to_vec()));
    s.send(load("", Vec::new()));
    s.send(load("", tar(b"x")));
    s.send(load("?quiet=1", tar(b"x")));
    s.send(load("?platform=nonsense", tar(b"x")));
}

fn removals(s: &mut Session<'_>) {
    s.delete("/images/contract-nobody");
    s.delete("/images/Contract Bad");
    make(
        s,
        "contract-source-2",
        json!({"Image": "contract-made:1", "Cmd": ["true"]}),
    );
    s.delete("/images/contract-made:1");
    s.delete("/images/$made");
    s.delete("/images/contract-made:1?force=1");
    remove(s, &["contract-source", "contract-source-2"]);
    s.delete("/images/contract-made:2?noprune=1");
    s.delete("/images/contract-import:1");
    s.delete("/images/$made?force=1");
    s.post(r#"/images/prune?filters={"nonsense":["x"]}"#);
    s.post("/images/prune?filters=nonsense");
    s.post(r#"/images/prune?filters={"dangling":["maybe"]}"#);
    s.post(r#"/images/prune?filters={"until":["soon"],"label":["contract=nobody"]}"#);
    s.post(r#"/images/prune?filters={"label":["contract=nobody"]}"#);
    s.post(r#"/images/prune?filters={"dangling":["false"],"label":["contract=nobody"]}"#);
}
