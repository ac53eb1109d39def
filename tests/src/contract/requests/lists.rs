//! `GET /containers/json`.

use serde_json::json;

use super::{
    super::session::{Ask, Session},
    make, remove, shell, start,
};

/// Published ports: chosen for it, one port on two addresses, none where they are not exposed.
fn published(s: &mut Session<'_>) {
    let name = "contract-list-ports";
    let inspect = "/containers/contract-list-ports/json";
    let mut ports = shell("lists-ports", "sleep 600");
    ports["ExposedPorts"] = json!({"81/tcp": {}, "82/udp": {}, "83/tcp": {}, "84/tcp": {}});
    ports["HostConfig"] = json!({"PublishAllPorts": true, "PortBindings": {
        "82/udp": [{"HostIp": "", "HostPort": ""}],
        "84/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}, {"HostIp": "::1", "HostPort": ""}],
        "85/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
    }});
    start(s, name, ports);
    s.get(inspect);
    s.keep("published", "/NetworkSettings/Ports/82~1udp/0/HostPort");
    let mine = r#"{"label":["contract=lists-ports"]"#;
    s.get(&format!("/containers/json?filters={mine}}}"));
    for filter in [
        r#""publish":["$published/udp"]"#,
        r#""publish":["82/udp"]"#,
        r#""publish":["80-90/tcp"]"#,
        r#""publish":["1-65535/tcp"]"#,
        r#""expose":["83"]"#,
        r#""expose":["82/udp"]"#,
        r#""expose":["82"]"#,
    ] {
        s.get(&format!("/containers/json?filters={mine},{filter}}}"));
    }
    s.prepare("POST", &format!("/containers/{name}/stop?t=0"), json!(null));
    s.get(inspect);
    s.get(&format!("/containers/json?all=1&filters={mine}}}"));
    remove(s, &[name]);
}

pub(super) fn requests(s: &mut Session<'_>) {
    let mut ports = shell("lists", "sleep 600");
    ports["ExposedPorts"] = json!({"80/tcp": {}, "81/tcp": {}});
    ports["HostConfig"] = json!({"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}, "Tmpfs": {"/x": ""}, "Binds": ["contract-lists:/store"]});
    start(s, "contract-list-on", ports);
    make(s, "contract-list-new", shell("lists", "true"));
    start(s, "contract-list-off", shell("lists", "exit 3"));
    s.wait_for_state("contract-list-off", "exited");
    s.keep("off", "/Id");
    s.get("/containers/contract-list-on/json");
    published(s);
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
