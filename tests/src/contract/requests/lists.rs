//! `GET /containers/json`.

use serde_json::json;

use super::{
    super::session::{Ask, Session},
    make, remove, shell, start,
};

pub(super) fn requests(s: &mut Session<'_>) {
    let mut ports = shell("lists", "sleep 600");
    ports["ExposedPorts"] = json!({"81/tcp": {}});
    ports["HostConfig"] = json!({"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}, "Tmpfs": {"/x": ""}, "Binds": ["contract-lists:/store"]});
    start(s, "contract-list-on", ports);
    make(s, "contract-list-new", shell("lists", "true"));
    start(s, "contract-list-off", shell("lists", "exit 3"));
    s.wait_for_state("contract-list-off", "exited");
    s.keep("off", "/Id");
    let mine = r#""label":["contract=lists"]"#;
    for version in [
        "", "/v1.24", "/v1.41", "/v1.43", "/v1.45", "/v1.47", "/v1.48",
    ] {
        s.get(&format!(
            "{version}/containers/json?all=1&filters={{{mine}}}"
        ));
    }
    s.get(&format!("/containers/json?filters={{{mine}}}"));
    s.get(&format!("/containers/json?all=1&size=1&filters={{{mine}}}"));
    s.get(r#"/containers/json?all=1&filters={"label":{"contract=lists":true}}"#);
    for filter in [
        r#""status":["exited"]"#,
        r#""status":["created"]"#,
        r#""status":["nonsense"]"#,
        r#""exited":["3"]"#,
        r#""exited":["nonsense"]"#,
        r#""name":["contract-list-new"]"#,
        r#""id":["$off"]"#,
        r#""ancestor":["$image"]"#,
        r#""ancestor":["contract-nobody"]"#,
        r#""before":["contract-list-off"]"#,
        r#""before":["contract-nobody"]"#,
        r#""since":["contract-list-on"]"#,
        r#""since":["contract-nobody"]"#,
        r#""volume":["contract-lists"]"#,
        r#""volume":["/store"]"#,
        r#""network":["bridge"]"#,
        r#""network":["contract-nobody"]"#,
        r#""publish":["80"]"#,
        r#""publish":["nonsense"]"#,
        r#""expose":["81/tcp"]"#,
        r#""expose":["nonsense"]"#,
        r#""health":["none"]"#,
        r#""health":["nonsense"]"#,
        r#""is-task":["false"]"#,
        r#""is-task":["nonsense"]"#,
        r#""isolation":["default"]"#,
        r#""nonsense":["x"]"#,
        r#""name":["("]"#,
    ] {
        s.get(&format!(
            "/containers/json?all=1&filters={{{mine},{filter}}}"
        ));
    }
    s.get("/containers/json?filters=nonsense");
    s.get("/containers/json?filters=[]");
    s.get("/containers/json?filters=null");
    s.get(r#"/containers/json?filters={"label":"x"}"#);
    s.get(r#"/containers/json?filters={"name":["contract-nobody"]}"#);
    s.get(&format!("/containers/json?limit=1&filters={{{mine}}}"));
    s.get("/containers/json?limit=x");
    s.get(&format!("/containers/json?limit=-1&filters={{{mine}}}"));
    s.get(&format!("/containers/json?limit=0&filters={{{mine}}}"));
    s.get(&format!("/containers/json?all=nonsense&filters={{{mine}}}"));
    s.get(&format!(
        "/containers/json?since=contract-list-on&filters={{{mine}}}"
    ));
    s.send(
        Ask::new("GET", &format!("/containers/json?filters={{{mine}}}"))
            .text("application/json", "{}"),
    );
    remove(
        s,
        &["contract-list-on", "contract-list-new", "contract-list-off"],
    );
    s.prepare("DELETE", "/volumes/contract-lists", serde_json::Value::Null);
}
